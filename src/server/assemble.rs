//! Puts a member together: store, Raft, peers, watches, leases, compaction.

use super::Server;
use super::boot::{BootError, tcp, unix};
use super::bootstrap::{self, member_dir};
use super::compactor::Compactor;
use super::identity::Stored;
use super::leadership::RaftLeadership;
use super::lease_routing::LeaseRouting;
use super::leases::Leases;
use super::peers::{self, RemoteLeases, Started};
use super::ports::Port;
use super::waiters::Waiters;
use super::{alone, corruption, publish, sick_disk, version};
use crate::config::Config;
use crate::grpc::election::ElectionService;
use crate::grpc::lease::LeaseService;
use crate::grpc::lock::LockService;
use crate::grpc::recipe::Recipe;
use crate::grpc::watch::{Everybody, WatchService};
use crate::http::{self, serve};
use crate::pb::etcdserverpb::watch_server::WatchServer;
use crate::pb::v3electionpb::election_server::ElectionServer;
use crate::pb::v3lockpb::lock_server::LockServer;
use crate::watch::Hub;
use crate::watch::history::StateHistory;
use crate::with_limits;
use rand::Rng;
use rusd_storage::command::ApplyResult;
use rusd_storage::raft::{self, ResultSink};
use rusd_storage::types::LogPosition;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Between two looks for dead records.
const COMPACTION_TICK: Duration = Duration::from_millis(100);

/// An assembled member, and the commit it must have applied before it may answer anybody.
pub struct Member {
    /// Its parts.
    pub server: Arc<Server>,
    /// What the last run knew committed.
    pub committed: Option<LogPosition>,
    /// Its watches.
    pub hub: Arc<Hub>,
    /// Its clock of leases.
    pub clock: Arc<Leases>,
    leases: Arc<LeaseRouting>,
}

impl Member {
    /// The Lease service.
    pub fn lease_service(&self) -> LeaseService {
        LeaseService::new(self.server.clone(), self.clock.clone(), self.leases.clone().leader_leases())
    }

    /// Adds the other services that need more than the server.
    pub fn services(&self, routes: Routes) -> Routes {
        let config = &self.server.config;
        let recipe = Recipe { server: self.server.clone(), hub: self.hub.clone() };
        let watch = WatchService::new(self.server.clone(), self.hub.clone(), Arc::new(Everybody));
        routes
            .add_service(with_limits!(WatchServer::new(watch), config))
            .add_service(with_limits!(LockServer::new(LockService { recipe: recipe.clone() }), config))
            .add_service(with_limits!(ElectionServer::new(ElectionService { recipe }), config))
    }
}

/// Results go to waiting requests, and tell the lease clock what it must know.
struct Sink {
    waiters: Arc<Waiters>,
    clock: OnceLock<Arc<Leases>>,
}

impl ResultSink for Sink {
    fn applied(&self, origin: u64, sequence: u64, position: LogPosition, result: ApplyResult) {
        if let Some(clock) = self.clock.get() {
            clock.observe(&result);
        }
        self.waiters.applied(origin, sequence, position, result);
    }
    fn advanced(&self, applied: LogPosition) {
        self.waiters.advanced(applied);
    }
    fn installed(&self, applied: LogPosition) {
        self.waiters.installed(applied);
    }
}

/// Opens the store, starts Raft and serves `peer` ports (RaftInternal, reflection, [`http::peer_router`]); then initializes a cluster
/// that never was.
pub async fn assemble(config: Arc<Config>, stored: &Stored, peer: Vec<Port>, stop: &CancellationToken) -> Result<Member, BootError> {
    let retention = config.auto_compaction;
    let sink = Arc::new(Sink { waiters: Waiters::new(rand::rng().next_u64().max(1)), clock: OnceLock::new() });
    let options = raft::Options {
        memory_bytes: config.memory_budget_bytes,
        slow_apply: Some(config.warning_apply_duration),
        defragment_from_bytes: Some(config.defrag_threshold_megabytes.saturating_mul(1 << 20)).filter(|bytes| *bytes > 0),
        ..raft::Options::default()
    };
    let (directory, results) = (member_dir(&config), sink.clone());
    let mut opened = tokio::task::spawn_blocking(move || raft::open(&directory, options, results))
        .await
        .map_err(|error| BootError::Threads(std::io::Error::other(error)))??;
    let (engine, state, committed) = (opened.engine.clone(), opened.state.clone(), opened.committed);
    if config.force_new_cluster {
        alone::force(&config, stored, &mut opened).await?;
    }
    let goes_on_alone = opened.will_be_alone(stored.member_id)?;
    let new = !opened.has_vote && state.applied().is_none() && !stored.joins;
    if new && !stored.peers_were_asked {
        bootstrap::refuse_bootstrapped(&config, stored).await?;
    }
    let addresses = stored.founders.iter().map(|founder| (founder.id, founder.peer_urls.clone()));
    let identity = stored.identity();
    let Started { consensus, requests, propose, read, members, member, service } =
        peers::start(&config, &identity, opened, sink.waiters.clone(), addresses.clone()).await?;
    let server =
        Arc::new(Server { config, identity, measures: engine.measures(), requests, state, engine, consensus, propose, read, members });
    let leadership = Arc::new(RaftLeadership(Arc::downgrade(&server)));
    let clock = Leases::new(server.state.clone(), leadership.clone(), server.config.election_timeout, server.config.request_timeout());
    let _ = sink.clock.set(clock.clone());
    let there = RemoteLeases::new(server.consensus.clone(), Duration::from_secs(1));
    let leases = LeaseRouting::new(clock.clone(), there, server.config.request_timeout());
    member.set_leases(clock.clone());
    let hub = Hub::new(Arc::new(StateHistory(server.state.clone())));
    if let Some(index) = goes_on_alone {
        let mut failed = server.engine.failure();
        tokio::select! {
            // Counted as etcd does.
            () = sink.waiters.wait_applied(index + 1) => {}
            _ = failed.wait_for(Option::is_some) => {}
            () = stop.cancelled() => {}
        }
    }
    serve_peers(&server, service, peer)?;
    tokio::spawn(hub.clone().follow(stop.clone()));
    tokio::spawn(hub.clone().catch_up(stop.clone()));
    tokio::spawn(clock.clone().run(stop.clone()));
    tokio::spawn(Compactor::new(retention, Arc::new(StateHistory(server.state.clone())), leadership).run(stop.clone()));
    tokio::spawn(compact(server.clone(), stop.clone()));
    look_after_the_cluster(&server, stored, stop);
    if new {
        let consensus = server.consensus.clone();
        let founders = addresses.collect();
        tokio::spawn(async move {
            if let Err(error) = consensus.initialize(founders).await {
                tracing::error!(%error, "the cluster can't be founded");
            }
        });
    }
    Ok(Member { server, committed, hub, clock, leases })
}

/// What a leader does for all, each a task that watches whether this member leads.
fn look_after_the_cluster(server: &Arc<Server>, stored: &Stored, stop: &CancellationToken) {
    let (member, until) = (server.clone(), stop.clone());
    tokio::spawn(async move { version::decide(&member, member.members.presence(), &until).await });
    let (member, until) = (server.clone(), stop.clone());
    tokio::spawn(async move { sick_disk::watch(&member, &until).await });
    let (member, until) = (server.clone(), stop.clone());
    tokio::spawn(async move { corruption::watch(&member, &until).await });
    if !stored.joins {
        let (member, until, founders) = (server.clone(), stop.clone(), stored.founders.clone());
        tokio::spawn(async move { publish::name_founders(&member, &founders, &until).await });
    }
}

fn serve_peers(server: &Arc<Server>, service: rusd_network::Service, ports: Vec<Port>) -> Result<(), BootError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(rusd_network::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("written by build.rs");
    let router =
        Routes::new(service.into_server()).add_service(reflection).prepare().into_axum_router().merge(http::peer_router(server.clone()));
    for port in ports {
        // Peers are served until the very end: a leader that hands over still needs them.
        let (router, until) = (router.clone(), CancellationToken::new());
        match port {
            Port::Tcp(port) => tokio::spawn(serve::serve_router(tcp(port)?, router, until, Duration::ZERO)),
            Port::Unix(port) => tokio::spawn(serve::serve_router(unix(port)?, router, until, Duration::ZERO)),
        };
    }
    Ok(())
}

/// Physical compaction, in steps so small that no put waits for them.
async fn compact(server: Arc<Server>, stop: CancellationToken) {
    let pause = server.config.compaction_sleep_interval;
    while stop.run_until_cancelled(tokio::time::sleep(COMPACTION_TICK)).await.is_some() {
        loop {
            let store = server.state.store();
            match tokio::task::spawn_blocking(move || store.compact_step()).await {
                Ok(Ok(true)) if !stop.is_cancelled() => tokio::time::sleep(pause).await,
                Ok(Err(error)) => {
                    tracing::error!(%error, "compaction failed");
                    break;
                }
                _ => break,
            }
        }
    }
}
