//! One client's watch stream: its watches, their ids, and the responses in their order.
//!
//! The stream is driven by whoever sends its responses: nothing runs, and nothing but the bounded queue fills, while the client doesn't
//! read.

use super::event::{Event, Events};
use super::hub::{Hub, NewWatcher};
use super::range::KeyRange;
use super::watcher::{Delivery, Filters, Item, Outlet, Place, Watcher};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Text of a refused negative start revision; etcd sends it without a compact revision.
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// Text of a refused empty range.
pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// Text of a refused id.
pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// Id of a watch that was refused, and of answers that concern the whole stream.
pub const INVALID_ID: i64 = -1;

/// A request to watch, as it came.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// First key, may be empty.
    pub key: Bytes,
    /// etcd's range end.
    pub range_end: Bytes,
    /// 0 = from now on.
    pub start_revision: i64,
    /// Wants empty responses from time to time.
    pub progress_notify: bool,
    /// Unwanted kinds.
    pub filters: Filters,
    /// Wants previous values.
    pub prev_kv: bool,
    /// 0 = the next free one.
    pub watch_id: i64,
    /// Takes split responses.
    pub fragment: bool,
}

/// One response of the stream.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Revision of the header; 0 stays 0 on the wire only if `compact_revision` is set.
    pub revision: i64,
    /// Whose.
    pub watch_id: i64,
    /// Answers a create.
    pub created: bool,
    /// The last one of this watch, or a refusal.
    pub canceled: bool,
    /// Set when history was compacted under the watch.
    pub compact_revision: i64,
    /// Why it was refused.
    pub cancel_reason: String,
    /// More parts follow.
    pub fragment: bool,
    /// Whether events carry previous values.
    pub prev_kv: bool,
    /// The events of which `part` is sent.
    events: Option<Events>,
    part: Range<usize>,
}

impl Response {
    /// The events to send.
    pub fn events(&self) -> &[Arc<Event>] {
        self.events.as_ref().map_or(&[], |events| &events[self.part.clone()])
    }
}

/// Times and sizes of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// A response of at least so many bytes is split for those who take fragments: `--max-request-bytes` + 512 KiB.
    pub fragment_bytes: usize,
}

struct Entry {
    watcher: Arc<Watcher>,
    /// No events since the last tick: the next tick tells the revision.
    quiet: bool,
}

/// A client's stream. Dropping it ends all its watches.
pub struct WatchStream {
    hub: Arc<Hub>,
    options: Options,
    outlet: Arc<Outlet>,
    queue: mpsc::Receiver<Item>,
    watches: HashMap<i64, Entry>,
    next_id: i64,
    outbox: VecDeque<Response>,
    /// Watches that want progress notifications; without any there is no timer.
    notified: usize,
    next_tick: Instant,
    tick: Duration,
}

impl WatchStream {
    /// A stream without watches.
    pub fn open(hub: Arc<Hub>, options: Options) -> Self {
        let (outlet, queue) = hub.open();
        // etcd's jitter, so that a fleet of streams doesn't tick at once.
        let jitter = rand::rng().random_range(0.0..0.1);
        let tick = options.progress_interval.mul_f64(1.0 + jitter);
        let next_tick = Instant::now() + tick;
        Self { hub, options, outlet, queue, watches: HashMap::new(), next_id: 0, outbox: VecDeque::new(), notified: 0, next_tick, tick }
    }

    /// Starts a watch, or answers why not; the answer precedes every event.
    pub fn create(&mut self, create: Create) {
        if create.start_revision < 0 {
            return self.refuse(COMPACTED.to_owned());
        }
        let Some(range) = KeyRange::from_request(create.key, create.range_end) else {
            return self.refuse(EMPTY_RANGE.to_owned());
        };
        let Some(id) = self.choose_id(create.watch_id) else {
            return self.refuse(DUPLICATE_ID.to_owned());
        };
        let outlet = self.outlet.clone();
        let asked_start = create.start_revision;
        let (filters, prev_kv) = (create.filters, create.prev_kv);
        let (fragment, progress_notify) = (create.fragment, create.progress_notify);
        let build = Box::new(move |serial, start| Watcher {
            serial,
            id,
            range,
            start,
            asked_start,
            filters,
            prev_kv,
            fragment,
            progress_notify,
            outlet,
            place: Mutex::new(Place::Gone),
        });
        let (watcher, revision) = self.hub.add(NewWatcher { build, start_revision: asked_start });
        self.watches.insert(id, Entry { watcher, quiet: true });
        if progress_notify {
            self.notified += 1;
            let now = Instant::now();
            if self.next_tick <= now {
                self.next_tick = now + self.tick;
            }
        }
        self.outbox.push_back(Response { revision, watch_id: id, created: true, ..Response::default() });
    }

    /// Answers a create with a refusal; the stream goes on.
    pub fn refuse(&mut self, reason: String) {
        let revision = self.hub.history().revision();
        self.outbox.push_back(Response {
            revision,
            watch_id: INVALID_ID,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..Response::default()
        });
    }

    /// Ends a watch; an unknown id is silently ignored. No event of it follows the answer.
    pub fn cancel(&mut self, id: i64) {
        let Some(entry) = self.watches.remove(&id) else { return };
        self.hub.cancel(&entry.watcher);
        self.notified -= usize::from(entry.watcher.progress_notify);
        let revision = self.hub.history().revision();
        self.outbox.push_back(Response { revision, watch_id: id, canceled: true, ..Response::default() });
    }

    /// Asks for one answer with id -1, once all events up to its revision are sent; none if a watch lags or there are no watches.
    pub fn request_progress(&mut self) {
        if !self.watches.is_empty() {
            self.hub.request_progress(&self.outlet);
        }
    }

    /// The next response that is ready.
    pub fn pop(&mut self) -> Option<Response> {
        self.outbox.pop_front()
    }

    /// Waits until there may be another response. Cancel-safe.
    pub async fn wait(&mut self) {
        tokio::select! {
            item = self.queue.recv() => if let Some(item) = item {
                if self.outlet.taken(&item) {
                    self.hub.unblock(&self.outlet);
                }
                self.hub.sent.add(item.events() as u64);
                self.unpack(item);
            },
            () = tokio::time::sleep_until(self.next_tick), if self.notified > 0 => self.tick(),
        }
    }

    fn choose_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watches.contains_key(&wanted)).then_some(wanted);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while self.next_tick <= now {
            self.next_tick += self.tick;
        }
        let notified = || self.watches.values().filter(|entry| entry.watcher.progress_notify);
        let mut quiet = notified().filter(|entry| entry.quiet).map(|entry| &entry.watcher).peekable();
        if quiet.peek().is_some() {
            self.hub.notify_progress(&self.outlet, quiet);
        }
        for entry in self.watches.values_mut() {
            entry.quiet = true;
        }
    }

    /// Whether the watcher is still the one behind its id.
    fn current(&mut self, watcher: &Arc<Watcher>) -> Option<&mut Entry> {
        self.watches.get_mut(&watcher.id).filter(|entry| Arc::ptr_eq(&entry.watcher, watcher))
    }

    fn unpack(&mut self, item: Item) {
        match item {
            Item::Round(round) => {
                for delivery in round.deliveries {
                    self.unpack_delivery(delivery, round.revision);
                }
            }
            Item::Compacted { watcher, compact_revision } => {
                if self.current(&watcher).is_some() {
                    let watch_id = watcher.id;
                    self.outbox.push_back(Response { watch_id, canceled: true, compact_revision, ..Response::default() });
                }
            }
            Item::Progress { watch_ids, revision } => self.unpack_progress(&watch_ids, revision),
        }
    }

    fn unpack_progress(&mut self, watch_ids: &[i64], revision: i64) {
        for id in watch_ids {
            let due = match self.watches.get(id) {
                _ if *id == INVALID_ID && watch_ids.len() == 1 => {
                    let complete = |entry: &Entry| entry.watcher.asked_start <= revision;
                    !self.watches.is_empty() && self.watches.values().all(complete)
                }
                Some(entry) => entry.watcher.asked_start <= revision,
                None => false,
            };
            if due {
                self.outbox.push_back(Response { revision, watch_id: *id, ..Response::default() });
            }
        }
    }

    fn unpack_delivery(&mut self, delivery: Delivery, revision: i64) {
        let Delivery { watcher, events } = delivery;
        let Some(entry) = self.current(&watcher) else { return };
        entry.quiet = false;
        let last = events.last().map_or(0, |event| event.revision());
        let revision = if revision == 0 { last } else { revision };
        let whole = Response { revision, watch_id: watcher.id, prev_kv: watcher.prev_kv, part: 0..events.len(), ..Response::default() };
        if watcher.fragment {
            self.push_fragments(whole, events);
        } else {
            self.outbox.push_back(Response { events: Some(events), ..whole });
        }
    }

    /// Splits before the event that would reach the limit; at least one event each.
    fn push_fragments(&mut self, whole: Response, events: Events) {
        let (mut start, mut bytes) = (0, 0);
        for (at, event) in events.iter().enumerate() {
            let mut weight = event.weight();
            if whole.prev_kv {
                weight += event.previous(self.hub.history()).map_or(0, |kv| kv.key.len() + kv.value.len() + 64);
            }
            if at > start && bytes + weight >= self.options.fragment_bytes {
                self.outbox.push_back(Response { fragment: true, events: Some(events.clone()), part: start..at, ..whole.clone() });
                (start, bytes) = (at, 0);
            }
            bytes += weight;
        }
        self.outbox.push_back(Response { part: start..events.len(), events: Some(events), ..whole });
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.close(&self.outlet, self.watches.values().map(|entry| &entry.watcher));
    }
}
