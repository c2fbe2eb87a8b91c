//! Transactions, exactly as etcd's (contract b.4): compares of nested txns are evaluated up front on the state before; everything that may
//! be refused on the chosen path is checked before anything is written.

use super::kv::{delete_in, deleted_response, put_in};
use super::{Rooms, holds};
use crate::command::{ApplyResult, Compare, Operation, Put, Range, Response, Txn, operation};
use crate::error::{Rejection, StorageError};
use crate::measure::Tally;
use crate::mvcc::{ReadError, WriteTxn, in_range};

/// Which branch runs, at every level, in order of the nested txns of that branch.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

fn branch<'t>(txn: &'t Txn, path: &Path) -> &'t [Operation] {
    if path.succeeded { &txn.success } else { &txn.failure }
}

/// Key ranges that earlier operations of the txn delete.
type Deleted<'t> = Vec<(&'t [u8], &'t [u8])>;

/// Whether any branch may put.
pub fn has_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.operation {
        Some(operation::Operation::Put(_)) => true,
        Some(operation::Operation::Txn(nested)) => has_put(nested),
        _ => false,
    })
}

/// A txn.
pub fn txn(rooms: &Rooms, txn: &Txn) -> Result<ApplyResult, StorageError> {
    let mut write = rooms.store.write();
    let mut compared = Tally::default();
    let path = choose(&write, txn, &mut compared);
    rooms.log.measures().keys.add(compared);
    let path = path?;
    if let Err(rejection) = check(rooms, &write, txn, &path, &mut Deleted::new())? {
        return Ok(Err(rejection));
    }
    let responses = match run(rooms, &mut write, txn, &path) {
        Ok(responses) => responses,
        Err(ReadError::Storage(error)) => return Err(error),
        // Everything refusable was checked before: a half-done txn must not be published.
        Err(ReadError::Rejected(rejection)) => return Err(StorageError::Closed(format!("a checked txn was refused: {rejection}"))),
    };
    Ok(Ok(Response::Txn { revision: write.publish(), succeeded: path.succeeded, responses }))
}

fn choose(write: &WriteTxn<'_>, txn: &Txn, compared: &mut Tally) -> Result<Path, StorageError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !succeeded {
            break;
        }
        compared.ranges += 1;
        succeeded = compares(write, compare)?;
    }
    let mut path = Path { succeeded, nested: Vec::new() };
    for op in branch(txn, &path) {
        if let Some(operation::Operation::Txn(nested)) = &op.operation {
            path.nested.push(choose(write, nested, compared)?);
        }
    }
    Ok(path)
}

fn compares(write: &WriteTxn<'_>, compare: &Compare) -> Result<bool, StorageError> {
    write.all(&compare.key, &compare.range_end, &mut |kv| holds(compare, kv))
}

fn check<'t>(
    rooms: &Rooms,
    write: &WriteTxn<'_>,
    txn: &'t Txn,
    path: &Path,
    deleted: &mut Deleted<'t>,
) -> Result<Result<(), Rejection>, StorageError> {
    let mut nested = path.nested.iter();
    for op in branch(txn, path) {
        let checked = match &op.operation {
            Some(operation::Operation::Range(range)) => check_range(rooms, range),
            Some(operation::Operation::Put(put)) => check_put(rooms, write, put, deleted)?,
            Some(operation::Operation::DeleteRange(delete)) => {
                deleted.push((&delete.key, &delete.range_end));
                Ok(())
            }
            Some(operation::Operation::Txn(inner)) => check(rooms, write, inner, nested.next().expect("one path per nested txn"), deleted)?,
            None => Ok(()),
        };
        if checked.is_err() {
            return Ok(checked);
        }
    }
    Ok(Ok(()))
}

fn check_range(rooms: &Rooms, range: &Range) -> Result<(), Rejection> {
    if range.revision > rooms.store.revision() {
        return Err(Rejection::FutureRevision);
    }
    if range.revision != 0 && range.revision < rooms.store.compact_revision() {
        return Err(Rejection::Compacted);
    }
    Ok(())
}

/// The lease first, as for a put of its own. What to keep must be there when the put runs: not deleted by an operation before it.
fn check_put(rooms: &Rooms, write: &WriteTxn<'_>, put: &Put, deleted: &Deleted<'_>) -> Result<Result<(), Rejection>, StorageError> {
    if put.lease != 0 && !rooms.lessor.read().contains(put.lease) {
        return Ok(Err(Rejection::LeaseNotFound));
    }
    if put.ignore_value || put.ignore_lease {
        let gone = deleted.iter().any(|(start, end)| in_range(&put.key, start, end));
        if gone || write.get(&put.key)?.is_none() {
            return Ok(Err(Rejection::KeyNotFound));
        }
    }
    Ok(Ok(()))
}

fn run(rooms: &Rooms, write: &mut WriteTxn<'_>, txn: &Txn, path: &Path) -> Result<Vec<Response>, ReadError> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(branch(txn, path).len());
    for op in branch(txn, path) {
        let response = match &op.operation {
            Some(operation::Operation::Range(range)) => Response::Range(write.range(range)?),
            Some(operation::Operation::Put(put)) => {
                let previous = put_in(rooms, write, put)??;
                Response::Put { revision: write.revision(), prev_kv: previous.and_then(|previous| previous.kv) }
            }
            Some(operation::Operation::DeleteRange(delete)) => {
                let deleted = delete_in(rooms, write, delete)?;
                let revision = if write.changed() { write.revision() } else { write.revision() - 1 };
                deleted_response(revision, deleted)
            }
            Some(operation::Operation::Txn(inner)) => {
                let path = nested.next().expect("one path per nested txn");
                let responses = run(rooms, write, inner, path)?;
                Response::Txn { revision: 0, succeeded: path.succeeded, responses }
            }
            None => return Err(ReadError::Rejected(Rejection::KeyNotFound)),
        };
        responses.push(response);
    }
    Ok(responses)
}
