//! One direction to one peer, as openraft sees it. Appends are pipelined over a bidirectional stream; heartbeats are unary, on a
//! channel of their own, so that they neither wait behind an append nor pay for opening a stream.

use crate::channel::{Client, Links, Purpose};
use crate::{PeerMetrics, codec, pb, snapshot};
use futures::{Stream, StreamExt, future, stream};
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};
use rusd_storage::raft::types::{TypeConfig, Vote};
use rusd_storage::snapshot::SnapshotData;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Response, Status};

/// See the module.
pub struct Connection {
    links: Arc<Links>,
    target: u64,
    purpose: Purpose,
    metrics: Arc<PeerMetrics>,
    /// The end of the last heartbeat, if it was answered.
    rested: Option<Instant>,
}

fn unreachable(what: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(what))
}

impl Connection {
    /// To `target`, wherever it lives at the moment of a call.
    pub fn new(links: Arc<Links>, target: u64, purpose: Purpose) -> Self {
        let metrics = links.metrics(target);
        Self { links, target, purpose, metrics, rested: None }
    }

    fn client(&self) -> Result<Client, RPCError<TypeConfig>> {
        self.links.client(self.target, self.purpose).map_err(unreachable)
    }

    /// Bounds a unary call in time, counts it, and looks at refusals.
    async fn bounded<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let result = tokio::time::timeout(limit, call).await;
        let ok = matches!(result, Ok(Ok(_)));
        self.metrics.outcome(ok);
        match result {
            Ok(Ok(_)) if self.links.table.is_blocked(self.target) => Err(unreachable("cut off")),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.links.note_failure(self.target, &status);
                Err(unreachable(status))
            }
            Err(_) => Err(unreachable(format!("no answer in {limit:?}"))),
        }
    }

    /// The outgoing half of the append stream: converts, counts, ends when the peer is cut off or no longer lives at `urls`.
    fn outgoing<S>(&self, urls: Vec<String>, input: S) -> impl Stream<Item = pb::AppendRequest> + Send + 'static
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let (metrics, table, target) = (self.metrics.clone(), self.links.table.clone(), self.target);
        let moves = async move {
            let mut changed = table.watch();
            while table.urls(target) == urls {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Also while there is nothing to be sent.
        input.take_until(Box::pin(moves)).map(move |request| {
            let message = codec::append_to(request);
            metrics.sent(message.entries.iter().map(|entry| entry.command.as_ref().map_or(16, |command| command.len() + 16)).sum());
            message
        })
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A new term has a new connection. A peer that is slow to answer isn't this member's fault.
        if self.rested.take().is_some_and(|rested| rested.elapsed() > self.links.times.heartbeat * 2) {
            self.links.late_heartbeats.inc();
        }
        let mut client = self.client()?;
        let request = self.links.request(self.target, codec::append_to(rpc));
        let answer = self.bounded(option.hard_ttl(), client.heartbeat(request)).await?;
        self.rested = (self.purpose == Purpose::Heartbeat).then(Instant::now);
        Ok(codec::append_answer_from(answer)?)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // Openraft backs off where it makes the next request. A connection that fails before it asks for one would never rest.
            let Some(first) = input.next().await else { return Ok(Box::pin(stream::empty()) as BoxStream<'s, _>) };
            let input = stream::once(future::ready(first)).chain(input);
            // Before the client is made: were they newer than its own, the stream would stay where the peer was.
            let urls = self.links.table.urls(self.target);
            let mut client = self.client()?;
            let request = self.links.request(self.target, self.outgoing(urls, input));
            // The answer's head comes at once, so it is bounded; the stream itself lives as long as the connection (HTTP/2 pings).
            let answers = self.bounded(self.links.times.connect * 2, client.append_entries(request)).await?;
            let (links, target, metrics) = (self.links.clone(), self.target, self.metrics.clone());
            let answers = answers.map(move |answer| match answer {
                _ if links.table.is_blocked(target) => Err(unreachable("cut off")),
                Ok(message) => {
                    metrics.received(24);
                    Ok(codec::stream_answer_from(message)?)
                }
                Err(status) => {
                    metrics.outcome(false);
                    links.note_failure(target, &status);
                    Err(unreachable(status))
                }
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = self.links.request(self.target, codec::ask_vote_to(&rpc));
        Ok(codec::vote_answer_from(self.bounded(option.hard_ttl(), client.request_vote(request)).await?)?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = self.links.request(self.target, codec::ask_vote_to(&rpc));
        Ok(codec::vote_answer_from(self.bounded(option.hard_ttl(), client.pre_vote(request)).await?)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |what: String| StreamingError::Unreachable(Unreachable::from_string(what));
        let client = self.links.client(self.target, self.purpose).map_err(|error| unreachable(error.to_string()))?;
        let sending = self.metrics.sent_snapshots.measured(snapshot::send(&self.links, self.target, client, vote, snapshot));
        let result = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            result = sending => result,
        };
        match result {
            Ok(vote) => Ok(SnapshotResponse::new(vote)),
            Err(status) => {
                self.links.note_failure(self.target, &status);
                tracing::warn!(peer = format!("{:x}", self.target), "snapshot was not sent: {}", status.message());
                Err(unreachable(status.to_string()))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = self.links.request(self.target, codec::transfer_to(&req));
        Ok(codec::transfer_answer_from(self.bounded(option.hard_ttl(), client.transfer_leader(request)).await?)?)
    }
}
