//! The index behind its lock: the tree, the journal of births and deaths that makes counts at older revisions cheap, and the budget of
//! resident values.

use super::entry::Entry;
use super::tree::Tree;
use super::{in_range, txn};
use crate::types::Record;
use bytes::Bytes;
use std::collections::VecDeque;

/// Births and deaths remembered.
const JOURNAL_MAX: usize = 1 << 16;
/// Keys the clock passes per change while over budget.
const CLOCK_STEP: usize = 16;

/// A key began or ceased to be.
struct Turn {
    main: i64,
    key: Bytes,
    birth: bool,
}

/// See the module.
pub struct Index {
    pub tree: Tree,
    /// Bytes of values in memory.
    pub resident: u64,
    budget: u64,
    /// Where eviction goes on.
    clock: Bytes,
    journal: VecDeque<Turn>,
    /// The journal knows every turn above this main revision.
    journal_floor: i64,
}

impl Index {
    /// Takes over a tree as of `revision`.
    pub fn new(tree: Tree, resident: u64, budget: u64, revision: i64) -> Self {
        Self { tree, resident, budget, clock: Bytes::new(), journal: VecDeque::new(), journal_floor: revision }
    }

    /// The writer's change of a key.
    pub fn apply(&mut self, record: &Record) {
        let value = (!record.tombstone).then(|| record.kv.value.clone());
        let added = value.as_ref().map_or(0, Bytes::len) as u64;
        let changed = self.tree.update(&record.kv.key, |entry| {
            let was = entry.live();
            (was, entry.supersede(record, value.clone()))
        });
        let (was, freed) = changed.unwrap_or_else(|| {
            let mut entry = Entry::bare(record.kv.key.clone(), record.revision, record.tombstone);
            entry.become_record(record, value);
            self.tree.insert(entry);
            (false, 0)
        });
        self.resident = self.resident + added - freed as u64;
        if was == record.tombstone {
            self.turn(record);
        }
        if self.resident > self.budget {
            self.evict();
        }
    }

    fn turn(&mut self, record: &Record) {
        if self.journal.len() == JOURNAL_MAX {
            self.journal_floor = self.journal.pop_front().map_or(self.journal_floor, |turn| turn.main);
        }
        self.journal.push_back(Turn { main: record.revision.main, key: record.kv.key.clone(), birth: !record.tombstone });
    }

    /// Moves the clock over a few keys and drops their values.
    fn evict(&mut self) {
        let passed: Vec<Bytes> = self.tree.iter_from(&self.clock).take(CLOCK_STEP).map(|entry| entry.key.clone()).collect();
        self.clock = match passed.last() {
            Some(last) if passed.len() == CLOCK_STEP => txn::successor(last).into(),
            _ => Bytes::new(),
        };
        for key in passed {
            if self.resident <= self.budget {
                return;
            }
            let freed = self.tree.update(&key, |entry| entry.value.take_if(|value| !value.is_empty()).map_or(0, |value| value.len()));
            self.resident -= freed.unwrap_or(0) as u64;
        }
    }

    /// Keys of a range at revision `at`; `None` if `at` is too long ago for the journal.
    pub fn count(&self, start: &[u8], end: &[u8], at: i64) -> Option<i64> {
        if end.is_empty() {
            return Some(i64::from(self.tree.get(start).is_some_and(|entry| entry.seen_at(at).is_some())));
        }
        if at < self.journal_floor {
            return None;
        }
        let upto = if end == [0] { self.tree.live() } else { self.tree.rank(end) };
        let now = i64::try_from(upto.saturating_sub(self.tree.rank(start))).unwrap_or(i64::MAX);
        let later = self.journal.partition_point(|turn| turn.main <= at);
        let turns = self.journal.range(later..).filter(|turn| in_range(&turn.key, start, end));
        Some(turns.fold(now, |count, turn| if turn.birth { count - 1 } else { count + 1 }))
    }
}
