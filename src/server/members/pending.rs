//! Voters that were added and wait for their vote.
//!
//! Whoever leads promotes them, driven by the flag in their record, which the promoting entry itself clears. So a leader that dies midway
//! leaves either a flag that the next leader finds, or none; and two leaders can't both promote, since only one of their entries can follow
//! the membership it was derived from.
//!
//! A member has caught up when it has, within an election timeout, what the log held when that time began (the rounds of the Raft thesis):
//! then its vote won't keep the others waiting. It must also have said its name and data dir, and the quorum with it must be there.

use super::Members;
use crate::server::membership::{AppendFailure, Next, Progress};
use rusd_storage::command::change_member::Change;
use rusd_storage::command::{ChangeMember, MemberRecord, proposal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks while somebody waits for its vote.
const LOOK: Duration = Duration::from_millis(50);

/// One attempt of a member to catch up: what the log held, and when.
#[derive(Clone, Copy)]
struct Round {
    goal: u64,
    began: Instant,
}

impl Members {
    /// Promotes until `stop`, whenever this member leads and somebody waits.
    pub async fn promote_pending(self: Arc<Self>, stop: CancellationToken) {
        let mut changed = self.state.members_changed();
        let mut rounds = BTreeMap::new();
        loop {
            changed.borrow_and_update();
            let waiting = self.waiting();
            let leads = self.consensus.status().leader == self.me;
            if !leads || waiting.is_empty() {
                rounds.clear();
                let mut leader = self.consensus.watch_leader();
                leader.borrow_and_update();
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = leader.changed() => {}
                    // Being believed to lead and leading differ by an acknowledgement that nobody announces.
                    () = tokio::time::sleep(self.election_timeout), if !waiting.is_empty() => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            if stop.run_until_cancelled(self.promote_who_is_ready(waiting, &mut rounds)).await.is_none()
                || stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none()
            {
                return;
            }
        }
    }

    fn waiting(&self) -> Vec<MemberRecord> {
        self.state.members().into_iter().filter(|record| record.pending_voter).collect()
    }

    async fn promote_who_is_ready(&self, waiting: Vec<MemberRecord>, rounds: &mut BTreeMap<u64, Round>) {
        let Some(progress) = self.consensus.progress() else { return };
        for record in waiting {
            let caught_up = caught_up(rounds, &progress, record.id, self.election_timeout);
            let there = record.data_dir_id != 0 && self.linked_for(record.id).is_some();
            if !caught_up || !there || !self.judge(&|_| true, |view| view.survives_promotion()) {
                continue;
            }
            match self.give_vote(record.id).await {
                Ok(()) => tracing::info!(member = format!("{:x}", record.id), "a new member has caught up and votes from now on"),
                Err(error) => tracing::debug!(member = format!("{:x}", record.id), %error, "a new member wasn't given its vote"),
            }
            // Whatever happened, what was measured before is of another membership.
            rounds.clear();
            return;
        }
    }

    async fn give_vote(&self, id: u64) -> Result<(), AppendFailure> {
        let change = ChangeMember { change: Some(Change::Promote(id)) };
        let command = proposal::Command::ChangeMember(change.clone());
        // The waiter is of no use here: openraft's answer comes when this member has applied the entry.
        let (_waiter, bytes) = self.propose.prepare(command).map_err(|_| AppendFailure::Busy)?;
        let _one_at_a_time = self.changing.lock().await;
        let (term, mut effective) = self.settled().await?;
        // It may have been removed, or promoted, meanwhile.
        let still_waits = self.waiting().iter().any(|record| record.id == id) && self.state.would_change(&change).is_ok();
        if !still_waits {
            return Err(AppendFailure::Busy);
        }
        let base = effective.at;
        effective.voters.insert(id);
        self.consensus.change_membership(Next::Members(effective), bytes, base, term).await.map(drop)
    }
}

/// Whether the member has now what the log held at most `within` ago. Begins a new round whenever one has ended.
fn caught_up(rounds: &mut BTreeMap<u64, Round>, progress: &Progress, id: u64, within: Duration) -> bool {
    let round = rounds.entry(id).or_insert(Round { goal: progress.last, began: Instant::now() });
    let reached = progress.matched.get(&id).is_some_and(|matched| *matched >= round.goal);
    let in_time = round.began.elapsed() <= within;
    if reached && !in_time {
        *round = Round { goal: progress.last, began: Instant::now() };
    }
    reached && in_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_caught_up_when_a_round_was_short() {
        let mut rounds = BTreeMap::new();
        let at = |last, matched| Progress { last, matched: BTreeMap::from([(7, matched)]) };
        let long = Duration::from_secs(3600);
        assert!(!caught_up(&mut rounds, &at(100, 10), 7, long));
        assert!(!caught_up(&mut rounds, &at(200, 99), 7, long), "what came later is no part of the goal");
        assert!(caught_up(&mut rounds, &at(200, 100), 7, long));
        assert!(!caught_up(&mut rounds, &at(200, 100), 8, long), "nothing is known of it");
        // It took too long: the next round asks for what is there now.
        assert!(!caught_up(&mut rounds, &at(300, 150), 7, Duration::ZERO));
        assert!(!caught_up(&mut rounds, &at(300, 299), 7, long));
        assert!(caught_up(&mut rounds, &at(400, 300), 7, long));
    }
}
