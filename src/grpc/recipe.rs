//! What Lock and Election share: etcd serves both through a client of its own inside the member, and so do we: keys
//! `name/<lease in hex>`, ordered by their create revisions; who comes first holds the lock or leads, others wait for those before them.

use super::lease;
use crate::server::{Error, Server};
use crate::watch::{Create, Hub, Response, WatchStream, stream};
use bytes::Bytes;
use rusd_storage::KeyValue;
use rusd_storage::command::{
    Compare, DeleteRange, Operation, Put, Range, Response as Applied, SortOrder, SortTarget, Txn, compare, operation, proposal,
};
use rusd_storage::mvcc::RangeResult;
use std::sync::Arc;
use tonic::Status;

/// TTL of a session that the server makes for a client without a lease.
const SESSION_TTL_SECS: i64 = 60;

/// The inner client.
#[derive(Clone)]
pub struct Recipe {
    /// The member.
    pub server: Arc<Server>,
    /// For waiting.
    pub hub: Arc<Hub>,
}

/// What the wire sees of an inner client's error: its text, without its code.
pub fn inner(error: Error) -> Status {
    Status::unknown(Status::from(error).message())
}

/// First key beyond all that begin with `prefix`; a single zero byte if there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// `name/`.
pub fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// `name/<lease>`, as Go prints a signed number in hex.
pub fn member_key(name: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [name, b"/", format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// A range operation.
pub fn get(key: &Bytes) -> Operation {
    let range = Range { key: key.clone(), ..Range::default() };
    Operation { operation: Some(operation::Operation::Range(range)) }
}

/// A put operation.
pub fn put(key: &Bytes, value: Bytes, lease: i64) -> Operation {
    let put = Put { key: key.clone(), value, lease, ..Put::default() };
    Operation { operation: Some(operation::Operation::Put(put)) }
}

/// A delete operation.
pub fn delete(key: &Bytes) -> Operation {
    let delete = DeleteRange { key: key.clone(), ..DeleteRange::default() };
    Operation { operation: Some(operation::Operation::DeleteRange(delete)) }
}

/// The oldest key of a prefix.
pub fn first_created(prefix: &Bytes) -> Range {
    Range {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..Range::default()
    }
}

/// An applied txn.
pub struct Done {
    /// Header revision.
    pub revision: i64,
    /// Whether the key had the create revision asked for.
    pub succeeded: bool,
    /// First key of each range among the responses.
    pub found: Vec<Option<KeyValue>>,
}

impl Recipe {
    /// If `key` was created at `revision` (0: does not exist) `success`, else `failure`.
    pub async fn if_created(&self, key: &Bytes, revision: i64, success: Vec<Operation>, failure: Vec<Operation>) -> Result<Done, Error> {
        let test = Compare {
            result: compare::Result::Equal as i32,
            key: key.clone(),
            target: Some(compare::Target::CreateRevision(revision)),
            ..Compare::default()
        };
        let txn = Txn { compare: vec![test], success, failure };
        match self.server.propose.submit(proposal::Command::Txn(txn)).await? {
            Applied::Txn { revision, succeeded, responses } => {
                let found = responses.into_iter().filter_map(|response| match response {
                    Applied::Range(range) => Some(range.kvs.into_iter().next()),
                    _ => None,
                });
                Ok(Done { revision, succeeded, found: found.collect() })
            }
            other => Ok(Done { revision: lease::revision_of(&other), succeeded: false, found: Vec::new() }),
        }
    }

    /// Deletes a key, whether it is there or not; answers with the header revision.
    pub async fn delete(&self, key: &Bytes) -> Result<i64, Error> {
        let command = proposal::Command::DeleteRange(DeleteRange { key: key.clone(), ..DeleteRange::default() });
        Ok(lease::revision_of(&self.server.propose.submit(command).await?))
    }

    /// A linearizable read.
    pub async fn read(&self, range: &Range) -> Result<RangeResult, Error> {
        self.server.read.linearizable().await?;
        Ok(self.server.state.store().range(range)?)
    }

    /// The client's lease, or a new one of a minute.
    pub async fn session(&self, lease: i64) -> Result<i64, Error> {
        if lease != 0 {
            return Ok(lease);
        }
        Ok(lease::grant(&self.server, 0, SESSION_TTL_SECS).await?.1)
    }

    /// Waits until no key of the prefix is left that was created at `create_max` or earlier.
    pub async fn wait_deletes(&self, prefix: &Bytes, create_max: i64) -> Result<(), Status> {
        let last = Range { max_create_revision: create_max, sort_order: SortOrder::Descend as i32, ..first_created(prefix) };
        loop {
            // Below revision 1 nothing was created, and 0 would mean "no bound".
            if create_max <= 0 {
                return Ok(());
            }
            let found = self.read(&last).await.map_err(inner)?;
            let Some(kv) = found.kvs.first() else { return Ok(()) };
            let mut watch = self.watch(kv.key.clone(), Bytes::new(), found.revision);
            while !next(&mut watch).await?.events().iter().any(|event| event.record.tombstone) {}
        }
    }

    /// A watch of our own; `revision` 0 = from now on.
    pub fn watch(&self, key: Bytes, range_end: Bytes, revision: i64) -> WatchStream {
        let options = stream::Options { progress_interval: std::time::Duration::from_secs(600), fragment_bytes: usize::MAX };
        let mut watch = WatchStream::open(self.hub.clone(), options);
        watch.create(Create { key, range_end, start_revision: revision, ..Create::default() });
        watch
    }

    /// A watch of all keys with a prefix.
    pub fn watch_prefix(&self, prefix: &Bytes, revision: i64) -> WatchStream {
        self.watch(prefix.clone(), prefix_end(prefix), revision)
    }
}

/// The next response of an inner watch; its end is an error.
pub async fn next(watch: &mut WatchStream) -> Result<Response, Status> {
    loop {
        match watch.pop() {
            Some(response) if response.canceled && response.compact_revision != 0 => return Err(Status::unknown(stream::COMPACTED)),
            Some(response) if response.canceled => return Err(Status::unknown(response.cancel_reason)),
            Some(response) => return Ok(response),
            None => watch.wait().await,
        }
    }
}

/// Gives a key back if its owner goes away while it waits.
pub struct Waiting {
    recipe: Recipe,
    key: Option<Bytes>,
    created: i64,
}

impl Waiting {
    /// For a key of ours that was created at this revision.
    pub fn new(recipe: &Recipe, key: &Bytes, created: i64) -> Self {
        Self { recipe: recipe.clone(), key: Some(key.clone()), created }
    }

    /// The wait was worth it: the key stays.
    pub fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let (recipe, created) = (self.recipe.clone(), self.created);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Bounded by one proposal; should it fail, the lease ends the key.
            runtime.spawn(async move { recipe.if_created(&key, created, vec![delete(&key)], Vec::new()).await.map(drop) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_gos() {
        assert_eq!(member_key(b"lock", 0x1234_abcd), Bytes::from_static(b"lock/1234abcd"));
        assert_eq!(member_key(b"lock", -31), Bytes::from_static(b"lock/-1f"));
        assert_eq!(prefix_end(b"a/"), Bytes::from_static(b"a0"));
        assert_eq!(prefix_end(b"\xff\xff"), Bytes::from_static(b"\0"));
        assert_eq!(prefix_end(b"a\xff"), Bytes::from_static(b"b"));
    }
}
