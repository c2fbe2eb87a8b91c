//! What the index knows of one key: 24 bytes in its leaf, and one item.

use super::item::Item;
use crate::types::{KeyValue, Record, Revision};

/// A change of a key the index still knows, in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    main: i64,
    /// Sub revision times two, and whether the key was deleted.
    sub_and_tombstone: u64,
}

impl Older {
    /// A change.
    pub fn new(revision: Revision, tombstone: bool) -> Self {
        Self { main: revision.main, sub_and_tombstone: revision.sub.cast_unsigned() << 1 | u64::from(tombstone) }
    }

    /// When it happened.
    pub fn revision(&self) -> Revision {
        Revision::new(self.main, (self.sub_and_tombstone >> 1).cast_signed())
    }

    /// Whether the key was deleted.
    pub fn tombstone(&self) -> bool {
        self.sub_and_tombstone & 1 != 0
    }
}

/// One key: its newest change in full, older ones by revision only.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The newest change.
    pub item: Item,
    /// Changes before, ascending.
    #[allow(clippy::box_collection)] // 8 bytes instead of 24 in every key
    older: Option<Box<Vec<Older>>>,
}

const _: () = assert!(size_of::<Entry>() == 24, "a million keys have a million of these");

/// A key as of some revision: all of it, or where to read it.
pub enum Seen<'a> {
    /// The newest change, maybe without its value.
    Current(&'a Item),
    /// An older put.
    Older(Revision),
}

impl Entry {
    /// A key with one change.
    pub fn new(item: Item) -> Self {
        Self { item, older: None }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.item.key()
    }

    /// The newest change is a put.
    pub fn live(&self) -> bool {
        !self.item.tombstone()
    }

    /// Whether compaction might find something to drop.
    pub fn has_past(&self) -> bool {
        self.older.is_some() || self.item.tombstone()
    }

    /// The older changes, ascending.
    fn olders(&self) -> &[Older] {
        self.older.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The newest change at or below `main`.
    pub fn change_at(&self, main: i64) -> Option<Older> {
        if self.item.main() <= main {
            return Some(self.newest());
        }
        let olders = self.olders();
        olders[..olders.partition_point(|older| older.main <= main)].last().copied()
    }

    /// The newest change.
    fn newest(&self) -> Older {
        Older::new(self.item.revision(), self.item.tombstone())
    }

    /// The key as readers at `main` see it; `None` if it does not exist then.
    pub fn seen_at(&self, main: i64) -> Option<Seen<'_>> {
        if self.item.main() <= main {
            return (!self.item.tombstone()).then_some(Seen::Current(&self.item));
        }
        let change = self.change_at(main).filter(|change| !change.tombstone())?;
        Some(Seen::Older(change.revision()))
    }

    /// Whether the index knows this change.
    pub fn knows(&self, revision: Revision) -> bool {
        self.item.revision() == revision || self.olders().binary_search_by_key(&revision, Older::revision).is_ok()
    }

    /// Makes `item` the newest change. Gives back the bytes of the value that is no longer resident.
    pub fn supersede(&mut self, item: Item) -> usize {
        let newest = self.newest();
        self.older.get_or_insert_default().push(newest);
        std::mem::replace(&mut self.item, item).resident().unwrap_or(0)
    }

    /// Drops the value from memory; its bytes.
    pub fn evict(&mut self) -> usize {
        let Some(bytes) = self.item.resident().filter(|bytes| *bytes > 0) else { return 0 };
        self.item = self.item.without_value();
        bytes
    }

    /// Takes the value back into memory, if `kv` is still the newest change; its bytes.
    pub fn admit(&mut self, kv: &KeyValue) -> usize {
        let meta = self.item.meta();
        let same = meta.revision.main == kv.mod_revision && meta.version == kv.version && !self.item.tombstone();
        if !same || self.item.resident().is_some() {
            return 0;
        }
        self.item = Item::new(&Record { revision: meta.revision, tombstone: false, kv: kv.clone() }, true);
        kv.value.len()
    }

    /// Learns, while the store is built, of a change in any order; a double changes nothing. Bytes of the value that is no longer resident.
    pub fn join(&mut self, item: Item) -> usize {
        let (newest, revision) = (self.item.revision(), item.revision());
        if newest < revision {
            return self.supersede(item);
        }
        if newest > revision {
            let older = self.older.get_or_insert_default();
            if let Err(at) = older.binary_search_by_key(&revision, Older::revision) {
                older.insert(at, Older::new(revision, item.tombstone()));
            }
        }
        item.resident().unwrap_or(0)
    }

    /// Whether compaction at `compact` leaves a change that happened: what `prune` keeps, of a key that may be pruned already.
    pub fn outlives(&self, revision: Revision, compact: i64) -> bool {
        let is_base = |base: Older| base.revision() == revision && !(base.tombstone() && base.main < compact);
        revision.main > compact || self.change_at(compact).is_some_and(is_base)
    }

    /// Drops what compaction at `compact` hides: changes below the newest one at or below it, and that one too if it is a tombstone below
    /// `compact`. False if nothing of the key is left.
    pub fn prune(&mut self, compact: i64, mut died: impl FnMut(Older)) -> bool {
        let Some(base) = self.change_at(compact) else { return true };
        let base_dies = base.tombstone() && base.main < compact;
        let cut = |older: &Older| if base_dies { older.revision() <= base.revision() } else { older.revision() < base.revision() };
        if let Some(older) = &mut self.older {
            let keep = older.partition_point(cut);
            older.drain(..keep).for_each(&mut died);
            if older.is_empty() {
                self.older = None;
            } else if older.capacity() > 4 * older.len() {
                older.shrink_to_fit();
            }
        }
        let gone = base_dies && self.item.revision() == base.revision();
        if gone {
            died(base);
        }
        !gone
    }
}
