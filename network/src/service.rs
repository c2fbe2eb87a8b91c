//! The peer service: judges the caller, decodes, hands to openraft or to the member, encodes.

use crate::channel::Links;
use crate::contact::LeaderContact;
use crate::directory::{self, Expulsion, RateLimit, Verdict};
use crate::pb::raft_internal_server::{RaftInternal, RaftInternalServer};
use crate::snapshot::{self, Partial, Taking};
use crate::{Caller, RECEIVE_LIMIT_BYTES, Raft, codec, pb};
use futures::{Stream, StreamExt, future};
use openraft::async_runtime::WatchReceiver;
use rusd_storage::engine::Engine;
use rusd_storage::raft::types::Vote;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// Batches of one forward stream that wait for their entries; beyond, the stream is not read.
const FORWARD_BATCHES: usize = 64;

/// What only the member itself can answer.
#[tonic::async_trait]
pub trait Local: Send + Sync + 'static {
    /// The newest vote this member has begun to save.
    fn vote(&self) -> Option<Vote>;
    /// Whether as far as this member knows `leader` still leads `term`.
    fn confirms(&self, term: u64, leader: u64) -> bool;
    /// A read index confirmed after `from` asked, who grants that this member leads `granted_term` (0: it doesn't say).
    async fn read_index(&self, from: u64, granted_term: u64) -> Result<u64, pb::Refusal>;
    /// Proposes on behalf of another member; returns what was refused, once the fate of all is known.
    async fn propose(&self, batch: Vec<pb::ForwardedProposal>) -> Vec<pb::ForwardRefusal>;
    /// Who this member is.
    fn probe(&self) -> pb::ProbeResponse;
    /// A ping of a welcome member.
    fn ping(&self, from: u64) -> pb::PingResponse;
    /// A membership change, to be made if this member leads.
    async fn change_member(&self, request: pb::ChangeMemberRequest) -> pb::ChangeMemberResponse;
    /// The hash of its history.
    async fn hash(&self, question: pb::HashQuestion) -> pb::HashAnswer;
    /// Keep-alives and times to live, if this member leads.
    async fn leases(&self, request: pb::LeaseForwardRequest) -> Result<pb::LeaseForwardResponse, Status>;
}

struct Parts {
    links: Arc<Links>,
    raft: Raft,
    local: Arc<dyn Local>,
    engine: Engine,
    contact: Arc<LeaderContact>,
    complaints: RateLimit,
    installing: Arc<Semaphore>,
    partial: Partial,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Service {
    /// Over a running openraft.
    pub fn new(links: Arc<Links>, raft: Raft, local: Arc<dyn Local>, engine: Engine, contact: Arc<LeaderContact>) -> Self {
        let (installing, partial) = (Arc::new(Semaphore::new(1)), Partial::default());
        Self(Arc::new(Parts { links, raft, local, engine, contact, complaints: RateLimit::default(), installing, partial }))
    }

    /// For a tonic router.
    pub fn into_server(self) -> RaftInternalServer<Self> {
        RaftInternalServer::new(self).max_decoding_message_size(RECEIVE_LIMIT_BYTES).max_encoding_message_size(RECEIVE_LIMIT_BYTES)
    }
}

impl Parts {
    /// Nothing of a stranger reaches openraft.
    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let Some(caller) = Caller::from_metadata(request.metadata()) else {
            if self.complaints.allow(0, "nobody") {
                tracing::warn!(remote = ?request.remote_addr(), "refused a call that does not say which peer it comes from");
            }
            return Err(Status::unauthenticated("not a peer of rusd"));
        };
        self.judge(&caller)?;
        Ok(caller)
    }

    fn judge(&self, caller: &Caller) -> Result<(), Status> {
        if self.links.table.is_blocked(caller.member_id) {
            return Err(Status::unavailable("cut off"));
        }
        let verdict = self.links.directory.judge(caller);
        if verdict == Verdict::Welcome {
            return Ok(());
        }
        if verdict == Verdict::WipedHere {
            self.links.expelled.set(Expulsion::Wiped);
        }
        if self.complaints.allow(caller.member_id, verdict.word()) {
            let (peer, cluster) = (format!("{:x}", caller.member_id), format!("{:x}", caller.cluster_id));
            tracing::warn!(peer, cluster, ?verdict, "refused a call from a peer");
        }
        Err(directory::refusal(verdict))
    }

    /// A message of a welcome member that makes no sense.
    fn complain(&self, caller: &Caller, what: &'static str, status: &Status) {
        if self.complaints.allow(caller.member_id, what) {
            tracing::warn!(peer = format!("{:x}", caller.member_id), "refused {what}: {}", status.message());
        }
    }

    /// Notes contact with a leader that is not known to be replaced.
    fn contact(&self, vote: &Vote) {
        if self.local.vote().is_none_or(|own| *vote >= own) {
            self.contact.touch();
        }
    }

    /// Receives a snapshot and installs it; a vote to answer with. One at a time.
    async fn take_in(&self, caller: &Caller, parts: Streaming<pb::SnapshotPart>) -> Result<Vote, Status> {
        let metrics = self.links.metrics(caller.member_id);
        let taking = Taking { engine: &self.engine, partial: &self.partial, metrics: &metrics, idle: self.links.times.idle };
        let receiving = snapshot::receive(parts, taking, |vote| is_current(vote, self.local.vote()));
        let received =
            metrics.received_snapshots.measured(receiving).await.inspect_err(|status| self.complain(caller, "a snapshot", status))?;
        match (received, self.local.vote()) {
            (Some((vote, snapshot)), own) if is_current(&vote, own) => {
                self.contact(&vote);
                Ok(self.raft.install_full_snapshot(vote, snapshot).await.map_err(fatal)?.vote)
            }
            // The sender has been replaced: our vote tells it so.
            (received, Some(own)) => {
                snapshot::discard(received);
                Ok(own)
            }
            (_, None) => Err(Status::internal("no vote to refuse with")),
        }
    }
}

/// Whether a sender of snapshots is not known to be replaced.
fn is_current(vote: &Vote, own: Option<Vote>) -> bool {
    own.is_none_or(|own| *vote >= own)
}

fn busy() -> Status {
    Status::unavailable("another snapshot is being taken in")
}

/// Tells that an append stream has ended when it is dropped with it.
struct AppendEnds(Arc<Links>);

impl Drop for AppendEnds {
    fn drop(&mut self) {
        self.0.appends_ended.send_modify(|count| *count += 1);
    }
}

/// Judges a long stream's caller again when the membership (or the cut-off switch) has changed.
struct Admission {
    parts: Arc<Parts>,
    caller: Caller,
    seen: (u64, u64),
    table: tokio::sync::watch::Receiver<u64>,
}

impl Admission {
    fn new(parts: &Arc<Parts>, caller: Caller) -> Self {
        let table = parts.links.table.watch();
        let seen = (parts.links.directory.generation(), *table.borrow());
        Self { parts: parts.clone(), caller, seen, table }
    }

    fn holds(&mut self) -> bool {
        let now = (self.parts.links.directory.generation(), *self.table.borrow());
        if now == self.seen {
            return true;
        }
        self.seen = now;
        // The caller's own position was stated at the start; it can only have grown, so a stranger may be one no longer.
        self.parts.judge(&self.caller).is_ok()
    }
}

#[tonic::async_trait]
impl RaftInternal for Service {
    type AppendEntriesStream = Answers<pb::AppendResponse>;
    type ForwardStream = Answers<pb::ForwardResponse>;

    async fn append_entries(&self, request: Request<Streaming<pb::AppendRequest>>) -> Result<Response<Self::AppendEntriesStream>, Status> {
        let caller = self.0.admit(&request)?;
        let (parts, metrics) = (self.0.clone(), self.0.links.metrics(caller.member_id));
        let mut admission = Admission::new(&self.0, caller);
        let ends = AppendEnds(self.0.links.clone());
        let input = request
            .into_inner()
            .scan((), |(), message| future::ready(message.ok()))
            .take_while(move |_| future::ready(admission.holds()))
            .scan(ends, {
                move |_, message| {
                    let bytes: usize =
                        message.entries.iter().map(|entry| entry.command.as_ref().map_or(16, |command| command.len() + 16)).sum();
                    metrics.received(bytes);
                    let request = codec::append_from(message);
                    match &request {
                        Ok(request) => parts.contact(&request.vote),
                        Err(error) => {
                            metrics.received_failures.fetch_add(1, Relaxed);
                            tracing::warn!(peer = format!("{:x}", caller.member_id), "ended an append stream: {error}");
                        }
                    }
                    future::ready(request.ok())
                }
            });
        let answers = self.0.raft.stream_append(input).map(|answer| match answer {
            Ok(answer) => Ok(codec::stream_answer_to(answer)),
            Err(error) => Err(fatal(error)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn heartbeat(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let caller = self.0.admit(&request)?;
        let request = codec::append_from(request.into_inner())
            .map_err(Status::from)
            .inspect_err(|status| self.0.complain(&caller, "a heartbeat", status))?;
        self.0.contact(&request.vote);
        let answer = self.0.raft.append_entries(request).await.map_err(fatal)?;
        Ok(Response::new(codec::append_answer_to(answer)))
    }

    async fn request_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.0.admit(&request)?;
        let answer = self.0.raft.vote(codec::ask_vote_from(request.into_inner())?).await.map_err(fatal)?;
        Ok(Response::new(codec::vote_answer_to(&answer)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.0.admit(&request)?;
        let answer = self.0.raft.pre_vote(codec::ask_vote_from(request.into_inner())?).await.map_err(fatal)?;
        Ok(Response::new(codec::vote_answer_to(&answer)))
    }

    async fn install_snapshot(&self, request: Request<Streaming<pb::SnapshotPart>>) -> Result<Response<pb::SnapshotResponse>, Status> {
        let caller = self.0.admit(&request)?;
        let one = self.0.installing.clone().try_acquire_owned().map_err(|_| busy())?;
        let parts = self.0.clone();
        // This call ends with its connection; what has arrived is to be kept. The task ends with the stream.
        let taking_in = tokio::spawn(async move {
            let _one = one;
            parts.take_in(&caller, request.into_inner()).await
        });
        let vote = taking_in.await.map_err(|_| Status::internal("taking in a snapshot failed"))??;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(codec::vote_to(&vote)) }))
    }

    async fn snapshot_progress(
        &self,
        request: Request<pb::SnapshotProgressRequest>,
    ) -> Result<Response<pb::SnapshotProgressResponse>, Status> {
        self.0.admit(&request)?;
        let vote = codec::vote_from(request.into_inner().vote)?;
        if !is_current(&vote, self.0.local.vote()) {
            // A sender that has been replaced is told so when it sends.
            return Ok(Response::new(pb::SnapshotProgressResponse::default()));
        }
        self.0.partial.interrupt(&vote);
        let waiting = tokio::time::timeout(self.0.links.times.idle, self.0.installing.acquire());
        let _none_under_way = waiting.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let held = self.0.partial.progress().as_ref().map(codec::progress_to);
        let applied = self.0.raft.metrics().borrow_watched().last_applied.as_ref().map(codec::log_id_to);
        Ok(Response::new(pb::SnapshotProgressResponse { held, applied }))
    }

    async fn transfer_leader(&self, request: Request<pb::TransferRequest>) -> Result<Response<pb::TransferResponse>, Status> {
        self.0.admit(&request)?;
        let request = codec::transfer_from(request.into_inner())?;
        let answer = self.0.raft.handle_transfer_leader(request).await.map_err(fatal)?;
        Ok(Response::new(codec::transfer_answer_to(answer)))
    }

    async fn confirm_leader(&self, request: Request<pb::ConfirmRequest>) -> Result<Response<pb::ConfirmResponse>, Status> {
        self.0.admit(&request)?;
        let pb::ConfirmRequest { term, leader } = request.into_inner();
        Ok(Response::new(pb::ConfirmResponse { granted: self.0.local.confirms(term, leader) }))
    }

    async fn read_index(&self, request: Request<pb::ReadIndexRequest>) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let caller = self.0.admit(&request)?;
        let (refusal, index) = match self.0.local.read_index(caller.member_id, request.into_inner().granted_term).await {
            Ok(index) => (pb::Refusal::None, index),
            Err(refusal) => (refusal, 0),
        };
        Ok(Response::new(pb::ReadIndexResponse { refusal: refusal as i32, index }))
    }

    async fn forward(&self, request: Request<Streaming<pb::ForwardRequest>>) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = self.0.admit(&request)?;
        let mut admission = Admission::new(&self.0, caller);
        let local = self.0.local.clone();
        let answers = request
            .into_inner()
            .scan((), |(), message| future::ready(message.ok()))
            .take_while(move |_| future::ready(admission.holds()))
            .map(move |batch| {
                let local = local.clone();
                async move { local.propose(batch.proposals).await }
            })
            .buffer_unordered(FORWARD_BATCHES)
            .filter_map(|refusals| future::ready((!refusals.is_empty()).then_some(Ok(pb::ForwardResponse { refusals }))));
        Ok(Response::new(Box::pin(answers)))
    }

    /// Also answered to those who are no members yet, or no longer: it only tells what they may know.
    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Result<Response<pb::ProbeResponse>, Status> {
        if let Some(caller) = Caller::from_metadata(request.metadata())
            && self.0.links.table.is_blocked(caller.member_id)
        {
            return Err(Status::unavailable("cut off"));
        }
        Ok(Response::new(self.0.local.probe()))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingResponse>, Status> {
        let caller = self.0.admit(&request)?;
        Ok(Response::new(self.0.local.ping(caller.member_id)))
    }

    async fn hash(&self, request: Request<pb::HashQuestion>) -> Result<Response<pb::HashAnswer>, Status> {
        self.0.admit(&request)?;
        Ok(Response::new(self.0.local.hash(request.into_inner()).await))
    }

    async fn change_member(&self, request: Request<pb::ChangeMemberRequest>) -> Result<Response<pb::ChangeMemberResponse>, Status> {
        self.0.admit(&request)?;
        Ok(Response::new(self.0.local.change_member(request.into_inner()).await))
    }

    async fn lease_forward(&self, request: Request<pb::LeaseForwardRequest>) -> Result<Response<pb::LeaseForwardResponse>, Status> {
        self.0.admit(&request)?;
        Ok(Response::new(self.0.local.leases(request.into_inner()).await?))
    }
}
