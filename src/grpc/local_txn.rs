//! Txns that only read are answered from this member's state, without a log entry (contract b.4).
//!
//! All compares and ranges are of one revision, taken at the start. A compaction beyond it meanwhile starts the txn again.

use super::{Api, blocking, kv};
use crate::server::Error;
use rusd_storage::command::{Compare, Operation, Range, Response, Txn, compare, operation};
use rusd_storage::mvcc::Store;
use rusd_storage::{KeyValue, Rejection};
use std::cmp::Ordering;
use tonic::Status;

impl Api {
    /// Answers a txn whose operations are all ranges.
    pub(super) async fn local_txn(&self, txn: Txn) -> Result<Response, Status> {
        let store = self.server.state.store();
        let small = txn.compare.iter().all(|compare| compare.range_end.is_empty()) && ranges_are_small(&store, &txn)?;
        if small { Ok(run(&store, &txn)?) } else { blocking(move || run(&store, &txn)).await }
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

fn run(store: &Store, txn: &Txn) -> Result<Response, Error> {
    loop {
        let revision = store.revision();
        match run_at(store, txn, revision) {
            Err(Error::Rejected(Rejection::Compacted)) if store.compact_revision() > revision => continue,
            answer => return answer,
        }
    }
}

fn run_at(store: &Store, txn: &Txn, revision: i64) -> Result<Response, Error> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(store, compare, revision)? {
            succeeded = false;
            break;
        }
    }
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for range in ranges(branch) {
        let range = Range { revision: read_revision(store, range.revision, revision)?, ..range.clone() };
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

fn holds(store: &Store, compare: &Compare, revision: i64) -> Result<bool, Error> {
    let range = Range { key: compare.key.clone(), range_end: compare.range_end.clone(), revision, ..Default::default() };
    let result = store.range(&range)?;
    Ok(if result.kvs.is_empty() { is_true(compare, None) } else { result.kvs.iter().all(|kv| is_true(compare, Some(kv))) })
}

/// One compare of one key; a missing key has zeros everywhere, but compares to no value.
fn is_true(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    use compare::{Result as Op, Target};
    let number = |of: fn(&KeyValue) -> i64, with: &i64| kv.map_or(0, of).cmp(with);
    let ordering = match &compare.target {
        Some(Target::Version(version)) => number(|kv| kv.version, version),
        Some(Target::CreateRevision(revision)) => number(|kv| kv.create_revision, revision),
        Some(Target::ModRevision(revision)) => number(|kv| kv.mod_revision, revision),
        Some(Target::Lease(lease)) => number(|kv| kv.lease, lease),
        Some(Target::Value(value)) => match kv {
            Some(kv) => kv.value.cmp(value),
            None => return false,
        },
        Some(Target::AlwaysEqual(_)) | None => Ordering::Equal,
    };
    match Op::try_from(compare.result) {
        Ok(Op::Equal) => ordering.is_eq(),
        Ok(Op::Greater) => ordering.is_gt(),
        Ok(Op::Less) => ordering.is_lt(),
        Ok(Op::NotEqual) => ordering.is_ne(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compare::{Result as Op, Target};

    #[test]
    fn a_missing_key_is_all_zeros_but_has_no_value() {
        let compare = |result: i32, target| is_true(&Compare { result, target: Some(target), ..Default::default() }, None);
        assert!(compare(Op::Equal as i32, Target::Version(0)));
        assert!(compare(Op::Less as i32, Target::CreateRevision(1)));
        assert!(!compare(Op::Equal as i32, Target::Value("".into())));
        assert!(!compare(Op::NotEqual as i32, Target::Value("x".into())));
        assert!(compare(9, Target::Version(7)), "an unknown operator is true");
        assert!(!compare(9, Target::Value("x".into())), "but not for the value of a missing key");
        assert!(compare(Op::Equal as i32, Target::AlwaysEqual(true)));
        assert!(!compare(Op::Greater as i32, Target::AlwaysEqual(true)));
    }

    #[test]
    fn a_key_is_compared_by_what_it_has() {
        let kv = KeyValue { version: 2, create_revision: 3, mod_revision: 5, lease: 7, value: "v".into(), ..Default::default() };
        let compare = |op: Op, target| is_true(&Compare { result: op as i32, target: Some(target), ..Default::default() }, Some(&kv));
        assert!(compare(Op::Equal, Target::Version(2)));
        assert!(compare(Op::Greater, Target::CreateRevision(2)));
        assert!(compare(Op::Less, Target::ModRevision(6)));
        assert!(compare(Op::NotEqual, Target::Lease(8)));
        assert!(compare(Op::Greater, Target::Value("u".into())));
        assert!(!compare(Op::Equal, Target::Value("w".into())));
    }
}
