//! The only room that knows sled: one Db, two trees used as slot rings of checksummed frames, one writer thread.
//! STUB with the agreed face; see docs of each item.

use crate::error::StorageError;
use crate::types::LogPosition;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Largest frame body; what exceeds it becomes a run of frames that counts only when complete.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// How the engine is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// sled's page cache, bytes (16-64 MiB; storage.md part 1, "Cache size").
    pub cache_bytes: u64,
    /// The tail of the log kept in memory, bytes; older entries are read from frames.
    pub tail_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, tail_bytes_max: 32 << 20 }
    }
}

/// One Raft log entry as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub position: LogPosition,
    /// Its encoded payload.
    pub body: Bytes,
}

/// Name of a state frame; never reused. A run has one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u64);

/// What a state frame covers. Frames never overlap in log indexes, nor in revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Position of the first entry whose changes it holds (or that it merely accounts for).
    pub first: LogPosition,
    /// Position of the last one: applied up to here when the frame is durable.
    pub last: LogPosition,
    /// First main revision in it; 0 if it holds no key-value record.
    pub first_revision: i64,
    /// Last main revision in it; 0 if none.
    pub last_revision: i64,
}

/// A state frame: opaque body with its span.
#[derive(Clone, Debug)]
pub struct StateFrame {
    /// What it covers.
    pub span: Span,
    /// Encoded units; beyond [`FRAME_BYTES_MAX`] the engine writes it as a run.
    pub body: Bytes,
}

/// Runs once what it stands for is durable, or can never be. Called on the writer thread: keep it short.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// What `open` found, beside the state frames it has shown to the visitor.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The vote last saved, as given to `save_vote`.
    pub vote: Option<Bytes>,
    /// The floor: everything up to here was purged.
    pub purged: Option<LogPosition>,
    /// Last log entry, or `purged` when the log is empty.
    pub last: Option<LogPosition>,
    /// The newest commit position known to be durable, never beyond `last`.
    pub committed: Option<LogPosition>,
}

/// Figures for metrics and quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of frames in use (etcd's db size; what quota counts).
    pub frame_bytes: u64,
    /// Size of sled's file on disk.
    pub file_bytes: u64,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Engine {}

#[allow(unused_variables)]
impl Engine {
    /// Locks the member directory, repairs what a crash may leave, opens the current Db, verifies every frame and shows each
    /// complete state frame to `visit` (in no particular order; frames voided by a replacing one are not shown).
    pub fn open(directory: &Path, options: Options, visit: &mut dyn FnMut(FrameId, StateFrame) -> Result<(), StorageError>) -> Result<(Engine, Recovered), StorageError> {
        todo!()
    }

    // ---- log: called by raft::log_store

    /// Queues consecutive entries; readable at once, `done` after they are on disk.
    pub fn append(&self, entries: Vec<LogEntry>, done: Completion) {
        todo!()
    }
    /// Entries of [first, end), at least one if there is one, then up to `bytes_max`. Sees what was only queued.
    pub fn read_log(&self, first: u64, end: u64, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        todo!()
    }
    /// First and last position of what the log holds, `None` when empty; and the floor.
    pub fn log_bounds(&self) -> (Option<(LogPosition, LogPosition)>, Option<LogPosition>) {
        todo!()
    }
    /// Drops all entries with index >= `from`. Ordered after queued appends.
    pub fn truncate(&self, from: u64, done: Completion) {
        todo!()
    }
    /// Drops all entries up to `upto`, which may lie beyond the last one. Panics if `upto` is beyond the durable state.
    pub fn purge(&self, upto: LogPosition, done: Completion) {
        todo!()
    }
    /// Saves the vote.
    pub fn save_vote(&self, vote: Bytes, done: Completion) {
        todo!()
    }
    /// Remembers the commit position; carried by the next log frame, clamped to its last entry.
    pub fn save_committed(&self, committed: LogPosition) {
        todo!()
    }

    // ---- state: called by statelog

    /// Queues a frame; readable at once through the id. Blocks while too many bytes are queued (bounded memory).
    pub fn put_state(&self, frame: StateFrame) -> FrameId {
        todo!()
    }
    /// Queues the copy of what is still alive in `old` and voids them, as one atomic step: after a crash either `old` or `new` counts.
    /// Without `new` the frames are simply freed.
    pub fn replace_state(&self, new: Option<StateFrame>, old: Vec<FrameId>) -> Option<FrameId> {
        todo!()
    }
    /// Body of a frame, checksum verified. `None` if it was freed meanwhile (look the revision up again).
    pub fn read_state(&self, id: FrameId) -> Result<Option<Bytes>, StorageError> {
        todo!()
    }

    // ---- both

    /// `done` once all that was queued before is durable.
    pub fn sync(&self, done: Completion) {
        todo!()
    }
    /// Current sizes.
    pub fn usage(&self) -> Usage {
        todo!()
    }
    /// The error that took the store out of service, once there is one. The member must leave service when it fires.
    pub fn failure(&self) -> tokio::sync::watch::Receiver<Option<StorageError>> {
        todo!()
    }
    /// Drains the queue, stops the writer, releases the lock.
    pub fn close(&self) -> Result<(), StorageError> {
        todo!()
    }

    // ---- snapshot install

    /// A partial Db of its own beside the current one, filled while receiving. An older partial one is removed first.
    pub fn begin_install(&self) -> Result<Incoming, StorageError> {
        todo!()
    }
    /// Makes `incoming` current: the writer thread copies vote, floor = `last` and the log entries after `last` into it, syncs, renames the
    /// pointer file durably, and removes the old Db. Frame ids of `incoming` count from then on, all older ones are gone.
    pub fn switch(&self, incoming: Incoming, last: LogPosition, done: Completion) {
        todo!()
    }
    /// Directory the engine lives in.
    pub fn directory(&self) -> PathBuf {
        todo!()
    }
}

/// A Db being filled by a snapshot. Dropped without `switch`: removed.
pub struct Incoming {}

#[allow(unused_variables)]
impl Incoming {
    /// Writes a frame, syncing whenever the byte cap is reached. Blocking.
    pub fn put_state(&mut self, frame: StateFrame) -> Result<FrameId, StorageError> {
        todo!()
    }
    /// All frames durable.
    pub fn finish(&mut self) -> Result<(), StorageError> {
        todo!()
    }
}
