//! The KV service.

use super::{Api, blocking, listing, range_stream, status};
use crate::pb::etcdserverpb as pb;
use crate::server::Error;
use pb::kv_server::Kv;
use rusd_storage::KeyValue;
use rusd_storage::Rejection;
use rusd_storage::command::{self, AlarmType, Compact, DeleteRange, Put, Range, proposal::Command};
use rusd_storage::mvcc::Store;
use tonic::{Request, Response, Status};

/// Reads of up to so many keys are done on the spot: they take microseconds, handing them over would cost more.
const INLINE_KEYS_MAX: i64 = 500;

#[tonic::async_trait]
impl Kv for Api {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let serializable = request.serializable;
        let range = Range::try_from(request)?;
        let requests = &self.server.requests;
        let whole = requests.range();
        let caught_up = self.catch_up(serializable).await;
        let answer = match caught_up {
            Ok(()) => requests.reading().ended(self.read_range(range).await),
            Err(status) => Err(status),
        };
        whole.ended(answer)
    }

    type RangeStreamStream = range_stream::Chunks;

    async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        let serializable = request.serializable;
        let range = Range::try_from(request)?;
        range_stream::check(&range)?;
        self.catch_up(serializable).await?;
        self.server.measures.keys.ranges.inc();
        Ok(Response::new(range_stream::chunks(self.clone(), range)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let put = Put::try_from(request.into_inner())?;
        match self.propose(Command::Put(put)).await? {
            command::Response::Put { revision, prev_kv } => {
                Ok(Response::new(pb::PutResponse { header: self.header(revision), prev_kv: prev_kv.map(Into::into) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_range(&self, request: Request<pb::DeleteRangeRequest>) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = DeleteRange::try_from(request.into_inner())?;
        match self.propose(Command::DeleteRange(delete)).await? {
            command::Response::DeleteRange { revision, deleted, prev_kvs } => {
                let (header, bytes) = (self.header(revision), weight(&prev_kvs));
                let prev_kvs = prev_kvs.into_iter().map(Into::into).collect();
                self.with_room(pb::DeleteRangeResponse { header, deleted, prev_kvs }, bytes, Error::Timeout).await
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let reads = reads_only(&request);
        let txn = crate::pb::txn(request, self.server.config.max_txn_ops)?;
        let otherwise = if reads.is_some() { Error::TooManyRequests } else { Error::Timeout };
        let response = match reads {
            Some(Reads { serializable }) => {
                self.catch_up(serializable).await?;
                self.server.requests.read_only_txn().ended(self.local_txn(txn).await)?
            }
            None => self.propose(Command::Txn(txn)).await?,
        };
        match response {
            command::Response::Txn { revision, succeeded, responses } => {
                let (header, bytes) = (self.header(revision), responses.iter().map(weight_of).sum());
                let responses = responses.into_iter().map(crate::pb::txn_op).collect();
                self.with_room(pb::TxnResponse { header, succeeded, responses }, bytes, otherwise).await
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn compact(&self, request: Request<pb::CompactionRequest>) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let answer = self.propose(Command::Compact(Compact { revision: request.revision })).await;
        if request.physical {
            // Also when the answer is no: a compaction that runs is waited for (contract b.5).
            self.compact_physically().await?;
        }
        answer?;
        Ok(Response::new(pb::CompactionResponse { header: self.header(0) }))
    }
}

/// About what these take in an answer.
fn weight(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 32).sum()
}

fn weight_of(response: &command::Response) -> usize {
    match response {
        command::Response::Range(result) => weight(&result.kvs),
        command::Response::DeleteRange { prev_kvs, .. } => weight(prev_kvs),
        command::Response::Txn { responses, .. } => responses.iter().map(weight_of).sum(),
        _ => 0,
    }
}

impl Api {
    async fn read_range(&self, range: Range) -> Result<Response<pb::RangeResponse>, Status> {
        self.server.measures.keys.ranges.inc();
        let store = self.server.state.store();
        let result = if is_small(&store, &range)? {
            store.range(&range).map_err(Error::from)?
        } else if let Some(response) = listing::answer(self, &range).await? {
            return Ok(response);
        } else {
            blocking(move || Ok(store.range(&range)?)).await?
        };
        let header = self.header(result.revision);
        let bytes = weight(&result.kvs);
        self.with_room(pb::RangeResponse { header, ..result.into() }, bytes, Error::TooManyRequests).await
    }

    /// Makes sure that the local state is fresh enough for a read, and not known to be wrong. A learner serves none that must be linearizable.
    pub(super) async fn catch_up(&self, serializable: bool) -> Result<(), Status> {
        self.not_corrupt()?;
        if serializable {
            return Ok(());
        }
        if self.server.consensus.is_learner() {
            return Err(status::not_for_learner());
        }
        self.server.read.linearizable().await?;
        // The alarm may be among what it has waited for.
        self.not_corrupt()
    }

    fn not_corrupt(&self) -> Result<(), Status> {
        let corrupt = self.server.state.is_alarmed(self.server.identity.member_id, AlarmType::Corrupt);
        if corrupt { Err(Error::from(Rejection::Corrupt).into()) } else { Ok(()) }
    }

    /// Waits until what compaction hides is gone from this member.
    pub(super) async fn compact_physically(&self) -> Result<(), Status> {
        let store = self.server.state.store();
        blocking(move || {
            while store.compact_step()? {}
            Ok(())
        })
        .await
    }
}

/// Whether a read touches few keys: it is done on the spot, others on a thread of their own. Asking the store costs a count, which is cheap.
pub(super) fn is_small(store: &Store, range: &Range) -> Result<bool, Error> {
    if range.range_end.is_empty() || range.count_only {
        return Ok(true);
    }
    let limited = (1..=INLINE_KEYS_MAX).contains(&range.limit);
    if limited && !is_sorted(range) && !is_filtered(range) {
        return Ok(true);
    }
    let count = Range {
        key: range.key.clone(),
        range_end: range.range_end.clone(),
        revision: range.revision,
        count_only: true,
        ..Default::default()
    };
    Ok(store.range(&count)?.count <= INLINE_KEYS_MAX)
}

/// Whether all keys must be seen before the first can be answered.
pub(super) fn is_sorted(range: &Range) -> bool {
    range.sort_order != command::SortOrder::None as i32
        && (range.sort_order, range.sort_target) != (command::SortOrder::Ascend as i32, command::SortTarget::Key as i32)
}

/// Whether keys are left out by their revisions.
pub(super) fn is_filtered(range: &Range) -> bool {
    (range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision) != (0, 0, 0, 0)
}

/// A txn that needs no log entry.
#[derive(Debug, PartialEq, Eq)]
struct Reads {
    /// All its ranges are; so is a txn without operations.
    serializable: bool,
}

/// `None` if any operation of either branch is more than a range; a nested txn counts as more (contract b.4).
fn reads_only(request: &pb::TxnRequest) -> Option<Reads> {
    let mut serializable = true;
    for op in request.success.iter().chain(&request.failure) {
        let Some(pb::request_op::Request::RequestRange(range)) = &op.request else { return None };
        serializable &= range.serializable;
    }
    Some(Reads { serializable })
}

/// Apply answers each command in kind; anything else is a mistake of ours.
pub(super) fn unexpected(response: &command::Response) -> Status {
    tracing::error!(?response, "an answer of another kind");
    Status::internal("an answer of another kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::request_op::Request;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }
    fn range(serializable: bool) -> pb::RequestOp {
        op(Request::RequestRange(pb::RangeRequest { serializable, ..Default::default() }))
    }

    #[test]
    fn which_txns_need_no_log_entry() {
        let kind = |success: Vec<pb::RequestOp>, failure| reads_only(&pb::TxnRequest { compare: vec![], success, failure });
        assert_eq!(kind(vec![], vec![]), Some(Reads { serializable: true }));
        assert_eq!(kind(vec![range(true)], vec![range(true)]), Some(Reads { serializable: true }));
        assert_eq!(kind(vec![range(true)], vec![range(false)]), Some(Reads { serializable: false }));
        assert_eq!(kind(vec![range(true)], vec![op(Request::RequestPut(Default::default()))]), None);
        assert_eq!(kind(vec![op(Request::RequestTxn(Default::default()))], vec![]), None, "a nested txn counts as a write");
        assert_eq!(kind(vec![pb::RequestOp { request: None }], vec![]), None);
    }
}
