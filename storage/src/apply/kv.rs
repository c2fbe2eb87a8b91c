//! Put, delete, compact.

use super::{Rooms, empty};
use crate::command::state::delta;
use crate::command::{ApplyResult, DeleteRange, Put, Response};
use crate::error::{Rejection, StorageError};
use crate::mvcc::{Deleted, Replaced, WriteTxn};

/// A put of its own.
pub fn put(rooms: &Rooms, put: &Put) -> Result<ApplyResult, StorageError> {
    let mut write = rooms.store.write();
    let previous = match put_in(rooms, &mut write, put)? {
        Ok(previous) => previous,
        Err(rejection) => return Ok(Err(rejection)),
    };
    Ok(Ok(Response::Put { revision: write.publish(), prev_kv: previous.and_then(|previous| previous.kv) }))
}

/// A put inside an entry; keeps the lessor's attachments.
pub fn put_in(rooms: &Rooms, write: &mut WriteTxn<'_>, put: &Put) -> Result<Result<Option<Replaced>, Rejection>, StorageError> {
    if put.lease != 0 && !rooms.lessor.read().contains(put.lease) {
        return Ok(Err(Rejection::LeaseNotFound));
    }
    let previous = match write.put(put)? {
        Ok(previous) => previous,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let before = previous.as_ref().map_or(0, |previous| previous.lease);
    let after = if put.ignore_lease { before } else { put.lease };
    if before != after {
        let mut lessor = rooms.lessor.write();
        lessor.detach(before, &put.key);
        lessor.attach(after, put.key.to_vec().into());
    }
    Ok(Ok(previous))
}

/// A delete of its own.
pub fn delete_range(rooms: &Rooms, delete: &DeleteRange) -> Result<ApplyResult, StorageError> {
    let mut write = rooms.store.write();
    let deleted = delete_in(rooms, &mut write, delete)?;
    let revision = write.publish();
    Ok(Ok(deleted_response(revision, deleted)))
}

/// A delete inside an entry.
pub fn delete_in(rooms: &Rooms, write: &mut WriteTxn<'_>, delete: &DeleteRange) -> Result<Deleted, StorageError> {
    let deleted = write.delete_range(delete)?;
    if !deleted.leased.is_empty() {
        let mut lessor = rooms.lessor.write();
        deleted.leased.iter().for_each(|(lease, key)| lessor.detach(*lease, key));
    }
    Ok(deleted)
}

/// What a delete answers.
pub fn deleted_response(revision: i64, deleted: Deleted) -> Response {
    let count = i64::try_from(deleted.count).expect("keys fit in memory");
    Response::DeleteRange { revision, deleted: count, prev_kvs: deleted.kvs }
}

/// Logical compaction.
pub fn compact(rooms: &Rooms, revision: i64) -> ApplyResult {
    rooms.store.compact(revision)?;
    rooms.delta(delta::Delta::CompactRevision(revision));
    Ok(empty(rooms))
}
