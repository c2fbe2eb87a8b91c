//! This member among its peers: whom it knows, what it answers them, and what it asks the leader about leases.

use super::Error;
use super::consensus::{Consensus, StartError, Stores};
use super::identity::Identity;
use super::leases::{LeaderLeases, TimeToLive};
use super::members::Members;
use super::propose::Propose;
use super::read::Read;
use super::requests::Requests;
use super::snapshots::Snapshots;
use super::waiters::Waiters;
use super::{corruption, dead_leader, sick_disk};
use crate::config::Config;
use crate::grpc::ETCD_VERSION;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use rusd_network::{Caller, Directory, Expulsion, Links, Local, PeerTable, Presence, Purpose, Service, Times, pb};
use rusd_storage::apply::State;
use rusd_storage::command::state::LogPosition;
use rusd_storage::raft::Opened;
use rusd_storage::raft::types::Vote;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tonic::Status;

/// A member's consensus side, running.
pub struct Started {
    /// The openraft door.
    pub consensus: Arc<Consensus>,
    /// How long requests take.
    pub requests: Arc<Requests>,
    /// Writes.
    pub propose: Propose,
    /// Linearizable reads.
    pub read: Read,
    /// Membership changes.
    pub members: Arc<Members>,
    /// What peers ask this member; give it the leases' clock with [`Member::set_leases`].
    pub member: Arc<Member>,
    /// To be served on the peer ports: `service.into_server()`.
    pub service: Service,
}

/// Starts openraft over the opened store, on the runtime this runs on, and everything that talks to peers. `waiters` are the ones the
/// store was opened with; `peers` are the addresses known from flags, until members are applied.
///
/// # Errors
/// The times are impossible, or the store can't be continued.
pub async fn start(
    config: &Config,
    identity: &Identity,
    opened: Opened,
    waiters: Arc<Waiters>,
    peers: impl IntoIterator<Item = (u64, Vec<String>)>,
) -> Result<Started, StartError> {
    let Opened { engine, state, log_store, state_machine, .. } = opened;
    waiters.recovered(state.applied());
    let directory = StateDirectory::new(identity, state.clone());
    let table = Arc::new(PeerTable::default());
    table.update(peers, |_| false);
    let times = Times { heartbeat: config.heartbeat_interval, ..Times::of(config.election_timeout) };
    let links = Links::new(table.clone(), directory.clone(), times);
    let presence = Presence::new(links.clone(), config.election_timeout);
    let stores = Stores { log_store, state_machine };
    let consensus = Consensus::start(config, identity, stores, waiters.clone(), links.clone()).await?;
    let requests = Arc::new(Requests::new(engine.measures(), config.warning_apply_duration));
    let propose = Propose::start(config, consensus.clone(), waiters.clone(), requests.clone());
    let read = Read::new(consensus.clone(), waiters.clone(), config.request_timeout());
    let members = Members::new(config, state.clone(), consensus.clone(), propose.clone(), waiters, presence.clone());
    tokio::spawn(directory.follow(consensus.clone()));
    tokio::spawn(presence.clone().run(consensus.stopping().clone()));
    tokio::spawn(dead_leader::watch(consensus.clone(), presence.clone()));
    tokio::spawn(hurry_after_absence(consensus.clone(), presence.clone()));
    tokio::spawn(members.clone().promote_pending(consensus.stopping().clone()));
    let snapshots = Snapshots {
        consensus: consensus.clone(),
        state: state.clone(),
        presence: presence.clone(),
        engine: engine.clone(),
        count: config.snapshot_count,
        catchup: config.snapshot_catchup_entries,
    };
    tokio::spawn(snapshots.run());
    let disk = Disk { engine: engine.clone(), election_timeout: config.election_timeout };
    let member = Arc::new(Member {
        identity: identity.clone(),
        state,
        consensus: consensus.clone(),
        propose: propose.clone(),
        read: read.clone(),
        members: members.clone(),
        presence,
        disk,
        leases: OnceLock::new(),
    });
    let service = Service::new(links, consensus.raft().clone(), member.clone(), engine, consensus.contact());
    Ok(Started { consensus, requests, propose, read, members, member, service })
}

/// A member that comes back, or comes for the first time, gets its log at once.
async fn hurry_after_absence(consensus: Arc<Consensus>, presence: Arc<Presence>) {
    let mut changed = presence.watch();
    let stop = consensus.stopping().clone();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        consensus.hurry_replication().await;
    }
}

/// The applied membership as callers are judged by it, kept so that no call copies member records.
pub struct StateDirectory {
    me: Caller,
    state: Arc<State>,
    generation: AtomicU64,
    data_dirs: RwLock<HashMap<u64, u64>>,
}

impl StateDirectory {
    /// Reads the members once; [`Self::follow`] keeps them.
    pub fn new(identity: &Identity, state: Arc<State>) -> Arc<Self> {
        let me = Caller::new(identity.cluster_id, identity.member_id, identity.data_dir_id);
        let directory = Arc::new(Self { me, state, generation: AtomicU64::new(0), data_dirs: RwLock::default() });
        directory.refresh();
        directory
    }

    fn refresh(&self) {
        let members = self.state.members();
        *self.data_dirs.write() = members.iter().map(|member| (member.id, member.data_dir_id)).collect();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Follows the applied members: who they are, where they live, and what this member is among them. Ends with the state.
    pub async fn follow(self: Arc<Self>, consensus: Arc<Consensus>) {
        let mut changed = self.state.members_changed();
        loop {
            changed.borrow_and_update();
            self.refresh();
            let members = self.state.members();
            let own = members.iter().find(|record| record.id == self.me.member_id);
            consensus.set_learner(own.map(|record| record.is_learner && !record.pending_voter));
            let links = consensus.links();
            links.table.update(members.into_iter().map(|member| (member.id, member.peer_urls)), |id| self.state.is_removed(id));
            if self.state.is_removed(self.me.member_id) {
                links.expelled.set(Expulsion::Removed);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Directory for StateDirectory {
    fn caller(&self) -> Caller {
        Caller { membership: self.state.membership_position(), ..self.me }
    }
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    fn is_removed(&self, id: u64) -> bool {
        self.state.is_removed(id)
    }
    fn data_dir_of(&self, id: u64) -> Option<u64> {
        self.data_dirs.read().get(&id).copied()
    }
}

/// What only this member can answer its peers; about leases only after [`Member::set_leases`].
pub struct Member {
    identity: Identity,
    state: Arc<State>,
    consensus: Arc<Consensus>,
    propose: Propose,
    read: Read,
    members: Arc<Members>,
    presence: Arc<Presence>,
    disk: Disk,
    leases: OnceLock<Arc<dyn LeaderLeases>>,
}

/// What a member knows of its own disk.
struct Disk {
    engine: rusd_storage::engine::Engine,
    election_timeout: Duration,
}

impl Member {
    /// The clock of this member, which knows whether it leads. Only the first call counts.
    pub fn set_leases(&self, leases: Arc<dyn LeaderLeases>) {
        let _ = self.leases.set(leases);
    }
}

#[tonic::async_trait]
impl Local for Member {
    fn vote(&self) -> Option<Vote> {
        self.consensus.vote().get()
    }
    fn confirms(&self, term: u64, leader: u64) -> bool {
        self.consensus.vote().confirms(term, leader)
    }
    async fn read_index(&self, from: u64, granted_term: u64) -> Result<u64, pb::Refusal> {
        self.read.confirmed_index(from, granted_term).await
    }
    async fn propose(&self, batch: Vec<pb::ForwardedProposal>) -> Vec<pb::ForwardRefusal> {
        self.propose.submit_encoded(batch).await
    }

    fn probe(&self) -> pb::ProbeResponse {
        pb::ProbeResponse {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            data_dir_id: self.identity.data_dir_id,
            protocol_version: rusd_network::protocol().1,
            membership: self.state.membership_position().map(|at| LogPosition { term: at.term, index: at.index }),
            members: self.state.members(),
            removed_members: Vec::new(),
            cluster_version: self.state.cluster_version(),
        }
    }

    fn ping(&self, from: u64) -> pb::PingResponse {
        self.presence.heard(from);
        pb::PingResponse {
            data_dir_id: self.identity.data_dir_id,
            protocol_version: rusd_network::protocol().1,
            disk_is_slow: sick_disk::is_sick(&self.disk.engine, self.disk.election_timeout),
            etcd_version: ETCD_VERSION.into(),
        }
    }

    async fn hash(&self, question: pb::HashQuestion) -> pb::HashAnswer {
        corruption::answer(&self.state, question).await
    }

    async fn change_member(&self, request: pb::ChangeMemberRequest) -> pb::ChangeMemberResponse {
        self.members.change_for(request).await
    }

    async fn leases(&self, request: pb::LeaseForwardRequest) -> Result<pb::LeaseForwardResponse, Status> {
        let leases = self.leases.get().ok_or_else(|| Status::unavailable("this member is still starting"))?;
        let refused = |refusal: pb::Refusal| pb::LeaseForwardResponse { refusal: refusal as i32, ..Default::default() };
        let mut answer = pb::LeaseForwardResponse::default();
        if !request.keep_alive.is_empty() {
            let ttls = match leases.renew(request.keep_alive.clone()).await {
                Ok(ttls) => ttls,
                Err(error) => return Ok(refused(refusal_of(&error))),
            };
            let renewed = request.keep_alive.iter().zip(ttls);
            answer.keep_alive = renewed.map(|(id, ttl_secs)| pb::LeaseAnswer { id: *id, ttl_secs, ..Default::default() }).collect();
        }
        for pb::LeaseQuestion { id, keys } in request.time_to_live {
            answer.time_to_live.push(match leases.time_to_live(id, keys).await {
                Ok(Some(TimeToLive { ttl_secs, granted_ttl_secs, keys })) => {
                    pb::LeaseAnswer { id, ttl_secs, granted_ttl_secs, keys, not_found: false }
                }
                Ok(None) => pb::LeaseAnswer { id, not_found: true, ..Default::default() },
                Err(error) => return Ok(refused(refusal_of(&error))),
            });
        }
        Ok(answer)
    }
}

fn refusal_of(error: &Error) -> pb::Refusal {
    match error {
        Error::NotLeader | Error::NoLeader | Error::LeaderChanged => pb::Refusal::NotLeader,
        Error::TooManyRequests => pb::Refusal::TooManyRequests,
        Error::Stopped => pb::Refusal::Stopped,
        _ => pb::Refusal::Unconfirmed,
    }
}

/// The leases of the member that leads, asked over the peer port.
pub struct RemoteLeases {
    consensus: Arc<Consensus>,
    links: Arc<Links>,
    timeout: Duration,
}

impl RemoteLeases {
    /// `timeout` bounds one call (etcd's lease forward takes 1 s at most).
    pub fn new(consensus: Arc<Consensus>, timeout: Duration) -> Arc<Self> {
        let links = consensus.links().clone();
        Arc::new(Self { consensus, links, timeout })
    }

    async fn ask(&self, request: pb::LeaseForwardRequest) -> Result<pb::LeaseForwardResponse, Error> {
        let leader = self.consensus.believed_leader();
        if leader == 0 {
            return Err(Error::NoLeader);
        }
        if leader == self.consensus.member_id() {
            return Err(Error::NotLeader);
        }
        let mut client = self.links.client(leader, Purpose::Forward).map_err(|_| Error::NoLeader)?;
        let request = self.links.request(leader, request);
        let answer = match tokio::time::timeout(self.timeout, client.lease_forward(request)).await {
            Ok(Ok(response)) if !self.links.table.is_blocked(leader) => response.into_inner(),
            Ok(Err(status)) => {
                self.links.note_failure(leader, &status);
                return Err(Error::NoLeader);
            }
            _ => return Err(Error::Timeout),
        };
        match answer.refusal() {
            pb::Refusal::None => Ok(answer),
            pb::Refusal::NotLeader => Err(Error::NotLeader),
            pb::Refusal::TooManyRequests => Err(Error::TooManyRequests),
            _ => Err(Error::Timeout),
        }
    }
}

impl LeaderLeases for RemoteLeases {
    fn renew(&self, ids: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
        Box::pin(async move {
            let asked = ids.len();
            let answer = self.ask(pb::LeaseForwardRequest { keep_alive: ids, time_to_live: Vec::new() }).await?;
            let ttls: Vec<i64> = answer.keep_alive.into_iter().map(|answer| answer.ttl_secs).collect();
            if ttls.len() == asked { Ok(ttls) } else { Err(Error::Timeout) }
        })
    }

    fn time_to_live(&self, id: i64, keys: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
        Box::pin(async move {
            let time_to_live = vec![pb::LeaseQuestion { id, keys }];
            let answer = self.ask(pb::LeaseForwardRequest { keep_alive: Vec::new(), time_to_live }).await?;
            let answer = answer.time_to_live.into_iter().next().ok_or(Error::Timeout)?;
            let pb::LeaseAnswer { ttl_secs, granted_ttl_secs, keys, not_found, .. } = answer;
            Ok((!not_found).then_some(TimeToLive { ttl_secs, granted_ttl_secs, keys }))
        })
    }
}
