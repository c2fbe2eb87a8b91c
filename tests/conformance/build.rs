//! Short ways to write requests.

use rusd::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::etcdserverpb::request_op::Request;
use rusd::pb::etcdserverpb::*;

/// Reads one key.
pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_string().into(), ..Default::default() }
}

/// Reads [key, end).
pub fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { range_end: end.to_string().into(), ..get(key) }
}

/// Writes a key.
pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_string().into(), value: value.to_string().into(), ..Default::default() }
}

/// Deletes [key, end), or one key without an end.
pub fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_string().into(), range_end: end.to_string().into(), ..Default::default() }
}

/// Grants a chosen id.
pub fn grant(id: i64, ttl: i64) -> LeaseGrantRequest {
    LeaseGrantRequest { id, ttl }
}

/// Compacts.
pub fn compact(revision: i64) -> CompactionRequest {
    CompactionRequest { revision, physical: true }
}

/// What a txn does.
pub trait Op {
    fn op(self) -> RequestOp;
}

macro_rules! op {
    ($($request:ident => $variant:ident),*) => { $(
        impl Op for $request {
            fn op(self) -> RequestOp {
                RequestOp { request: Some(Request::$variant(self)) }
            }
        }
    )* };
}
op!(RangeRequest => RequestRange, PutRequest => RequestPut, DeleteRangeRequest => RequestDeleteRange, TxnRequest => RequestTxn);

/// A txn.
pub fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare, success, failure }
}

/// A txn without compares.
pub fn then(success: Vec<RequestOp>) -> TxnRequest {
    txn(Vec::new(), success, Vec::new())
}

/// A compare; the target is what the union holds.
pub fn compare(key: &str, result: CompareResult, union: TargetUnion) -> Compare {
    let target = match &union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key: key.to_string().into(),
        range_end: Default::default(),
        target_union: Some(union),
    }
}
