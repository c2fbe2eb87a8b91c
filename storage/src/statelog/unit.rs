//! The encoding of units: what one log entry changed, whole, one after the other in a frame's body.
//!
//! unit = varint term, varint index, varint items, items; an item is a tag byte, then for
//! - 1 (record): flags (1 = tombstone), varints main, sub, create, version, lease, varint length + key, varint length + value;
//! - 2 (delta): varint length + `rusd.state.Delta`.
//!
//! A merged frame keeps units of entries whose items all died only as far as its span (kept in the frame's header) says so.

use crate::command::state::Delta;
use crate::types::{KeyValue, LogPosition, Record, Revision};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};

const RECORD: u8 = 1;
const DELTA: u8 = 2;
const TOMBSTONE: u8 = 1;

/// A thing a unit holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A key change.
    Record(Record),
    /// A change of another room, still encoded.
    Delta(Bytes),
}

/// One thing of a frame, with the entry it belongs to and where it starts in the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The entry.
    pub position: LogPosition,
    /// Byte offset of the item's tag in the body.
    pub offset: usize,
    /// Bytes the item takes.
    pub len: usize,
    /// What it is.
    pub item: Item,
}

/// Writes a unit's head.
pub fn encode_head(out: &mut Vec<u8>, position: LogPosition, items: u64) {
    encode_varint(position.term, out);
    encode_varint(position.index, out);
    encode_varint(items, out);
}

/// Writes a record.
pub fn encode_record(out: &mut Vec<u8>, record: &Record) {
    let kv = &record.kv;
    out.reserve(kv.key.len() + kv.value.len() + 48);
    out.put_u8(RECORD);
    out.put_u8(if record.tombstone { TOMBSTONE } else { 0 });
    for number in [record.revision.main, record.revision.sub, kv.create_revision, kv.version, kv.lease] {
        encode_varint(number.cast_unsigned(), out);
    }
    for bytes in [&kv.key, &kv.value] {
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

/// Writes a delta.
pub fn encode_delta(out: &mut Vec<u8>, delta: &Delta) {
    out.put_u8(DELTA);
    encode_varint(delta.encoded_len() as u64, out);
    delta.encode(out).expect("a Vec grows");
}

/// Writes a delta that is encoded already.
pub fn encode_raw_delta(out: &mut Vec<u8>, delta: &[u8]) {
    out.put_u8(DELTA);
    encode_varint(delta.len() as u64, out);
    out.extend_from_slice(delta);
}

fn signed(input: &mut Bytes) -> Option<i64> {
    decode_varint(input).ok().map(u64::cast_signed)
}

fn sized(input: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(decode_varint(input).ok()?).ok()?;
    (len <= input.len()).then(|| input.split_to(len))
}

/// Decodes one item; `None` if the bytes contradict themselves.
pub fn decode_item(input: &mut Bytes) -> Option<Item> {
    if !input.has_remaining() {
        return None;
    }
    match input.get_u8() {
        RECORD if input.has_remaining() => {
            let tombstone = input.get_u8() & TOMBSTONE != 0;
            let revision = Revision::new(signed(input)?, signed(input)?);
            let (create_revision, version, lease) = (signed(input)?, signed(input)?, signed(input)?);
            let (key, value) = (sized(input)?, sized(input)?);
            let kv = KeyValue { key, value, create_revision, mod_revision: revision.main, version, lease };
            Some(Item::Record(Record { revision, tombstone, kv }))
        }
        DELTA => sized(input).map(Item::Delta),
        _ => None,
    }
}

/// Walks a frame's body.
pub struct Units {
    body: Bytes,
    len: usize,
    position: LogPosition,
    left: u64,
    broken: bool,
}

impl Units {
    /// From the start of `body`.
    pub fn new(body: Bytes) -> Self {
        Self { len: body.len(), body, position: LogPosition::default(), left: 0, broken: false }
    }

    /// Whether the walk ended because the bytes contradict themselves.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// `Ok(None)` at the end, `Err` if the bytes contradict themselves.
    fn step(&mut self) -> Result<Option<Located>, ()> {
        while self.left == 0 {
            if self.body.is_empty() {
                return Ok(None);
            }
            let mut number = || decode_varint(&mut self.body).map_err(|_| ());
            let (term, index, items) = (number()?, number()?, number()?);
            (self.position, self.left) = (LogPosition { term, index }, items);
        }
        let offset = self.len - self.body.len();
        let item = decode_item(&mut self.body).ok_or(())?;
        self.left -= 1;
        Ok(Some(Located { position: self.position, offset, len: self.len - self.body.len() - offset, item }))
    }
}

impl Iterator for Units {
    type Item = Located;

    fn next(&mut self) -> Option<Located> {
        if self.broken {
            return None;
        }
        self.step().unwrap_or_else(|()| {
            self.broken = true;
            None
        })
    }
}
