//! The Lease service. What needs the leader's clock goes through [`LeaderLeases`], the rest through the log or this member's state.

use super::transport::{self, Reading};
use super::watch::header;
use crate::pb::etcdserverpb as pb;
use crate::server::leases::{LeaderLeases, Leases, TTL_MAX_SECS};
use crate::server::{Error, Server};
use futures::Stream;
use rand::RngExt;
use rusd_storage::Rejection;
use rusd_storage::command::{LeaseGrant, LeaseRevoke, Response as Applied, proposal};
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Clone)]
pub struct LeaseService {
    server: Arc<Server>,
    /// This member's clock; stands still unless it leads.
    clock: Arc<Leases>,
    /// The leader's answers, local or forwarded.
    leader: Arc<dyn LeaderLeases>,
}

impl LeaseService {
    /// On a running clock.
    pub fn new(server: Arc<Server>, clock: Arc<Leases>, leader: Arc<dyn LeaderLeases>) -> Self {
        Self { server, clock, leader }
    }
}

/// etcd's minimum TTL: ceil(1.5 election timeouts), in seconds.
pub fn ttl_min_secs(server: &Server) -> i64 {
    let election = server.config.election_timeout.as_millis() as i64;
    (3 * election).div_euclid(2).saturating_add(999) / 1000
}

/// Grants through the log; id 0 means a random one, tried again should it be in use.
pub async fn grant(server: &Server, id: i64, ttl_secs: i64) -> Result<(i64, i64, i64), Error> {
    if ttl_secs > TTL_MAX_SECS {
        return Err(Rejection::LeaseTtlTooLarge.into());
    }
    let ttl_secs = ttl_secs.max(ttl_min_secs(server));
    loop {
        let chosen = if id == 0 { rand::rng().random_range(1..=i64::MAX) } else { id };
        match server.propose.submit(proposal::Command::LeaseGrant(LeaseGrant { id: chosen, ttl_secs })).await {
            Err(Error::Rejected(Rejection::LeaseExists)) if id == 0 => continue,
            Ok(Applied::LeaseGrant { revision, id, ttl_secs }) => return Ok((revision, id, ttl_secs)),
            Ok(other) => return Ok((revision_of(&other), chosen, ttl_secs)),
            Err(error) => return Err(error),
        }
    }
}

/// Header revision of an applied command.
pub fn revision_of(applied: &Applied) -> i64 {
    match applied {
        Applied::Empty { revision }
        | Applied::Put { revision, .. }
        | Applied::DeleteRange { revision, .. }
        | Applied::Txn { revision, .. }
        | Applied::LeaseGrant { revision, .. }
        | Applied::Alarms { revision, .. }
        | Applied::Members { revision, .. } => *revision,
        Applied::Range(range) => range.revision,
    }
}

type KeepAlives = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::lease_server::Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(&self, request: Request<pb::LeaseGrantRequest>) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let (revision, id, ttl) = grant(&self.server, request.id, request.ttl).await?;
        let header = Some(header(&self.server, revision));
        Ok(Response::new(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<pb::LeaseRevokeRequest>) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let applied = self.server.propose.submit(proposal::Command::LeaseRevoke(LeaseRevoke { id })).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(header(&self.server, revision_of(&applied))) }))
    }

    async fn lease_keep_alive(&self, request: Request<Streaming<pb::LeaseKeepAliveRequest>>) -> Result<Response<KeepAlives>, Status> {
        let mut session = Session { service: self.clone(), requests: request.into_inner() };
        // Headers leave with the first answer, as etcd's: one packet less for a stream of a single keep-alive.
        let first = session.next().await?;
        // Driven by the transport: a client that doesn't read its answers isn't read either.
        let answers = futures::stream::unfold((first, Some(session)), |(first, session)| async move {
            let mut session = session?;
            if let Some(first) = first {
                return Some((Ok(first), (None, Some(session))));
            }
            match session.next().await {
                Ok(Some(answer)) => Some((Ok(answer), (None, Some(session)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), (None, None))),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let found = self.leader.time_to_live(id, keys).await?;
        let header = Some(header(&self.server, self.server.state.store().revision()));
        Ok(Response::new(match found {
            Some(lease) => {
                pb::LeaseTimeToLiveResponse { header, id, ttl: lease.ttl_secs, granted_ttl: lease.granted_ttl_secs, keys: lease.keys }
            }
            None => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
        }))
    }

    async fn lease_leases(&self, _: Request<pb::LeaseLeasesRequest>) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let sorted = self.clock.by_remaining();
        let ids = sorted.unwrap_or_else(|| self.server.state.leases().iter().map(|lease| lease.id).collect());
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(header(&self.server, self.server.state.store().revision())), leases }))
    }
}

struct Session {
    service: LeaseService,
    requests: Streaming<pb::LeaseKeepAliveRequest>,
}

impl Session {
    /// One answer per request, in their order.
    async fn next(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
        let Some(pb::LeaseKeepAliveRequest { id }) =
            self.requests.message().await.map_err(|status| transport::unreadable(&status, Reading::Stream).unwrap_or(status))?
        else {
            return Ok(None);
        };
        let server = &self.service.server;
        // Filled before renewing, as etcd's: the revision must not be one the lease no longer lived at.
        let header = Some(header(server, server.state.store().revision()));
        let leader = &self.service.leader;
        let ttl = match leader.renew_at_once(id) {
            Some(ttl) => ttl,
            None => leader.renew(vec![id]).await?.first().copied().unwrap_or(0),
        };
        Ok(Some(pb::LeaseKeepAliveResponse { header, id, ttl }))
    }
}
