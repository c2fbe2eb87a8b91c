//! Multi-version key-value store: every live key and its current value in memory, history in frames. STUB with the agreed face.

use crate::command::{DeleteRange, Put, Range};
use crate::error::{Rejection, StorageError};
use crate::statelog::StateLog;
use crate::types::{KeyValue, Record};
use bytes::Bytes;
use std::sync::Arc;

/// What a range answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The store's revision when it was read (not the revision asked for).
    pub revision: i64,
    /// Keys, after filters, order and limit.
    pub kvs: Vec<KeyValue>,
    /// There was more than `limit`.
    pub more: bool,
    /// All keys of the range at that revision, whatever limit and filters say.
    pub count: i64,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The answer is no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The node is broken.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The store. Readers anywhere, one writer (apply).
pub struct Store {}

/// Collects records in any order at start.
pub struct Builder {}

#[allow(unused_variables)]
impl Builder {
    /// Empty; `memory_bytes` is the budget of resident values.
    pub fn new(memory_bytes: u64) -> Self {
        todo!()
    }
    /// Takes one record; doubles are ignored.
    pub fn add(&mut self, record: Record) {
        todo!()
    }
    /// Prunes what `compact_revision` hides (telling `log` what died), restores the revision = max(last record, compact revision, 1).
    /// `compact_revision` is -1 if never compacted.
    pub fn finish(self, log: Arc<StateLog>, compact_revision: i64) -> Store {
        todo!()
    }
}

#[allow(unused_variables)]
impl Store {
    /// The published revision: what readers see.
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// The logical compact revision, -1 at first.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }
    /// A read as etcd's (contract b.2), in short lock holds at a pinned revision.
    pub fn range(&self, range: &Range) -> Result<RangeResult, ReadError> {
        todo!()
    }
    /// Starts reading a range in chunks at one pinned revision (RangeStream, big LISTs).
    pub fn cursor(&self, range: &Range) -> Result<RangeCursor<'_>, ReadError> {
        todo!()
    }
    /// Waits for (awaits) a published revision above `revision`: a watch channel of the published revision.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<i64> {
        todo!()
    }
    /// Records of [from, to] in revision order for watch catch-up; see `StateLog::history`. Compacted if from < compact revision.
    pub fn history(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError> {
        todo!()
    }
    /// etcd's HashKV (contract b.11): (hash, compact revision, hash revision).
    pub fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), ReadError> {
        todo!()
    }
    /// Live keys.
    pub fn key_count(&self) -> usize {
        todo!()
    }

    // ---- apply thread only

    /// Starts the changes of one entry; between `StateLog::begin` and `end`.
    pub fn write(&self) -> WriteTxn<'_> {
        todo!()
    }
    /// Logical compaction; the delta is the caller's. Checks as etcd's: <= compact revision is Compacted, > current FutureRevision.
    pub fn compact(&self, revision: i64) -> Result<(), Rejection> {
        todo!()
    }
    /// One paced step of physical compaction (index pruning, then frames); false when done. Called by a background thread.
    pub fn compact_step(&self) -> Result<bool, StorageError> {
        todo!()
    }
    /// Whether a record must survive (for the frame sweep).
    pub fn alive(&self, record: &Record) -> bool {
        todo!()
    }
    /// Pins history at the current revision and compact revision: nothing of it is physically removed while the pin lives.
    pub fn pin(&self) -> Pin {
        todo!()
    }
}

/// Holds physical compaction back.
pub struct Pin {}

impl Pin {
    /// Published revision at the time of pinning.
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// Compact revision at the time of pinning.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }
}

/// A range read chunk by chunk at one revision.
pub struct RangeCursor<'a> {
    _store: &'a Store,
}

#[allow(unused_variables)]
impl RangeCursor<'_> {
    /// Store revision at the start, for the header.
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// All keys in the range.
    pub fn count(&self) -> i64 {
        todo!()
    }
    /// Up to `keys_max` more keys in key order; empty at the end.
    pub fn next(&mut self, keys_max: usize) -> Result<Vec<KeyValue>, ReadError> {
        todo!()
    }
}

/// The changes of one entry. Readers see them all at once, at `publish`.
pub struct WriteTxn<'a> {
    _store: &'a Store,
}

#[allow(unused_variables)]
impl WriteTxn<'_> {
    /// Revision the changes will have (published + 1).
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// Whether anything was changed so far.
    pub fn changed(&self) -> bool {
        todo!()
    }
    /// The current value, own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        todo!()
    }
    /// A range inside the entry (b.1): sees own changes.
    pub fn range(&self, range: &Range) -> Result<RangeResult, ReadError> {
        todo!()
    }
    /// Whether all keys of a (range) compare satisfy `test`; an empty range or a missing key is tested once with `None`.
    pub fn all(&self, key: &[u8], range_end: &[u8], test: &mut dyn FnMut(Option<&KeyValue>) -> bool) -> Result<bool, StorageError> {
        todo!()
    }
    /// Puts; the lease was checked by the caller, who also keeps the lessor's attachments: returns the previous kv (always, its `lease` matters).
    pub fn put(&mut self, put: &Put) -> Result<Result<Option<KeyValue>, Rejection>, StorageError> {
        todo!()
    }
    /// Deletes; returns what was deleted (values only loaded if `prev_kv`).
    pub fn delete_range(&mut self, delete: &DeleteRange) -> Result<Vec<KeyValue>, StorageError> {
        todo!()
    }
    /// Publishes; returns the header revision (new if changed, else the old one).
    pub fn publish(self) -> i64 {
        todo!()
    }
}

/// Whether `key` lies in [`start`, `end`) with etcd's conventions for `end`.
pub fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

#[allow(dead_code)]
type _Unused = Bytes;
