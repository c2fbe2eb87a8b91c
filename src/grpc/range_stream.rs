//! RangeStream: a range of any size in bounded memory (contract a.2).
//!
//! Every message is read when the one before has been taken: the stream holds one chunk. All chunks are of one revision. A first
//! chunk of 10 keys tells how large keys are here; then the number doubles or halves towards the size of a request.
//!
//! A target without an order sorts every message by itself, as etcd's does, but here no key gets lost by it.
//!
//! The last message alone has header, `more` and `count`; etcd's clients put the pieces together so. As in a Range, `count` is of the
//! whole range, whatever the limit.

use super::{Api, blocking, kv};
use crate::pb::etcdserverpb as pb;
use crate::server::Error;
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use prost::Message as _;
use rusd_storage::KeyValue;
use rusd_storage::command::Range;
use rusd_storage::mvcc::Store;
use std::pin::Pin;
use std::sync::Arc;
use tonic::Status;

const FIRST_CHUNK_KEYS: usize = 10;
/// Chunks of more keys are read off the async threads.
const INLINE_CHUNK_KEYS: usize = 500;

/// Messages of one RangeStream.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

/// Refuses what etcd's RangeStream can't do.
pub fn check(range: &Range) -> Result<(), Status> {
    if kv::is_sorted(range) {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    if kv::is_filtered(range) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// How far a stream is.
struct Progress {
    api: Api,
    store: Arc<Store>,
    /// What is left; its revision is fixed by the first chunk.
    rest: Range,
    chunk_keys: usize,
    /// Keys to send at most.
    limit: i64,
    sent: i64,
    /// Store revision and number of keys, known with the first chunk.
    start: Option<(i64, i64)>,
}

/// The stream of `range`; reads nothing before it is polled.
pub fn chunks(api: Api, range: Range) -> Chunks {
    let store = api.server.state.store();
    let limit = if range.limit > 0 { range.limit } else { i64::MAX };
    let rest = Range { limit: 0, ..range };
    let progress = Progress { api, store, rest, chunk_keys: FIRST_CHUNK_KEYS, limit, sent: 0, start: None };
    Box::pin(futures::stream::try_unfold(Some(progress), |progress| async {
        match progress {
            Some(progress) => Ok(Some(progress.next().await?)),
            None => Ok(None),
        }
    }))
}

impl Progress {
    /// The next message, and what comes after it, if anything.
    async fn next(mut self) -> Result<(pb::RangeStreamResponse, Option<Self>), Status> {
        let (revision, count, kvs) = self.read().await?;
        let (start, count) = *self.start.get_or_insert((revision, count));
        if self.rest.revision <= 0 {
            self.rest.revision = start;
        }
        self.sent += kvs.len() as i64;
        let last = kvs.is_empty() || self.sent >= count.min(self.limit);
        if let Some(last) = kvs.iter().map(|kv| &kv.key).max() {
            self.rest.key = successor(last);
        }
        let mut chunk = pb::RangeResponse { kvs: kvs.into_iter().map(Into::into).collect(), ..Default::default() };
        if last {
            chunk.header = self.api.header(start);
            chunk.count = count;
            chunk.more = !self.rest.count_only && self.sent < count;
            return Ok((pb::RangeStreamResponse { range_response: Some(chunk) }, None));
        }
        self.chunk_keys = resized(self.chunk_keys, chunk.encoded_len(), self.api.server.config.max_request_bytes);
        Ok((pb::RangeStreamResponse { range_response: Some(chunk) }, Some(self)))
    }

    /// Store revision, keys in the rest of the range, and the next of them.
    async fn read(&self) -> Result<(i64, i64, Vec<KeyValue>), Status> {
        let left = usize::try_from(self.limit - self.sent).unwrap_or(usize::MAX);
        let keys = self.chunk_keys.min(left);
        if keys <= INLINE_CHUNK_KEYS {
            return Ok(read(&self.store, &self.rest, keys)?);
        }
        let (store, rest) = (self.store.clone(), self.rest.clone());
        blocking(move || read(&store, &rest, keys)).await
    }
}

fn read(store: &Store, range: &Range, keys: usize) -> Result<(i64, i64, Vec<KeyValue>), Error> {
    if range.count_only {
        let result = store.range(range)?;
        return Ok((result.revision, result.count, Vec::new()));
    }
    let mut cursor = store.cursor(range)?;
    Ok((cursor.revision(), cursor.count(), cursor.next(keys)?))
}

/// The smallest key above `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Twice as many keys after a small chunk, half as many after a huge one.
pub(super) fn resized(keys: usize, bytes: usize, request_bytes_max: usize) -> usize {
    if bytes < request_bytes_max / 2 {
        keys.saturating_mul(2)
    } else if bytes > request_bytes_max.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_approach_the_size_of_a_request() {
        assert_eq!(resized(10, 499, 1000), 20);
        assert_eq!(resized(10, 500, 1000), 10);
        assert_eq!(resized(10, 2000, 1000), 10);
        assert_eq!(resized(10, 2001, 1000), 5);
        assert_eq!(resized(1, 2001, 1000), 1);
    }

    #[test]
    fn sorts_and_filters_are_refused() {
        let range = Range { key: "k".into(), range_end: "l".into(), ..Default::default() };
        assert!(check(&range).is_ok());
        assert!(check(&Range { sort_order: 1, ..range.clone() }).is_ok(), "ascending keys are the natural order");
        assert!(check(&Range { sort_target: 3, ..range.clone() }).is_ok(), "a target without an order is no sort");
        let status = check(&Range { sort_order: 2, ..range.clone() }).expect_err("descending");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, "RangeStream does not support custom sort orders"));
        let status = check(&Range { min_mod_revision: 5, ..range }).expect_err("filtered");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, "RangeStream does not support revision filters"));
    }
}
