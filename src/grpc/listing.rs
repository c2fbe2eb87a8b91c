//! A large Range on its way out while it is being read (contract a.2 knows the one message as a whole only).
//!
//! gRPC puts the length of a message before it, so the range is measured first, which takes a walk over the index in memory. Then it is
//! read, encoded and sent piece by piece: a LIST of any size takes a few pieces of memory, and its first bytes leave at once. Protobuf
//! messages put one after the other are one message, so each piece is a `RangeResponse` of its own.

use super::outflow::{LARGE_BYTES, Large, NoRoom};
use super::{Api, blocking, kv, range_stream};
use crate::pb::etcdserverpb as pb;
use crate::server::Error;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message as _;
use prost::encoding::{encoded_len_varint, key_len};
use rusd_storage::command::Range;
use rusd_storage::mvcc::{Listing, Shape};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Response, Status};

/// Encoded ahead of the client.
const PIECES_AHEAD: usize = 2;
const PIECE_BYTES: usize = 256 << 10;
/// Keys of the first piece; it tells how large they are here.
const FIRST_KEYS: usize = 16;
/// For the whole answer, and as long again for every [`PACE_BYTES`] of it. Who is slower loses it: it holds back compaction.
const PATIENCE: Duration = Duration::from_secs(60);
const PACE_BYTES: u32 = 64 << 20;
/// What lies in memory of one answer: a piece being sent, those ahead, and one being made.
const HELD_BYTES: usize = (PIECES_AHEAD + 2) * PIECE_BYTES;
/// In front of a gRPC message: not compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The pieces of one answer.
pub struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

/// How a response carries them to the body.
#[derive(Clone)]
pub struct Carried(Arc<Mutex<Option<Pieces>>>);

impl Carried {
    /// For whoever sends them.
    pub fn take(&self) -> Option<Pieces> {
        self.0.lock().take()
    }
}

impl Pieces {
    /// The next piece; `None` when all were given.
    ///
    /// # Errors
    /// The rest can't be read, or the client was too slow.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(piece) if piece.len() as u64 <= self.left => {
                self.left -= piece.len() as u64;
                Some(Ok(piece))
            }
            None if self.left == 0 => None,
            _ => Some(Err(Status::unavailable("the range could not be read to its end"))),
        })
    }
}

/// The answer to a range that is large and in key order; `None` if it must or may as well be put together first.
pub async fn answer(api: &Api, range: &Range) -> Result<Option<Response<pb::RangeResponse>>, Status> {
    if range.count_only || range.keys_only || kv::is_sorted(range) || kv::is_filtered(range) {
        return Ok(None);
    }
    let (store, wanted) = (api.server.state.store(), range.clone());
    let measured = blocking(move || {
        let (mut bytes, mut keys, mut longest) = (0, 0, 1);
        let listing = store.listing(&wanted, &mut |shape| {
            let length = field_len(&shape);
            bytes += length;
            keys += 1;
            longest = longest.max(length);
        })?;
        Ok((listing, bytes, keys, longest))
    });
    let (listing, bytes, keys, longest) = measured.await?;
    let head = pb::RangeResponse { header: api.header(listing.revision), ..Default::default() };
    let tail = pb::RangeResponse { more: keys < listing.count, count: listing.count, ..Default::default() };
    let length = head.encoded_len() + bytes + tail.encoded_len();
    let Some(length) = u32::try_from(length).ok().filter(|length| bytes >= LARGE_BYTES && i32::try_from(*length).is_ok()) else {
        return Ok(None);
    };
    let patience = api.server.config.request_timeout();
    let room = api.outflow.claim(HELD_BYTES.max(LARGE_BYTES), patience).await.map_err(|NoRoom| Error::TooManyRequests)?;
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let mut first = BytesMut::with_capacity(PREFIX_BYTES + head.encoded_len());
    first.put_u8(0);
    first.put_u32(length);
    head.encode(&mut first).expect("there is room");
    // No piece is much longer than it should be, whatever keys come first.
    let keys_max = (2 * PIECE_BYTES / longest).max(1);
    let (first, last) = (first.freeze(), tail.encode_to_vec().into());
    tokio::spawn(async move {
        let room = room.as_deref();
        let taken = async {
            match room {
                Some(room) => room.taken().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = tokio::time::timeout(PATIENCE * (1 + length / PACE_BYTES), send(listing, first, last, keys_max, room, sender)) => {
                if sent.is_err() {
                    tracing::warn!("a client was too slow for a large range");
                }
            }
            () = taken => tracing::warn!("a large range made room for others, its client took nothing of it"),
        }
    });
    let mut response = Response::new(pb::RangeResponse::default());
    let pieces = Pieces { pieces, left: u64::from(length) + PREFIX_BYTES as u64 };
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(pieces)))));
    Ok(Some(response))
}

/// Reads and encodes as the client takes; ends early if that fails, which the length tells.
async fn send(mut listing: Listing, first: Bytes, last: Bytes, keys_max: usize, room: Option<&Large>, pieces: mpsc::Sender<Bytes>) {
    let (mut piece, mut keys) = (first, FIRST_KEYS.min(keys_max));
    loop {
        if pieces.send(piece).await.is_err() {
            return;
        }
        if let Some(room) = room {
            room.moved();
        }
        let read = blocking(move || {
            let kvs = listing.next(keys)?;
            Ok((listing, kvs))
        });
        let kvs;
        (listing, kvs) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "a large range broke off");
                return;
            }
        };
        if kvs.is_empty() {
            let _ = pieces.send(last).await;
            return;
        }
        piece = pb::RangeResponse { kvs: kvs.into_iter().map(Into::into).collect(), ..Default::default() }.encode_to_vec().into();
        keys = range_stream::resized(keys, piece.len(), PIECE_BYTES).min(keys_max);
    }
}

/// Bytes of a key in a `RangeResponse`, its tag and length included.
fn field_len(shape: &Shape) -> usize {
    let bytes = |length: usize| if length == 0 { 0 } else { 1 + encoded_len_varint(length as u64) + length };
    let number = |number: i64| if number == 0 { 0 } else { 1 + encoded_len_varint(number.cast_unsigned()) };
    let numbers = [shape.create_revision, shape.mod_revision, shape.version, shape.lease];
    let message = bytes(shape.key) + bytes(shape.value) + numbers.map(number).iter().sum::<usize>();
    key_len(2) + encoded_len_varint(message as u64) + message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb::KeyValue;

    #[test]
    fn a_key_is_as_long_as_said() {
        for (key, value, numbers) in [("k", "", [1, 1, 1, 0]), ("key", "value", [300, 40_000, 2, -5]), ("k", "v", [0, i64::MAX, 0, 7])] {
            for repeat in [1, 200, 20_000] {
                let (key, value) = (key.repeat(repeat), value.repeat(repeat));
                let [create_revision, mod_revision, version, lease] = numbers;
                let shape = Shape { key: key.len(), value: value.len(), create_revision, mod_revision, version, lease };
                let kv = KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease };
                let answer = pb::RangeResponse { kvs: vec![kv], ..Default::default() };
                assert_eq!(field_len(&shape), answer.encoded_len());
            }
        }
    }
}
