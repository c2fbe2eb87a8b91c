//! Who can be reached, and since when: every member pings every other one all the time.
//!
//! Raft alone doesn't know: followers never speak to each other while they have a leader. But whoever serves a membership change must judge
//! whether the cluster survives it; and who was removed, or wiped, has to find out from anybody, not only from a leader that no longer
//! calls. A ping is refused like every call of a stranger (`directory`), and that refusal is how they find out.

use crate::channel::{Links, Purpose};
use crate::pb::{PingRequest, PingResponse};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Between two pings of a member that answers.
const UP: Duration = Duration::from_millis(250);
/// And of one that doesn't.
const DOWN: Duration = Duration::from_millis(100);

/// What a member's last ping told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since when all pings got through.
    pub since: Instant,
    /// Major and minor of the etcd version whose behaviour it has.
    pub etcd_version: (u64, u64),
    /// Whether it complains of its disk.
    pub disk_is_slow: bool,
}

#[derive(Default)]
struct Peer {
    seen: Option<Seen>,
    hurry: Arc<Notify>,
}

/// See the module.
pub struct Presence {
    links: Arc<Links>,
    timeout: Duration,
    peers: Mutex<HashMap<u64, Peer>>,
    changed: watch::Sender<u64>,
}

impl Presence {
    /// `timeout` is how long a ping may take before the member counts as gone.
    pub fn new(links: Arc<Links>, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { links, timeout, peers: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// What is known of a member that can be reached now.
    pub fn seen(&self, id: u64) -> Option<Seen> {
        self.peers.lock().get(&id)?.seen
    }

    /// Asks now, for who must not rely on a look of a moment ago.
    pub async fn answers(&self, id: u64) -> bool {
        self.ping(id).await.is_some()
    }

    /// Changes whenever a member comes or goes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A member has called us: if we take it for gone, it deserves another look at once.
    pub fn heard(&self, id: u64) {
        if let Some(peer) = self.peers.lock().get(&id)
            && peer.seen.is_none()
        {
            peer.hurry.notify_one();
        }
    }

    /// Pings all known members until `stop`. One task for each; it ends when the member is forgotten.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let me = self.links.directory.caller().member_id;
        let mut table = self.links.table.watch();
        loop {
            table.borrow_and_update();
            self.links.drop_outdated();
            let known = self.links.table.ids();
            let new: Vec<u64> = {
                let mut peers = self.peers.lock();
                peers.retain(|id, _| known.contains(id));
                peers.values().for_each(|peer| peer.hurry.notify_one());
                known.into_iter().filter(|id| *id != me && !peers.contains_key(id)).collect()
            };
            for id in new {
                let hurry = self.peers.lock().entry(id).or_default().hurry.clone();
                tokio::spawn(stop.clone().run_until_cancelled_owned(self.clone().keep(id, hurry)));
            }
            tokio::select! {
                changed = table.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    async fn keep(self: Arc<Self>, id: u64, hurry: Arc<Notify>) {
        loop {
            let answer = self.ping(id).await;
            if !self.note(id, &hurry, answer.as_ref()) {
                return;
            }
            let pause = if answer.is_some() { UP } else { DOWN };
            let _ = tokio::time::timeout(pause, hurry.notified()).await;
        }
    }

    /// Its answer, if there is one.
    async fn ping(&self, id: u64) -> Option<PingResponse> {
        let mut client = self.links.client(id, Purpose::Heartbeat).ok()?;
        let request = self.links.request(id, PingRequest {});
        let metrics = self.links.metrics(id);
        let begin = Instant::now();
        let answer = tokio::time::timeout(self.timeout, client.ping(request)).await;
        let answer = match answer {
            Ok(Ok(response)) if !self.links.table.is_blocked(id) => Some(response.into_inner()),
            Ok(Err(status)) => {
                self.links.note_failure(id, &status);
                None
            }
            _ => None,
        };
        metrics.outcome(answer.is_some());
        let answer = answer?;
        metrics.round_trips.0.took(begin.elapsed());
        Some(answer)
    }

    /// False once the member is forgotten (perhaps known anew already, with another task).
    fn note(&self, id: u64, hurry: &Arc<Notify>, answer: Option<&PingResponse>) -> bool {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.get_mut(&id).filter(|peer| Arc::ptr_eq(&peer.hurry, hurry)) else { return false };
        let before = peer.seen;
        peer.seen = answer.map(|answer| {
            let since = before.map_or_else(Instant::now, |before| before.since);
            let mut parts = answer.etcd_version.split('.').map(|part| part.parse().unwrap_or(0));
            let etcd_version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            Seen { since, etcd_version, disk_is_slow: answer.disk_is_slow }
        });
        let moved = before.is_some() != peer.seen.is_some();
        drop(peers);
        if moved {
            let peer = format!("{id:x}");
            match answer {
                Some(_) => tracing::info!(peer, "peer became active"),
                None => tracing::warn!(peer, "peer became inactive: it can't be reached, or doesn't answer"),
            }
            self.changed.send_modify(|count| *count += 1);
        }
        true
    }
}
