//! Proposals on their way to the leader: one stream per leader, many proposals in one message.
//!
//! Whoever submits puts into a bounded queue. The stream to the current leader takes from it only once it stands, so what has not been
//! taken may still go to the next leader. What was taken is never sent again by us: only a refusal says that it was not appended.

use crate::channel::{Links, Purpose};
use crate::pb;
use futures::{Stream, StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Proposals that wait for a stream.
const QUEUE: usize = 8192;
/// Proposals in one message.
const BATCH: usize = 256;
/// Between attempts to reach the leader.
const RETRY: Duration = Duration::from_millis(50);

/// Told about proposals that were certainly or possibly not appended.
pub trait Refusals: Send + Sync + 'static {
    /// The leader refused it.
    fn refused(&self, sequence: u64, refusal: pb::Refusal, leader: u64);
    /// The stream to the leader broke; what it had taken has an unknown fate.
    fn broken(&self);
}

/// The queue's entrance. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    queue: mpsc::Sender<pb::ForwardedProposal>,
}

type Queue = mpsc::Receiver<pb::ForwardedProposal>;

impl Forwarder {
    /// Spawns the task that keeps a stream to `leader` (0 = none known) until `stop`.
    pub fn spawn(
        runtime: &tokio::runtime::Handle,
        links: Arc<Links>,
        leader: watch::Receiver<u64>,
        refusals: Arc<dyn Refusals>,
        stop: CancellationToken,
    ) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        let pump = Pump { links, leader, refusals, queue: Arc::new(Mutex::new(proposals)) };
        runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = pump.run() => {}
            }
        });
        Self { queue }
    }

    /// Queues a proposal that counts in `term` alone; waits while the queue is full.
    ///
    /// # Errors
    /// The pump has ended: the member is going down.
    pub async fn send(&self, sequence: u64, term: u64, proposal: bytes::Bytes) -> Result<(), Closed> {
        self.queue.send(pb::ForwardedProposal { sequence, proposal, term }).await.map_err(|_| Closed)
    }
}

/// The forwarder has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no longer forwarding")]
pub struct Closed;

struct Pump {
    links: Arc<Links>,
    leader: watch::Receiver<u64>,
    refusals: Arc<dyn Refusals>,
    queue: Arc<Mutex<Queue>>,
}

impl Pump {
    async fn run(mut self) {
        let me = self.links.directory.caller().member_id;
        loop {
            let leader = match self.leader.wait_for(|leader| *leader != 0).await {
                Ok(leader) => *leader,
                Err(_) => return,
            };
            if leader == me {
                self.hand_back(me).await;
            } else if !self.serve(leader).await {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// This member leads: what was queued for another leader goes back, it was not appended anywhere.
    async fn hand_back(&mut self, me: u64) {
        let mut queue = self.queue.lock().await;
        let mut proposals = Vec::new();
        loop {
            let count = tokio::select! {
                count = queue.recv_many(&mut proposals, BATCH) => count,
                () = other(&mut self.leader, me) => return,
            };
            if count == 0 {
                return;
            }
            for proposal in proposals.drain(..) {
                self.refusals.refused(proposal.sequence, pb::Refusal::NotLeader, me);
            }
        }
    }

    /// Keeps a stream to `leader` until it breaks (false), another one leads, or it has moved (true).
    async fn serve(&mut self, leader: u64) -> bool {
        let (mut moved, urls) = (self.links.table.watch(), self.links.table.urls(leader));
        let Ok(mut client) = self.links.client(leader, Purpose::Forward) else { return false };
        let end = CancellationToken::new();
        let ending = end.clone().drop_guard();
        let (stands, gate) = oneshot::channel();
        let request = self.links.request(leader, batches(self.queue.clone(), gate, end));
        let opened = tokio::time::timeout(self.links.times.connect * 2, client.forward(request));
        let mut answers = match tokio::select! { opened = opened => opened, () = other(&mut self.leader, leader) => return true } {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                self.links.note_failure(leader, &status);
                return false;
            }
            Err(_) => return false,
        };
        let _ = stands.send(());
        let mut ending = Some(ending);
        loop {
            let answer = tokio::select! {
                answer = answers.next() => answer,
                () = other(&mut self.leader, leader) => return true,
                _ = moved.changed() => {
                    if self.links.table.is_blocked(leader) {
                        None
                    } else {
                        // At its old address it still deals with all that was sent, and then ends the stream.
                        ending = ending.filter(|_| self.links.table.urls(leader) == urls);
                        continue;
                    }
                }
            };
            match answer {
                Some(Ok(message)) => {
                    for refusal in message.refusals {
                        self.refusals.refused(refusal.sequence, refusal.refusal(), refusal.leader);
                    }
                }
                None if ending.is_none() && !self.links.table.is_blocked(leader) => return true,
                Some(Err(_)) | None => {
                    self.refusals.broken();
                    return false;
                }
            }
        }
    }
}

/// Resolves when another leader than `leader` is known.
async fn other(watch: &mut watch::Receiver<u64>, leader: u64) {
    if watch.wait_for(|now| *now != leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Takes from the queue whatever is there, once the stream stands and until `end`.
fn batches(queue: Arc<Mutex<Queue>>, gate: oneshot::Receiver<()>, end: CancellationToken) -> impl Stream<Item = pb::ForwardRequest> + Send {
    enum State {
        Waiting(Arc<Mutex<Queue>>, oneshot::Receiver<()>),
        Open(OwnedMutexGuard<Queue>),
    }
    stream::unfold((State::Waiting(queue, gate), end), |(state, end)| async move {
        let open = async {
            let mut guard = match state {
                State::Waiting(queue, gate) => {
                    gate.await.ok()?;
                    queue.lock_owned().await
                }
                State::Open(guard) => guard,
            };
            let mut proposals = Vec::new();
            (guard.recv_many(&mut proposals, BATCH).await > 0).then_some((pb::ForwardRequest { proposals }, guard))
        };
        // The end first: what is taken after it would be lost. recv_many loses nothing when it is dropped.
        let (message, guard) = tokio::select! {
            biased;
            () = end.cancelled() => return None,
            taken = open => taken?,
        };
        Some((message, (State::Open(guard), end)))
    })
}
