//! Put, delete, compact.

use super::{Rooms, empty};
use crate::command::state::delta;
use crate::command::{ApplyResult, DeleteRange, Put, Response};
use crate::error::{Rejection, StorageError};
use crate::mvcc::WriteTxn;
use crate::types::KeyValue;

/// A put of its own.
pub fn put(rooms: &Rooms, put: &Put) -> Result<ApplyResult, StorageError> {
    let mut write = rooms.store.write();
    let previous = match put_in(rooms, &mut write, put)? {
        Ok(previous) => previous,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let prev_kv = previous.filter(|_| put.prev_kv);
    Ok(Ok(Response::Put { revision: write.publish(), prev_kv }))
}

/// A put inside an entry; keeps the lessor's attachments.
pub fn put_in(rooms: &Rooms, write: &mut WriteTxn<'_>, put: &Put) -> Result<Result<Option<KeyValue>, Rejection>, StorageError> {
    if put.lease != 0 && !rooms.lessor.read().contains(put.lease) {
        return Ok(Err(Rejection::LeaseNotFound));
    }
    let previous = match write.put(put)? {
        Ok(previous) => previous,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let before = previous.as_ref().map_or(0, |kv| kv.lease);
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
    Ok(Ok(deleted_response(revision, delete, deleted)))
}

/// A delete inside an entry.
pub fn delete_in(rooms: &Rooms, write: &mut WriteTxn<'_>, delete: &DeleteRange) -> Result<Vec<KeyValue>, StorageError> {
    let deleted = write.delete_range(delete)?;
    if deleted.iter().any(|kv| kv.lease != 0) {
        let mut lessor = rooms.lessor.write();
        deleted.iter().for_each(|kv| lessor.detach(kv.lease, &kv.key));
    }
    Ok(deleted)
}

/// What a delete answers.
pub fn deleted_response(revision: i64, delete: &DeleteRange, deleted: Vec<KeyValue>) -> Response {
    let count = i64::try_from(deleted.len()).expect("keys fit in memory");
    Response::DeleteRange { revision, deleted: count, prev_kvs: if delete.prev_kv { deleted } else { Vec::new() } }
}

/// Logical compaction.
pub fn compact(rooms: &Rooms, revision: i64) -> ApplyResult {
    rooms.store.compact(revision)?;
    rooms.delta(delta::Delta::CompactRevision(revision));
    Ok(empty(rooms))
}
