//! The index behind its lock: the tree, the journal of births and deaths, and the budget of resident values.

use super::entry::Entry;
use super::item::Item;
use super::journal::Journal;
use super::tree::Tree;
use crate::types::{KeyValue, Record, Revision};
use bytes::Bytes;

/// Keys the clock passes per change while over budget.
const CLOCK_STEP: usize = 16;
/// So often per change at most: 4,096 keys, about a quarter of a millisecond.
const CLOCK_ROUNDS: usize = 256;

/// See the module.
pub struct Index {
    pub tree: Tree,
    /// Bytes of values in memory.
    pub resident: u64,
    budget: u64,
    /// Where eviction goes on.
    clock: Vec<u8>,
    journal: Journal,
}

impl Index {
    /// Takes over a tree as of `revision`.
    pub fn new(tree: Tree, resident: u64, budget: u64, revision: i64) -> Self {
        Self { tree, resident, budget, clock: Vec::new(), journal: Journal::new(revision) }
    }

    /// The writer's change of a key.
    pub fn apply(&mut self, record: &Record) {
        let item = Item::new(record, true);
        let added = item.resident().unwrap_or(0) as u64;
        let key = &record.kv.key[..];
        let (was, freed) = self.tree.upsert(key, |entry| match entry {
            Some(entry) => ((entry.live(), entry.supersede(item)), None),
            None => ((false, 0), Some(Entry::new(item))),
        });
        self.resident = self.resident + added - freed as u64;
        if was == record.tombstone {
            self.journal.turn(record.revision.main, key, !record.tombstone);
        }
        self.evict();
    }

    /// The writer's put of a key: what it makes, and what was there before if the key existed.
    pub fn put(&mut self, revision: Revision, key: &Bytes, value: &Bytes, lease: i64) -> (Record, Option<Item>) {
        let before = self.tree.get(key).map(|entry| &entry.item).filter(|item| !item.tombstone()).cloned();
        let meta = before.as_ref().map(Item::meta);
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: meta.map_or(revision.main, |meta| meta.create_revision),
            mod_revision: revision.main,
            version: meta.map_or(1, |meta| meta.version + 1),
            lease,
        };
        let record = Record { revision, tombstone: false, kv };
        self.apply(&record);
        (record, before)
    }

    /// A reader has read from disk what is the newest change of its key: likely it is asked for again.
    pub fn admit(&mut self, kv: &KeyValue) {
        self.resident += self.tree.update(&kv.key, |entry| entry.admit(kv)).unwrap_or(0) as u64;
        self.evict();
    }

    /// Keeps to the budget: a few keys per change, more if a stretch of keys without values has let it grow.
    fn evict(&mut self) {
        let mut rounds = 0;
        while self.resident > self.budget + if rounds == 0 { 0 } else { self.budget / 8 } && rounds < CLOCK_ROUNDS {
            self.evict_some();
            rounds += 1;
        }
    }

    /// Moves the clock over a few keys, until what they hold is enough, and drops their values.
    fn evict_some(&mut self) {
        let mut over = self.resident.saturating_sub(self.budget);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut passed = 0;
        for entry in self.tree.iter_from(&self.clock).take(CLOCK_STEP) {
            passed += 1;
            if let Some(bytes) = entry.item.resident().filter(|bytes| *bytes > 0) {
                keys.push(entry.key().to_vec());
                over = over.saturating_sub(bytes as u64);
            }
            if over == 0 || passed == CLOCK_STEP {
                self.clock.clear();
                self.clock.extend_from_slice(entry.key());
                self.clock.push(0);
                break;
            }
        }
        if over > 0 && passed < CLOCK_STEP {
            self.clock.clear();
        }
        for key in keys {
            self.resident -= self.tree.update(&key, Entry::evict).unwrap_or(0) as u64;
        }
    }

    /// Keys of a range at revision `at`; `None` if `at` is too long ago for the journal.
    pub fn count(&self, start: &[u8], end: &[u8], at: i64) -> Option<i64> {
        if end.is_empty() {
            return Some(i64::from(self.tree.get(start).is_some_and(|entry| entry.seen_at(at).is_some())));
        }
        if end != [0] && end <= start {
            return Some(0);
        }
        let grown = self.journal.since(start, end, at)?;
        let upto = if end == [0] { self.tree.live() } else { self.tree.rank(end) };
        let now = i64::try_from(upto - self.tree.rank(start)).unwrap_or(i64::MAX);
        Some(now - grown)
    }
}
