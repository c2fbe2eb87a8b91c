//! The hub: follows the published revision, and brings those who lag back to it.
//!
//! All hand-over happens under one lock, in which nobody waits and nothing is read from disk: the follower reads new events before it
//! takes the lock, the catch-up task reads and matches history outside of it.

mod catch_up;
mod shared;

use super::event::Event;
use super::history::History;
use super::interest::Interest;
use super::recent::Recent;
use super::watcher::{Item, Outlet, Place, Round, Watcher};
use parking_lot::Mutex;
use rusd_storage::Record;
use rusd_storage::measure::Counter;
use rusd_storage::mvcc::ReadError;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Items a stream's queue holds at most.
pub const QUEUE_ITEMS: usize = 64;
/// From so many bytes of queued events on a stream's queue takes no more.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Bytes of events read in one step, by the follower and by the catch-up task.
pub const ROUND_BYTES: usize = 512 << 10;
/// Most revisions of one catch-up step, as etcd's.
pub const CATCH_UP_REVISIONS: i64 = 1000;

/// Follows the store and feeds all streams. Lives as long as the member; [`Hub::follow`] and [`Hub::catch_up`] are its two tasks.
pub struct Hub {
    history: Arc<dyn History>,
    shared: Mutex<Shared>,
    /// Somebody became unsynced.
    lagging: Notify,
    /// Events that streams have taken out of their queues.
    pub sent: Counter,
}

/// Sizes at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams.
    pub streams: usize,
    /// Watchers that their clients haven't cancelled.
    pub watchers: usize,
    /// Those of them that are behind and may catch up.
    pub lagging: usize,
    /// Events in the queues of streams.
    pub pending_events: usize,
}

struct Shared {
    /// The next revision to hand out; everything below has been offered to all who joined.
    next: i64,
    interest: Interest<Arc<Watcher>>,
    recent: Recent,
    /// By (cursor, serial).
    unsynced: BTreeMap<(i64, u64), Arc<Watcher>>,
    streams: Vec<Option<StreamState>>,
    free_slots: Vec<usize>,
    serial: u64,
    /// Watchers of all streams that are neither joined nor gone.
    behind: usize,
    /// Those of them that were told so, and wait to be cancelled.
    compacted: usize,
    /// Streams that asked for progress up to a revision the hub has not reached.
    awaiting_progress: Vec<(Arc<Outlet>, i64)>,
    /// Events per group of the round being built; empty between rounds.
    matched: Vec<Vec<Arc<Event>>>,
}

struct StreamState {
    outlet: Arc<Outlet>,
    /// Watchers that are neither joined nor gone.
    behind: usize,
    blocked: Vec<Arc<Watcher>>,
    /// Deliveries of the round being built.
    round: Option<Round>,
}

/// What a new watch is made of; see [`Watcher`].
pub struct NewWatcher {
    /// Builds the watcher from its serial and first revision.
    pub build: Box<dyn FnOnce(u64, i64) -> Watcher + Send>,
    /// 0 = now.
    pub start_revision: i64,
}

impl Hub {
    /// A hub that stands at the published revision.
    pub fn new(history: Arc<dyn History>) -> Arc<Self> {
        let next = history.revision() + 1;
        let shared = Shared {
            next,
            interest: Interest::default(),
            recent: Recent::new(next),
            unsynced: BTreeMap::new(),
            streams: Vec::new(),
            free_slots: Vec::new(),
            serial: 0,
            behind: 0,
            compacted: 0,
            awaiting_progress: Vec::new(),
            matched: Vec::new(),
        };
        Arc::new(Self { history, shared: Mutex::new(shared), lagging: Notify::new(), sent: Counter::default() })
    }

    /// The store as watchers see it.
    pub fn history(&self) -> &dyn History {
        self.history.as_ref()
    }

    /// For metrics.
    pub fn counts(&self) -> Counts {
        let shared = self.shared.lock();
        let streams = || shared.streams.iter().flatten();
        Counts {
            streams: streams().count(),
            watchers: shared.interest.len() + shared.behind,
            lagging: shared.behind - shared.compacted,
            pending_events: streams().map(|stream| stream.outlet.events()).sum(),
        }
    }

    // ---- streams

    pub(super) fn open(&self) -> (Arc<Outlet>, mpsc::Receiver<Item>) {
        let mut shared = self.shared.lock();
        let slot = shared.free_slots.pop().unwrap_or(shared.streams.len());
        let (outlet, receiver) = Outlet::new(slot);
        let state = StreamState { outlet: outlet.clone(), behind: 0, blocked: Vec::new(), round: None };
        if slot == shared.streams.len() {
            shared.streams.push(Some(state));
        } else {
            shared.streams[slot] = Some(state);
        }
        (outlet, receiver)
    }

    pub(super) fn close<'a>(&self, outlet: &Arc<Outlet>, watchers: impl Iterator<Item = &'a Arc<Watcher>>) {
        let mut shared = self.shared.lock();
        if let Some(stream) = &mut shared.streams[outlet.slot] {
            stream.blocked = Vec::new();
        }
        for watcher in watchers {
            shared.remove(watcher);
        }
        shared.awaiting_progress.retain(|(waiting, _)| !Arc::ptr_eq(waiting, outlet));
        shared.streams[outlet.slot] = None;
        shared.free_slots.push(outlet.slot);
    }

    /// Starts a watcher; the published revision at that moment is given back for its header.
    pub(super) fn add(&self, new: NewWatcher) -> (Arc<Watcher>, i64) {
        let mut shared = self.shared.lock();
        let published = self.history.revision();
        let start = if new.start_revision == 0 { published + 1 } else { new.start_revision };
        shared.serial += 1;
        let watcher = Arc::new((new.build)(shared.serial, start));
        // Born without a count: `place` below makes the first.
        *watcher.place.lock() = Place::Gone;
        if start >= shared.next {
            shared.join(&watcher);
        } else {
            shared.set_unsynced(&watcher, start);
            self.lagging.notify_one();
        }
        (watcher, published)
    }

    pub(super) fn cancel(&self, watcher: &Arc<Watcher>) {
        self.shared.lock().remove(watcher);
    }

    /// Half of the queue is free again: those who were blocked go on from their cursors.
    pub(super) fn unblock(&self, outlet: &Arc<Outlet>) {
        self.shared.lock().unblock(outlet);
        self.lagging.notify_one();
    }

    /// Queues "all of the stream is complete up to a revision" as soon as the hub has reached what is published now. Nothing if a watcher
    /// of the stream lags, then or now.
    pub(super) fn request_progress(&self, outlet: &Arc<Outlet>) {
        let mut shared = self.shared.lock();
        let published = self.history.revision();
        if shared.next > published {
            shared.offer_progress(outlet);
        } else if !shared.awaiting_progress.iter().any(|(waiting, _)| Arc::ptr_eq(waiting, outlet)) {
            shared.awaiting_progress.push((outlet.clone(), published));
        }
    }

    /// Queues the revision up to which these watchers of one stream are complete; those who lag are left out.
    pub(super) fn notify_progress<'a>(&self, outlet: &Arc<Outlet>, watchers: impl Iterator<Item = &'a Arc<Watcher>>) {
        let shared = self.shared.lock();
        let revision = shared.next - 1;
        let told = |watcher: &&Arc<Watcher>| watcher.place() == Place::Joined && watcher.asked_start <= revision;
        let watch_ids: Vec<i64> = watchers.filter(told).map(|watcher| watcher.id).collect();
        if !watch_ids.is_empty() {
            // A full queue: events are on their way, they tell the revision.
            let _ = outlet.offer(Item::Progress { watch_ids, revision });
        }
    }

    // ---- the follower

    /// Hands out events as they are published, until cancelled.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        let mut revisions = self.history.subscribe();
        loop {
            // The guard must be gone before history is asked, which may read the same channel.
            let told = *revisions.borrow_and_update();
            let published = told.max(self.history.revision());
            while self.step(published) {
                // A long way (snapshot install): others want the thread, too.
                tokio::task::yield_now().await;
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = cancel.cancelled() => return,
            }
        }
    }

    /// One round; true if it has not reached `published`.
    fn step(&self, published: i64) -> bool {
        let from = {
            let mut shared = self.shared.lock();
            if shared.next > published {
                return false;
            }
            if shared.interest.is_empty() && shared.behind == 0 {
                shared.pass(published + 1);
                return false;
            }
            shared.next
        };
        match self.history.read_new(from, published, ROUND_BYTES) {
            Ok((records, next)) => self.hand_out(from, next.max(from + 1), records),
            Err(ReadError::Rejected(_)) => self.overtaken(from),
            Err(ReadError::Storage(error)) => {
                error!(%error, revision = from, "watch: history can't be read");
                return false;
            }
        }
        self.shared.lock().next <= published
    }

    fn hand_out(&self, from: i64, next: i64, records: Vec<Record>) {
        let events: Vec<Arc<Event>> = records.into_iter().map(|record| Arc::new(Event::new(record))).collect();
        let mut shared = self.shared.lock();
        let any_blocked = shared.hand_out(from, &events);
        shared.recent.extend(&events);
        shared.pass_to(next);
        if any_blocked {
            shared.unblock_those_with_room();
            self.lagging.notify_one();
        }
    }

    /// Compaction (or an installed snapshot) has gone past the hub: who joined has missed what is gone, and is told by the catch-up task.
    fn overtaken(&self, from: i64) {
        let compact_revision = self.history.compact_revision().max(from + 1);
        warn!(from, compact_revision, "watch: compaction has overtaken the hub");
        let mut shared = self.shared.lock();
        let missed: Vec<Arc<Watcher>> = shared.interest.iter().filter(|watcher| watcher.start < compact_revision).cloned().collect();
        for watcher in missed {
            let cursor = from.max(watcher.start);
            shared.set_unsynced(&watcher, cursor);
        }
        shared.pass(compact_revision);
        self.lagging.notify_one();
    }

    // ---- catching up
}
