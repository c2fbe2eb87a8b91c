//! The newest change of a key, with key and value, in one shared allocation: what most of the memory of a store consists of.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of the key |
//! | 4..12 | main revision |
//! | 12 | flags: tombstone, value is here |
//! | 13.. | key; then varints sub revision, main - create revision, version, lease; then the value, or the length of a put's that is not here |
//!
//! Small numbers are common: a key that was put once takes 17 to 20 bytes beside its own and the value's.

use crate::types::{KeyValue, Record, Revision};
use bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use std::cell::RefCell;
use std::sync::Arc;

const KEY: usize = 13;
const TOMBSTONE: u8 = 1;
const VALUE: u8 = 2;
/// What a thread keeps to put items together in.
const SCRATCH_BYTES: usize = 4096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Never changed, only replaced; readers share it.
#[derive(Clone, Debug)]
pub struct Item(Arc<[u8]>);

/// What an item says beside key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// When it happened.
    pub revision: Revision,
    /// As in [`KeyValue`].
    pub create_revision: i64,
    /// As in [`KeyValue`].
    pub version: i64,
    /// As in [`KeyValue`].
    pub lease: i64,
}

/// What is known of a value.
enum Value<'a> {
    Here(&'a [u8]),
    /// Its length.
    OnDisk(u64),
    /// A tombstone has none.
    None,
}

impl<'a> Value<'a> {
    fn of(value: &'a [u8], resident: bool) -> Self {
        if resident { Self::Here(value) } else { Self::OnDisk(value.len() as u64) }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Here(value) => value.len(),
            Self::OnDisk(length) => encoded_len_varint(*length),
            Self::None => 0,
        }
    }
}

impl Item {
    /// Of a record, whose value is left out if it is not to be `resident`. A tombstone has none.
    pub fn new(record: &Record, resident: bool) -> Self {
        let kv = &record.kv;
        let value = if record.tombstone { Value::None } else { Value::of(&kv.value, resident) };
        let meta = Meta { revision: record.revision, create_revision: kv.create_revision, version: kv.version, lease: kv.lease };
        Self::encode(&kv.key, record.tombstone, &meta, value)
    }

    fn encode(key: &[u8], tombstone: bool, meta: &Meta, value: Value<'_>) -> Self {
        let numbers = [meta.revision.sub, meta.revision.main.wrapping_sub(meta.create_revision), meta.version, meta.lease];
        let numbers = numbers.map(i64::cast_unsigned);
        let length = KEY + key.len() + numbers.iter().map(|number| encoded_len_varint(*number)).sum::<usize>() + value.encoded_len();
        SCRATCH.with_borrow_mut(|bytes| {
            bytes.reserve(length);
            bytes.extend_from_slice(&u32::try_from(key.len()).expect("a key is far below 4 GiB").to_le_bytes());
            bytes.extend_from_slice(&meta.revision.main.to_le_bytes());
            bytes.push(if tombstone { TOMBSTONE } else { 0 } | if matches!(value, Value::Here(_)) { VALUE } else { 0 });
            bytes.extend_from_slice(key);
            numbers.into_iter().for_each(|number| encode_varint(number, bytes));
            match value {
                Value::Here(value) => bytes.extend_from_slice(value),
                Value::OnDisk(length) => encode_varint(length, bytes),
                Value::None => {}
            }
            let item = Self(Arc::from(&bytes[..]));
            bytes.clear();
            bytes.shrink_to(SCRATCH_BYTES);
            item
        })
    }

    fn key_end(&self) -> usize {
        KEY + u32::from_le_bytes(self.0[..4].try_into().expect("four bytes")) as usize
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0[KEY..self.key_end()]
    }

    /// Main revision.
    pub fn main(&self) -> i64 {
        i64::from_le_bytes(self.0[4..12].try_into().expect("eight bytes"))
    }

    /// Whether the key was deleted.
    pub fn tombstone(&self) -> bool {
        self.0[12] & TOMBSTONE != 0
    }

    /// The numbers, and where the value or its length begins.
    fn numbers(&self) -> (Meta, usize) {
        let mut rest = &self.0[self.key_end()..];
        let mut number = || decode_varint(&mut rest).expect("written by encode").cast_signed();
        let (sub, age, version, lease) = (number(), number(), number(), number());
        let main = self.main();
        let meta = Meta { revision: Revision::new(main, sub), create_revision: main.wrapping_sub(age), version, lease };
        (meta, self.0.len() - rest.remaining())
    }

    /// Everything but key and value.
    pub fn meta(&self) -> Meta {
        self.numbers().0
    }

    /// When it happened.
    pub fn revision(&self) -> Revision {
        self.meta().revision
    }

    /// Attached lease, 0 = none.
    pub fn lease(&self) -> i64 {
        self.meta().lease
    }

    /// Bytes of the value that are in memory; `None` if it is only on disk, or there is none.
    pub fn resident(&self) -> Option<usize> {
        (self.0[12] & VALUE != 0).then(|| self.0.len() - self.numbers().1)
    }

    /// Bytes of the value, wherever it is; 0 of a tombstone.
    pub fn value_len(&self) -> usize {
        let at = self.numbers().1;
        match self.0[12] & (VALUE | TOMBSTONE) {
            VALUE => self.0.len() - at,
            0 => usize::try_from(decode_varint(&mut &self.0[at..]).expect("written by encode")).expect("it was in memory"),
            _ => 0,
        }
    }

    /// The same without its value.
    pub fn without_value(&self) -> Self {
        let value = if self.tombstone() { Value::None } else { Value::OnDisk(self.value_len() as u64) };
        Self::encode(self.key(), self.tombstone(), &self.meta(), value)
    }

    /// The key with all that is known of it; the value is empty if it is not in memory. Shares the item's bytes.
    pub fn kv(&self) -> KeyValue {
        let (meta, value) = self.numbers();
        let value = if self.0[12] & VALUE != 0 { value } else { self.0.len() };
        let whole = Bytes::from_owner(self.clone());
        KeyValue {
            key: whole.slice(KEY..self.key_end()),
            value: whole.slice(value..),
            create_revision: meta.create_revision,
            mod_revision: meta.revision.main,
            version: meta.version,
            lease: meta.lease,
        }
    }

    /// As `kv`, and the value left out.
    pub fn kv_without_value(&self) -> KeyValue {
        let mut kv = self.kv();
        kv.value = Bytes::new();
        kv
    }
}

impl AsRef<[u8]> for Item {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tombstone: bool, lease: i64, value: &'static str) -> Record {
        let kv = KeyValue { key: "key".into(), value: value.into(), create_revision: 3, mod_revision: 9, version: 4, lease };
        let kv = if tombstone { KeyValue { create_revision: 0, version: 0, lease: 0, value: Bytes::new(), ..kv } } else { kv };
        Record { revision: Revision::new(9, 300), tombstone, kv }
    }

    #[test]
    fn what_is_put_in_comes_out() {
        for (tombstone, lease, value) in [(false, 0, "value"), (false, -7, ""), (false, i64::MAX, "v"), (true, 0, "")] {
            let record = record(tombstone, lease, value);
            let item = Item::new(&record, true);
            assert_eq!((item.key(), item.main(), item.tombstone()), (&b"key"[..], 9, tombstone));
            assert_eq!((item.revision(), item.kv()), (record.revision, record.kv.clone()));
            assert_eq!(item.resident(), (!tombstone).then_some(value.len()));
            let bare = item.without_value();
            assert_eq!((bare.meta(), bare.resident(), bare.key()), (item.meta(), None, item.key()));
            assert_eq!((item.value_len(), bare.value_len()), (value.len(), value.len()));
            assert_eq!(item.kv_without_value(), bare.kv());
            assert_eq!(Item::new(&record, false).kv(), bare.kv());
        }
    }

    #[test]
    fn little_is_added_to_key_and_value() {
        let item = Item::new(&record(false, 0, "value"), true);
        assert_eq!(item.as_ref().len(), "key".len() + "value".len() + 18);
    }
}
