//! From flags to a serving member, and back to nothing.
//!
//! ```text
//! bind all ports -> who am I (bootstrap) -> open the store, start Raft, serve peers and metrics (assemble)
//!   -> the known commit is applied, there is a leader -> publish -> "ready to serve client requests" -> serve clients
//! SIGTERM -> stop accepting, hand over leadership, let calls end -> close the store -> exit 0
//! removed from the cluster -> say so, mark the data dir -> stop accepting, let calls end -> close the store -> exit 0
//! ```
//!
//! Two runtimes, so that a client's big LIST never delays a heartbeat: "consensus" has Raft, its peers and this file's waiting,
//! "front" has the clients.

use super::assemble::{Member, assemble};
use super::bootstrap::{self, BootstrapError};
use super::consensus::StartError;
use super::ports::{Port, PortError, Ports};
use super::publish::{self, PublishError};
use super::{Server, corruption, notify};
use crate::config::Config;
use crate::grpc::front::Front;
use crate::grpc::outflow::Outflow;
use crate::grpc::{Api, ETCD_VERSION};
use crate::http::{self, serve};
use crate::metrics::Metrics;
use axum::Router;
use rusd_network::Expulsion;
use rusd_storage::StorageError;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Threads for clients.
const FRONT_THREADS: usize = 2;
/// Threads for Raft and peers.
const CONSENSUS_THREADS: usize = 2;
/// How long open calls may go on at a shutdown; watches never end by themselves.
const DRAIN: Duration = Duration::from_secs(3);
/// The same for a member that was removed.
const DRAIN_REMOVED: Duration = Duration::from_millis(500);
/// How long all tries to hand leadership over may take.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between two looks at something that has no notification.
const POLL: Duration = Duration::from_millis(10);

/// Why a member doesn't run, or no longer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BootError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("can't start threads: {0}")]
    Threads(std::io::Error),
    #[error("can't use a bound port: {0}")]
    Listener(std::io::Error),
    #[error("can't listen to signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Consensus(#[from] StartError),
    #[error("consensus has stopped: {0}")]
    ConsensusStopped(String),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("{}", super::bootstrap::corrupt(*.0))]
    Inconsistent(u64),
    #[error("{}", super::bootstrap::wiped(*.0))]
    Wiped(u64),
}

/// Runs a member until a signal ends it (`Ok`) or it can't go on.
pub fn run(config: Config) -> Result<(), BootError> {
    let config = Arc::new(config);
    let ports = Ports::bind(&config)?;
    let front = runtime("front", FRONT_THREADS)?;
    let consensus = runtime("consensus", CONSENSUS_THREADS)?;
    let result = consensus.block_on(async {
        let stop = stop_signal()?;
        tokio::select! {
            result = live(config, ports, front.handle().clone(), stop.clone()) => result,
            // Whatever start-up waits for (a peer, a quorum): asked to stop, it stops.
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN * 3).await } => {
                tracing::warn!("stopping took too long, leaving");
                Ok(())
            }
        }
    });
    // Blocking reads that still run belong to clients that are gone.
    front.shutdown_background();
    consensus.shutdown_background();
    result
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, BootError> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build().map_err(BootError::Threads)
}

/// Cancelled by SIGTERM or SIGINT.
fn stop_signal() -> Result<CancellationToken, BootError> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, stop) = (signal(kind).map_err(BootError::Signals)?, stop.clone());
        tokio::spawn(async move {
            signals.recv().await;
            tracing::info!(signal = kind.as_raw_value(), "received signal; shutting down");
            stop.cancel();
        });
    }
    Ok(stop)
}

async fn live(config: Arc<Config>, ports: Ports, front: tokio::runtime::Handle, stop: CancellationToken) -> Result<(), BootError> {
    let Ports { peer, client, client_http, metrics } = ports;
    config.announce(ETCD_VERSION);
    let Some(stored) = stop.run_until_cancelled(bootstrap::identify(&config)).await.transpose()? else { return Ok(()) };
    let member = assemble(config, &stored, peer, &stop).await?;
    let api = Api {
        server: member.server.clone(),
        metrics: Arc::new(Metrics::new()),
        outflow: Outflow::new(),
        hub: member.hub.clone(),
        leases: member.clock.clone(),
    };
    let listening = Listening::new(front, api);
    listening.serve_routers(metrics, http::metrics_router)?;
    let ended = tokio::select! {
        result = serve_clients(&member, &listening, client, client_http, &stop) => result,
        error = failure(&member.server) => Err(error),
    };
    match ended {
        Err(BootError::Removed) => {
            // In etcd's words; a member that was removed has done nothing wrong.
            tracing::warn!(error = %BootError::Removed, "server error");
            tracing::warn!("data-dir used by this member must be removed");
            bootstrap::mark_removed(&member.server.config);
            leave(&member.server, &listening, false, DRAIN_REMOVED).await;
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "this member leaves service");
            leave(&member.server, &listening, false, DRAIN).await;
            Err(error)
        }
        Ok(()) => {
            leave(&member.server, &listening, true, DRAIN * 2).await;
            Ok(())
        }
    }
}

/// Until `stop`.
async fn serve_clients(
    member: &Member,
    listening: &Listening,
    client: Vec<Port>,
    client_http: Vec<Port>,
    stop: &CancellationToken,
) -> Result<(), BootError> {
    let server = &member.server;
    let caught_up = async {
        // No answer from before a write that this member once acknowledged.
        wait_for(|| server.state.applied() >= member.committed).await;
        wait_for(|| server.consensus.status().leader != 0).await;
    };
    if stop.run_until_cancelled(caught_up).await.is_none() {
        return Ok(());
    }
    // Only a restart has anything to compare.
    if server.config.initial_corrupt_check && member.committed.is_some() {
        match stop.run_until_cancelled(corruption::initial_is_fine(server)).await {
            None => return Ok(()),
            Some(false) => return Err(BootError::Inconsistent(server.identity.member_id)),
            Some(true) => {}
        }
    }
    match publish::publish(server, stop).await {
        Err(PublishError::Stopped) => return Ok(()),
        Err(PublishError::Wiped) => return Err(BootError::Wiped(server.identity.member_id)),
        published => published?,
    }
    tracing::info!(local_member_id = %format_args!("{:x}", server.identity.member_id), cluster_id = %format_args!("{:x}", server.identity.cluster_id),
        "published local member to cluster through raft");
    listening.serve_clients(member, client, client_http)?;
    tracing::info!("ready to serve client requests");
    notify::ready();
    stop.cancelled().await;
    Ok(())
}

async fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

/// What takes a member out of service: its store, openraft, or that it is none any more.
async fn failure(server: &Server) -> BootError {
    let (mut store, mut raft, mut expelled) =
        (server.engine.failure(), server.consensus.failure(), server.consensus.links().expelled.watch());
    tokio::select! {
        Ok(error) = store.wait_for(Option::is_some) => error.clone().map_or(BootError::ConsensusStopped(String::new()), BootError::Storage),
        Ok(error) = raft.wait_for(Option::is_some) => BootError::ConsensusStopped(error.clone().unwrap_or_default()),
        Ok(why) = expelled.wait_for(Option::is_some) => match *why {
            Some(Expulsion::Wiped) => BootError::Wiped(server.identity.member_id),
            _ => BootError::Removed,
        },
        else => BootError::ConsensusStopped("its tasks are gone".into()),
    }
}

/// Stops accepting, hands over leadership, lets calls end for `drain` at most, closes the store.
async fn leave(server: &Server, listening: &Listening, healthy: bool, drain: Duration) {
    listening.shutdown.cancel();
    listening.tasks.close();
    if healthy {
        hand_over(server).await;
    }
    let _ = tokio::time::timeout(drain, listening.tasks.wait()).await;
    server.consensus.shutdown().await;
    let (engine, state) = (server.engine.clone(), server.state.clone());
    let close = move || {
        state.hand_over();
        engine.close()
    };
    match tokio::task::spawn_blocking(close).await {
        Ok(Ok(())) => tracing::info!("closed the member"),
        Ok(Err(error)) if healthy => tracing::error!(%error, "the store didn't close well; what was acknowledged is safe in the log"),
        _ => {}
    }
}

/// So that the others don't have to wait for an election.
async fn hand_over(server: &Server) {
    let leads = server.consensus.believed_leader() == server.identity.member_id;
    let others = server.state.members().iter().any(|member| member.id != server.identity.member_id && !member.is_learner);
    if !leads || !others {
        return;
    }
    match server.members.hand_over().to_best(HAND_OVER).await {
        Ok(to) => tracing::info!(to = format!("{to:x}"), "handed leadership over"),
        Err(error) => tracing::warn!(%error, "leadership wasn't handed over"),
    }
}

/// What listens, and how it ends.
struct Listening {
    front: tokio::runtime::Handle,
    api: Api,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Listening {
    fn new(front: tokio::runtime::Handle, api: Api) -> Self {
        Self { front, api, shutdown: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    fn serve_clients(&self, member: &Member, client: Vec<Port>, client_http: Vec<Port>) -> Result<(), BootError> {
        let _entered = self.front.enter();
        let web = if client_http.is_empty() { http::client_router(self.api.clone()) } else { Router::new() };
        let front = Front::new(self.api.clone(), web).with(|routes| member.services(routes)).with_lease(member.lease_service());
        let traffic = if client_http.is_empty() { "grpc+http" } else { "grpc" };
        for port in client {
            announce(&port, traffic);
            let (front, shutdown) = (front.clone(), self.shutdown.clone());
            match port {
                Port::Tcp(port) => self.spawn(serve::serve(tcp(port)?, front, shutdown, DRAIN)),
                Port::Unix(port) => self.spawn(serve::serve(unix(port)?, front, shutdown, DRAIN)),
            }
        }
        client_http.iter().for_each(|port| announce(port, "http"));
        self.serve_routers(client_http, http::client_router)
    }

    fn serve_routers(&self, ports: Vec<Port>, router: fn(Api) -> Router) -> Result<(), BootError> {
        let _entered = self.front.enter();
        for port in ports {
            let (router, shutdown) = (router(self.api.clone()), self.shutdown.clone());
            match port {
                Port::Tcp(port) => self.spawn(serve::serve_router(tcp(port)?, router, shutdown, DRAIN)),
                Port::Unix(port) => self.spawn(serve::serve_router(unix(port)?, router, shutdown, DRAIN)),
            }
        }
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.front);
    }
}

/// In etcd's words.
fn announce(port: &Port, traffic: &str) {
    tracing::info!(traffic, address = %port, "serving client traffic insecurely; this is strongly discouraged!");
}

pub(super) fn tcp(port: TcpListener) -> Result<impl axum::serve::Listener<Io = tokio::net::TcpStream>, BootError> {
    tokio::net::TcpListener::from_std(port).map(serve::tcp).map_err(BootError::Listener)
}

pub(super) fn unix(port: std::os::unix::net::UnixListener) -> Result<tokio::net::UnixListener, BootError> {
    tokio::net::UnixListener::from_std(port).map_err(BootError::Listener)
}
