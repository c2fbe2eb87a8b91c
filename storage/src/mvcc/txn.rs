//! The changes of one entry (contract b.1, b.3). Only the apply thread has one, and only one at a time.

use super::entry::Entry;
use super::item::Item;
use super::read::Walk;
use super::{RangeResult, ReadError, Store, in_range};
use crate::command::{DeleteRange, Put, Range};
use crate::error::{Rejection, StorageError};
use crate::measure::Tally;
use crate::types::{KeyValue, Record, Revision};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Keys deleted, or compared, per lock hold.
const DELETE_KEYS: usize = 512;

/// What a put found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The lease that was attached, 0 = none.
    pub lease: i64,
    /// The key as it was, if it was asked for.
    pub kv: Option<KeyValue>,
}

/// What a delete did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many keys went.
    pub count: usize,
    /// What they were, if that was asked for.
    pub kvs: Vec<KeyValue>,
    /// Those with a lease: (lease, key).
    pub leased: Vec<(i64, Bytes)>,
}

/// The smallest key above `key`.
pub(super) fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The changes of one entry. Readers see them all at once, at `publish`.
pub struct WriteTxn<'a> {
    store: &'a Store,
    main: i64,
    /// Next sub revision: how many changes there were.
    sub: i64,
    /// Told when it is over, whether or not it is published.
    tally: Tally,
}

impl Store {
    // ---- apply thread only

    /// Starts the changes of one entry; between `StateLog::begin` and `end`.
    pub fn write(&self) -> WriteTxn<'_> {
        WriteTxn { store: self, main: self.revision() + 1, sub: 0, tally: Tally::default() }
    }
}

impl WriteTxn<'_> {
    /// Revision the changes will have (published + 1).
    pub fn revision(&self) -> i64 {
        self.main
    }

    /// Whether anything was changed so far.
    pub fn changed(&self) -> bool {
        self.sub > 0
    }

    /// What "now" is: own changes included.
    fn now(&self) -> i64 {
        if self.changed() { self.main } else { self.main - 1 }
    }

    /// The current value, own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StorageError> {
        let item = self.store.index.read().tree.get(key).filter(|entry| entry.live()).map(|entry| entry.item.clone());
        item.map(|item| self.load(&item)).transpose()
    }

    /// An item with its value, from disk if need be.
    fn load(&self, item: &Item) -> Result<KeyValue, StorageError> {
        if item.resident().is_some() {
            return Ok(item.kv());
        }
        let revision = item.revision();
        let mut loaded = self.store.log.read(&[revision])?;
        loaded.pop().flatten().map(|record| record.kv).ok_or_else(|| super::read::missing(revision))
    }

    /// A range inside the entry (b.1): sees own changes.
    pub fn range(&mut self, range: &Range) -> Result<RangeResult, ReadError> {
        self.tally.ranges += 1;
        self.store.range_at(range, Some(self.now()))
    }

    /// Whether all keys of a (range) compare satisfy `test`; an empty range or a missing key is tested once with `None`.
    pub fn all(&self, key: &[u8], range_end: &[u8], test: &mut dyn FnMut(Option<&KeyValue>) -> bool) -> Result<bool, StorageError> {
        if range_end.is_empty() {
            return Ok(test(self.get(key)?.as_ref()));
        }
        let (start, end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end));
        let mut walk = Walk::new(&start, &end, self.now(), true);
        let mut empty = true;
        loop {
            let kvs = self.store.walk(&mut walk, DELETE_KEYS)?;
            if kvs.is_empty() {
                return Ok(!empty || test(None));
            }
            empty = false;
            if !kvs.iter().all(|kv| test(Some(kv))) {
                return Ok(false);
            }
        }
    }

    /// Puts; the lease was checked by the caller, who also keeps the lessor's attachments. Answers what was there before.
    pub fn put(&mut self, put: &Put) -> Result<Result<Option<Replaced>, Rejection>, StorageError> {
        let (mut value, mut lease) = (put.value.clone(), put.lease);
        self.tally.ranges += u64::from(put.ignore_value || put.ignore_lease || put.prev_kv);
        if put.ignore_value || put.ignore_lease {
            let Some(kept) = self.kept(put)? else { return Ok(Err(Rejection::KeyNotFound)) };
            value = if put.ignore_value { kept.value } else { value };
            lease = if put.ignore_lease { kept.lease } else { lease };
        }
        self.tally.puts += 1;
        self.tally.put_bytes += (put.key.len() + value.len()) as u64;
        let revision = Revision::new(self.main, self.sub);
        self.sub += 1;
        let (record, before) = self.store.index.write().put(revision, &put.key, &value, lease);
        self.store.log.record(&record);
        let Some(before) = before else { return Ok(Ok(None)) };
        let kv = if put.prev_kv { Some(self.load(&before)?) } else { None };
        Ok(Ok(Some(Replaced { lease: before.lease(), kv })))
    }

    /// The key of a put that keeps something of it; its value only if that is kept.
    fn kept(&self, put: &Put) -> Result<Option<KeyValue>, StorageError> {
        if put.ignore_value {
            return self.get(&put.key);
        }
        let index = self.store.index.read();
        Ok(index.tree.get(&put.key).filter(|entry| entry.live()).map(|entry| entry.item.kv_without_value()))
    }

    /// Deletes a range.
    pub fn delete_range(&mut self, delete: &DeleteRange) -> Result<Deleted, StorageError> {
        self.tally.ranges += u64::from(delete.prev_kv);
        self.tally.deletes += 1;
        let mut deleted = Deleted::default();
        let mut next = Some(delete.key.to_vec());
        while let Some(from) = next.take() {
            let items: Vec<Item> = {
                let index = self.store.index.read();
                if delete.range_end.is_empty() {
                    index.tree.get(&from).filter(|entry| entry.live()).map(|entry| entry.item.clone()).into_iter().collect()
                } else {
                    let within = |entry: &&Entry| in_range(entry.key(), &delete.key, &delete.range_end);
                    let (mut passed, mut items) = (0, Vec::new());
                    for entry in index.tree.iter_from(&from).take_while(within) {
                        if passed == DELETE_KEYS {
                            next = Some(entry.key().to_vec());
                            break;
                        }
                        passed += 1;
                        if entry.live() {
                            items.push(entry.item.clone());
                        }
                    }
                    items
                }
            };
            self.delete(&items, delete.prev_kv, &mut deleted)?;
        }
        Ok(deleted)
    }

    /// Deletes those of `keys` that exist, in their order.
    pub fn delete_keys<'k>(&mut self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Deleted, StorageError> {
        let mut deleted = Deleted::default();
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let items: Vec<Item> = {
                let index = self.store.index.read();
                let live = |key: &[u8]| index.tree.get(key).filter(|entry| entry.live()).map(|entry| entry.item.clone());
                keys.by_ref().take(DELETE_KEYS).inspect(|_| self.tally.deletes += 1).filter_map(live).collect()
            };
            self.delete(&items, false, &mut deleted)?;
        }
        Ok(deleted)
    }

    /// Puts tombstones on live keys, under one lock hold: no reader is kept waiting for long, and none is asked for each key.
    fn delete(&mut self, items: &[Item], prev_kv: bool, deleted: &mut Deleted) -> Result<(), StorageError> {
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            let (key, lease) = (Bytes::copy_from_slice(item.key()), item.lease());
            if lease != 0 {
                deleted.leased.push((lease, key.clone()));
            }
            if prev_kv {
                deleted.kvs.push(self.load(item)?);
            }
            let kv = KeyValue { key, mod_revision: self.main, ..KeyValue::default() };
            records.push(Record { revision: Revision::new(self.main, self.sub), tombstone: true, kv });
            self.sub += 1;
        }
        deleted.count += records.len();
        {
            let mut index = self.store.index.write();
            records.iter().for_each(|record| index.apply(record));
        }
        self.store.log.records(&records);
        Ok(())
    }

    /// Publishes; returns the header revision (new if changed, else the old one).
    pub fn publish(self) -> i64 {
        if self.changed() {
            // History must hold the changes before anyone is told of the revision.
            self.store.log.end();
            self.store.revision.store(self.main, Ordering::Release);
            self.store.published.send_replace(self.main);
        }
        self.now()
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        self.store.log.measures().keys.add(self.tally);
    }
}
