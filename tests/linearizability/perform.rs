//! From a call to the wire and back to an answer.

use crate::history::{Answer, Call, Compare, Done, Op, Version};
use rusd::pb::etcdserverpb::kv_client::KvClient;
use rusd::pb::etcdserverpb::{
    self as pb, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op, response_op,
};
use rusd::pb::mvccpb::KeyValue;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Asks a member; a failure is an answer, too. Panics on an answer that no etcd gives.
pub async fn perform(member: &mut KvClient<Channel>, call: &Call) -> Answer {
    let result = match call {
        Call::Write { plain: true, success, .. } => plain(member, &success[0]).await,
        Call::Write { compares, success, failure, .. } => txn(member, compares, success, failure).await,
        Call::Range { from, to, revision, serializable, limit } => range(member, from, to, *revision, *serializable, *limit).await,
        Call::Compact { revision, physical } => compact(member, *revision, *physical).await,
    };
    result.unwrap_or_else(|status| failed(call, &status))
}

fn failed(call: &Call, status: &Status) -> Answer {
    if status.message() == "etcdserver: mvcc: required revision has been compacted" {
        return Answer::Compacted;
    }
    let reads = matches!(call, Call::Range { .. });
    if reads || never_tried(status) { Answer::Refused } else { Answer::Unknown }
}

/// Refusals that promise no effect. Everything else leaves a write's fate open.
fn never_tried(status: &Status) -> bool {
    let refused = [Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition, Code::ResourceExhausted];
    // The bare deadline is for what found no leader to take it; our own time limit has other words.
    let words = ["etcdserver: too many requests", "etcdserver: no leader", "context deadline exceeded"];
    refused.contains(&status.code()) || words.contains(&status.message())
}

async fn plain(member: &mut KvClient<Channel>, op: &Op) -> Result<Answer, Status> {
    let (revision, done) = match op {
        Op::Put { key, value } => {
            let response = member.put(put_request(key, value)).await?.into_inner();
            (header(response.header), Done::Put(response.prev_kv.map(version)))
        }
        Op::Delete { from, to } => {
            let response = member.delete_range(delete_request(from, to.as_deref())).await?.into_inner();
            (header(response.header), deleted(response))
        }
        Op::Get { .. } => panic!("a plain get is a range"),
    };
    Ok(Answer::Wrote { revision, succeeded: true, done: vec![done] })
}

async fn txn(member: &mut KvClient<Channel>, compares: &[Compare], success: &[Op], failure: &[Op]) -> Result<Answer, Status> {
    let request = TxnRequest {
        compare: compares.iter().map(condition).collect(),
        success: success.iter().map(operation).collect(),
        failure: failure.iter().map(operation).collect(),
    };
    let response = member.txn(request).await?.into_inner();
    let done = response.responses.into_iter().map(|op| outcome(op.response)).collect();
    Ok(Answer::Wrote { revision: header(response.header), succeeded: response.succeeded, done })
}

async fn range(
    member: &mut KvClient<Channel>,
    from: &str,
    to: &str,
    revision: i64,
    serializable: bool,
    limit: i64,
) -> Result<Answer, Status> {
    let range_end = to.to_string().into();
    let request = RangeRequest { key: from.to_string().into(), range_end, revision, serializable, limit, ..Default::default() };
    let response = member.range(request).await?.into_inner();
    let header = header(response.header);
    Ok(Answer::Read { header, kvs: response.kvs.into_iter().map(pair).collect(), count: response.count, more: response.more })
}

async fn compact(member: &mut KvClient<Channel>, revision: i64, physical: bool) -> Result<Answer, Status> {
    let response = member.compact(CompactionRequest { revision, physical }).await?.into_inner();
    Ok(Answer::CompactedTo { header: header(response.header) })
}

fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_string().into(), value: value.to_string().into(), prev_kv: true, ..Default::default() }
}

fn delete_request(from: &str, to: Option<&str>) -> DeleteRangeRequest {
    let range_end = to.unwrap_or_default().to_string().into();
    DeleteRangeRequest { key: from.to_string().into(), range_end, prev_kv: true }
}

fn operation(op: &Op) -> RequestOp {
    RequestOp {
        request: Some(match op {
            Op::Put { key, value } => request_op::Request::RequestPut(put_request(key, value)),
            Op::Delete { from, to } => request_op::Request::RequestDeleteRange(delete_request(from, to.as_deref())),
            Op::Get { key } => request_op::Request::RequestRange(RangeRequest { key: key.clone().into(), ..Default::default() }),
        }),
    }
}

fn condition(wanted: &Compare) -> pb::Compare {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    let (key, result, target, target_union) = match wanted {
        Compare::ModRevision { key, revision, .. } => (key, CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(*revision)),
        Compare::Value { key, value } => (key, CompareResult::Equal, CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        Compare::Exists { key, exists } => {
            let result = if *exists { CompareResult::NotEqual } else { CompareResult::Equal };
            (key, result, CompareTarget::Version, TargetUnion::Version(0))
        }
    };
    let key = key.clone().into();
    pb::Compare { result: result as i32, target: target as i32, key, target_union: Some(target_union), ..Default::default() }
}

fn outcome(response: Option<response_op::Response>) -> Done {
    match response {
        Some(response_op::Response::ResponsePut(put)) => Done::Put(put.prev_kv.map(version)),
        Some(response_op::Response::ResponseDeleteRange(delete)) => deleted(delete),
        Some(response_op::Response::ResponseRange(range)) => Done::Got(range.kvs.into_iter().next().map(version)),
        other => panic!("no answer to an operation of a txn, but {other:?}"),
    }
}

fn deleted(response: pb::DeleteRangeResponse) -> Done {
    assert_eq!(usize::try_from(response.deleted), Ok(response.prev_kvs.len()), "a delete names what it deleted");
    Done::Deleted(response.prev_kvs.into_iter().map(pair).collect())
}

fn pair(kv: KeyValue) -> (String, Version) {
    (String::from_utf8_lossy(&kv.key).into_owned(), version(kv))
}

/// What a key-value of the wire says.
pub fn version(kv: KeyValue) -> Version {
    Version {
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    }
}

fn header(header: Option<pb::ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}
