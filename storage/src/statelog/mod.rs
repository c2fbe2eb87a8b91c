//! The state's own log: units (all that one entry changes) packed into frames, the directory revision -> frame, and the paced
//! compaction of half-dead frames. STUB with the agreed face.

use crate::command::state::Delta;
use crate::engine::{Engine, FrameId, StateFrame};
use crate::error::StorageError;
use crate::types::{LogPosition, Record, Revision};

/// Collects frames shown by `Engine::open` in any order. For each key-value record `on_record` is called at once; deltas are kept, and
/// given back by `finish` sorted by log index, from the newest image on.
pub struct Recovery {}

#[allow(unused_variables)]
impl Recovery {
    /// Empty.
    pub fn new() -> Self {
        todo!()
    }
    /// Decodes one frame; a record met twice (same revision) is shown twice, the receiver ignores doubles.
    pub fn frame(&mut self, id: FrameId, frame: StateFrame, on_record: &mut dyn FnMut(Record)) -> Result<(), StorageError> {
        todo!()
    }
    /// Applied position (None for an empty store), deltas with their position in order, and the directory to build a `StateLog` with.
    pub fn finish(self) -> Result<(Option<LogPosition>, Vec<(LogPosition, Delta)>, Directory), StorageError> {
        todo!()
    }
}

/// Which frame holds which revisions, and how dead each is.
pub struct Directory {}

/// The log of the state. One writer (apply), many readers.
pub struct StateLog {}

#[allow(unused_variables)]
impl StateLog {
    /// On an opened engine.
    pub fn new(engine: Engine, directory: Directory, applied: Option<LogPosition>) -> Self {
        todo!()
    }

    // ---- apply thread only

    /// Starts the unit of the entry at `position`. Every applied entry gets one, also if it changes nothing.
    pub fn begin(&self, position: LogPosition) {
        todo!()
    }
    /// Adds a key change.
    pub fn record(&self, record: &Record) {
        todo!()
    }
    /// Adds a change of another room.
    pub fn delta(&self, delta: &Delta) {
        todo!()
    }
    /// Ends the unit; hands over full frames to the engine.
    pub fn end(&self) {
        todo!()
    }
    /// Hands over what is open. With `Engine::sync` afterwards, all applied so far is durable.
    pub fn hand_over(&self) {
        todo!()
    }
    /// Applied position of the last ended unit.
    pub fn applied(&self) -> Option<LogPosition> {
        todo!()
    }

    // ---- readers

    /// The records of exactly these revisions, in the same order; frames are read once each. `None` where it is gone (compacted).
    pub fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Record>>, StorageError> {
        todo!()
    }
    /// All records with `from <= revision.main <= to` in order, whole mains only, stopping after about `bytes_max`; returns the next main to
    /// ask for (`to + 1` when done). Sees the open frame.
    pub fn history(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), StorageError> {
        todo!()
    }

    // ---- compaction

    /// A put or tombstone died (superseded at or below the compact revision): accounting only, called by mvcc as it prunes its index.
    pub fn died(&self, key: &[u8], revision: Revision, tombstone: bool) {
        todo!()
    }
    /// One paced step: rewrites or frees at most a few frames in revision order. `alive(record)` asks the index whether a record must stay.
    /// Returns false when nothing is left to do.
    pub fn compact_step(&self, alive: &dyn Fn(&Record) -> bool) -> Result<bool, StorageError> {
        todo!()
    }
    /// Bytes of live records (etcd's db size in use).
    pub fn live_bytes(&self) -> u64 {
        todo!()
    }
}
