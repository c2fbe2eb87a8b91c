//! The leader's clock for leases. The replicated lessor knows leases and keys, never time; what time means is decided here alone.
//!
//! ```text
//!  becomes leader (own first entry applied) -> every lease extended: TTL (or checkpointed rest) + one election timeout
//!  keep-alive  -> leadership confirmed by a quorum younger than the leader's lease? -> new deadline, from memory
//!                 (first one after a checkpoint: clears the checkpoint through the log, then answers)
//!  deadline    -> decided: revoke proposed *in the term it was decided in*; from now on keep-alives wait for it
//!  5 minutes   -> remaining times of long leases go into the log (checkpoint), so that leader changes don't renew them for ever
//! ```
//!
//! Why it is safe: a lease was promised until `t + TTL` by a leader that no one could have replaced at `t`. A new leader starts counting
//! later than `t`, and counts the whole TTL plus an election timeout. An old leader that wakes up proposes in its old term, in vain.

mod clock;

use super::Error;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rusd_storage::Rejection;
use rusd_storage::command::{ApplyResult, LeaseCheckpoint, LeaseRevoke, Response, lease_checkpoint, proposal, state};
use rusd_storage::measure::Counter;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Longest TTL, seconds.
pub const TTL_MAX_SECS: i64 = 9_000_000_000;
/// How often expiry is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Revokes proposed and not yet applied.
const REVOKES_IN_FLIGHT: usize = 16;
/// How often remaining times go into the log.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// How often all leases are looked through for such as nobody announced.
const RECONCILE: Duration = Duration::from_secs(5);

/// What the clock needs to know about the replicated state.
pub trait LeaseState: Send + Sync + 'static {
    /// All leases.
    fn leases(&self) -> Vec<state::Lease>;
    /// One lease, with its keys if asked.
    fn lease(&self, id: i64, keys: bool) -> Option<(state::Lease, Vec<bytes::Bytes>)>;
}

impl LeaseState for rusd_storage::apply::State {
    fn leases(&self) -> Vec<state::Lease> {
        self.leases()
    }
    fn lease(&self, id: i64, keys: bool) -> Option<(state::Lease, Vec<bytes::Bytes>)> {
        self.lease(id, keys)
    }
}

/// What the clock needs of the cluster.
pub trait Leadership: Send + Sync + 'static {
    /// The term this member leads, once its own first entry of that term is applied.
    fn leads(&self) -> Option<u64>;
    /// The same for a member that is the whole cluster, and needs no round to prove it.
    fn leads_alone(&self) -> Option<u64> {
        None
    }
    /// Returns after a round that proves leadership.
    fn confirm(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Proposes only if this member still leads `term`; never forwarded.
    fn submit_in_term(&self, command: proposal::Command, term: u64) -> BoxFuture<'_, Result<Response, Error>>;
}

/// What TimeToLive answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds left, rounded down; may be 0 or less while the revoke is on its way.
    pub ttl_secs: i64,
    /// As granted.
    pub granted_ttl_secs: i64,
    /// Attached keys, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// The leader's answers about leases, wherever the leader is.
pub trait LeaderLeases: Send + Sync + 'static {
    /// Renews; answers with the TTL of each id in order, 0 for one that is gone.
    fn renew(&self, ids: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>>;
    /// Renews one if that can be done without waiting for anything.
    fn renew_at_once(&self, _id: i64) -> Option<i64> {
        None
    }
    /// Asks; `None` if there is no such lease.
    fn time_to_live(&self, id: i64, keys: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>>;
}

/// The clock. On a member that doesn't lead it stands still and knows nothing.
pub struct Leases {
    state: Arc<dyn LeaseState>,
    leadership: Arc<dyn Leadership>,
    election_timeout: Duration,
    request_timeout: Duration,
    clock: Mutex<Clock>,
    /// Counts decided revokes and checkpoints that have ended, whichever way.
    settled: watch::Sender<u64>,
    in_flight: Arc<Semaphore>,
    /// Keep-alives answered while this member led.
    pub renewed: Counter,
    /// Leases revoked since their time was over, while this member led.
    pub expired: Counter,
}

#[derive(Default)]
struct Clock {
    /// The term the deadlines belong to; none while not leading.
    term: Option<u64>,
    leases: HashMap<i64, Deadline>,
    /// (deadline, id); entries that no longer match their lease are skipped.
    ends: BinaryHeap<Reverse<(Instant, i64)>>,
    /// (due, id) of checkpoints, likewise.
    checkpoints: BinaryHeap<Reverse<(Instant, i64)>>,
    reconciled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoint {
    /// The log holds no remaining time.
    None,
    /// One is being proposed.
    Proposing,
    /// The log holds one, or may.
    Set,
}

struct Deadline {
    ttl_secs: i64,
    at: Instant,
    /// The end is decided; when to try again if that fails.
    revoking: Option<Instant>,
    checkpoint: Checkpoint,
    checkpoint_due: Option<Instant>,
}

enum Renewal {
    Renewed(i64),
    Gone,
    /// A revoke or a checkpoint must end first.
    Wait,
    /// The checkpoint must be cleared through the log first.
    Clear,
}

impl Leases {
    /// A clock that stands still until [`Leases::run`].
    pub fn new(
        state: Arc<dyn LeaseState>,
        leadership: Arc<dyn Leadership>,
        election_timeout: Duration,
        request_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            state,
            leadership,
            election_timeout,
            request_timeout,
            clock: Mutex::default(),
            settled: watch::Sender::new(0),
            in_flight: Arc::new(Semaphore::new(REVOKES_IN_FLIGHT)),
            renewed: Counter::default(),
            expired: Counter::default(),
        })
    }

    /// To be called by the result sink for every applied entry: a grant starts its clock at once. Without it the clock finds new leases
    /// by itself within seconds, which only makes them live longer.
    pub fn observe(&self, result: &ApplyResult) {
        if let Ok(Response::LeaseGrant { id, ttl_secs, .. }) = result
            // Asked, not read: the first grant of a term may come before the first tick, and isn't one to extend.
            && self.current_term().is_some()
        {
            let deadline = Instant::now() + secs(*ttl_secs);
            self.clock.lock().start(*id, *ttl_secs, deadline, Checkpoint::None);
        }
    }

    /// Ticks until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Ids, soonest end first; `None` unless this member leads.
    pub fn by_remaining(&self) -> Option<Vec<i64>> {
        self.current_term()?;
        // The state knows which leases there are; the clock forgets a revoked one later. Sorted outside of the lock, on which apply may wait.
        let leases = self.state.leases();
        let mut ids: Vec<(bool, Option<Instant>, i64)> = {
            let clock = self.clock.lock();
            let end = |id| clock.leases.get(&id).map(|deadline| deadline.at);
            leases.iter().map(|lease| (end(lease.id).is_none(), end(lease.id), lease.id)).collect()
        };
        ids.sort_unstable();
        Some(ids.into_iter().map(|(_, _, id)| id).collect())
    }

    /// The term this member leads, with the clock set for it.
    fn current_term(&self) -> Option<u64> {
        let leads = self.leadership.leads();
        let mut clock = self.clock.lock();
        if clock.term != leads {
            *clock = Clock::default();
            if let Some(term) = leads {
                clock.term = Some(term);
                clock.promote(self.state.leases(), self.election_timeout);
                clock.reconciled = Some(Instant::now());
            }
        }
        leads
    }

    fn tick(self: &Arc<Self>) {
        let Some(term) = self.current_term() else { return };
        let now = Instant::now();
        let due = self.clock.lock().reconciled.is_none_or(|last| now >= last + RECONCILE);
        if due {
            self.reconcile(now);
        }
        let (revokes, checkpoint) = {
            let mut clock = self.clock.lock();
            if clock.term != Some(term) {
                return;
            }
            (clock.take_expired(now), clock.take_checkpoint(now))
        };
        for id in revokes {
            tokio::spawn(self.clone().revoke(id, term));
        }
        if !checkpoint.is_empty() {
            tokio::spawn(self.clone().checkpoint(checkpoint, term));
        }
    }

    /// Takes in leases that were granted unannounced, and forgets those that are gone.
    fn reconcile(&self, now: Instant) {
        let leases = self.state.leases();
        let mut clock = self.clock.lock();
        clock.reconciled = Some(now);
        for lease in &leases {
            if !clock.leases.contains_key(&lease.id) {
                let checkpoint = if lease.remaining_ttl_secs > 0 { Checkpoint::Set } else { Checkpoint::None };
                clock.start(lease.id, lease.ttl_secs, now + secs(lease.ttl_secs), checkpoint);
            }
        }
        if clock.leases.len() > leases.len() {
            // A grant observed since the list was made is found again by the next tick.
            let known: std::collections::HashSet<i64> = leases.iter().map(|lease| lease.id).collect();
            clock.leases.retain(|id, _| known.contains(id) || self.state.lease(*id, false).is_some());
        }
    }

    async fn revoke(self: Arc<Self>, id: i64, term: u64) {
        let Ok(_permit) = self.in_flight.acquire().await else { return };
        let result = if self.leadership.leads() == Some(term) {
            self.leadership.submit_in_term(proposal::Command::LeaseRevoke(LeaseRevoke { id }), term).await
        } else {
            Err(Error::NotLeader)
        };
        if result.is_ok() {
            self.expired.inc();
        }
        match result {
            Ok(_) | Err(Error::Rejected(Rejection::LeaseNotFound)) => {
                let mut clock = self.clock.lock();
                if clock.term == Some(term) {
                    clock.leases.remove(&id);
                }
            }
            // Stays decided, and is tried again later: it may have been accepted.
            Err(error) => debug!(%error, lease = id, "the revoke of an expired lease failed"),
        }
        self.settled.send_modify(|count| *count += 1);
    }

    async fn checkpoint(self: Arc<Self>, items: Vec<lease_checkpoint::Item>, term: u64) {
        let ids: Vec<i64> = items.iter().map(|item| item.id).collect();
        let result = self.leadership.submit_in_term(proposal::Command::LeaseCheckpoint(LeaseCheckpoint { items }), term).await;
        if let Err(error) = result {
            warn!(%error, "a lease checkpoint failed");
        }
        let mut clock = self.clock.lock();
        if clock.term == Some(term) {
            for id in ids {
                if let Some(deadline) = clock.leases.get_mut(&id) {
                    // Also after a failure: it may have been accepted, and then the next keep-alive must clear it.
                    deadline.checkpoint = Checkpoint::Set;
                }
            }
        }
        drop(clock);
        self.settled.send_modify(|count| *count += 1);
    }

    /// Renews what can be renewed from memory; gives back the places of those that must wait and of those to clear first.
    fn try_renew(&self, ids: &[i64], answers: &mut [Option<i64>], cleared: bool) -> Result<(u64, Vec<i64>, bool), Error> {
        let term = self.current_term().ok_or(Error::NotLeader)?;
        let now = Instant::now();
        let (mut clear, mut wait) = (Vec::new(), false);
        let mut clock = self.clock.lock();
        for (id, answer) in ids.iter().zip(answers.iter_mut()).filter(|(_, answer)| answer.is_none()) {
            match clock.renew(*id, now, self.state.as_ref(), cleared) {
                Renewal::Renewed(ttl_secs) => {
                    self.renewed.inc();
                    *answer = Some(ttl_secs);
                }
                Renewal::Gone => *answer = Some(0),
                Renewal::Wait => wait = true,
                Renewal::Clear => clear.push(*id),
            }
        }
        Ok((term, clear, wait))
    }

    async fn renew_here(&self, ids: Vec<i64>) -> Result<Vec<i64>, Error> {
        let mut answers: Vec<Option<i64>> = vec![None; ids.len()];
        let mut settled = self.settled.subscribe();
        let mut cleared = false;
        loop {
            self.leadership.confirm().await?;
            settled.borrow_and_update();
            let (term, clear, wait) = self.try_renew(&ids, &mut answers, cleared)?;
            cleared = false;
            if !clear.is_empty() {
                self.clear_checkpoints(clear, term).await?;
                cleared = true;
            } else if wait {
                // The state may have lost the lease without our revoke (a client's, or another leader's): look again now and then.
                let _ = tokio::time::timeout(TICK, settled.changed()).await;
            } else {
                return Ok(answers.into_iter().map(|answer| answer.unwrap_or(0)).collect());
            }
        }
    }

    /// Takes the remaining times out of the log. The leases' deadlines are what they were until the renewal that follows.
    async fn clear_checkpoints(&self, ids: Vec<i64>, term: u64) -> Result<(), Error> {
        let items = ids.iter().map(|id| lease_checkpoint::Item { id: *id, remaining_ttl_secs: 0 }).collect();
        self.leadership.submit_in_term(proposal::Command::LeaseCheckpoint(LeaseCheckpoint { items }), term).await?;
        let mut clock = self.clock.lock();
        if clock.term == Some(term) {
            for id in ids {
                if let Some(deadline) = clock.leases.get_mut(&id).filter(|deadline| deadline.checkpoint == Checkpoint::Set) {
                    deadline.checkpoint = Checkpoint::None;
                }
            }
        }
        Ok(())
    }

    async fn ask_here(&self, id: i64, keys: bool) -> Result<Option<TimeToLive>, Error> {
        self.leadership.confirm().await?;
        self.current_term().ok_or(Error::NotLeader)?;
        let Some((lease, keys)) = self.state.lease(id, keys) else { return Ok(None) };
        let now = Instant::now();
        let mut clock = self.clock.lock();
        let at = clock.know(&lease, now).at;
        let ttl_secs = match at.checked_duration_since(now) {
            Some(left) => left.as_secs() as i64,
            None => -(now.duration_since(at).as_secs() as i64),
        };
        Ok(Some(TimeToLive { ttl_secs, granted_ttl_secs: lease.ttl_secs, keys }))
    }
}

impl LeaderLeases for Leases {
    fn renew(&self, ids: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
        Box::pin(async move {
            match tokio::time::timeout(self.request_timeout, self.renew_here(ids)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::Timeout),
            }
        })
    }

    fn renew_at_once(&self, id: i64) -> Option<i64> {
        let term = self.leadership.leads_alone()?;
        let now = Instant::now();
        let mut clock = self.clock.lock();
        // The clock of another term isn't set yet.
        if clock.term != Some(term) {
            return None;
        }
        match clock.renew(id, now, self.state.as_ref(), false) {
            Renewal::Renewed(ttl_secs) => {
                self.renewed.inc();
                Some(ttl_secs)
            }
            Renewal::Gone => Some(0),
            Renewal::Wait | Renewal::Clear => None,
        }
    }

    fn time_to_live(&self, id: i64, keys: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
        Box::pin(self.ask_here(id, keys))
    }
}

/// A TTL as a duration; those the log may hold are at most [`TTL_MAX_SECS`].
fn secs(ttl_secs: i64) -> Duration {
    Duration::from_secs(ttl_secs.clamp(0, TTL_MAX_SECS) as u64)
}

#[cfg(test)]
mod tests;
