//! Leadership changes hands without a gap: to whom, and how.
//!
//! Openraft's transfer is a point of no return: from then on this leader takes no writes, whether the other one answers or not, until
//! somebody has won an election. So nobody is chosen who can't be reached, or who lacks more of the log than a moment's worth.

use super::Error;
use super::consensus::Consensus;
use rusd_network::Presence;
use rusd_storage::apply::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Entries that a successor may still lack: it gets them on the way, writes go on coming until the transfer.
const LACK_MAX: u64 = 1000;
/// Who takes longer to answer a ping is no good successor.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks whether a successor is ready.
const POLL: Duration = Duration::from_millis(5);

/// See the module.
pub struct HandOver {
    consensus: Arc<Consensus>,
    state: Arc<State>,
    presence: Arc<Presence>,
}

impl HandOver {
    /// Over a running consensus.
    pub fn new(consensus: Arc<Consensus>, state: Arc<State>, presence: Arc<Presence>) -> Self {
        Self { consensus, state, presence }
    }

    /// To this member; one that isn't ready gets an election timeout to become so, as etcd's.
    ///
    /// # Errors
    /// It is no voter, this member doesn't lead, or it took too long.
    pub async fn to(&self, target: u64, patience: Duration) -> Result<(), Error> {
        if !self.consensus.voters().contains(&target) {
            return Err(Error::BadLeaderTransferee);
        }
        let leader = self.consensus.believed_leader();
        if leader == target {
            return Ok(());
        }
        if leader != self.consensus.member_id() {
            return Err(Error::NotLeader);
        }
        let deadline = Instant::now() + patience;
        while !self.is_ready(target) || !self.presence.answers(target).await {
            if Instant::now() >= deadline || self.consensus.believed_leader() != self.consensus.member_id() {
                return Err(Error::TimeoutLeaderTransfer);
            }
            tokio::time::sleep(POLL).await;
        }
        self.consensus.transfer_leader(target, deadline - Instant::now()).await
    }

    /// To whoever suits best, trying others if one doesn't take it. Returns who leads then.
    ///
    /// # Errors
    /// No quorum answers, so nobody could win (at once), or nobody took it in time.
    pub async fn to_best(&self, patience: Duration) -> Result<u64, Error> {
        let deadline = Instant::now() + patience;
        let mut last = Error::Unhealthy;
        loop {
            let (there, unsure) = self.answering().await;
            // This member votes, too.
            if there.len() + unsure + 1 < self.consensus.voters().len() / 2 + 1 {
                return Err(last);
            }
            for target in self.successors().into_iter().filter(|id| there.contains(id)) {
                if Instant::now() >= deadline {
                    break;
                }
                match self.to(target, deadline - Instant::now()).await {
                    Ok(()) => return Ok(target),
                    Err(Error::NotLeader) => return self.somebody_else(),
                    Err(error) => last = error,
                }
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Voters that answer a ping now, of those that did a moment ago: who has just ended would be chosen, and waited for. And how many more
    /// may live, but are slow to say so.
    async fn answering(&self) -> (Vec<u64>, usize) {
        let me = self.consensus.member_id();
        let seen = self.consensus.voters().into_iter().filter(|id| *id != me && self.presence.seen(*id).is_some());
        let asked = seen.map(|id| async move { (id, tokio::time::timeout(LOOK, self.presence.answers(id)).await) });
        let looks = futures::future::join_all(asked).await;
        let unsure = looks.iter().filter(|(_, answers)| answers.is_err()).count();
        (looks.into_iter().filter(|(_, answers)| matches!(answers, Ok(true))).map(|(id, _)| id).collect(), unsure)
    }

    fn somebody_else(&self) -> Result<u64, Error> {
        let leader = self.consensus.believed_leader();
        if leader != 0 && leader != self.consensus.member_id() { Ok(leader) } else { Err(Error::NotLeader) }
    }

    /// Other voters that are ready, the best first: whose disk is well, who has most of the log, whose link is oldest.
    pub fn successors(&self) -> Vec<u64> {
        let me = self.consensus.member_id();
        let Some(progress) = self.consensus.progress() else { return Vec::new() };
        let voters = self.state.members().into_iter().filter(|record| record.id != me && !record.is_learner);
        let mut ready: Vec<_> = voters
            .filter(|record| self.is_ready(record.id))
            .filter_map(|record| {
                let seen = self.presence.seen(record.id)?;
                let lack = progress.last.saturating_sub(progress.matched.get(&record.id).copied().unwrap_or(0));
                Some((seen.disk_is_slow, lack, seen.since, record.id))
            })
            .collect();
        ready.sort_unstable();
        ready.into_iter().map(|(.., id)| id).collect()
    }

    /// The best of them, if its disk is well.
    pub fn healthy_successor(&self) -> Option<u64> {
        let best = *self.successors().first()?;
        self.presence.seen(best).filter(|seen| !seen.disk_is_slow).map(|_| best)
    }

    fn is_ready(&self, target: u64) -> bool {
        let Some(progress) = self.consensus.progress() else { return false };
        let matched = progress.matched.get(&target).copied().unwrap_or(0);
        self.presence.seen(target).is_some() && matched + LACK_MAX >= progress.last
    }
}
