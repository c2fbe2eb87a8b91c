//! Linearizable reads: coalesced ReadIndex rounds (openraft.md section 12, 4).
//!
//! ```text
//! leader:   read index = max(own first entry, commit), taken inside openraft's core after the round began
//!           -> as many voters as a quorum needs are asked "do you know of a newer leader?", the others if these are slow or fail;
//!              they compare in memory, no disk
//!           -> a quorum of "no" proves that nobody served a newer commit before the round began
//! follower: asks the leader for the index of such a round. The question itself is this follower's "no": it was sent after the reads
//!           that it is for began, and so was the index taken. Of three members no other need be asked
//! both:     wait until this member has applied the index
//! ```
//!
//! A member that is the whole cluster needs no round: see [`rusd_storage::raft::SoleMember`].

use super::Error;
use super::consensus::Consensus;
use super::round::Rounds;
use super::waiters::Waiters;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::errors::RaftError;
use openraft::raft::linearizable_read::LinearizerOption;
use parking_lot::Mutex;
use rusd_network::{Purpose, pb};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// Members' ReadIndex retry (contract a.3).
const ATTEMPT: Duration = Duration::from_millis(500);
/// A quorum's worth of voters is asked; the others, too, if it hasn't answered by then. Far above a round trip of a busy machine.
const HEDGE: Duration = Duration::from_millis(10);
/// Between attempts that failed at once.
const PAUSE: Duration = Duration::from_millis(20);

/// One round at a time serves all readers that arrived before it began. Cheap to clone.
#[derive(Clone)]
pub struct Read(Arc<Parts>);

struct Parts {
    consensus: Arc<Consensus>,
    waiters: Arc<Waiters>,
    rounds: Rounds<Result<u64, Failure>>,
    /// Indexes that nobody has confirmed yet.
    indexes: Rounds<Result<Arc<Unconfirmed>, Attempt>>,
    /// Who confirmed last: asked first.
    quick: Mutex<BTreeSet<u64>>,
    request_timeout: Duration,
    /// Attempts to get an index that a leader didn't confirm in time.
    slow: AtomicU64,
    /// Reads that got no index.
    failed: AtomicU64,
}

/// Why a round gave no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    LeaderChanged,
    Stopped,
}

/// What a leader has as a read index, and who could say that it leads.
struct Unconfirmed {
    /// Counted as etcd does.
    index: u64,
    /// The term that it leads, as far as it knows.
    term: u64,
    /// One set, or two while voters change.
    voters: Vec<BTreeSet<u64>>,
}

impl Unconfirmed {
    /// Whether these are a quorum.
    fn enough(&self, granted: &BTreeSet<u64>) -> bool {
        self.voters.iter().all(|set| set.intersection(granted).count() > set.len() / 2)
    }
}

/// Why an attempt gave no index; all but the last are worth another one.
#[derive(Clone, Copy)]
enum Attempt {
    NotLeader,
    Unconfirmed,
    Stopped,
}

impl Read {
    /// See the type.
    pub fn new(consensus: Arc<Consensus>, waiters: Arc<Waiters>, request_timeout: Duration) -> Self {
        Self(Arc::new(Parts {
            consensus,
            waiters,
            rounds: Rounds::default(),
            indexes: Rounds::default(),
            quick: Mutex::default(),
            request_timeout,
            slow: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// Returns once this member's state includes everything that was committed anywhere when the call was made.
    pub async fn linearizable(&self) -> Result<(), Error> {
        let parts = &*self.0;
        if parts.consensus.sole_term().is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + parts.request_timeout;
        let answer = tokio::time::timeout_at(deadline, parts.index()).await;
        if !matches!(answer, Ok(Ok(_))) {
            parts.failed.fetch_add(1, Relaxed);
        }
        let index = match answer {
            Ok(Ok(index)) => index,
            Ok(Err(Failure::LeaderChanged)) => return Err(Error::LeaderChanged),
            Ok(Err(Failure::Stopped)) => return Err(Error::Stopped),
            Err(_) => return Err(Error::Timeout),
        };
        if parts.waiters.applied_index() >= index {
            return Ok(());
        }
        tokio::time::timeout_at(deadline, parts.waiters.wait_applied(index)).await.map_err(|_| Error::TimeoutApplied)
    }

    /// Since the start: attempts that no leader confirmed in time, and reads without an index.
    pub fn failures(&self) -> (u64, u64) {
        (self.0.slow.load(Relaxed), self.0.failed.load(Relaxed))
    }

    /// For another member: an index (counted as etcd does) confirmed after it asked. Only the leader answers. `granted_term` is the term
    /// that `from` granted when it asked, 0 = none.
    pub async fn confirmed_index(&self, from: u64, granted_term: u64) -> Result<u64, pb::Refusal> {
        let parts = &*self.0;
        if parts.consensus.believed_leader() != parts.consensus.member_id() {
            return Err(pb::Refusal::NotLeader);
        }
        // Who asks waits no longer than that.
        let deadline = Instant::now() + ATTEMPT;
        if let Ok(Some(index)) = tokio::time::timeout_at(deadline, parts.index_granted(from, granted_term)).await {
            return Ok(index);
        }
        match tokio::time::timeout_at(deadline, parts.index()).await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(Failure::LeaderChanged)) => Err(pb::Refusal::NotLeader),
            Ok(Err(Failure::Stopped)) => Err(pb::Refusal::Stopped),
            Err(_) => Err(pb::Refusal::Unconfirmed),
        }
    }
}

impl Parts {
    async fn index(&self) -> Result<u64, Failure> {
        self.rounds.join(|| self.round()).await
    }

    /// One round, until it has an index. A round that saw one leader ends when another one comes, as etcd's; without a leader it waits.
    async fn round(&self) -> Result<u64, Failure> {
        let mut leader = 0;
        loop {
            let now = self.consensus.believed_leader();
            if leader != 0 && now != 0 && now != leader {
                return Err(Failure::LeaderChanged);
            }
            if now != 0 {
                leader = now;
            }
            let began = Instant::now();
            let attempt = match now {
                0 => Err(Attempt::NotLeader),
                _ if now == self.consensus.member_id() => self.lead().await,
                _ => self.ask(now).await,
            };
            match attempt {
                Ok(index) => return Ok(index),
                Err(Attempt::Stopped) => return Err(Failure::Stopped),
                Err(Attempt::NotLeader) => self.pause(began + PAUSE, now).await,
                Err(Attempt::Unconfirmed) => {
                    self.slow.fetch_add(1, Relaxed);
                    self.pause((began + ATTEMPT).max(Instant::now() + PAUSE), now).await;
                }
            }
        }
    }

    /// Until `until`, or another leader is known than `leader`.
    async fn pause(&self, until: Instant, leader: u64) {
        let mut watch = self.consensus.watch_leader();
        let _ = tokio::time::timeout_at(until, watch.wait_for(|now| *now != leader)).await;
    }

    /// The index, if the grant of who asks makes a quorum with this member.
    async fn index_granted(&self, from: u64, granted_term: u64) -> Option<u64> {
        // Of more than three members it can't.
        if granted_term == 0 || self.consensus.raft().voter_ids().count() > 3 {
            return None;
        }
        let taken = self.indexes.join(|| async { self.take().await.map(Arc::new) }).await.ok()?;
        let me = self.consensus.member_id();
        let leads = taken.term == granted_term && self.consensus.vote().confirms(taken.term, me);
        (leads && taken.enough(&BTreeSet::from([me, from]))).then_some(taken.index)
    }

    async fn lead(&self) -> Result<u64, Attempt> {
        let taken = self.take().await?;
        if self.confirm(&taken).await { Ok(taken.index) } else { Err(Attempt::Unconfirmed) }
    }

    /// The index of a round that begins with this call; nobody has confirmed it.
    async fn take(&self) -> Result<Unconfirmed, Attempt> {
        let raft = self.consensus.raft();
        let option = LinearizerOption::new(None, true).with_wait_timeout(ATTEMPT);
        // Asked at once, so that openraft's core wakes up once for both. Both are answered after the round began: that is what counts.
        let (linearizer, voters) = tokio::join!(
            raft.get_read_linearizer(option),
            raft.with_raft_state(|state| state.membership_state.effective().get_joint_config().clone()),
        );
        let linearizer = linearizer.map_err(|error| match error {
            RaftError::APIError(openraft::errors::LinearizableReadError::ForwardToLeader(_)) => Attempt::NotLeader,
            RaftError::APIError(_) => Attempt::Unconfirmed,
            RaftError::Fatal(_) => Attempt::Stopped,
        })?;
        let voters = voters.map_err(|_| Attempt::Stopped)?;
        let read = linearizer.read_log_id();
        Ok(Unconfirmed { index: read.index() + 1, term: read.committed_leader_id().term, voters })
    }

    /// Whether a quorum of each voter set knows of no newer leader.
    async fn confirm(&self, taken: &Unconfirmed) -> bool {
        let (me, term, voters) = (self.consensus.member_id(), taken.term, &taken.voters);
        if !self.consensus.vote().confirms(term, me) {
            return false;
        }
        let mut granted = BTreeSet::from([me]);
        if taken.enough(&granted) {
            return true;
        }
        let others: BTreeSet<u64> = voters.iter().flatten().copied().filter(|id| *id != me).collect();
        let mut later = self.in_order(others);
        let mut answers = FuturesUnordered::new();
        let mut asked = later.drain(..if voters.len() == 1 { voters[0].len() / 2 } else { later.len() }).collect::<Vec<_>>();
        let mut hedge = std::pin::pin!(tokio::time::sleep(HEDGE));
        loop {
            answers.extend(asked.drain(..).map(|id| self.confirm_by(id, term)));
            tokio::select! {
                biased;
                answer = answers.next() => match answer {
                    Some((id, true)) if granted.insert(id) && taken.enough(&granted) => break,
                    Some((_, true)) => {}
                    None if later.is_empty() => return false,
                    _ => asked.append(&mut later),
                },
                () = &mut hedge, if !later.is_empty() => asked.append(&mut later),
            }
        }
        // Dropped calls would be reset streams, and HTTP/2 ends connections that have many of them.
        if !answers.is_empty() {
            tokio::spawn(answers.for_each(|_| std::future::ready(())));
        }
        let mut quick = self.quick.lock();
        if *quick != granted {
            *quick = granted;
        }
        true
    }

    /// Those who answered last time come first.
    fn in_order(&self, ids: BTreeSet<u64>) -> Vec<u64> {
        let quick = self.quick.lock();
        let (mut first, rest): (Vec<u64>, Vec<u64>) = ids.into_iter().partition(|id| quick.contains(id));
        first.extend(rest);
        first
    }

    fn confirm_by(&self, id: u64, term: u64) -> impl Future<Output = (u64, bool)> + Send + 'static {
        let (links, me) = (self.consensus.links().clone(), self.consensus.member_id());
        async move {
            // A peer that doesn't answer must not pile up calls.
            let metrics = links.metrics(id);
            let Some(_slot) = metrics.confirmation_slot() else { return (id, false) };
            let Ok(mut client) = links.client(id, Purpose::Heartbeat) else { return (id, false) };
            let request = links.request(id, pb::ConfirmRequest { term, leader: me });
            let yes = match tokio::time::timeout(ATTEMPT, client.confirm_leader(request)).await {
                Ok(Ok(response)) => response.into_inner().granted && !links.table.is_blocked(id),
                Ok(Err(status)) => {
                    links.note_failure(id, &status);
                    false
                }
                Err(_) => false,
            };
            (id, yes)
        }
    }

    async fn ask(&self, leader: u64) -> Result<u64, Attempt> {
        let links = self.consensus.links();
        let mut client = links.client(leader, Purpose::Forward).map_err(|_| Attempt::Unconfirmed)?;
        let (believed, term) = self.consensus.believed_leadership();
        let granted_term = if believed == leader && self.consensus.vote().confirms(term, leader) { term } else { 0 };
        let request = links.request(leader, pb::ReadIndexRequest { granted_term });
        let answer = match tokio::time::timeout(ATTEMPT, client.read_index(request)).await {
            Ok(Ok(response)) if !links.table.is_blocked(leader) => response.into_inner(),
            Ok(Err(status)) => {
                links.note_failure(leader, &status);
                return Err(Attempt::Unconfirmed);
            }
            _ => return Err(Attempt::Unconfirmed),
        };
        match answer.refusal() {
            pb::Refusal::None => Ok(answer.index),
            pb::Refusal::NotLeader | pb::Refusal::Stopped => Err(Attempt::NotLeader),
            _ => Err(Attempt::Unconfirmed),
        }
    }
}
