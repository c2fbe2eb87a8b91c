//! Reads: ranges as etcd answers them (contract b.2), and the chunks they are made of.

use super::compact::Pin;
use super::entry::{Entry, Seen};
use super::{RangeResult, ReadError, Store, in_range};
use crate::command::Range;
use crate::command::{SortOrder, SortTarget};
use crate::error::{Rejection, StorageError};
use crate::types::{KeyValue, Revision};
use bytes::Bytes;
use std::path::PathBuf;

/// Keys looked at per lock hold.
pub(super) const CHUNK_KEYS: usize = 512;

/// A key of a chunk.
enum Slot {
    Ready(KeyValue),
    Load(Revision),
}

/// A key as seen at a revision; a value nobody wants is left out.
fn slot(entry: &Entry, at: i64, values: bool) -> Option<Slot> {
    Some(match entry.seen_at(at)? {
        Seen::Older(revision) => Slot::Load(revision),
        Seen::Current(item) if !values => Slot::Ready(item.kv_without_value()),
        Seen::Current(item) if item.resident().is_some() => Slot::Ready(item.kv()),
        Seen::Current(item) => Slot::Load(item.revision()),
    })
}

/// Where a range read is, at one revision.
#[derive(Clone)]
pub(super) struct Walk {
    pub(super) at: i64,
    pub(super) values: bool,
    pub(super) next: Option<Bytes>,
    end: Bytes,
}

impl Walk {
    /// From `start` to `end` at revision `at`. Without `values` they may be missing.
    pub(super) fn new(start: &Bytes, end: &Bytes, at: i64, values: bool) -> Self {
        Self { at, values, next: Some(start.clone()), end: end.clone() }
    }
}

impl Store {
    /// Up to `keys_max` more keys, from one lock hold; an empty answer means no more only if `walk.next` is none.
    fn chunk(&self, walk: &mut Walk, keys_max: usize) -> Vec<Slot> {
        let (at, values) = (walk.at, walk.values);
        self.chunk_of(walk, keys_max, |entry| slot(entry, at, values))
    }

    /// The same with what `see` makes of a key; `None` does not count.
    pub(super) fn chunk_of<T>(&self, walk: &mut Walk, keys_max: usize, see: impl Fn(&Entry) -> Option<T>) -> Vec<T> {
        let Some(next) = walk.next.take() else { return Vec::new() };
        let index = self.index.read();
        if walk.end.is_empty() {
            return index.tree.get(&next).and_then(see).into_iter().collect();
        }
        let mut slots = Vec::new();
        for (passed, entry) in index.tree.iter_from(&next).enumerate() {
            if !in_range(entry.key(), &next, &walk.end) {
                break;
            }
            if slots.len() == keys_max || passed == CHUNK_KEYS {
                walk.next = Some(Bytes::copy_from_slice(entry.key()));
                break;
            }
            slots.extend(see(entry));
        }
        slots
    }

    /// Reads what is not in memory. History is pinned, or the records are the newest of their keys.
    fn load(&self, slots: Vec<Slot>, kvs: &mut Vec<KeyValue>) -> Result<(), StorageError> {
        let wanted: Vec<Revision> =
            slots.iter().filter_map(|slot| if let Slot::Load(revision) = slot { Some(*revision) } else { None }).collect();
        let mut loaded = if wanted.is_empty() { Vec::new() } else { self.log.read(&wanted)? }.into_iter();
        for slot in slots {
            kvs.push(match slot {
                Slot::Ready(kv) => kv,
                Slot::Load(revision) => loaded.next().flatten().ok_or_else(|| missing(revision))?.kv,
            });
        }
        Ok(())
    }

    /// Up to `keys_max` more keys, values read.
    pub(super) fn walk(&self, walk: &mut Walk, keys_max: usize) -> Result<Vec<KeyValue>, StorageError> {
        let mut kvs = Vec::new();
        while kvs.len() < keys_max && walk.next.is_some() {
            let slots = self.chunk(walk, keys_max - kvs.len());
            self.load(slots, &mut kvs)?;
        }
        Ok(kvs)
    }

    /// Keys of a range at revision `at`.
    pub(super) fn count(&self, start: &Bytes, end: &Bytes, at: i64) -> i64 {
        if let Some(count) = self.index.read().count(start, end, at) {
            return count;
        }
        let mut walk = Walk::new(start, end, at, false);
        let mut count = 0;
        while walk.next.is_some() {
            count += i64::try_from(self.chunk(&mut walk, CHUNK_KEYS).len()).unwrap_or(0);
        }
        count
    }

    /// The revision a range reads at, and the one its header says. `current` is what "now" means: more than is published inside an entry.
    pub(super) fn read_at(&self, range: &Range, current: Option<i64>, pin: &Pin) -> Result<(i64, i64), Rejection> {
        let header = current.unwrap_or(pin.revision());
        if range.revision <= 0 {
            return Ok((header, header));
        }
        if range.revision > pin.revision() {
            return Err(Rejection::FutureRevision);
        }
        if range.revision < pin.compact_revision() {
            return Err(Rejection::Compacted);
        }
        Ok((range.revision, header))
    }

    /// A read as etcd's (contract b.2), in short lock holds at a pinned revision.
    pub fn range(&self, range: &Range) -> Result<RangeResult, ReadError> {
        if let Some(result) = self.point(range) {
            return Ok(result);
        }
        let result = self.range_at(range, None)?;
        if newest_of_one(range) && !range.keys_only {
            result.kvs.iter().for_each(|kv| self.index.write().admit(kv));
        }
        Ok(result)
    }

    /// The fast way for the newest state of one key: one lock hold, no pin. `None` if that won't do.
    fn point(&self, range: &Range) -> Option<RangeResult> {
        if !newest_of_one(range) {
            return None;
        }
        let index = self.index.read();
        // Read with the index locked: nothing above it can have been compacted then.
        let revision = self.revision();
        let kv = match index.tree.get(&range.key).map(|entry| slot(entry, revision, !range.keys_only && !range.count_only)) {
            Some(Some(Slot::Load(_))) => return None,
            Some(Some(Slot::Ready(kv))) => Some(kv),
            _ => None,
        };
        drop(index);
        let count = i64::from(kv.is_some());
        let mut kvs: Vec<KeyValue> = kv.into_iter().filter(|_| !range.count_only).collect();
        strip(range, &mut kvs);
        Some(RangeResult { revision, kvs, more: false, count })
    }

    /// A range; `current` as for `read_at`.
    pub(super) fn range_at(&self, range: &Range, current: Option<i64>) -> Result<RangeResult, ReadError> {
        let pin = self.pin();
        let (at, revision) = self.read_at(range, current, &pin)?;
        let count = self.count(&range.key, &range.range_end, at);
        if range.count_only {
            return Ok(RangeResult { revision, kvs: Vec::new(), more: false, count });
        }
        let limit = usize::try_from(range.limit).unwrap_or(0);
        let pushed_down = limit > 0 && !filtered(range) && default_sort(range);
        let keys_max = if pushed_down { limit.saturating_add(1) } else { usize::MAX };
        let values = !range.keys_only || range.sort_target() == SortTarget::Value;
        let mut kvs = self.walk(&mut Walk::new(&range.key, &range.range_end, at, values), keys_max)?;
        if filtered(range) {
            filter(range, &mut kvs);
        }
        sort(range, &mut kvs);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        strip(range, &mut kvs);
        Ok(RangeResult { revision, kvs, more, count })
    }

    /// Starts reading a range in chunks at one pinned revision (RangeStream, big LISTs). Chunks are in key order, each sorted by itself if a
    /// target is named; filters and limit are not looked at.
    pub fn cursor(&self, range: &Range) -> Result<RangeCursor<'_>, ReadError> {
        let pin = self.pin();
        let (at, revision) = self.read_at(range, None, &pin)?;
        let count = self.count(&range.key, &range.range_end, at);
        let values = !range.keys_only || range.sort_target() == SortTarget::Value;
        let walk = Walk::new(&range.key, &range.range_end, at, values);
        Ok(RangeCursor { store: self, _pin: pin, walk, revision, count, range: range.clone() })
    }
}

pub(super) fn missing(revision: Revision) -> StorageError {
    let detail = "no frame holds it".to_string();
    StorageError::Damaged { path: PathBuf::from("db"), what: format!("record of revision {}.{}", revision.main, revision.sub), detail }
}

/// The whole newest state of one key is asked for.
fn newest_of_one(range: &Range) -> bool {
    range.range_end.is_empty() && range.revision <= 0 && !filtered(range)
}

fn filtered(range: &Range) -> bool {
    range.min_mod_revision != 0 || range.max_mod_revision != 0 || range.min_create_revision != 0 || range.max_create_revision != 0
}

fn filter(range: &Range, kvs: &mut Vec<KeyValue>) {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
            && within(kv.create_revision, range.min_create_revision, range.max_create_revision)
    });
}

/// Whether the limit may be pushed down as far as the order goes; NONE with another target than the key counts as default too.
fn default_sort(range: &Range) -> bool {
    range.sort_order() == SortOrder::None || (range.sort_order() == SortOrder::Ascend && range.sort_target() == SortTarget::Key)
}

fn sort(range: &Range, kvs: &mut [KeyValue]) {
    let (order, target) = (range.sort_order(), range.sort_target());
    let descend = order == SortOrder::Descend;
    if target == SortTarget::Key && !descend {
        return;
    }
    kvs.sort_by(|a, b| {
        let ascending = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if descend { ascending.reverse() } else { ascending }
    });
}

/// What `keys_only` leaves out.
fn strip(range: &Range, kvs: &mut [KeyValue]) {
    if range.keys_only {
        for kv in kvs {
            kv.value = Bytes::new();
            if range.sort_target() != SortTarget::Value {
                kv.lease = 0;
            }
        }
    }
}

/// A range read chunk by chunk at one revision.
pub struct RangeCursor<'a> {
    store: &'a Store,
    _pin: Pin,
    walk: Walk,
    revision: i64,
    count: i64,
    range: Range,
}

impl RangeCursor<'_> {
    /// Store revision at the start, for the header.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// All keys in the range.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The next `keys_max` keys, sorted as the range says; empty at the end.
    pub fn next(&mut self, keys_max: usize) -> Result<Vec<KeyValue>, ReadError> {
        let mut kvs = self.store.walk(&mut self.walk, keys_max)?;
        sort(&self.range, &mut kvs);
        strip(&self.range, &mut kvs);
        Ok(kvs)
    }
}
