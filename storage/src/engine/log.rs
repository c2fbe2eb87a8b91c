//! The Raft log as readers see it: a tail of entries in memory, bounded in bytes, and the directory of the frames that hold the rest.
//!
//! A log frame's body is `[term u64][len u32][bytes]` per entry; an entry too big for a frame is a run that holds it alone.

use super::{FRAME_BYTES_MAX, LogEntry};
use crate::types::LogPosition;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes that an entry costs beside its own.
pub const ENTRY_OVERHEAD: usize = 12;

/// A log frame on disk.
#[derive(Clone, Debug)]
pub struct LogFrame {
    /// Its id.
    pub id: u64,
    /// First entry.
    pub first: LogPosition,
    /// Last entry.
    pub last: LogPosition,
    /// One slot, or one per part of a run.
    pub slots: Vec<u32>,
    /// Bytes of its bodies.
    pub bytes: u64,
}

/// What the log holds. Behind one mutex, held briefly.
#[derive(Default)]
pub struct LogView {
    /// Everything up to here is purged.
    pub floor: Option<LogPosition>,
    /// Last entry, or the floor.
    pub last: Option<LogPosition>,
    /// Newest entries; each with the number of the job that writes it.
    tail: VecDeque<(LogEntry, u64)>,
    tail_bytes: usize,
    /// Jobs up to this one are inserted: their entries may leave the tail.
    pub inserted: u64,
    /// Frames in index order; owned by the writer thread, read by all.
    pub frames: VecDeque<LogFrame>,
}

impl LogView {
    /// What an opened store holds; the tail is empty.
    pub fn recovered(floor: Option<LogPosition>, last: Option<LogPosition>, frames: VecDeque<LogFrame>) -> Self {
        Self { floor, last, frames, ..Self::default() }
    }

    /// First index that is not purged. Without a floor it is where the log happens to begin: at 0, but for openraft's own suite.
    pub fn first_index(&self) -> u64 {
        let begin = || self.frames.front().map(|frame| frame.first.index).or_else(|| self.tail_start()).unwrap_or(0);
        self.floor.map_or_else(begin, |floor| floor.index + 1)
    }

    /// Index of the oldest entry there is; a log need not begin at 0.
    pub fn oldest(&self) -> u64 {
        let framed = self.frames.front().map(|frame| frame.first.index);
        let oldest = framed.into_iter().chain(self.tail_start()).min();
        oldest.unwrap_or_else(|| self.end_index()).max(self.first_index())
    }

    /// One past the last index.
    pub fn end_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Takes new entries; panics on a gap (openraft's promise).
    pub fn extend(&mut self, entries: &[LogEntry], job: u64, tail_bytes_max: usize) {
        for entry in entries {
            let expected = self.end_index();
            assert!(self.last.is_none() || entry.position.index == expected, "log gap: expected {expected}, got {}", entry.position.index);
            self.tail_bytes += entry.body.len() + ENTRY_OVERHEAD;
            self.last = Some(entry.position);
            self.tail.push_back((entry.clone(), job));
        }
        self.evict(tail_bytes_max);
    }

    /// Drops entries from the tail that are on disk and beyond the budget.
    pub fn evict(&mut self, tail_bytes_max: usize) {
        while self.tail_bytes > tail_bytes_max && self.tail.front().is_some_and(|(_, job)| *job <= self.inserted) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((entry, _)) = self.tail.pop_front() {
            self.tail_bytes -= entry.body.len() + ENTRY_OVERHEAD;
        }
    }

    /// Forgets entries from `from` on. `before` is the position of the entry before it, if the log has one.
    pub fn truncate(&mut self, from: u64, before: Option<LogPosition>) {
        while self.tail.back().is_some_and(|(entry, _)| entry.position.index >= from) {
            if let Some((entry, _)) = self.tail.pop_back() {
                self.tail_bytes -= entry.body.len() + ENTRY_OVERHEAD;
            }
        }
        self.last = before.or(self.floor);
    }

    /// Forgets entries up to `upto`.
    pub fn purge(&mut self, upto: LogPosition) {
        if self.floor.is_some_and(|floor| floor.index >= upto.index) {
            return;
        }
        self.floor = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        while self.tail.front().is_some_and(|(entry, _)| entry.position.index <= upto.index) {
            self.pop_front();
        }
    }

    /// Index of the first entry in memory.
    pub fn tail_start(&self) -> Option<u64> {
        self.tail.front().map(|(entry, _)| entry.position.index)
    }

    /// Adds entries of [first, end) that are in memory to `out`, while `room` bytes last; at least one if `out` is empty.
    pub fn read_tail(&self, first: u64, end: u64, room: &mut usize, out: &mut Vec<LogEntry>) {
        let Some(start) = self.tail_start() else { return };
        let skip = usize::try_from(first.saturating_sub(start)).unwrap_or(usize::MAX);
        for (entry, _) in self.tail.iter().skip(skip) {
            if entry.position.index >= end || !take(entry, room, out) {
                return;
            }
        }
    }

    /// The frame that holds `index`.
    pub fn frame_of(&self, index: u64) -> Option<&LogFrame> {
        let at = self.frames.partition_point(|frame| frame.last.index < index);
        self.frames.get(at).filter(|frame| frame.first.index <= index)
    }
}

/// Adds an entry if there is room for it, or nothing yet; false when full.
pub fn take(entry: &LogEntry, room: &mut usize, out: &mut Vec<LogEntry>) -> bool {
    let cost = entry.body.len() + ENTRY_OVERHEAD;
    if cost > *room && !out.is_empty() {
        *room = 0;
        return false;
    }
    *room = room.saturating_sub(cost);
    out.push(entry.clone());
    true
}

/// Whether an entry fits into a frame of its own or with others.
pub fn fits(entry: &LogEntry, used: usize) -> bool {
    used + ENTRY_OVERHEAD + entry.body.len() <= FRAME_BYTES_MAX
}

/// Appends an entry's encoding.
pub fn encode_entry(out: &mut Vec<u8>, entry: &LogEntry) {
    out.extend_from_slice(&entry.position.term.to_le_bytes());
    out.extend_from_slice(&u32::try_from(entry.body.len()).expect("an entry is far below 4 GiB").to_le_bytes());
    out.extend_from_slice(&entry.body);
}

/// Decodes a body whose first entry has index `first`; `None` if it contradicts itself.
pub fn decode_entries(first: u64, body: &Bytes) -> Option<Vec<LogEntry>> {
    let mut entries = Vec::new();
    let mut at = 0;
    let mut index = first;
    while at < body.len() {
        let head = body.get(at..at + ENTRY_OVERHEAD)?;
        let term = u64::from_le_bytes(head[..8].try_into().ok()?);
        let len = usize::try_from(u32::from_le_bytes(head[8..].try_into().ok()?)).ok()?;
        at += ENTRY_OVERHEAD;
        if body.len() < at + len {
            return None;
        }
        entries.push(LogEntry { position: LogPosition { term, index }, body: body.slice(at..at + len) });
        at += len;
        index += 1;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> LogEntry {
        LogEntry { position: LogPosition { term: 1, index }, body: Bytes::from_static(b"body") }
    }

    #[test]
    fn without_a_floor_the_log_begins_where_its_first_entry_is() {
        let mut log = LogView::default();
        assert_eq!((log.first_index(), log.end_index()), (0, 0));
        log.extend(&[entry(1), entry(2), entry(3)], 1, usize::MAX);
        assert_eq!((log.first_index(), log.end_index()), (1, 4));
        log.purge(LogPosition { term: 1, index: 2 });
        assert_eq!((log.first_index(), log.end_index()), (3, 4));
    }

    #[test]
    fn what_is_not_inserted_stays_in_the_tail() {
        let mut log = LogView::default();
        log.extend(&[entry(0), entry(1)], 1, 0);
        log.extend(&[entry(2)], 2, 0);
        assert_eq!(log.tail_start(), Some(0));
        log.inserted = 1;
        log.evict(0);
        assert_eq!(log.tail_start(), Some(2));
    }
}
