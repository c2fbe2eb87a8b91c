//! Which frame holds which revisions, and how dead each is.

use crate::engine::{FrameId, Span};
use crate::types::{Record, Revision};
use std::collections::{BTreeMap, HashMap};

/// What is known of a frame without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its name at the engine.
    pub id: FrameId,
    /// What it covers.
    pub span: Span,
    /// Size of the body.
    pub bytes: usize,
    /// Records in it.
    pub records: usize,
    /// How many of them died.
    pub dead: usize,
    /// How many of the dead are tombstones that had to stay when the frame was last rewritten.
    pub held: usize,
    /// Log index of the last delta in it.
    pub last_delta: Option<u64>,
}

impl FrameInfo {
    /// Estimate of the bytes that dead records take.
    fn dead_bytes(&self) -> usize {
        self.bytes.checked_div(self.records).unwrap_or(0) * self.dead
    }
}

/// Frames in log order, found by revision.
#[derive(Debug, Default)]
pub struct Directory {
    frames: BTreeMap<u64, FrameInfo>,
    /// First revision -> first log index.
    revisions: BTreeMap<i64, u64>,
    /// Log index of the newest image handed over: older deltas are void.
    pub(super) image: Option<u64>,
    /// Dead puts still on disk, by key hash: they must not outlive the tombstone behind them.
    dead_puts: HashMap<u32, u32>,
}

/// What dead puts are counted by.
pub fn key_hash(key: &[u8]) -> u32 {
    crc32c::crc32c(key)
}

impl Directory {
    /// Adds a frame.
    pub fn insert(&mut self, info: FrameInfo) {
        self.frames.insert(info.span.first.index, info);
        if info.span.first_revision > 0 {
            self.revisions.insert(info.span.first_revision, info.span.first.index);
        }
    }

    /// Forgets a frame.
    pub fn remove(&mut self, info: &FrameInfo) {
        self.frames.remove(&info.span.first.index);
        if info.span.first_revision > 0 {
            self.revisions.remove(&info.span.first_revision);
        }
    }

    fn index_of(&self, main: i64) -> Option<u64> {
        self.revisions.range(..=main).next_back().map(|(_, index)| *index)
    }

    /// The frame that holds `main`, if any does.
    pub fn holding(&self, main: i64) -> Option<FrameInfo> {
        let info = self.frames.get(&self.index_of(main)?)?;
        (main <= info.span.last_revision).then_some(*info)
    }

    /// The first frame with a revision at or above `main`.
    pub fn holding_or_after(&self, main: i64) -> Option<FrameInfo> {
        self.holding(main).or_else(|| {
            let (_, index) = self.revisions.range(main..).next()?;
            self.frames.get(index).copied()
        })
    }

    /// The first frame at or above a log index.
    pub fn from_index(&self, index: u64) -> Option<FrameInfo> {
        self.frames.range(index..).next().map(|(_, info)| *info)
    }

    /// Whether a frame is the one that says how far the log is applied.
    pub fn is_last(&self, info: &FrameInfo) -> bool {
        self.frames.last_key_value().is_some_and(|(index, _)| *index == info.span.first.index)
    }

    /// Last main revision in any frame, 0 if none.
    pub fn last_revision(&self) -> i64 {
        self.revisions.last_key_value().and_then(|(_, index)| self.frames.get(index)).map_or(0, |info| info.span.last_revision)
    }

    /// Counts a record as dead in its frame; false if no frame holds it.
    pub fn count_dead(&mut self, revision: Revision) -> bool {
        let Some(index) = self.index_of(revision.main) else { return false };
        match self.frames.get_mut(&index) {
            Some(info) if revision.main <= info.span.last_revision => {
                info.dead = (info.dead + 1).min(info.records);
                true
            }
            _ => false,
        }
    }

    /// A put died and is still on disk.
    pub fn put_died(&mut self, hash: u32) {
        *self.dead_puts.entry(hash).or_default() += 1;
    }

    /// A dead put left the disk.
    pub fn put_erased(&mut self, hash: u32) {
        if let std::collections::hash_map::Entry::Occupied(mut count) = self.dead_puts.entry(hash) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Whether a dead record must stay on disk all the same: a tombstone in front of whose key a dead put still lies.
    pub fn holds(&self, record: &Record) -> bool {
        record.tombstone && self.dead_puts.contains_key(&key_hash(&record.kv.key))
    }

    /// Estimate of the bytes that live records take.
    pub fn live_bytes(&self) -> u64 {
        self.frames.values().map(|info| info.bytes.saturating_sub(info.dead_bytes()) as u64).sum()
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
