//! The one openraft door of the root crate: its configuration, its start, and what it lets us know.

use super::Error;
use super::identity::Identity;
use super::standing::Standing;
use super::waiters::Waiters;
use crate::config::Config;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::raft::TransferLeaderRequest;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ServerState, SnapshotPolicy};
use rusd_network::{Factory, LeaderContact, Links, Raft};
use rusd_storage::raft::types::{Node, TypeConfig};
use rusd_storage::raft::{LogStore, SoleMember, StateMachine, VoteCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Parts of openraft that warn several times per second while a member is away, under their names in the log; `presence` tells that once.
pub const REPETITIVE: &[&str] =
    &["openraft::core::heartbeat", "openraft::replication", "openraft::engine::handler::replication_handler", "openraft::raft::responder"];

/// Parts that call it an error when somebody asks openraft something after it has stopped, as peers do while a member ends. Where it has
/// stopped by itself, [`Consensus`] says so.
pub const PARTING: &[&str] = &["openraft::raft::raft_inner", "openraft::raft::stream_append"];

/// A target that hasn't taken over in this time is told again.
const TRANSFER_TURN: Duration = Duration::from_millis(250);

/// openraft, and what we know about leadership.
pub struct Consensus {
    raft: Raft,
    member_id: u64,
    waiters: Arc<Waiters>,
    vote: Arc<VoteCell>,
    sole: Arc<SoleMember>,
    contact: Arc<LeaderContact>,
    links: Arc<Links>,
    standing: Standing,
    data: WatchReceiverOf<TypeConfig, RaftDataMetrics<TypeConfig>>,
    view: watch::Sender<View>,
    glance: Glance,
    leader: watch::Sender<u64>,
    leader_changes: AtomicU64,
    failed: watch::Sender<Option<String>>,
    times: Times,
    stop: CancellationToken,
}

#[derive(Clone, Copy)]
struct Times {
    /// How long a leader may go on without a quorum, and a follower without its leader.
    lease: Duration,
    heartbeat: Duration,
}

/// What openraft believes; changes rarely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    term: u64,
    /// 0 = none.
    leader: u64,
    learner: bool,
    single_voter: bool,
    /// When this leader became known.
    since: Instant,
}

/// What every request asks of the view, without a lock.
#[derive(Debug, Default)]
struct Glance {
    term: AtomicU64,
    leader: AtomicU64,
}

impl Glance {
    fn take(&self, view: &View) {
        self.term.store(view.term, Ordering::Release);
        self.leader.store(view.leader, Ordering::Release);
    }
}

/// A moment's view of Raft, for Status and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaftStatus {
    /// Current term.
    pub term: u64,
    /// Leader id, 0 = none; computed from the last quorum ack or the last contact, never from openraft's belief alone.
    pub leader: u64,
    /// Committed index, counted as etcd does (openraft's + 1).
    pub committed: u64,
    /// Applied index, counted as etcd does.
    pub applied: u64,
    /// Whether this member is a learner to its clients.
    pub is_learner: bool,
}

/// What [`Consensus::start`] needs of the opened store.
pub struct Stores {
    /// The opened log.
    pub log_store: LogStore,
    /// The opened state.
    pub state_machine: StateMachine,
}

/// Why consensus can't start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// openraft refuses the times.
    #[error("impossible heartbeat interval or election timeout: {0}")]
    Config(String),
    /// The stored log and state can't be continued.
    #[error("can't continue the Raft log: {0}")]
    Storage(String),
    /// This member is not among the founders.
    #[error("can't found the cluster: {0}")]
    Founders(String),
    /// openraft has ended.
    #[error("consensus has stopped")]
    Stopped,
}

/// openraft.md section 11: with etcd's election timeout E, a follower campaigns in [E, 1.5 E).
pub fn raft_config(config: &Config) -> Result<openraft::Config, StartError> {
    let heartbeat = config.heartbeat_interval.as_millis() as u64;
    let election = config.election_timeout.as_millis() as u64;
    let shortest = (election / 4).max(heartbeat + 1);
    let longest = (election * 3 / 4).max(shortest + 1);
    openraft::Config {
        cluster_name: "rusd".into(),
        heartbeat_interval: heartbeat,
        election_timeout_min: shortest,
        election_timeout_max: longest,
        enable_pre_vote: Some(config.pre_vote),
        quorum_loss_probe_interval: Some(2 * longest),
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.snapshot_catchup_entries,
        purge_batch_size: 256.min(config.snapshot_catchup_entries.max(1)),
        max_payload_entries: 300,
        allow_log_reversion: None,
        ..Default::default()
    }
    .validate()
    .map_err(|error| StartError::Config(error.to_string()))
}

fn view_of(metrics: &RaftServerMetrics<TypeConfig>, since: Instant) -> View {
    let config = metrics.membership_config.get_joint_config();
    View {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader.unwrap_or(0),
        learner: metrics.state == ServerState::Learner,
        single_voter: config.len() == 1 && config[0].len() == 1,
        since,
    }
}

impl Consensus {
    /// Starts openraft on the runtime this runs on; stays there.
    ///
    /// # Errors
    /// The configuration is impossible, or the store can't be continued.
    pub async fn start(
        config: &Config,
        identity: &Identity,
        stores: Stores,
        waiters: Arc<Waiters>,
        links: Arc<Links>,
    ) -> Result<Arc<Self>, StartError> {
        let raft_config = raft_config(config)?;
        let lease = Duration::from_millis(raft_config.election_timeout_max);
        let times = Times { lease, heartbeat: config.heartbeat_interval };
        let (vote, sole) = (stores.log_store.vote_cell(), stores.log_store.sole_member());
        let raft =
            Raft::new(identity.member_id, Arc::new(raft_config), Factory::new(links.clone()), stores.log_store, stores.state_machine)
                .await
                .map_err(|error| StartError::Storage(error.to_string()))?;
        let first = view_of(&raft.server_metrics().borrow_watched(), Instant::now());
        let consensus = Arc::new(Self {
            data: raft.data_metrics(),
            raft,
            member_id: identity.member_id,
            waiters,
            vote,
            sole,
            contact: Arc::default(),
            links,
            standing: Standing::default(),
            view: watch::Sender::new(first),
            glance: Glance::default(),
            leader: watch::Sender::new(first.leader),
            leader_changes: AtomicU64::new(0),
            failed: watch::Sender::new(None),
            times,
            stop: CancellationToken::new(),
        });
        consensus.glance.take(&first);
        consensus.standing.by_raft(first.learner);
        tokio::spawn(consensus.clone().follow());
        Ok(consensus)
    }

    /// openraft itself; membership changes need it.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// This member's id.
    pub fn member_id(&self) -> u64 {
        self.member_id
    }

    /// The newest vote this member has begun to save.
    pub fn vote(&self) -> &VoteCell {
        &self.vote
    }

    /// When a leader last spoke to us.
    pub fn contact(&self) -> Arc<LeaderContact> {
        self.contact.clone()
    }

    /// The links to the other members.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Cancelled when this member stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// The current term, for response headers.
    pub fn term(&self) -> u64 {
        self.glance.term.load(Ordering::Acquire)
    }

    /// Whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        self.standing.is_learner()
    }

    /// Current view; a lock or two and no allocation.
    pub fn status(&self) -> RaftStatus {
        let view = *self.view.borrow();
        let data = self.data.borrow_watched();
        let committed = data.local_committed.as_ref().map_or(0, |id| id.index + 1);
        let acked = data.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
        drop(data);
        let applied = self.waiters.applied_index();
        let leader = if self.has_leader(&view, acked) { view.leader } else { 0 };
        RaftStatus { term: view.term, leader, committed: committed.max(applied), applied, is_learner: self.is_learner() }
    }

    /// Tells what this member's record says: one that waits to become a voter is no learner to clients.
    pub fn set_learner(&self, is_learner: Option<bool>) {
        self.standing.by_record(is_learner);
    }

    /// openraft.md section 2.3: openraft goes on believing in a leader that is cut off.
    fn has_leader(&self, view: &View, acked: Option<Duration>) -> bool {
        if view.leader == 0 {
            return false;
        }
        if view.leader == self.member_id {
            return view.single_voter || acked.is_some_and(|age| age < self.times.lease);
        }
        // A follower campaigns within 2 leases after the last contact; until then its leader may be there.
        let patience = self.times.lease + self.times.heartbeat * 2;
        self.contact.age().is_some_and(|age| age < patience) || view.since.elapsed() < patience
    }

    /// The leader that openraft believes in, 0 = none: where proposals go.
    pub fn believed_leader(&self) -> u64 {
        self.glance.leader.load(Ordering::Acquire)
    }

    /// The same with its term.
    pub fn believed_leadership(&self) -> (u64, u64) {
        let view = *self.view.borrow();
        (view.leader, view.term)
    }

    /// When the current leader became known.
    pub fn leader_since(&self) -> Instant {
        self.view.borrow().since
    }

    /// The believed leader as a watch.
    pub fn watch_leader(&self) -> watch::Receiver<u64> {
        self.leader.subscribe()
    }

    /// If this member is the whole cluster: the term of the last entry it applied. What it has applied is then all that anybody was told.
    pub fn sole_term(&self) -> Option<u64> {
        self.sole.applied_term(self.member_id)
    }

    /// Applied index, counted as etcd does.
    pub fn applied_index(&self) -> u64 {
        self.waiters.applied_index()
    }

    /// The last snapshot's index, counted as etcd does.
    pub fn snapshot_index(&self) -> u64 {
        self.data.borrow_watched().snapshot.as_ref().map_or(0, |id| id.index + 1)
    }

    /// How many committed entries still wait to be applied.
    pub fn backlog(&self) -> u64 {
        let committed = self.data.borrow_watched().local_committed.as_ref().map_or(0, |id| id.index + 1);
        committed.saturating_sub(self.waiters.applied_index())
    }

    /// Leader changes seen since start.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Why openraft has stopped, once it has: the process must leave service.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Who votes, by the membership in effect.
    pub fn voters(&self) -> Vec<u64> {
        self.raft.voter_ids().collect()
    }

    /// Makes openraft hand leadership to `target` and waits until it leads. There is no way back: see [`super::hand_over`], which is the
    /// one to call this.
    ///
    /// # Errors
    /// It took longer than `patience`; this member takes no writes until somebody leads.
    pub(super) async fn transfer_leader(&self, target: u64, patience: Duration) -> Result<(), Error> {
        let mut leader = self.watch_leader();
        let deadline = Instant::now() + patience;
        let (_, term) = self.believed_leadership();
        loop {
            match self.believed_leadership() {
                // Openraft says so once, with little patience: a target that is slow for a moment would miss it, and nobody leads until an
                // election timeout. Who has heard it and voted takes no notice of another time.
                (leader, now) if leader == self.member_id && now == term => {
                    self.raft.trigger().transfer_leader(target).await.map_err(|_| Error::Stopped)?;
                }
                // Elected again meanwhile, it would give away what it has just won.
                (leader, _) if leader == self.member_id => return Err(Error::TimeoutLeaderTransfer),
                // An election is under way.
                _ => {}
            }
            let turn = deadline.min(Instant::now() + TRANSFER_TURN.min(self.times.lease / 3));
            let other = leader.wait_for(|leader| *leader != self.member_id && *leader != 0);
            match tokio::time::timeout_at(turn.into(), other).await {
                Ok(Ok(now)) if *now == target => return Ok(()),
                Ok(Ok(_)) => return Err(Error::NotLeader),
                Ok(Err(_)) => return Err(Error::Stopped),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return Err(Error::TimeoutLeaderTransfer),
            }
        }
    }

    /// Ends what this member has promised its leader: to vote for nobody else while it may be there. False if somebody else leads already.
    pub(super) async fn give_up_lease_of(&self, leader: u64) -> bool {
        let Some(vote) = self.vote.get().filter(|vote| vote.committed && vote.leader_id.voted_for == leader) else { return false };
        // Meant for a leader that hands over; it ends the lease everywhere, and makes a candidate of whom it names only.
        self.raft.handle_transfer_leader(TransferLeaderRequest::new(vote, leader, None)).await.is_ok()
    }

    /// Term of the newest vote.
    pub(super) fn voted_term(&self) -> u64 {
        self.vote.get().map_or(0, |vote| vote.leader_id.term)
    }

    /// Stands for election, if a majority would grant it.
    pub(super) async fn campaign(&self) {
        // An error means that openraft has stopped, which `follow` tells.
        let _ = self.raft.trigger().elect(true).await;
    }

    /// How long a leader is trusted without a word of it.
    pub(super) fn lease(&self) -> Duration {
        self.times.lease
    }

    /// Founds the cluster: the smallest id at once, the others only if nobody has after an election timeout (fewer split votes). All
    /// founders must be given the same `founders`. Repeated after a crash while log and vote are empty; otherwise it does nothing.
    ///
    /// # Errors
    /// This member is no founder, or openraft has stopped.
    pub async fn initialize(&self, founders: BTreeMap<u64, Vec<String>>) -> Result<(), StartError> {
        if founders.keys().next() != Some(&self.member_id) {
            let mut leader = self.watch_leader();
            let _ = tokio::time::timeout(self.times.lease, leader.wait_for(|leader| *leader != 0)).await;
        }
        if self.raft.is_initialized().await.map_err(|_| StartError::Stopped)? {
            return Ok(());
        }
        let founders: BTreeMap<u64, Node> = founders.into_iter().map(|(id, peer_urls)| (id, Node { peer_urls })).collect();
        match self.raft.initialize(founders).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(StartError::Founders(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(StartError::Stopped),
        }
    }

    /// Ends consensus. Leadership should have been handed over before.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("consensus did not end well: {error}");
        }
    }

    /// Follows openraft's rare changes; its end means that openraft has stopped.
    async fn follow(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        loop {
            {
                let old = *self.view.borrow();
                let metrics = server.borrow_and_update();
                let mut new = view_of(&metrics, old.since);
                drop(metrics);
                if new.leader != old.leader || (new.term != old.term && new.leader != 0) {
                    new.since = Instant::now();
                }
                self.publish(old, new);
            }
            tokio::select! {
                changed = server.changed() => if changed.is_err() { break },
                () = self.stop.cancelled() => return,
            }
        }
        // At a shutdown both come at once.
        if self.stop.is_cancelled() {
            return;
        }
        let why = match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "raft stopped".to_owned(),
        };
        tracing::error!("consensus has stopped: {why}");
        self.failed.send_replace(Some(why));
    }

    fn publish(&self, old: View, new: View) {
        if new == old {
            return;
        }
        self.glance.take(&new);
        self.standing.by_raft(new.learner);
        self.view.send_replace(new);
        if new.leader != old.leader {
            if new.leader != 0 {
                self.leader_changes.fetch_add(1, Ordering::Relaxed);
            }
            tracing::info!(leader = format!("{:x}", new.leader), term = new.term, "leader changed");
        }
        self.leader.send_if_modified(|leader| std::mem::replace(leader, new.leader) != new.leader);
    }
}
