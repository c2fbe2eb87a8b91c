//! Requests that wait for their entry to be applied on this member.

use parking_lot::Mutex;
use rusd_storage::command::ApplyResult;
use rusd_storage::raft::{Loss, Losses, ResultSink};
use rusd_storage::types::LogPosition;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};

const SHARDS: usize = 16;

/// Why a proposal has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Certainly not appended: may be proposed again.
    NotLeader,
    /// Certainly not appended: the backlog is full.
    TooManyRequests,
    /// Consensus has ended.
    Stopped,
}

type Outcome = Result<ApplyResult, Failure>;

/// Sequence numbers are dense; one multiplication spreads them.
#[derive(Default)]
struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only sequence numbers are hashed")
    }
    fn write_u64(&mut self, sequence: u64) {
        self.0 = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Shard = HashMap<u64, oneshot::Sender<Outcome>, BuildHasherDefault<SequenceHasher>>;

/// The waiting requests of this process, and how far it has applied.
pub struct Waiters {
    origin: u64,
    next: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
    count: AtomicUsize,
    /// Applied index, counted as etcd does (openraft's + 1).
    applied: watch::Sender<u64>,
    applied_now: AtomicU64,
    era: watch::Sender<Era>,
}

/// How far the applied entries tell what became of proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Era {
    /// Term of the last applied entry.
    term: u64,
    /// Snapshots installed: what they contain was applied without telling.
    installs: u64,
}

impl Waiters {
    /// `origin` must be random per process start, and not 0: results of an earlier life must not find new requests.
    pub fn new(origin: u64) -> Arc<Self> {
        Arc::new(Self {
            origin,
            next: AtomicU64::new(1),
            shards: Default::default(),
            count: AtomicUsize::new(0),
            applied: watch::Sender::new(0),
            applied_now: AtomicU64::new(0),
            era: watch::Sender::default(),
        })
    }

    /// Who we are in proposals.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applied index, counted as etcd does.
    pub fn applied_index(&self) -> u64 {
        self.applied_now.load(Ordering::Acquire)
    }

    /// Notes what was applied before this process began to apply.
    pub fn recovered(&self, applied: Option<LogPosition>) {
        if let Some(applied) = applied {
            self.advanced(applied);
        }
    }

    /// Resolves once `index` (counted as etcd does) is applied and published.
    pub async fn wait_applied(&self, index: u64) {
        if self.applied_index() >= index {
            return;
        }
        let mut applied = self.applied.subscribe();
        // The sender lives in self, so that waiting can't fail.
        let _ = applied.wait_for(|applied| *applied >= index).await;
    }

    /// To be taken before a proposal is made, for [`Self::lost`].
    pub fn era(&self) -> Era {
        *self.era.borrow()
    }

    /// Resolves once a proposal made in `era`, for a leader of `term`, is known to be lost: an entry of a later term is applied, so all
    /// entries of `term` that ever will be are, and each has told its proposer. Never if a snapshot came between.
    pub async fn lost(&self, era: Era, term: u64) {
        let mut now = self.era.subscribe();
        let later = now.wait_for(|now| now.term > term || now.installs != era.installs).await.map(|now| now.installs == era.installs);
        if !matches!(later, Ok(true)) {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once a snapshot was installed after `era` was taken: what it contains is never told to its proposers here.
    pub async fn installed_since(&self, era: Era) {
        // The sender lives in self, so that waiting can't fail.
        let _ = self.era.subscribe().wait_for(|now| now.installs != era.installs).await;
    }

    /// Registers a request. Dropping the waiter forgets it.
    pub fn register(self: &Arc<Self>) -> Waiter {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        let receiver = self.arm(sequence);
        Waiter { waiters: self.clone(), sequence, receiver }
    }

    fn arm(&self, sequence: u64) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.shard(sequence).lock().insert(sequence, sender);
        receiver
    }

    fn shard(&self, sequence: u64) -> &Mutex<Shard> {
        &self.shards[sequence as usize % SHARDS]
    }

    fn complete(&self, sequence: u64, outcome: Outcome) {
        let sender = self.shard(sequence).lock().remove(&sequence);
        if let Some(sender) = sender {
            // Nobody waits any more: fine.
            let _ = sender.send(outcome);
        }
    }

    /// The proposal has failed.
    pub fn fail(&self, sequence: u64, failure: Failure) {
        self.complete(sequence, Err(failure));
    }
}

impl ResultSink for Waiters {
    fn applied(&self, origin: u64, sequence: u64, _position: LogPosition, result: ApplyResult) {
        if origin == self.origin {
            self.complete(sequence, Ok(result));
        }
    }

    fn advanced(&self, applied: LogPosition) {
        self.applied_now.fetch_max(applied.index + 1, Ordering::Release);
        // Not `send_replace`: with nobody waiting this is one lock and no wake-up.
        self.applied.send_modify(|index| *index = (*index).max(applied.index + 1));
        if self.era.borrow().term < applied.term {
            self.era.send_modify(|era| era.term = applied.term);
        }
    }

    fn installed(&self, applied: LogPosition) {
        // First: nobody may take the new term for a proof.
        self.era.send_modify(|era| era.installs += 1);
        self.advanced(applied);
    }
}

impl Losses for Waiters {
    fn lost(&self, token: u64, loss: Loss) {
        match loss {
            Loss::NotLeader => self.fail(token, Failure::NotLeader),
            // Cut from this log by another leader: only its entries tell whether it lives on elsewhere, so the waiter goes on listening.
            Loss::Discarded => {}
            Loss::Stopped => self.fail(token, Failure::Stopped),
        }
    }
}

/// One waiting request.
pub struct Waiter {
    waiters: Arc<Waiters>,
    sequence: u64,
    receiver: oneshot::Receiver<Outcome>,
}

impl Waiter {
    /// The outcome if it is there already.
    pub fn outcome_by_now(&mut self) -> Option<Result<ApplyResult, Failure>> {
        self.receiver.try_recv().ok()
    }

    /// What goes into the proposal beside the origin.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Waits for the result. May be dropped and called again; once it has answered, [`Self::rearm`] comes first.
    pub async fn outcome(&mut self) -> Outcome {
        (&mut self.receiver).await.unwrap_or(Err(Failure::Stopped))
    }

    /// After a refusal: the same proposal is to be made again.
    pub fn rearm(&mut self) {
        self.receiver = self.waiters.arm(self.sequence);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.shard(self.sequence).lock().remove(&self.sequence);
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusd_storage::command::Response;

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 1, index }
    }

    #[tokio::test]
    async fn results_find_their_request_and_no_other() {
        let waiters = Waiters::new(7);
        let (mut one, mut two) = (waiters.register(), waiters.register());
        waiters.applied(8, one.sequence(), at(1), Ok(Response::Empty { revision: 1 }));
        waiters.applied(7, two.sequence(), at(2), Ok(Response::Empty { revision: 2 }));
        assert_eq!(two.outcome().await, Ok(Ok(Response::Empty { revision: 2 })));
        waiters.fail(one.sequence(), Failure::NotLeader);
        assert_eq!(one.outcome().await, Err(Failure::NotLeader));
        one.rearm();
        waiters.applied(7, one.sequence(), at(3), Ok(Response::Empty { revision: 3 }));
        assert_eq!(one.outcome().await, Ok(Ok(Response::Empty { revision: 3 })));
        drop((one, two));
        assert!(waiters.is_empty());
        assert!(waiters.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[tokio::test]
    async fn a_dropped_waiter_is_forgotten() {
        let waiters = Waiters::new(7);
        let sequence = waiters.register().sequence();
        waiters.applied(7, sequence, at(0), Ok(Response::Empty { revision: 1 }));
        assert!(waiters.is_empty());
    }

    #[tokio::test]
    async fn a_later_term_proves_a_loss_unless_a_snapshot_hid_it() {
        let waiters = Waiters::new(7);
        let term = |term| LogPosition { term, index: 9 };
        let era = waiters.era();
        let lost = waiters.lost(era, 3);
        tokio::pin!(lost);
        waiters.advanced(term(3));
        assert!(futures::poll!(&mut lost).is_pending(), "its own term goes on");
        waiters.advanced(term(4));
        lost.await;
        let lost = waiters.lost(waiters.era(), 4);
        tokio::pin!(lost);
        waiters.installed(term(6));
        assert!(futures::poll!(&mut lost).is_pending());
        waiters.advanced(term(7));
        assert!(futures::poll!(&mut lost).is_pending(), "it may be in the snapshot");
        waiters.lost(waiters.era(), 6).await;
    }

    #[tokio::test]
    async fn applied_counts_from_one() {
        let waiters = Waiters::new(7);
        assert_eq!(waiters.applied_index(), 0);
        let waiting = waiters.wait_applied(5);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        waiters.advanced(at(4));
        waiting.await;
        assert_eq!(waiters.applied_index(), 5);
    }
}
