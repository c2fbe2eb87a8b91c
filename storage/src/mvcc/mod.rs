//! Multi-version key-value store: every key and (as far as the memory budget goes) its current value in memory, history in frames.
//!
//! Readers take a revision, the published one or an older, and look at the index in short lock holds, seeing nothing newer. The one writer
//! puts its changes into the index at once; they are newer than the published revision, hence invisible, until `publish`.
//! A reader that must come back to the index or go to the frames pins history first, so that compaction removes nothing it may see.

mod builder;
mod compact;
mod entry;
mod hash;
mod index;
mod item;
mod journal;
mod leaf;
mod listing;
mod order;
mod read;
#[cfg(test)]
mod tests;
mod tree;
mod txn;
mod whole;

pub use builder::Builder;
pub use compact::Pin;
pub use listing::{Listing, Shape};
pub use read::RangeCursor;
pub use txn::{Deleted, Replaced, WriteTxn};

use crate::error::{Rejection, StorageError};
use crate::measure::Measures;
use crate::statelog::StateLog;
use crate::types::{KeyValue, Record};
use compact::{Pins, Work};
use hash::Hashing;
use index::Index;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;

/// Records whose keys are looked up per lock hold.
const CHUNK_RECORDS: usize = 256;

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

/// The store. Readers anywhere, one writer (apply). No lock of the state log is waited for with the index locked.
pub struct Store {
    log: Arc<StateLog>,
    index: RwLock<Index>,
    revision: AtomicI64,
    published: watch::Sender<i64>,
    /// Locked while the compact revision changes and while a pin reads it.
    pins: Arc<Mutex<Pins>>,
    compacted: AtomicI64,
    work: Mutex<Work>,
    hashes: Mutex<VecDeque<Hashing>>,
}

impl Store {
    fn new(log: Arc<StateLog>, index: Index, revision: i64, compact_revision: i64) -> Self {
        Self {
            log,
            index: RwLock::new(index),
            revision: AtomicI64::new(revision),
            published: watch::Sender::new(revision),
            pins: Arc::default(),
            compacted: AtomicI64::new(compact_revision),
            work: Mutex::new(Work::new(compact_revision)),
            hashes: Mutex::default(),
        }
    }

    /// The published revision: what readers see.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The logical compact revision, -1 at first.
    pub fn compact_revision(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// Waits for (awaits) a published revision above `revision`: a watch channel of the published revision.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.published.subscribe()
    }

    /// Records of [from, to] in revision order for watch catch-up; see `StateLog::history`. Compacted if from < compact revision.
    /// Nothing beyond the published revision.
    pub fn history(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError> {
        let pin = self.pin();
        if from < pin.compact_revision() {
            return Err(Rejection::Compacted.into());
        }
        Ok(self.log.history(from, to.min(pin.revision()), bytes_max)?)
    }

    /// Records of [from, pinned revision] for a snapshot, and where to go on: those that the pinned compact revision leaves. What is already
    /// pruned here, or erased, makes no difference.
    pub fn pinned_history(&self, pin: &Pin, from: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), StorageError> {
        let (mut records, next) = self.log.history(from, pin.revision(), bytes_max)?;
        let compacted = records.partition_point(|record| record.revision.main <= pin.compact_revision());
        let newer = records.split_off(compacted);
        let mut left = Vec::with_capacity(records.len() + newer.len());
        for records in records.chunks(CHUNK_RECORDS) {
            let index = self.index.read();
            let stays = |record: &&Record| {
                let entry = index.tree.get(&record.kv.key);
                entry.is_some_and(|entry| entry.outlives(record.revision, pin.compact_revision()))
            };
            left.extend(records.iter().filter(stays).cloned());
        }
        left.extend(newer);
        Ok((left, next))
    }

    /// What is counted of it.
    pub fn measures(&self) -> &Measures {
        self.log.measures()
    }

    /// Reads and transfers that hold history.
    pub fn pin_count(&self) -> usize {
        self.pins.lock().values().sum()
    }

    /// Live keys.
    pub fn key_count(&self) -> usize {
        self.index.read().tree.live()
    }

    /// Bytes of values in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.index.read().resident
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
