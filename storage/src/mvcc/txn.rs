//! The changes of one entry (contract b.1, b.3). Only the apply thread has one, and only one at a time.

use super::read::Walk;
use super::{RangeResult, ReadError, Store};
use crate::command::{DeleteRange, Put, Range};
use crate::error::{Rejection, StorageError};
use crate::types::{KeyValue, Record, Revision};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Keys deleted per look at the index.
const DELETE_KEYS: usize = 1024;

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
}

impl Store {
    // ---- apply thread only

    /// Starts the changes of one entry; between `StateLog::begin` and `end`.
    pub fn write(&self) -> WriteTxn<'_> {
        WriteTxn { store: self, main: self.revision() + 1, sub: 0 }
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
        self.previous(key, true)
    }

    /// The current key; its value only if it is in memory or `value` is wanted.
    fn previous(&self, key: &[u8], value: bool) -> Result<Option<KeyValue>, StorageError> {
        let revision = {
            let index = self.store.index.read();
            let Some(entry) = index.tree.get(key).filter(|entry| entry.live()) else { return Ok(None) };
            match &entry.value {
                Some(value) => return Ok(Some(entry.kv_with(value.clone()))),
                None if !value => return Ok(Some(entry.kv_with(Bytes::new()))),
                None => entry.revision,
            }
        };
        let mut loaded = self.store.log.read(&[revision])?;
        loaded.pop().flatten().map(|record| Some(record.kv)).ok_or_else(|| super::read::missing(revision))
    }

    /// A range inside the entry (b.1): sees own changes.
    pub fn range(&self, range: &Range) -> Result<RangeResult, ReadError> {
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

    /// Puts; the lease was checked by the caller, who also keeps the lessor's attachments: returns the previous kv (always, its `lease` matters;
    /// its value for sure only with `prev_kv`).
    pub fn put(&mut self, put: &Put) -> Result<Result<Option<KeyValue>, Rejection>, StorageError> {
        let previous = self.previous(&put.key, put.prev_kv || put.ignore_value)?;
        if previous.is_none() && (put.ignore_value || put.ignore_lease) {
            return Ok(Err(Rejection::KeyNotFound));
        }
        let kept = |ignore: bool| previous.as_ref().filter(|_| ignore);
        let revision = Revision::new(self.main, self.sub);
        let kv = KeyValue {
            key: previous.as_ref().map_or_else(|| Bytes::copy_from_slice(&put.key), |kv| kv.key.clone()),
            value: kept(put.ignore_value).map_or_else(|| Bytes::copy_from_slice(&put.value), |kv| Bytes::copy_from_slice(&kv.value)),
            create_revision: previous.as_ref().map_or(self.main, |kv| kv.create_revision),
            mod_revision: self.main,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            lease: kept(put.ignore_lease).map_or(put.lease, |kv| kv.lease),
        };
        self.apply(Record { revision, tombstone: false, kv });
        Ok(Ok(previous))
    }

    fn apply(&mut self, record: Record) {
        self.sub += 1;
        self.store.log.record(&record);
        self.store.index.write().apply(&record);
    }

    /// Deletes; returns what was deleted (values only loaded if `prev_kv`).
    pub fn delete_range(&mut self, delete: &DeleteRange) -> Result<Vec<KeyValue>, StorageError> {
        let mut walk = Walk::new(&delete.key, &delete.range_end, self.now(), delete.prev_kv);
        let deleted = self.store.walk(&mut walk, usize::MAX)?;
        for kv in &deleted {
            let kv = KeyValue { key: kv.key.clone(), mod_revision: self.main, ..KeyValue::default() };
            self.apply(Record { revision: Revision::new(self.main, self.sub), tombstone: true, kv });
        }
        Ok(deleted)
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
