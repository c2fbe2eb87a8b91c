//! One watch of one stream, and the hub's side of a stream.

use super::event::{Event, Events};
use super::hub::{QUEUE_BYTES, QUEUE_ITEMS};
use super::range::KeyRange;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Which events are not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// NOPUT.
    pub no_put: bool,
    /// NODELETE.
    pub no_delete: bool,
}

/// Where a watcher stands; changed under the hub's lock only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the index: has been offered everything below the hub's position.
    Joined,
    /// Waits for the catch-up task at this cursor.
    Unsynced(i64),
    /// In the hands of the catch-up task, which took it at this cursor.
    CatchingUp(i64),
    /// Waits for room in its stream's queue at this cursor.
    Blocked(i64),
    /// Was told that its cursor is compacted; keeps its id until the client cancels.
    Compacted,
    /// Cancelled.
    Gone,
}

/// A watch.
#[derive(Debug)]
pub struct Watcher {
    /// Unique in the hub.
    pub serial: u64,
    /// The client's id of it, unique in its stream.
    pub id: i64,
    /// What it listens to.
    pub range: KeyRange,
    /// The first revision it may see.
    pub start: i64,
    /// What the client asked for as start, 0 = now.
    pub asked_start: i64,
    /// What it does not want.
    pub filters: Filters,
    /// Send the previous value with each event.
    pub prev_kv: bool,
    /// Split big responses.
    pub fragment: bool,
    /// Tell the revision from time to time.
    pub progress_notify: bool,
    /// Its stream.
    pub outlet: Arc<Outlet>,
    /// Where it stands.
    pub(super) place: Mutex<Place>,
}

impl Watcher {
    /// Where it stands now.
    pub fn place(&self) -> Place {
        *self.place.lock()
    }

    /// Whether it wants an event of its range.
    pub fn wants(&self, event: &Event) -> bool {
        let filtered = if event.record.tombstone { self.filters.no_delete } else { self.filters.no_put };
        !filtered && event.revision() >= self.start
    }

    /// What of its group's events it wants from `cursor` on; shared if that is all of them.
    pub fn select(&self, events: &Events, cursor: i64) -> Option<Events> {
        let wanted = |event: &&Arc<Event>| event.revision() >= cursor && self.wants(event);
        if events.iter().all(|event| wanted(&event)) {
            return (!events.is_empty()).then(|| events.clone());
        }
        let some: Vec<Arc<Event>> = events.iter().filter(wanted).cloned().collect();
        (!some.is_empty()).then(|| some.into())
    }
}

/// Events for one watcher.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Who gets them.
    pub watcher: Arc<Watcher>,
    /// What, never empty.
    pub events: Events,
}

/// What a stream gets out of one step of the hub.
#[derive(Debug, Default)]
pub struct Round {
    /// Header revision; 0 = that of the last event of each delivery.
    pub revision: i64,
    /// One per watcher.
    pub deliveries: Vec<Delivery>,
    bytes: usize,
    events: usize,
}

impl Round {
    /// With a header revision.
    pub fn new(revision: i64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// Adds a delivery; events shared with the delivery before count once.
    pub fn push(&mut self, delivery: Delivery) {
        let shared = self.deliveries.last().is_some_and(|last| Arc::ptr_eq(&last.events, &delivery.events));
        if !shared {
            self.bytes += delivery.events.iter().map(|event| event.weight()).sum::<usize>();
        }
        self.bytes += size_of::<Delivery>();
        self.events += delivery.events.len();
        self.deliveries.push(delivery);
    }
}

/// One item of a stream's queue.
#[derive(Debug)]
pub enum Item {
    /// Events.
    Round(Round),
    /// The watcher's cursor is compacted.
    Compacted {
        /// Who.
        watcher: Arc<Watcher>,
        /// The compact revision.
        compact_revision: i64,
    },
    /// Everything up to `revision` has been sent to these watches (-1: all of the stream).
    Progress {
        /// Watch ids.
        watch_ids: Vec<i64>,
        /// The revision.
        revision: i64,
    },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Round(round) => round.bytes,
            Self::Compacted { .. } => 0,
            Self::Progress { watch_ids, .. } => watch_ids.len() * 8,
        }
    }

    /// How many events it carries.
    pub(super) fn events(&self) -> usize {
        match self {
            Self::Round(round) => round.events,
            Self::Compacted { .. } | Self::Progress { .. } => 0,
        }
    }
}

/// The hub's side of a stream: its bounded queue.
#[derive(Debug)]
pub struct Outlet {
    /// Index in the hub's table of streams.
    pub(super) slot: usize,
    sender: mpsc::Sender<Item>,
    items: AtomicUsize,
    bytes: AtomicUsize,
    events: AtomicUsize,
    /// Some watcher waits for room.
    pub(super) blocked: AtomicBool,
}

impl Outlet {
    pub(super) fn new(slot: usize) -> (Arc<Self>, mpsc::Receiver<Item>) {
        let (sender, receiver) = mpsc::channel(QUEUE_ITEMS);
        let outlet = Self {
            slot,
            sender,
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
        };
        (Arc::new(outlet), receiver)
    }

    /// Events in the queue.
    pub(super) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }

    /// Whether another item is taken.
    pub fn has_room(&self) -> bool {
        self.items.load(Ordering::SeqCst) < QUEUE_ITEMS && self.bytes.load(Ordering::SeqCst) < QUEUE_BYTES
    }

    /// Whether enough is free for those who were blocked.
    fn half_free(&self) -> bool {
        self.items.load(Ordering::SeqCst) <= QUEUE_ITEMS / 2 && self.bytes.load(Ordering::SeqCst) <= QUEUE_BYTES / 2
    }

    /// Queues an item or gives it back. Under the hub's lock, which makes the bounds exact.
    pub(super) fn offer(&self, item: Item) -> Result<(), Item> {
        if !self.has_room() {
            return Err(item);
        }
        let bytes = item.bytes();
        self.items.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.events.fetch_add(item.events(), Ordering::Relaxed);
        // Full can't be (the count is never below what is in the channel); closed means that the stream is on its way out.
        let _ = self.sender.try_send(item);
        Ok(())
    }

    /// Accounts for an item taken out; true if those who are blocked should be told.
    pub(super) fn taken(&self, item: &Item) -> bool {
        self.items.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(item.bytes(), Ordering::SeqCst);
        self.events.fetch_sub(item.events(), Ordering::Relaxed);
        self.blocked.load(Ordering::SeqCst) && self.half_free()
    }
}
