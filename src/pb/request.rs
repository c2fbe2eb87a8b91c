//! etcd's requests become commands: checked once, in etcd's order, moved without copying.
//!
//! The order decides which text a client sees when several things are wrong (contract b.4): the number of operations, the keys
//! of the compares, the operations of success and then of failure, depth first, and last the keys written twice.

use super::Refusal;
use super::etcdserverpb as pb;
use rusd_storage::command::{Compare, DeleteRange, Operation, Put, Range, Txn, compare, operation};
use rusd_storage::mvcc::in_range;
use std::collections::HashSet;

impl TryFrom<pb::RangeRequest> for Range {
    type Error = Refusal;

    /// `serializable` isn't part of the command: who asks decides how fresh the state must be.
    fn try_from(request: pb::RangeRequest) -> Result<Self, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
            return Err(Refusal::InvalidSortOption);
        }
        Ok(Self {
            key: request.key,
            range_end: request.range_end,
            limit: request.limit,
            revision: request.revision,
            sort_order: request.sort_order,
            sort_target: request.sort_target,
            keys_only: request.keys_only,
            count_only: request.count_only,
            min_mod_revision: request.min_mod_revision,
            max_mod_revision: request.max_mod_revision,
            min_create_revision: request.min_create_revision,
            max_create_revision: request.max_create_revision,
        })
    }
}

impl TryFrom<pb::PutRequest> for Put {
    type Error = Refusal;

    fn try_from(request: pb::PutRequest) -> Result<Self, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if request.ignore_value && !request.value.is_empty() {
            return Err(Refusal::ValueProvided);
        }
        if request.ignore_lease && request.lease != 0 {
            return Err(Refusal::LeaseProvided);
        }
        Ok(Self {
            key: request.key,
            value: request.value,
            lease: request.lease,
            prev_kv: request.prev_kv,
            ignore_value: request.ignore_value,
            ignore_lease: request.ignore_lease,
        })
    }
}

impl TryFrom<pb::DeleteRangeRequest> for DeleteRange {
    type Error = Refusal;

    fn try_from(request: pb::DeleteRangeRequest) -> Result<Self, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        Ok(Self { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv })
    }
}

/// A whole txn; `ops_max` is `--max-txn-ops`.
pub fn txn(request: pb::TxnRequest, ops_max: usize) -> Result<Txn, Refusal> {
    let txn = txn_of(request, ops_max)?;
    written_twice(&txn.success)?;
    written_twice(&txn.failure)?;
    Ok(txn)
}

/// One level: a nested txn may use what its parent's longest list leaves of the limit.
fn txn_of(request: pb::TxnRequest, ops_max: usize) -> Result<Txn, Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(ops_left) = ops_max.checked_sub(ops) else {
        return Err(Refusal::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    let branch = |ops: Vec<pb::RequestOp>| ops.into_iter().map(|op| operation_of(op, ops_left)).collect::<Result<Vec<_>, _>>();
    Ok(Txn {
        success: branch(request.success)?,
        failure: branch(request.failure)?,
        compare: request.compare.into_iter().map(compare_of).collect(),
    })
}

fn operation_of(op: pb::RequestOp, ops_max: usize) -> Result<Operation, Refusal> {
    use pb::request_op::Request;
    let operation = match op.request.ok_or(Refusal::EmptyOperation)? {
        Request::RequestRange(range) => operation::Operation::Range(range.try_into()?),
        Request::RequestPut(put) => operation::Operation::Put(put.try_into()?),
        Request::RequestDeleteRange(delete) => operation::Operation::DeleteRange(delete.try_into()?),
        Request::RequestTxn(txn) => operation::Operation::Txn(txn_of(txn, ops_max)?),
    };
    Ok(Operation { operation: Some(operation) })
}

/// The target says what is compared; a union that holds something else counts as zero, as Go's getters make it.
fn compare_of(request: pb::Compare) -> Compare {
    use pb::compare::{CompareTarget, TargetUnion};
    let target = match CompareTarget::try_from(request.target) {
        Ok(CompareTarget::Value) => compare::Target::Value(match request.target_union {
            Some(TargetUnion::Value(value)) => value,
            _ => Default::default(),
        }),
        Ok(CompareTarget::Version) => compare::Target::Version(match request.target_union {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => compare::Target::CreateRevision(match request.target_union {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => compare::Target::ModRevision(match request.target_union {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => compare::Target::Lease(match request.target_union {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        Err(_) => compare::Target::AlwaysEqual(true),
    };
    Compare { result: request.result, key: request.key, range_end: request.range_end, target: Some(target) }
}

/// What one branch writes, nested txns included.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Vec<&'a DeleteRange>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &[u8]) -> bool {
        // A delete up to the end of the key space is an empty interval to etcd, so it collides with nothing.
        self.deletes.iter().any(|delete| delete.range_end[..] != [0] && in_range(key, &delete.key, &delete.range_end))
    }
}

/// Refuses a key put twice, or put and deleted, in one branch. A nested txn's branches exclude each other, so both may put a key.
///
/// Deletes of this level are known first, then nested txns in order, then the puts of this level: a nested delete collides with
/// puts of later siblings and of this level, not with puts of earlier siblings.
fn written_twice(operations: &[Operation]) -> Result<Writes<'_>, Refusal> {
    use operation::Operation::{DeleteRange, Put, Txn};
    // One operation that isn't a txn can't collide with anything; the caller at the top doesn't look at the result.
    let mut writes = Writes::default();
    let each = || operations.iter().filter_map(|operation| operation.operation.as_ref());
    writes.deletes.extend(each().filter_map(|operation| match operation {
        DeleteRange(delete) => Some(delete),
        _ => None,
    }));
    for operation in each() {
        let Txn(txn) = operation else { continue };
        let (success, failure) = (written_twice(&txn.success)?, written_twice(&txn.failure)?);
        for key in &success.puts {
            if writes.puts.contains(key) || writes.deletes(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        for key in &failure.puts {
            if writes.puts.contains(key) || writes.deletes(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        writes.puts.extend(success.puts);
        writes.puts.extend(failure.puts);
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for operation in each() {
        let Put(put) = operation else { continue };
        if writes.deletes(&put.key) || !writes.puts.insert(&put.key) {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pb::request_op::Request;

    fn put(key: &'static str) -> pb::RequestOp {
        op(Request::RequestPut(pb::PutRequest { key: Bytes::from(key), ..Default::default() }))
    }
    fn delete(key: &'static str, end: &'static str) -> pb::RequestOp {
        let request = pb::DeleteRangeRequest { key: Bytes::from(key), range_end: Bytes::from(end), ..Default::default() };
        op(Request::RequestDeleteRange(request))
    }
    fn get(key: &'static str) -> pb::RequestOp {
        op(Request::RequestRange(pb::RangeRequest { key: Bytes::from(key), ..Default::default() }))
    }
    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        op(Request::RequestTxn(pb::TxnRequest { compare: vec![], success, failure }))
    }
    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }
    fn check(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> Result<(), Refusal> {
        txn(pb::TxnRequest { compare: vec![], success, failure }, 128).map(|_| ())
    }

    #[test]
    fn single_requests_are_refused_as_by_etcd() {
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert!(Range::try_from(range.clone()).is_ok());
        assert_eq!(Range::try_from(pb::RangeRequest::default()), Err(Refusal::EmptyKey));
        assert_eq!(Range::try_from(pb::RangeRequest { sort_order: 3, ..range.clone() }), Err(Refusal::InvalidSortOption));
        assert_eq!(Range::try_from(pb::RangeRequest { sort_target: -1, ..range }), Err(Refusal::InvalidSortOption));

        let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
        assert!(Put::try_from(put.clone()).is_ok());
        assert_eq!(Put::try_from(pb::PutRequest { key: "".into(), ignore_value: true, ..put.clone() }), Err(Refusal::EmptyKey));
        let both = pb::PutRequest { ignore_value: true, ignore_lease: true, ..put.clone() };
        assert_eq!(Put::try_from(both), Err(Refusal::ValueProvided), "the value is looked at first");
        assert_eq!(Put::try_from(pb::PutRequest { ignore_lease: true, ..put }), Err(Refusal::LeaseProvided));
        assert_eq!(DeleteRange::try_from(pb::DeleteRangeRequest::default()), Err(Refusal::EmptyKey));
    }

    #[test]
    fn a_txn_may_hold_so_many_operations() {
        let gets = |n| (0..n).map(|_| get("k")).collect::<Vec<_>>();
        assert_eq!(check(gets(128), gets(128)), Ok(()));
        assert_eq!(check(gets(129), vec![]), Err(Refusal::TooManyOps));
        let compares = vec![pb::Compare { key: "k".into(), ..Default::default() }; 129];
        let request = pb::TxnRequest { compare: compares, success: vec![], failure: vec![] };
        assert_eq!(txn(request, 128), Err(Refusal::TooManyOps));
        // What the outer level uses is gone for the inner one.
        let outer = |inner| [gets(99), vec![nested(gets(inner), vec![])]].concat();
        assert_eq!(check(outer(28), vec![]), Ok(()));
        assert_eq!(check(outer(29), vec![]), Err(Refusal::TooManyOps));
    }

    #[test]
    fn the_first_of_several_faults_is_named() {
        let empty_compare = vec![pb::Compare::default()];
        let request = |compare, success, failure| txn(pb::TxnRequest { compare, success, failure }, 2).map(|_| ());
        assert_eq!(request(empty_compare.clone(), vec![put("a"), put("a"), put("a")], vec![]), Err(Refusal::TooManyOps));
        assert_eq!(request(empty_compare, vec![pb::RequestOp { request: None }], vec![]), Err(Refusal::EmptyKey));
        assert_eq!(request(vec![], vec![pb::RequestOp { request: None }], vec![put("")]), Err(Refusal::EmptyOperation));
        assert_eq!(request(vec![], vec![put("a"), put("a")], vec![put("")]), Err(Refusal::EmptyKey), "duplicates come last");
        assert_eq!(request(vec![], vec![nested(vec![put("")], vec![])], vec![pb::RequestOp { request: None }]), Err(Refusal::EmptyKey));
    }

    #[test]
    fn keys_written_twice() {
        let duplicate = Err(Refusal::DuplicateKey);
        let table: Vec<(&str, Vec<pb::RequestOp>, Result<(), Refusal>)> = vec![
            ("put put", vec![put("a"), put("a")], duplicate),
            ("two keys", vec![put("a"), put("b")], Ok(())),
            ("put delete", vec![put("a"), delete("a", "")], duplicate),
            ("delete put", vec![delete("a", ""), put("a")], duplicate),
            ("put in a range", vec![put("b"), delete("a", "c")], duplicate),
            ("the end is outside", vec![put("c"), delete("a", "c")], Ok(())),
            ("overlapping deletes", vec![delete("a", "c"), delete("b", "d")], Ok(())),
            ("delete to the end collides with nothing", vec![put("k"), delete("k", "\0")], Ok(())),
            ("nested put, outer put", vec![put("a"), nested(vec![put("a")], vec![])], duplicate),
            ("both nested branches", vec![nested(vec![put("a")], vec![put("a")])], Ok(())),
            ("nested put against nested delete of the other branch", vec![nested(vec![put("a")], vec![delete("a", "")])], Ok(())),
            ("nested delete, outer put", vec![nested(vec![], vec![delete("a", "")]), put("a")], duplicate),
            ("outer delete, nested put", vec![delete("a", ""), nested(vec![put("a")], vec![])], duplicate),
            ("two nested puts", vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])], duplicate),
            ("nested delete, later sibling's put", vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])], duplicate),
            ("nested put, later sibling's delete", vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])], Ok(())),
        ];
        for (name, operations, want) in table {
            assert_eq!(check(operations.clone(), vec![]), want, "{name}, success");
            assert_eq!(check(vec![], operations), want, "{name}, failure");
        }
        assert_eq!(check(vec![put("a")], vec![put("a")]), Ok(()), "then and else exclude each other");
    }

    #[test]
    fn compares_take_what_their_target_names() {
        use pb::compare::TargetUnion;
        let target = |target, union| {
            compare_of(pb::Compare { key: "k".into(), target, target_union: union, ..Default::default() }).target.expect("always set")
        };
        assert_eq!(target(0, Some(TargetUnion::Version(3))), compare::Target::Version(3));
        assert_eq!(target(1, Some(TargetUnion::CreateRevision(3))), compare::Target::CreateRevision(3));
        assert_eq!(target(2, None), compare::Target::ModRevision(0));
        assert_eq!(target(3, Some(TargetUnion::Version(3))), compare::Target::Value(Bytes::new()));
        assert_eq!(target(4, Some(TargetUnion::Lease(3))), compare::Target::Lease(3));
        assert_eq!(target(9, Some(TargetUnion::Lease(3))), compare::Target::AlwaysEqual(true));
    }
}
