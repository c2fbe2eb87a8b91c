//! What the lock guards: who stands where, and one round of events for those who have joined.

use super::super::event::{Event, Events};
use super::super::interest::GroupId;
use super::super::watcher::{Delivery, Item, Outlet, Place, Round, Watcher};
use super::{Shared, StreamState};
use std::sync::Arc;

/// Most watchers that join from recent events under one hold of the lock.
const JOIN_BATCH: usize = 64;

impl Shared {
    // ---- places

    /// Moves a watcher out of wherever it is, keeping its stream's count.
    pub(super) fn set_place(&mut self, watcher: &Arc<Watcher>, place: Place) {
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

    pub(super) fn remove(&mut self, watcher: &Arc<Watcher>) {
        self.set_place(watcher, Place::Gone);
    }

    pub(super) fn join(&mut self, watcher: &Arc<Watcher>) {
        self.set_place(watcher, Place::Joined);
        self.interest.insert(&watcher.range, watcher.serial, watcher.clone());
    }

    pub(super) fn set_unsynced(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        self.set_place(watcher, Place::Unsynced(cursor));
        self.unsynced.insert((cursor, watcher.serial), watcher.clone());
    }

    pub(super) fn set_blocked(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        self.set_place(watcher, Place::Blocked(cursor));
        watcher.outlet.blocked.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(stream) = &mut self.streams[watcher.outlet.slot] {
            stream.blocked.push(watcher.clone());
        }
    }

    /// Joins at `cursor` if that is where the hub stands, else waits for the next chunk.
    pub(super) fn go_on(&mut self, watcher: &Arc<Watcher>, cursor: i64) {
        if cursor >= self.next {
            self.join(watcher);
        } else {
            self.set_unsynced(watcher, cursor);
        }
    }

    pub(super) fn unblock(&mut self, outlet: &Arc<Outlet>) {
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
    pub(super) fn unblock_those_with_room(&mut self) {
        let ready = |stream: &&StreamState| !stream.blocked.is_empty() && stream.outlet.has_room();
        let outlets: Vec<Arc<Outlet>> = self.streams.iter().flatten().filter(ready).map(|stream| stream.outlet.clone()).collect();
        for outlet in outlets {
            self.unblock(&outlet);
        }
    }

    // ---- position

    /// Nobody listens below `next`: history up to there is not read at all.
    pub(super) fn pass(&mut self, next: i64) {
        self.recent.restart(next);
        self.pass_to(next);
    }

    pub(super) fn pass_to(&mut self, next: i64) {
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

    pub(super) fn offer_progress(&mut self, outlet: &Arc<Outlet>) {
        let all_joined = self.streams[outlet.slot].as_ref().is_some_and(|stream| stream.behind == 0);
        if all_joined {
            // As etcd's: no answer while the stream's queue is full.
            let _ = outlet.offer(Item::Progress { watch_ids: vec![-1], revision: self.next - 1 });
        }
    }

    // ---- rounds

    /// Matches and offers one round; true if somebody had no room.
    pub(super) fn hand_out(&mut self, from: i64, events: &[Arc<Event>]) -> bool {
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

    pub(super) fn add_to_round(&mut self, watcher: &Arc<Watcher>, events: Events, revision: i64, touched: &mut Vec<usize>) {
        push_delivery(&mut self.streams, watcher, events, revision, touched);
    }

    /// Offers the rounds built for `touched` streams and reports the fate of each delivery; true if one was not taken.
    pub(super) fn offer_rounds(&mut self, touched: &[usize], mut fate: impl FnMut(&mut Self, &Arc<Watcher>, bool)) -> bool {
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
    pub(super) fn next_cursor(&self, position: i64) -> Option<i64> {
        let after = self.unsynced.range((position, 0)..).next();
        after.or_else(|| self.unsynced.first_key_value()).map(|((cursor, _), _)| *cursor)
    }

    /// Lets up to [`JOIN_BATCH`] watchers with cursors from `from` on join, with what they missed taken from the recent events.
    pub(super) fn join_from_recent(&mut self, from: i64, revision: i64) {
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
