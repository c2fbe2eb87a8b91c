//! The hub: follows the published revision, and brings those who lag back to it.
//!
//! All hand-over happens under one lock, in which nobody waits and nothing is read from disk: the follower reads new events before it
//! takes the lock, the catch-up task reads and matches history outside of it.

use super::event::{Event, Events};
use super::history::History;
use super::interest::{GroupId, Interest};
use super::recent::Recent;
use super::watcher::{Delivery, Item, Outlet, Place, Round, Watcher};
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
/// Pause after a failed read of history.
const READ_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// Most watchers that join from recent events under one hold of the lock.
const JOIN_BATCH: usize = 64;

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

    /// Moves those who lag forward over history, until cancelled.
    pub async fn catch_up(self: Arc<Self>, cancel: CancellationToken) {
        // Where the last step ended: the next one starts at the lowest cursor from there on, so that everybody gets a turn.
        let mut position = 0;
        loop {
            match self.begin_chunk(position) {
                Chunk::Nobody => tokio::select! {
                    () = self.lagging.notified() => {}
                    () = cancel.cancelled() => return,
                },
                Chunk::Joined => tokio::task::yield_now().await,
                Chunk::Read { from, to, watchers } => {
                    let hub = self.clone();
                    match tokio::task::spawn_blocking(move || hub.read_chunk(from, to, watchers)).await {
                        Ok(Some(reached)) => position = reached,
                        // This node is broken or on its way out; don't spin meanwhile.
                        Ok(None) => tokio::time::sleep(READ_RETRY).await,
                        Err(error) => error!(%error, "watch: a catch-up step failed"),
                    }
                }
            }
            if cancel.is_cancelled() {
                return;
            }
        }
    }

    fn begin_chunk(&self, position: i64) -> Chunk {
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let Some(from) = shared.next_cursor(position) else { return Chunk::Nobody };
        // What was compacted is gone for who asks now, also if it is still at hand: etcd's answer may not depend on our caches.
        if from >= shared.recent.from() && from >= self.history.compact_revision() {
            shared.join_from_recent(from, self.history.revision());
            return Chunk::Joined;
        }
        let to = (shared.next - 1).min(from.saturating_add(CATCH_UP_REVISIONS - 1)).max(from);
        let within: Vec<(i64, u64)> = shared.unsynced.range((from, 0)..=(to, u64::MAX)).map(|(key, _)| *key).collect();
        let mut watchers = Vec::with_capacity(within.len());
        for key in within {
            if let Some(watcher) = shared.unsynced.remove(&key) {
                *watcher.place.lock() = Place::CatchingUp(key.0);
                watchers.push((key.0, watcher));
            }
        }
        Chunk::Read { from, to, watchers }
    }

    /// Reads one chunk for all its watchers and hands it over; returns the revision reached, none if history can't be read. On the blocking
    /// pool.
    fn read_chunk(&self, from: i64, to: i64, watchers: Vec<(i64, Arc<Watcher>)>) -> Option<i64> {
        match self.history.read(from, to, ROUND_BYTES) {
            Ok((records, next)) => {
                let next = next.max(from + 1);
                let deliveries = match_chunk(&watchers, records);
                self.end_chunk(next, watchers, deliveries);
                Some(next)
            }
            Err(ReadError::Rejected(_)) => {
                self.cancel_compacted(self.history.compact_revision().max(from + 1), watchers);
                Some(from)
            }
            Err(ReadError::Storage(error)) => {
                error!(%error, revision = from, "watch: history can't be read");
                self.end_chunk(from, watchers, Vec::new());
                None
            }
        }
    }

    /// Offers what was found (by index into `watchers`) and puts everybody where they now stand.
    fn end_chunk(&self, next: i64, watchers: Vec<(i64, Arc<Watcher>)>, deliveries: Vec<Option<Events>>) {
        let revision = self.history.revision();
        let mut deliveries = deliveries.into_iter();
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let mut touched = Vec::new();
        for (cursor, watcher) in &watchers {
            let events = deliveries.next().flatten();
            if watcher.place() == Place::Gone {
                continue;
            }
            match events {
                Some(events) => shared.add_to_round(watcher, events, revision, &mut touched),
                None => shared.go_on(watcher, next.max(*cursor)),
            }
        }
        let any_blocked = shared.offer_rounds(&touched, |shared, watcher, taken| {
            if taken {
                shared.go_on(watcher, next);
            } else if let Place::CatchingUp(cursor) = watcher.place() {
                shared.set_blocked(watcher, cursor);
            }
        });
        if any_blocked {
            shared.unblock_those_with_room();
        }
    }

    fn cancel_compacted(&self, compact_revision: i64, watchers: Vec<(i64, Arc<Watcher>)>) {
        let mut shared = self.shared.lock();
        for (cursor, watcher) in watchers {
            if watcher.place() == Place::Gone {
                continue;
            }
            if cursor >= compact_revision {
                shared.set_unsynced(&watcher, cursor);
                continue;
            }
            match watcher.outlet.offer(Item::Compacted { watcher: watcher.clone(), compact_revision }) {
                Ok(()) => shared.set_place(&watcher, Place::Compacted),
                Err(_) => shared.set_blocked(&watcher, cursor),
            }
        }
        shared.unblock_those_with_room();
    }
}

enum Chunk {
    Nobody,
    Joined,
    Read { from: i64, to: i64, watchers: Vec<(i64, Arc<Watcher>)> },
}

/// Events per watcher of a chunk, in the order of `watchers`; matched through an index of its own, so that a thousand watchers of one
/// prefix cost one match.
fn match_chunk(watchers: &[(i64, Arc<Watcher>)], records: Vec<Record>) -> Vec<Option<Events>> {
    let mut index: Interest<usize> = Interest::default();
    for (at, (_, watcher)) in watchers.iter().enumerate() {
        index.insert(&watcher.range, watcher.serial, at);
    }
    let mut matched: Vec<Vec<Arc<Event>>> = Vec::new();
    matched.resize_with(index.group_bound(), Vec::new);
    for record in records {
        let event = Arc::new(Event::new(record));
        index.matches(&event.record.kv.key, &mut |group| matched[group as usize].push(event.clone()));
    }
    let mut deliveries = vec![None; watchers.len()];
    for (group, events) in matched.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
        let events: Events = events.into();
        for at in index.group(group as GroupId).members() {
            let (cursor, watcher) = &watchers[*at];
            deliveries[*at] = watcher.select(&events, *cursor);
        }
    }
    deliveries
}

impl Shared {
    // ---- places

    /// Moves a watcher out of wherever it is, keeping its stream's count.
    fn set_place(&mut self, watcher: &Arc<Watcher>, place: Place) {
        let old = std::mem::replace(&mut *watcher.place.lock(), place);
        match old {
            Place::Joined => drop(self.interest.remove(&watcher.range, watcher.serial)),
            Place::Unsynced(cursor) => drop(self.unsynced.remove(&(cursor, watcher.serial))),
            Place::Blocked(_) => {
                if let Some(stream) = &mut self.streams[watcher.outlet.slot] {
                    stream.blocked.retain(|other| !Arc::ptr_eq(other, watcher));
                }
            }
            Place::CatchingUp(_) | Place::Compacted | Place::Gone => {}
        }
        let behind = |place| usize::from(!matches!(place, Place::Joined | Place::Gone));
        if let Some(stream) = &mut self.streams[watcher.outlet.slot] {
            stream.behind = stream.behind + behind(place) - behind(old);
        }
        self.behind = self.behind + behind(place) - behind(old);
        self.compacted = self.compacted + usize::from(place == Place::Compacted) - usize::from(old == Place::Compacted);
    }

    fn remove(&mut self, watcher: &Arc<Watcher>) {
        self.set_place(watcher, Place::Gone);
    }

    fn join(&mut self, watcher: &Arc<Watcher>) {
        self.set_place(watcher, Place::Joined);
        self.interest.insert(&watcher.range, watcher.serial, watcher.clone());
    }

    fn set_unsynced(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        self.set_place(watcher, Place::Unsynced(cursor));
        self.unsynced.insert((cursor, watcher.serial), watcher.clone());
    }

    fn set_blocked(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        self.set_place(watcher, Place::Blocked(cursor));
        watcher.outlet.blocked.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(stream) = &mut self.streams[watcher.outlet.slot] {
            stream.blocked.push(watcher.clone());
        }
    }

    /// Joins at `cursor` if that is where the hub stands, else waits for the next chunk.
    fn go_on(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        if cursor >= self.next {
            self.join(watcher);
        } else {
            self.set_unsynced(watcher, cursor);
        }
    }

    fn unblock(&mut self, outlet: &Arc<Outlet>) {
        outlet.blocked.store(false, std::sync::atomic::Ordering::SeqCst);
        let Some(stream) = &mut self.streams[outlet.slot] else { return };
        if !Arc::ptr_eq(&stream.outlet, outlet) {
            return;
        }
        for watcher in std::mem::take(&mut stream.blocked) {
            if let Place::Blocked(cursor) = watcher.place() {
                self.set_unsynced(&watcher, cursor);
            }
        }
    }

    /// The reader may have drained its queue between our offer and our mark: then nobody would call `unblock`.
    fn unblock_those_with_room(&mut self) {
        let ready = |stream: &&StreamState| !stream.blocked.is_empty() && stream.outlet.has_room();
        let outlets: Vec<Arc<Outlet>> = self.streams.iter().flatten().filter(ready).map(|stream| stream.outlet.clone()).collect();
        for outlet in outlets {
            self.unblock(&outlet);
        }
    }

    // ---- position

    /// Nobody listens below `next`: history up to there is not read at all.
    fn pass(&mut self, next: i64) {
        self.recent.restart(next);
        self.pass_to(next);
    }

    fn pass_to(&mut self, next: i64) {
        self.next = next;
        if self.awaiting_progress.is_empty() {
            return;
        }
        for (outlet, target) in std::mem::take(&mut self.awaiting_progress) {
            if target < next {
                self.offer_progress(&outlet);
            } else {
                self.awaiting_progress.push((outlet, target));
            }
        }
    }

    fn offer_progress(&mut self, outlet: &Arc<Outlet>) {
        let all_joined = self.streams[outlet.slot].as_ref().is_some_and(|stream| stream.behind == 0);
        if all_joined {
            // As etcd's: no answer while the stream's queue is full.
            let _ = outlet.offer(Item::Progress { watch_ids: vec![-1], revision: self.next - 1 });
        }
    }

    // ---- rounds

    /// Matches and offers one round; true if somebody had no room.
    fn hand_out(&mut self, from: i64, events: &[Arc<Event>]) -> bool {
        let Self { interest, matched, .. } = self;
        matched.resize_with(interest.group_bound(), Vec::new);
        let mut groups: Vec<GroupId> = Vec::new();
        for event in events {
            interest.matches(&event.record.kv.key, &mut |group| {
                let list = &mut matched[group as usize];
                if list.is_empty() {
                    groups.push(group);
                }
                list.push(event.clone());
            });
        }
        let mut touched = Vec::new();
        for group in groups {
            let events: Events = std::mem::take(&mut self.matched[group as usize]).into();
            let Self { interest, streams, .. } = self;
            for watcher in interest.group(group).members() {
                if let Some(events) = watcher.select(&events, from) {
                    push_delivery(streams, watcher, events, 0, &mut touched);
                }
            }
        }
        self.offer_rounds(&touched, |shared, watcher, taken| {
            if !taken {
                shared.set_blocked(watcher, from.max(watcher.start));
            }
        })
    }

    fn add_to_round(&mut self, watcher: &Arc<Watcher>, events: Events, revision: i64, touched: &mut Vec<usize>) {
        push_delivery(&mut self.streams, watcher, events, revision, touched);
    }

    /// Offers the rounds built for `touched` streams and reports the fate of each delivery; true if one was not taken.
    fn offer_rounds(&mut self, touched: &[usize], mut fate: impl FnMut(&mut Self, &Arc<Watcher>, bool)) -> bool {
        let mut any_refused = false;
        for slot in touched {
            let Some(stream) = &mut self.streams[*slot] else { continue };
            let Some(round) = stream.round.take() else { continue };
            let outlet = stream.outlet.clone();
            if outlet.has_room() {
                for delivery in &round.deliveries {
                    fate(self, &delivery.watcher, true);
                }
                let _ = outlet.offer(Item::Round(round));
            } else {
                any_refused = true;
                for delivery in &round.deliveries {
                    fate(self, &delivery.watcher, false);
                }
            }
        }
        any_refused
    }

    // ---- catching up

    /// The lowest cursor from `position` on, else the lowest at all.
    fn next_cursor(&self, position: i64) -> Option<i64> {
        let after = self.unsynced.range((position, 0)..).next();
        after.or_else(|| self.unsynced.first_key_value()).map(|((cursor, _), _)| *cursor)
    }

    /// Lets up to [`JOIN_BATCH`] watchers with cursors from `from` on join, with what they missed taken from the recent events.
    fn join_from_recent(&mut self, from: i64, revision: i64) {
        let ready: Vec<((i64, u64), Arc<Watcher>)> =
            self.unsynced.range((from, 0)..).take(JOIN_BATCH).map(|(key, watcher)| (*key, watcher.clone())).collect();
        let mut any_blocked = false;
        for ((cursor, _), watcher) in ready {
            let missed: Vec<Arc<Event>> = self
                .recent
                .since(cursor)
                .filter(|event| watcher.range.contains(&event.record.kv.key) && watcher.wants(event))
                .cloned()
                .collect();
            if !missed.is_empty() {
                let mut round = Round::new(revision);
                round.push(Delivery { watcher: watcher.clone(), events: missed.into() });
                if watcher.outlet.offer(Item::Round(round)).is_err() {
                    self.set_blocked(&watcher, cursor);
                    any_blocked = true;
                    continue;
                }
            }
            self.join(&watcher);
        }
        if any_blocked {
            self.unblock_those_with_room();
        }
    }
}

fn push_delivery(streams: &mut [Option<StreamState>], watcher: &Arc<Watcher>, events: Events, revision: i64, touched: &mut Vec<usize>) {
    let slot = watcher.outlet.slot;
    let Some(stream) = &mut streams[slot] else { return };
    let round = stream.round.get_or_insert_with(|| {
        touched.push(slot);
        Round::new(revision)
    });
    round.push(Delivery { watcher: watcher.clone(), events });
}
