//! Txns that only read are answered from this member's state, without a log entry (contract b.4).
//!
//! All compares and ranges are of one revision, taken at the start. A compaction beyond it meanwhile starts the txn again.

use super::{Api, blocking, kv};
use crate::server::Error;
use rusd_storage::Rejection;
use rusd_storage::apply::holds;
use rusd_storage::command::{Compare, Operation, Range, Response, Txn, operation};
use rusd_storage::measure::Tally;
use rusd_storage::mvcc::Store;
use tonic::Status;

impl Api {
    /// Answers a txn whose operations are all ranges.
    pub(super) async fn local_txn(&self, txn: Txn) -> Result<Response, Status> {
        let store = self.server.state.store();
        let small = txn.compare.iter().all(|compare| compare.range_end.is_empty()) && ranges_are_small(&store, &txn)?;
        let measures = self.server.measures.clone();
        let answer = move || {
            let mut tally = Tally::default();
            let answer = run(&store, &txn, &mut tally);
            measures.keys.add(tally);
            answer
        };
        if small { Ok(answer()?) } else { blocking(answer).await }
    }
}

fn ranges(operations: &[Operation]) -> impl Iterator<Item = &Range> {
    operations.iter().filter_map(|operation| match &operation.operation {
        Some(operation::Operation::Range(range)) => Some(range),
        _ => None,
    })
}

fn ranges_are_small(store: &Store, txn: &Txn) -> Result<bool, Error> {
    for range in ranges(&txn.success).chain(ranges(&txn.failure)) {
        // A range of the branch not taken may ask for an impossible revision; that is found out below, if it matters.
        if !kv::is_small(store, &Range { revision: 0, ..range.clone() })? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run(store: &Store, txn: &Txn, tally: &mut Tally) -> Result<Response, Error> {
    loop {
        let revision = store.revision();
        match run_at(store, txn, revision, tally) {
            Err(Error::Rejected(Rejection::Compacted)) if store.compact_revision() > revision => continue,
            answer => return answer,
        }
    }
}

fn run_at(store: &Store, txn: &Txn, revision: i64, tally: &mut Tally) -> Result<Response, Error> {
    let mut succeeded = true;
    for compare in &txn.compare {
        tally.ranges += 1;
        if !compares(store, compare, revision)? {
            succeeded = false;
            break;
        }
    }
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for range in ranges(branch) {
        let range = Range { revision: read_revision(store, range.revision, revision)?, ..range.clone() };
        tally.ranges += 1;
        let mut result = store.range(&range)?;
        result.revision = revision;
        responses.push(Response::Range(result));
    }
    Ok(Response::Txn { revision, succeeded, responses })
}

/// The revision a range inside a txn reads at: `asked`, or the txn's. A negative one is looked at, unlike outside of txns.
fn read_revision(store: &Store, asked: i64, revision: i64) -> Result<i64, Rejection> {
    match asked {
        0 => Ok(revision),
        _ if asked > revision => Err(Rejection::FutureRevision),
        _ if asked < store.compact_revision() => Err(Rejection::Compacted),
        _ if asked < 0 => Ok(revision),
        _ => Ok(asked),
    }
}

fn compares(store: &Store, compare: &Compare, revision: i64) -> Result<bool, Error> {
    let range = Range { key: compare.key.clone(), range_end: compare.range_end.clone(), revision, ..Default::default() };
    let result = store.range(&range)?;
    Ok(if result.kvs.is_empty() { holds(compare, None) } else { result.kvs.iter().all(|kv| holds(compare, Some(kv))) })
}
