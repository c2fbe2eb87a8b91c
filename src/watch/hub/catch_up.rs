//! Bringing those who lag back to the hub: history is read and matched outside of the lock.

use super::super::event::{Event, Events};
use super::super::interest::{GroupId, Interest};
use super::super::watcher::{Item, Place, Watcher};
use super::{CATCH_UP_REVISIONS, Hub, ROUND_BYTES};
use rusd_storage::Record;
use rusd_storage::mvcc::ReadError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Pause after a failed read of history.
const READ_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl Hub {
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
