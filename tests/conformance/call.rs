//! One request of any kind, and its outcome with what is a server's own taken out.

use crate::harness::client::Client;
use rusd::pb::etcdserverpb::*;
use tonic::{Code, Response, Status};

/// A request.
#[derive(Clone, Debug)]
pub enum Call {
    Range(RangeRequest),
    /// Its pieces are joined as etcd's client joins them.
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    /// One keep-alive on a stream of its own.
    KeepAlive(i64),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    Alarm(AlarmRequest),
    Hash,
    HashKv(HashKvRequest),
    MemberList(MemberListRequest),
    Status,
    MoveLeader(MoveLeaderRequest),
    Defragment,
    Downgrade(DowngradeRequest),
    AuthStatus,
    Authenticate(AuthenticateRequest),
}

macro_rules! from {
    ($($request:ident => $call:ident),* $(,)?) => { $(
        impl From<$request> for Call {
            fn from(request: $request) -> Self {
                Self::$call(request)
            }
        }
    )* };
}
from!(RangeRequest => Range, PutRequest => Put, DeleteRangeRequest => Delete, TxnRequest => Txn, CompactionRequest => Compact,
    LeaseGrantRequest => Grant, LeaseRevokeRequest => Revoke, LeaseTimeToLiveRequest => TimeToLive, HashKvRequest => HashKv,
    AlarmRequest => Alarm, MoveLeaderRequest => MoveLeader, DowngradeRequest => Downgrade);

/// What both must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer(String),
    Refusal(Code, String),
}

/// Takes out of an answer what is the server's own.
pub trait Normal: std::fmt::Debug + Sized {
    fn normal(&mut self);

    fn shown(mut self) -> String {
        self.normal();
        format!("{self:?}")
    }
}

/// Ids and term are a server's own, but must be there.
pub fn normal_header(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        for id in [&mut header.cluster_id, &mut header.member_id, &mut header.raft_term] {
            *id = u64::from(*id != 0);
        }
    }
}

macro_rules! normal {
    ($($response:ident),* $(,)?) => { $(
        impl Normal for $response {
            fn normal(&mut self) {
                normal_header(&mut self.header);
            }
        }
    )* };
}
normal!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    AlarmResponse,
    HashKvResponse,
    MoveLeaderResponse,
    DefragmentResponse,
    DowngradeResponse,
    AuthStatusResponse,
    AuthenticateResponse,
);

impl Normal for LeaseTimeToLiveResponse {
    /// The order of the keys is nobody's promise.
    fn normal(&mut self) {
        normal_header(&mut self.header);
        self.keys.sort();
    }
}

impl Normal for HashResponse {
    /// Over the whole backend, which is a server's own.
    fn normal(&mut self) {
        normal_header(&mut self.header);
        self.hash = u32::from(self.hash != 0);
    }
}

impl Normal for MemberListResponse {
    fn normal(&mut self) {
        normal_header(&mut self.header);
        for member in &mut self.members {
            member.id = u64::from(member.id != 0);
            for url in member.peer_ur_ls.iter_mut().chain(&mut member.client_ur_ls) {
                *url = url.trim_end_matches(|digit: char| digit.is_ascii_digit()).to_string();
            }
        }
        self.members.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

impl Normal for StatusResponse {
    /// Sizes and positions are a server's own, but follow rules.
    fn normal(&mut self) {
        normal_header(&mut self.header);
        assert!(self.raft_index >= self.raft_applied_index && self.db_size >= self.db_size_in_use, "{self:?}");
        for number in [&mut self.leader, &mut self.raft_index, &mut self.raft_applied_index, &mut self.raft_term] {
            *number = u64::from(*number != 0);
        }
        for size in [&mut self.db_size, &mut self.db_size_in_use] {
            *size = i64::from(*size > 0);
        }
    }
}

/// What a call came to.
pub fn outcome<T: Normal>(result: Result<Response<T>, Status>) -> Outcome {
    match result {
        Ok(response) => Outcome::Answer(response.into_inner().shown()),
        Err(status) => Outcome::Refusal(status.code(), status.message().to_string()),
    }
}

impl Call {
    /// Sends it.
    pub async fn send(&self, client: &Client) -> Outcome {
        let Client { mut kv, mut lease, mut cluster, mut maintenance, mut auth, .. } = client.clone();
        match self.clone() {
            Self::Range(request) => outcome(kv.range(request).await),
            Self::RangeStream(request) => outcome(range_stream(client, request).await),
            Self::Put(request) => outcome(kv.put(request).await),
            Self::Delete(request) => outcome(kv.delete_range(request).await),
            Self::Txn(request) => outcome(kv.txn(request).await),
            Self::Compact(request) => outcome(kv.compact(request).await),
            Self::Grant(request) => outcome(lease.lease_grant(request).await),
            Self::Revoke(request) => outcome(lease.lease_revoke(request).await),
            Self::KeepAlive(id) => outcome(keep_alive(client, id).await),
            Self::TimeToLive(request) => outcome(lease.lease_time_to_live(request).await),
            Self::Leases => outcome(lease.lease_leases(LeaseLeasesRequest {}).await),
            Self::Alarm(request) => outcome(maintenance.alarm(request).await),
            Self::Hash => outcome(maintenance.hash(HashRequest {}).await),
            Self::HashKv(request) => outcome(maintenance.hash_kv(request).await),
            Self::MemberList(request) => outcome(cluster.member_list(request).await),
            Self::Status => outcome(maintenance.status(StatusRequest {}).await),
            Self::MoveLeader(request) => outcome(maintenance.move_leader(request).await),
            Self::Defragment => outcome(maintenance.defragment(DefragmentRequest {}).await),
            Self::Downgrade(request) => outcome(maintenance.downgrade(request).await),
            Self::AuthStatus => outcome(auth.auth_status(AuthStatusRequest {}).await),
            Self::Authenticate(request) => outcome(auth.authenticate(request).await),
        }
    }
}

async fn range_stream(client: &Client, request: RangeRequest) -> Result<Response<RangeResponse>, Status> {
    let mut pieces = client.kv.clone().range_stream(request).await?.into_inner();
    let mut whole = RangeResponse::default();
    while let Some(piece) = pieces.message().await? {
        let piece = piece.range_response.expect("every piece holds something");
        assert!(whole.header.is_none(), "only the last piece has a header");
        whole.kvs.extend(piece.kvs);
        (whole.header, whole.more, whole.count) = (piece.header, piece.more, piece.count);
    }
    Ok(Response::new(whole))
}

async fn keep_alive(client: &Client, id: i64) -> Result<Response<LeaseKeepAliveResponse>, Status> {
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let mut answers = client.lease.clone().lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?.expect("one answer to one request");
    assert_eq!(answers.message().await?, None, "a closed stream ends");
    Ok(Response::new(answer))
}
