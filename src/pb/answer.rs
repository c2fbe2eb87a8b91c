//! Results become etcd's responses. Keys and values are shared, never copied.

use super::etcdserverpb as pb;
use super::mvccpb;
use pb::response_op;
use rusd_storage::KeyValue;
use rusd_storage::command::{MemberRecord, Response};
use rusd_storage::mvcc::RangeResult;

impl From<KeyValue> for mvccpb::KeyValue {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: kv.key,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value,
            lease: kv.lease,
        }
    }
}

/// Without a header: it is the caller's.
impl From<RangeResult> for pb::RangeResponse {
    fn from(result: RangeResult) -> Self {
        Self { header: None, kvs: result.kvs.into_iter().map(Into::into).collect(), more: result.more, count: result.count }
    }
}

/// One operation's answer inside a txn: its header says only the revision, a nested txn's says nothing (contract b.4).
pub fn txn_op(response: Response) -> pb::ResponseOp {
    let header = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
    let response = match response {
        Response::Range(result) => {
            let revision = result.revision;
            response_op::Response::ResponseRange(pb::RangeResponse { header: header(revision), ..result.into() })
        }
        Response::Put { revision, prev_kv } => {
            response_op::Response::ResponsePut(pb::PutResponse { header: header(revision), prev_kv: prev_kv.map(Into::into) })
        }
        Response::DeleteRange { revision, deleted, prev_kvs } => response_op::Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: header(revision),
            deleted,
            prev_kvs: prev_kvs.into_iter().map(Into::into).collect(),
        }),
        Response::Txn { succeeded, responses, .. } => response_op::Response::ResponseTxn(pb::TxnResponse {
            header: header(0),
            succeeded,
            responses: responses.into_iter().map(txn_op).collect(),
        }),
        // No other command can be an operation of a txn.
        _ => return pb::ResponseOp::default(),
    };
    pb::ResponseOp { response: Some(response) }
}

/// Members as a client sees them: one that waits to become a voter is no learner to clients.
pub fn members(records: Vec<MemberRecord>) -> Vec<pb::Member> {
    records.into_iter().map(Into::into).collect()
}

impl From<MemberRecord> for pb::Member {
    fn from(record: MemberRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            peer_ur_ls: record.peer_urls,
            client_ur_ls: record.client_urls,
            is_learner: record.is_learner && !record.pending_voter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_inside_a_txn_hold_only_a_revision() {
        let nested = Response::Txn { revision: 9, succeeded: true, responses: vec![Response::Put { revision: 9, prev_kv: None }] };
        let Some(response_op::Response::ResponseTxn(txn)) = txn_op(nested).response else { panic!("a txn answers as a txn") };
        assert_eq!(txn.header, Some(pb::ResponseHeader::default()));
        let Some(response_op::Response::ResponsePut(put)) = txn.responses[0].response.clone() else { panic!("a put answers as a put") };
        assert_eq!(put.header, Some(pb::ResponseHeader { revision: 9, ..Default::default() }));
    }
}
