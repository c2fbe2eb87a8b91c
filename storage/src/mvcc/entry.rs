//! What the index knows of one key.

use crate::types::{KeyValue, Record, Revision};
use bytes::Bytes;

/// A change of a key the index still knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// When it happened.
    pub revision: Revision,
    /// Whether the key was deleted.
    pub tombstone: bool,
}

/// One key: its newest change in full, older ones by revision only.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Current value; `None` if it is only on disk.
    pub value: Option<Bytes>,
    /// Newest change.
    pub revision: Revision,
    /// As in [`KeyValue`].
    pub create_revision: i64,
    /// As in [`KeyValue`].
    pub version: i64,
    /// As in [`KeyValue`].
    pub lease: i64,
    /// The newest change deleted it.
    pub tombstone: bool,
    /// Changes before, ascending.
    #[allow(clippy::box_collection)] // 8 bytes instead of 24 in every key
    pub older: Option<Box<Vec<Older>>>,
}

/// A key as of some revision: all of it, or where to read it.
pub enum Seen<'a> {
    /// The newest change, maybe without its value.
    Current(&'a Entry),
    /// An older put.
    Older(Revision),
}

impl Entry {
    /// Without value and metadata.
    pub fn bare(key: Bytes, revision: Revision, tombstone: bool) -> Self {
        Self { key, value: None, revision, create_revision: 0, version: 0, lease: 0, tombstone, older: None }
    }

    /// The newest change is a put.
    pub fn live(&self) -> bool {
        !self.tombstone
    }

    /// The older changes, ascending.
    pub fn olders(&self) -> &[Older] {
        self.older.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The newest change at or below `main`, as (revision, tombstone).
    pub fn change_at(&self, main: i64) -> Option<Older> {
        if self.revision.main <= main {
            return Some(self.newest());
        }
        let olders = self.olders();
        olders[..olders.partition_point(|older| older.revision.main <= main)].last().copied()
    }

    /// The newest change.
    pub fn newest(&self) -> Older {
        Older { revision: self.revision, tombstone: self.tombstone }
    }

    /// The key as readers at `main` see it; `None` if it does not exist then.
    pub fn seen_at(&self, main: i64) -> Option<Seen<'_>> {
        let change = self.change_at(main).filter(|change| !change.tombstone)?;
        Some(if change.revision == self.revision { Seen::Current(self) } else { Seen::Older(change.revision) })
    }

    /// Whether the index knows this change.
    pub fn knows(&self, revision: Revision) -> bool {
        self.revision == revision || self.olders().binary_search_by_key(&revision, |older| older.revision).is_ok()
    }

    /// The current key with `value`.
    pub fn kv_with(&self, value: Bytes) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value,
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            lease: self.lease,
        }
    }

    /// Makes `record` the newest change. Gives back the bytes of the value that is no longer resident.
    pub fn supersede(&mut self, record: &Record, value: Option<Bytes>) -> usize {
        let newest = self.newest();
        self.older.get_or_insert_default().push(newest);
        self.become_record(record, value)
    }

    /// Takes over metadata and value of `record` as the newest change.
    pub fn become_record(&mut self, record: &Record, value: Option<Bytes>) -> usize {
        self.revision = record.revision;
        self.tombstone = record.tombstone;
        self.create_revision = record.kv.create_revision;
        self.version = record.kv.version;
        self.lease = record.kv.lease;
        std::mem::replace(&mut self.value, value).map_or(0, |old| old.len())
    }

    /// Drops what compaction at `compact` hides: changes below the newest one at or below it, and that one too if it is a tombstone below
    /// `compact`. False if nothing of the key is left.
    pub fn prune(&mut self, compact: i64, mut died: impl FnMut(Older)) -> bool {
        let Some(base) = self.change_at(compact) else { return true };
        let base_dies = base.tombstone && base.revision.main < compact;
        let cut = |older: &Older| if base_dies { older.revision <= base.revision } else { older.revision < base.revision };
        if let Some(older) = &mut self.older {
            let keep = older.partition_point(cut);
            older.drain(..keep).for_each(&mut died);
            if older.is_empty() {
                self.older = None;
            }
        }
        let gone = base_dies && self.revision == base.revision;
        if gone {
            died(base);
        }
        !gone
    }
}
