//! The store at start, from records in any order.

use super::Store;
use super::entry::{Entry, Older};
use super::index::Index;
use super::tree::Tree;
use crate::statelog::StateLog;
use crate::types::{Record, Revision};
use bytes::Bytes;
use std::sync::Arc;

/// Collects records in any order at start.
pub struct Builder {
    tree: Tree,
    resident: u64,
    budget: u64,
    last: i64,
}

impl Builder {
    /// Empty; `memory_bytes` is the budget of resident values.
    pub fn new(memory_bytes: u64) -> Self {
        Self { tree: Tree::default(), resident: 0, budget: memory_bytes, last: 0 }
    }

    /// Takes one record; doubles are ignored. Keeps no part of the frame it comes from.
    pub fn add(&mut self, record: Record) {
        self.last = self.last.max(record.revision.main);
        let fits = record.kv.value.is_empty() || self.resident + record.kv.value.len() as u64 <= self.budget;
        let value = || (!record.tombstone && fits).then(|| Bytes::copy_from_slice(&record.kv.value));
        let Some((added, freed)) = self.tree.update(&record.kv.key, |entry| join(entry, &record, &value)) else {
            let mut entry = Entry::bare(Bytes::copy_from_slice(&record.kv.key), record.revision, record.tombstone);
            entry.become_record(&record, value());
            self.resident += entry.value.as_ref().map_or(0, Bytes::len) as u64;
            self.tree.insert(entry);
            return;
        };
        self.resident = self.resident + added as u64 - freed as u64;
    }

    /// Prunes what `compact_revision` hides (telling `log` what died), restores the revision = max(last record, compact revision, 1).
    /// `compact_revision` is -1 if never compacted.
    pub fn finish(mut self, log: Arc<StateLog>, compact_revision: i64) -> Store {
        let mut next = Vec::new();
        loop {
            let keys: Vec<Bytes> = self.tree.iter_from(&next).take(1000).map(|entry| entry.key.clone()).collect();
            let Some(last) = keys.last() else { break };
            next = super::txn::successor(last);
            for key in &keys {
                let mut dead: Vec<Older> = Vec::new();
                let stays = self.tree.update(key, |entry| entry.prune(compact_revision, |older| dead.push(older)));
                if stays == Some(false) {
                    self.tree.remove(key);
                }
                dead.iter().for_each(|older| log.died(key, older.revision, older.tombstone));
            }
        }
        let revision = self.last.max(compact_revision).max(1);
        Store::new(log, Index::new(self.tree, self.resident, self.budget, revision), revision, compact_revision)
    }
}

/// Bytes of values that became resident, and that ceased to be.
fn join(entry: &mut Entry, record: &Record, value: &dyn Fn() -> Option<Bytes>) -> (usize, usize) {
    if entry.revision < record.revision {
        let value = value();
        let added = value.as_ref().map_or(0, Bytes::len);
        return (added, entry.supersede(record, value));
    }
    if entry.revision != record.revision {
        insert_older(entry, record.revision, record.tombstone);
    }
    (0, 0)
}

fn insert_older(entry: &mut Entry, revision: Revision, tombstone: bool) {
    let older = entry.older.get_or_insert_default();
    if let Err(at) = older.binary_search_by_key(&revision, |older| older.revision) {
        older.insert(at, Older { revision, tombstone });
    }
}
