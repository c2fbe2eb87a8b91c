//! The store at start, from records in any order.

use super::Store;
use super::entry::{Entry, Older};
use super::index::Index;
use super::item::Item;
use super::order::{self, Headed};
use super::tree::Tree;
use crate::statelog::StateLog;
use crate::types::Record;
use std::sync::Arc;

/// Keys pruned at a time.
const CHUNK_KEYS: usize = 1000;

/// Changes gathered before they go into the tree in key order, at most: so many, or so many bytes of keys and values. Each way down the
/// tree waits for memory a dozen times; neighbours share the wait.
const GATHERED: usize = if cfg!(test) { 20 } else { 128 << 10 };
const GATHERED_BYTES: usize = 32 << 20;
/// So many of the last gathering go into the tree with each new change: whoever reads the next frames should not wait for all at once.
const SETTLED_MEANWHILE: usize = 2;

/// Collects records in any order at start.
pub struct Builder {
    tree: Tree,
    /// Changes that aren't in the tree yet.
    gathered: Vec<Headed>,
    /// The same, in key order, on their way.
    settling: std::vec::IntoIter<Headed>,
    gathered_bytes: usize,
    /// Of values in the tree or gathered.
    resident: u64,
    budget: u64,
    last: i64,
    leased: bool,
}

impl Builder {
    /// Empty; `memory_bytes` is the budget of resident values.
    pub fn new(memory_bytes: u64) -> Self {
        let budget = memory_bytes;
        Self {
            tree: Tree::default(),
            gathered: Vec::new(),
            settling: Vec::new().into_iter(),
            gathered_bytes: 0,
            resident: 0,
            budget,
            last: 0,
            leased: false,
        }
    }

    /// Takes one record; doubles are ignored. Keeps no part of the frame it comes from.
    pub fn add(&mut self, record: &Record) {
        let kv = &record.kv;
        self.last = self.last.max(record.revision.main);
        self.leased |= kv.lease != 0;
        let fits = kv.value.is_empty() || self.resident + kv.value.len() as u64 <= self.budget;
        let item = Item::new(record, fits);
        self.resident += item.resident().unwrap_or(0) as u64;
        self.gathered_bytes += item.as_ref().len();
        self.gathered.push((0, item));
        self.settle(SETTLED_MEANWHILE);
        if self.gathered.len() >= GATHERED || self.gathered_bytes >= GATHERED_BYTES {
            self.sort();
        }
    }

    /// What was gathered is on its way.
    fn sort(&mut self) {
        self.settle(usize::MAX);
        let mut gathered = std::mem::replace(&mut self.gathered, Vec::with_capacity(GATHERED));
        self.gathered_bytes = 0;
        order::sort(&mut gathered);
        self.settling = gathered.into_iter();
    }

    /// So many of those on their way go into the tree.
    fn settle(&mut self, count: usize) {
        for (_, item) in self.settling.by_ref().take(count) {
            let freed = self.tree.upsert(item.key(), |entry| match entry {
                Some(entry) => (entry.join(item.clone()), None),
                None => (0, Some(Entry::new(item.clone()))),
            });
            self.resident -= freed as u64;
        }
    }

    /// Whether any record had a lease.
    pub fn has_leases(&self) -> bool {
        self.leased
    }

    /// Prunes what `compact_revision` hides (telling `log` what died), restores the revision = max(last record, compact revision, 1).
    /// `compact_revision` is -1 if never compacted.
    pub fn finish(mut self, log: Arc<StateLog>, compact_revision: i64) -> Store {
        self.sort();
        self.settle(usize::MAX);
        (self.gathered, self.settling) = (Vec::new(), Vec::new().into_iter());
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
