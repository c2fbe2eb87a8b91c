//! The state's own log: units (all that one entry changes) packed into frames, the directory revision -> frame, and the paced
//! compaction of half-dead frames.
//!
//! Units gather in an open buffer that readers see too; at the end of a unit that fills it, it becomes a frame and goes to the engine.
//! Nothing is durable before that: after a crash the entries since are applied again from the Raft log.

mod directory;
pub(crate) mod open;
mod recovery;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unit;

pub use directory::{Directory, FrameInfo};
pub use recovery::{Recovered, Recovery};

use crate::command::state::Delta;
use crate::engine::{Engine, FRAME_BYTES_MAX, FrameId, StateFrame};
use crate::error::StorageError;
use crate::measure::Measures;
use crate::types::{LogPosition, Record, Revision};
use bytes::Bytes;
use open::Open;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use unit::{Item, Units};

/// A unit that ends with this much in the buffer closes the frame: room for the last unit and the frame's head stays.
const FULL_BYTES: usize = FRAME_BYTES_MAX - 4096;

/// Dead records counted per lock hold.
const COUNTED_AT_ONCE: usize = 256;

/// Where frames are kept: the engine, or a fake in tests. See [`Engine`] for what each call promises.
pub trait Frames: Send + Sync {
    /// Queues a frame.
    fn put_state(&self, frame: StateFrame) -> FrameId;
    /// Puts `new`, or nothing, in the place of `old`, atomically and after all that was queued before.
    fn replace_state(&self, new: Option<StateFrame>, old: Vec<FrameId>) -> Option<FrameId>;
    /// A frame's body; `None` if it was replaced meanwhile.
    fn read_state(&self, id: FrameId) -> Result<Option<Bytes>, StorageError>;
}

impl Frames for Engine {
    fn put_state(&self, frame: StateFrame) -> FrameId {
        Engine::put_state(self, frame)
    }
    fn replace_state(&self, new: Option<StateFrame>, old: Vec<FrameId>) -> Option<FrameId> {
        Engine::replace_state(self, new, old)
    }
    fn read_state(&self, id: FrameId) -> Result<Option<Bytes>, StorageError> {
        Engine::read_state(self, id)
    }
}

/// The log of the state. One writer (apply), many readers. Locks are taken in the order sweep, open, directory.
pub struct StateLog {
    frames: Arc<dyn Frames>,
    open: Mutex<Open>,
    directory: RwLock<Directory>,
    sweep: Mutex<sweep::Sweep>,
    measures: Arc<Measures>,
}

impl StateLog {
    /// On an opened engine.
    pub fn new(engine: Engine, directory: Directory, applied: Option<LogPosition>) -> Self {
        let measures = engine.measures();
        Self { measures, ..Self::with_frames(Arc::new(engine), directory, applied) }
    }

    /// On any keeper of frames.
    pub fn with_frames(frames: Arc<dyn Frames>, directory: Directory, applied: Option<LogPosition>) -> Self {
        Self {
            frames,
            open: Mutex::new(Open::new(applied)),
            directory: RwLock::new(directory),
            sweep: Mutex::default(),
            measures: Arc::default(),
        }
    }

    /// What is counted of the state.
    pub fn measures(&self) -> &Arc<Measures> {
        &self.measures
    }

    // ---- apply thread only

    /// Starts the unit of the entry at `position`. Every applied entry gets one, also if it changes nothing.
    pub fn begin(&self, position: LogPosition) {
        self.open.lock().begin(position);
    }

    /// Adds a key change.
    pub fn record(&self, record: &Record) {
        self.open.lock().record(record);
    }

    /// Adds key changes.
    pub fn records(&self, records: &[Record]) {
        let mut open = self.open.lock();
        records.iter().for_each(|record| open.record(record));
    }

    /// Adds a change of another room.
    pub fn delta(&self, delta: &Delta) {
        self.open.lock().delta(delta);
    }

    /// Ends the unit, if it has not ended yet; hands over full frames to the engine.
    pub fn end(&self) {
        let mut open = self.open.lock();
        if !open.in_unit() {
            return;
        }
        open.end();
        if open.bytes() >= FULL_BYTES {
            self.hand_over_open(&mut open);
        }
    }

    /// Hands over what is open. With `Engine::sync` afterwards, all applied so far is durable.
    pub fn hand_over(&self) {
        self.hand_over_open(&mut self.open.lock());
    }

    /// The frame enters the directory before it leaves the buffer, so that no reader misses it.
    fn hand_over_open(&self, open: &mut Open) {
        if open.retired {
            return;
        }
        let Some((frame, summary)) = open.take_frame() else { return };
        let (span, bytes) = (frame.span, frame.body.len());
        let id = self.frames.put_state(frame);
        let mut directory = self.directory.write();
        directory.image = directory.image.max(summary.image);
        let (records, dead, last_delta) = (summary.records, summary.dead, summary.last_delta);
        directory.insert(FrameInfo { id, span, bytes, records, dead, held: 0, last_delta });
        open.clear();
    }

    /// Hands over what is open, unless a unit is being written: then false. What died up to now may be erased after `true`, since all
    /// that killed it goes to disk before.
    pub(crate) fn settle(&self) -> bool {
        let mut open = self.open.lock();
        let settled = !open.in_unit();
        if settled {
            self.hand_over_open(&mut open);
        }
        settled
    }

    /// Writes nothing more: the engine is about to switch to another state, and what this one said would be read as part of that.
    /// Waits for a step of the sweep. Its frames may be gone from now on.
    pub(crate) fn retire(&self) {
        let mut sweep = self.sweep.lock();
        sweep.retired = true;
        self.open.lock().retired = true;
    }

    /// Whether another state has taken the place of this one.
    pub(crate) fn retired(&self) -> bool {
        self.open.lock().retired
    }

    /// Applied position of the last ended unit.
    pub fn applied(&self) -> Option<LogPosition> {
        self.open.lock().applied()
    }

    // ---- readers

    /// The records of exactly these revisions, in the same order; frames are read once each. `None` where it is gone (compacted).
    pub fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Record>>, StorageError> {
        let mut wanted: Vec<(Revision, usize)> = revisions.iter().copied().zip(0..).collect();
        wanted.sort_unstable();
        let mut found: Vec<Option<Record>> = vec![None; revisions.len()];
        {
            let open = self.open.lock();
            wanted.retain(|(revision, slot)| {
                found[*slot] = open.find(*revision);
                found[*slot].is_none()
            });
        }
        let mut wanted = &wanted[..];
        while let Some((revision, _)) = wanted.first() {
            let Some((info, body)) = self.body_of(|directory| directory.holding(revision.main))? else {
                wanted = &wanted[1..];
                continue;
            };
            let here = wanted.partition_point(|(revision, _)| revision.main <= info.span.last_revision);
            pick(info.id, body, &wanted[..here], &mut found)?;
            wanted = &wanted[here..];
        }
        Ok(found)
    }

    /// The frame `choose` names, with its body; looks again if it is replaced in between.
    fn body_of(&self, choose: impl Fn(&Directory) -> Option<FrameInfo>) -> Result<Option<(FrameInfo, Bytes)>, StorageError> {
        let mut missed = None;
        loop {
            let Some(info) = choose(&self.directory.read()) else { return Ok(None) };
            if let Some(body) = self.frames.read_state(info.id)? {
                return Ok(Some((info, body)));
            }
            if missed == Some(info.id) {
                // Replaced a moment ago, and the directory is about to say so. Were it lost, the sweep would have said so.
                if self.sweep.lock().retired {
                    return Err(StorageError::Closed("a snapshot has replaced this state".into()));
                }
                if choose(&self.directory.read()).is_some_and(|again| again.id == info.id) {
                    return Err(recovery::damaged(info.id, "it is gone"));
                }
            }
            missed = Some(info.id);
        }
    }

    /// All records with `from <= revision.main <= to` in order, whole mains only, stopping after about `bytes_max`; returns the next main to
    /// ask for (`to + 1` when done). Sees the open frame.
    pub fn history(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), StorageError> {
        // No record is below revision 1. Where nothing was ever written, the last revision on disk counts as 0: it must lie below `next`.
        let mut chunk = Chunk { records: Vec::new(), bytes: 0, bytes_max, next: from.max(1), to };
        while chunk.next <= to {
            let next = chunk.next;
            if let Some((info, body)) = self.body_of(|directory| directory.holding_or_after(next))? {
                if info.span.first_revision > to {
                    chunk.next = to + 1;
                    break;
                }
                let mut units = Units::new(body);
                if chunk.fill(units.by_ref().filter_map(|located| into_record(located.item))) {
                    break;
                }
                if units.broken() {
                    return Err(recovery::damaged(info.id, "its units contradict themselves"));
                }
                chunk.next = chunk.next.max(info.span.last_revision + 1);
                continue;
            }
            let open = self.open.lock();
            if self.directory.read().last_revision() < next {
                if !chunk.fill(open.from(next)) {
                    chunk.next = to + 1;
                }
                break;
            }
        }
        Ok((chunk.records, chunk.next))
    }

    // ---- compaction

    /// A put or tombstone died (superseded at or below the compact revision): accounting only, called by mvcc as it prunes its index.
    pub fn died(&self, key: &[u8], revision: Revision, tombstone: bool) {
        self.died_all(std::iter::once((key, revision, tombstone)));
    }

    /// The same for many: apply is kept from the open frame for as long as it takes to count a few of them.
    pub fn died_all<'k>(&self, dead: impl Iterator<Item = (&'k [u8], Revision, bool)>) {
        let mut dead = dead.peekable();
        while dead.peek().is_some() {
            let mut open = self.open.lock();
            let mut directory = self.directory.write();
            for (key, revision, tombstone) in dead.by_ref().take(COUNTED_AT_ONCE) {
                if !directory.count_dead(revision) {
                    open.count_dead();
                }
                if !tombstone {
                    directory.put_died(directory::key_hash(key));
                }
            }
        }
    }

    /// Bytes of live records (etcd's db size in use).
    pub fn live_bytes(&self) -> u64 {
        self.open.lock().bytes() as u64 + self.directory.read().live_bytes()
    }

    /// Frames in use.
    pub fn frame_count(&self) -> usize {
        self.directory.read().len()
    }
}

fn into_record(item: Item) -> Option<Record> {
    match item {
        Item::Record(record) => Some(record),
        Item::Delta(_) => None,
    }
}

/// Finds `wanted` (sorted) in a body.
fn pick(id: FrameId, body: Bytes, wanted: &[(Revision, usize)], found: &mut [Option<Record>]) -> Result<(), StorageError> {
    let mut units = Units::new(body);
    let mut at = 0;
    for record in units.by_ref().filter_map(|located| into_record(located.item)) {
        // Both ascend.
        at += wanted[at..].iter().take_while(|(revision, _)| *revision < record.revision).count();
        if at == wanted.len() {
            return Ok(());
        }
        while wanted.get(at).is_some_and(|(revision, _)| *revision == record.revision) {
            found[wanted[at].1] = Some(record.clone());
            at += 1;
        }
    }
    if units.broken() { Err(recovery::damaged(id, "its units contradict themselves")) } else { Ok(()) }
}

/// History being gathered.
struct Chunk {
    records: Vec<Record>,
    bytes: usize,
    bytes_max: usize,
    next: i64,
    to: i64,
}

impl Chunk {
    /// Takes records in order; true if the answer is complete, `next` then says where it ends.
    fn fill(&mut self, records: impl Iterator<Item = Record>) -> bool {
        for record in records {
            let main = record.revision.main;
            if main < self.next {
                continue;
            }
            let same = self.records.last().is_some_and(|last| last.revision.main == main);
            if main > self.to || (!same && self.bytes >= self.bytes_max && !self.records.is_empty()) {
                self.next = main.min(self.to + 1);
                return true;
            }
            self.bytes += record.kv.key.len() + record.kv.value.len() + 64;
            self.records.push(record);
        }
        false
    }
}
