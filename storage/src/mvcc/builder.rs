//! The store at start, from records in any order.

use super::Store;
use super::entry::{Entry, Older};
use super::index::Index;
use super::item::Item;
use super::tree::Tree;
use crate::statelog::StateLog;
use crate::types::Record;
use std::sync::Arc;

/// Keys pruned at a time.
const CHUNK_KEYS: usize = 1000;

/// Collects records in any order at start.
pub struct Builder {
    tree: Tree,
    resident: u64,
    budget: u64,
    last: i64,
    leased: bool,
}

impl Builder {
    /// Empty; `memory_bytes` is the budget of resident values.
    pub fn new(memory_bytes: u64) -> Self {
        Self { tree: Tree::default(), resident: 0, budget: memory_bytes, last: 0, leased: false }
    }

    /// Takes one record; doubles are ignored. Keeps no part of the frame it comes from.
    pub fn add(&mut self, record: Record) {
        self.last = self.last.max(record.revision.main);
        self.leased |= record.kv.lease != 0;
        let fits = record.kv.value.is_empty() || self.resident + record.kv.value.len() as u64 <= self.budget;
        let item = || Item::new(&record, fits);
        let (added, freed) = self.tree.upsert(&record.kv.key, |entry| match entry {
            Some(entry) => (entry.join(&record, item), None),
            None => {
                let item = item();
                ((item.resident().unwrap_or(0), 0), Some(Entry::new(item)))
            }
        });
        self.resident = self.resident + added as u64 - freed as u64;
    }

    /// Whether any record had a lease.
    pub fn has_leases(&self) -> bool {
        self.leased
    }

    /// Prunes what `compact_revision` hides (telling `log` what died), restores the revision = max(last record, compact revision, 1).
    /// `compact_revision` is -1 if never compacted.
    pub fn finish(mut self, log: Arc<StateLog>, compact_revision: i64) -> Store {
        let mut next = Vec::new();
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut last = None;
            for entry in self.tree.iter_from(&next).take(CHUNK_KEYS) {
                last = Some(entry.key());
                if entry.has_past() {
                    keys.push(entry.key().to_vec());
                }
            }
            let Some(last) = last else { break };
            next = super::txn::successor(last);
            for key in &keys {
                let mut dead: Vec<Older> = Vec::new();
                let stays = self.tree.update(key, |entry| entry.prune(compact_revision, |older| dead.push(older)));
                if stays == Some(false) {
                    self.tree.remove(key);
                }
                dead.iter().for_each(|older| log.died(key, older.revision(), older.tombstone()));
            }
        }
        let revision = self.last.max(compact_revision).max(1);
        Store::new(log, Index::new(self.tree, self.resident, self.budget, revision), revision, compact_revision)
    }
}
