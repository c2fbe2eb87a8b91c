//! The leader's part: one change at a time, checked against exactly the membership that it replaces.
//!
//! What is in effect and what is applied must be the same thing when a change is checked; otherwise an earlier change (of an earlier leader,
//! perhaps) is still on its way and must be waited for. Openraft then accepts the entry only if that membership is still in effect and the
//! term hasn't changed. So when the entry is applied, the records are those it was checked against, and it can't be rejected after openraft
//! has taken up its voters.

use super::Members;
use super::check::is_voter;
use crate::server::Error;
use crate::server::membership::{AppendFailure, Effective, Next, Progress};
use bytes::Bytes;
use prost::Message;
use rusd_network::pb;
use rusd_storage::Rejection;
use rusd_storage::command::change_member::Change;
use rusd_storage::command::{ChangeMember, MemberRecord, Proposal, proposal};
use std::time::Duration;

/// Between two looks at something that is about to happen.
const POLL: Duration = Duration::from_millis(5);
/// How far a learner must be before a client may promote it (etcd's readyPercentThreshold).
const READY: f64 = 0.9;

/// Why a change wasn't made.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer is no.
    Refused(Error),
    /// See [`AppendFailure`].
    Append(AppendFailure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<AppendFailure> for Failure {
    fn from(failure: AppendFailure) -> Self {
        Self::Append(failure)
    }
}

impl Members {
    /// For another member.
    pub async fn change_for(&self, request: pb::ChangeMemberRequest) -> pb::ChangeMemberResponse {
        use pb::ChangeRefusal as R;
        let refuse = |refusal: R| pb::ChangeMemberResponse { refusal: refusal as i32, members: Vec::new() };
        let proposal = Proposal::decode(request.proposal.clone()).ok();
        let Some(proposal::Command::ChangeMember(change)) = proposal.and_then(|proposal| proposal.command) else {
            tracing::warn!("a peer asked for a membership change that is none");
            return refuse(R::ChangeMemberNotFound);
        };
        match tokio::time::timeout(self.request_timeout, self.make(&change, request.proposal, request.again)).await {
            Ok(Ok(members)) => pb::ChangeMemberResponse { refusal: R::ChangeMade as i32, members },
            Ok(Err(Failure::Append(AppendFailure::NotLeader))) => refuse(R::ChangeNotLeader),
            Ok(Err(Failure::Append(AppendFailure::Busy))) => refuse(R::ChangeBusy),
            Ok(Err(Failure::Append(AppendFailure::Unknown | AppendFailure::Stopped))) | Err(_) => refuse(R::ChangeUnknown),
            Ok(Err(Failure::Refused(error))) => refuse(refusal_of(&error)),
        }
    }

    /// Makes the change; returns the members after it, once it is applied here.
    pub(super) async fn make(&self, change: &ChangeMember, proposal: Bytes, again: bool) -> Result<Vec<MemberRecord>, Failure> {
        if let Some(Change::Remove(id)) = &change.change
            && *id == self.me
        {
            return self.leave_the_lead(change, again).await;
        }
        let _one_at_a_time = self.changing.lock().await;
        loop {
            let (term, effective) = self.settled().await?;
            if again && self.is_made(change) {
                return Ok(self.state.members());
            }
            let members = self.state.members();
            self.check(change, &members).inspect_err(|error| self.count_refusal(change, error))?;
            let (base, next) = (effective.at, next(change, effective)?);
            match self.consensus.change_membership(next, proposal.clone(), base, term).await {
                Ok(at) => {
                    self.waiters.wait_applied(at.index + 1).await;
                    tracing::info!(change = %describe(change), "membership changed");
                    if matches!(change.change, Some(Change::Promote(_))) {
                        self.promotions.made.inc();
                    }
                    return Ok(self.state.members());
                }
                Err(AppendFailure::Busy) => tokio::time::sleep(POLL).await,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// The term this member leads and the membership in effect, once that is what is applied here.
    pub(super) async fn settled(&self) -> Result<(u64, Effective), AppendFailure> {
        loop {
            let status = self.consensus.status();
            if status.leader != self.me {
                return Err(AppendFailure::NotLeader);
            }
            let effective = self.consensus.effective_membership().await?;
            let leads = self.state.applied().is_some_and(|applied| applied.term == status.term);
            if leads && self.state.membership_position() == effective.at {
                return Ok((status.term, effective));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the state is already as the change would make it: it was handed over before.
    fn is_made(&self, change: &ChangeMember) -> bool {
        let members = self.state.members();
        let record = |id: u64| members.iter().find(|record| record.id == id);
        match &change.change {
            Some(Change::Add(added)) => record(added.id).is_some(),
            Some(Change::Remove(id)) => self.state.is_removed(*id),
            Some(Change::Promote(id)) => record(*id).is_some_and(is_voter),
            Some(Change::Update(update)) => record(update.id).is_some_and(|record| record.peer_urls == update.peer_urls),
            Some(Change::KeepOnly(_)) | None => true,
        }
    }

    /// etcd's checks in etcd's order. The strict ones were made by the asked member's links; here they are repeated, for its view may be old.
    fn check(&self, change: &ChangeMember, members: &[MemberRecord]) -> Result<(), Error> {
        let linked = |id| self.linked_for(id).is_some();
        match &change.change {
            Some(Change::Add(record)) => {
                let learner = !record.pending_voter;
                if self.strict {
                    self.judge(&linked, |view| view.may_add(learner))?;
                }
                self.state.would_change(change)?;
                let learners = members.iter().filter(|record| !is_voter(record)).count();
                if learner && learners >= self.learners_max {
                    return Err(Rejection::TooManyLearners.into());
                }
                Ok(())
            }
            Some(Change::Remove(id)) => {
                if self.strict {
                    self.judge(&linked, |view| view.may_remove(*id, self.me))?;
                }
                self.state.would_change(change)?;
                let left = members.iter().any(|record| !record.is_learner && record.id != *id);
                if left { Ok(()) } else { Err(Error::NotEnoughStarted) }
            }
            Some(Change::Promote(id)) => self.check_promotion(*id, members, change),
            Some(Change::Update(_)) => Ok(self.state.would_change(change)?),
            // Never proposed: a survivor writes it into its own log.
            Some(Change::KeepOnly(_)) | None => Err(Rejection::MemberNotFound.into()),
        }
    }

    fn count_refusal(&self, change: &ChangeMember, error: &Error) {
        if !matches!(change.change, Some(Change::Promote(_))) {
            return;
        }
        match error {
            Error::Rejected(Rejection::MemberNotFound) => self.promotions.unknown.inc(),
            Error::Rejected(Rejection::MemberNotLearner) => self.promotions.no_learner.inc(),
            Error::LearnerNotReady => self.promotions.not_ready.inc(),
            Error::Unhealthy | Error::NotEnoughStarted => self.promotions.unhealthy.inc(),
            _ => {}
        }
    }

    fn check_promotion(&self, id: u64, members: &[MemberRecord], change: &ChangeMember) -> Result<(), Error> {
        let record = members.iter().find(|record| record.id == id).ok_or(Rejection::MemberNotFound)?;
        let progress = self.consensus.progress().ok_or(Error::NotLeader)?;
        let ready = id == self.me || (reached(&progress, id, READY) && record.data_dir_id != 0);
        if !ready {
            return Err(Error::LearnerNotReady);
        }
        if self.strict {
            let linked = |id| self.linked_for(id).is_some();
            self.judge(&linked, |view| view.may_promote())?;
        }
        if is_voter(record) {
            return Err(Rejection::MemberNotLearner.into());
        }
        Ok(self.state.would_change(change)?)
    }

    /// A leader doesn't remove itself: the next one does, so that nobody sees a gap. The asker tries again there.
    async fn leave_the_lead(&self, change: &ChangeMember, again: bool) -> Result<Vec<MemberRecord>, Failure> {
        {
            let _one_at_a_time = self.changing.lock().await;
            self.settled().await?;
            if again && self.is_made(change) {
                return Ok(self.state.members());
            }
            self.check(change, &self.state.members())?;
        }
        let to = match self.hand_over.to_best(self.election_timeout).await {
            // It may be under way, and then this member leads no more. Either way nothing was changed: the asker tries again.
            Err(Error::TimeoutLeaderTransfer | Error::NotLeader) => return Err(AppendFailure::NotLeader.into()),
            to => to?,
        };
        tracing::info!(to = format!("{to:x}"), "handed leadership over before this member is removed");
        Err(AppendFailure::NotLeader.into())
    }
}

fn reached(progress: &Progress, id: u64, part: f64) -> bool {
    let matched = progress.matched.get(&id).copied().unwrap_or(0);
    progress.last > 0 && matched as f64 / progress.last as f64 >= part
}

/// What is to be in effect.
fn next(change: &ChangeMember, mut effective: Effective) -> Result<Next, Error> {
    match &change.change {
        Some(Change::Add(record)) => {
            effective.peer_urls.insert(record.id, record.peer_urls.clone());
        }
        Some(Change::Remove(id)) => {
            effective.voters.remove(id);
            effective.peer_urls.remove(id);
        }
        Some(Change::Promote(id)) => {
            effective.voters.insert(*id);
        }
        Some(Change::Update(record)) => return Ok(Next::Moved(record.id, record.peer_urls.clone())),
        Some(Change::KeepOnly(_)) | None => return Err(Rejection::MemberNotFound.into()),
    }
    Ok(Next::Members(effective))
}

fn describe(change: &ChangeMember) -> String {
    match &change.change {
        Some(Change::Add(record)) if record.pending_voter => format!("added {:x}, to vote once it has caught up", record.id),
        Some(Change::Add(record)) => format!("added learner {:x}", record.id),
        Some(Change::Remove(id)) => format!("removed {id:x}"),
        Some(Change::Promote(id)) => format!("promoted {id:x}"),
        Some(Change::Update(record)) => format!("{:x} has the peer URLs {}", record.id, record.peer_urls.join(",")),
        Some(Change::KeepOnly(id)) => format!("only {id:x} is left"),
        None => "nothing".into(),
    }
}

fn refusal_of(error: &Error) -> pb::ChangeRefusal {
    use pb::ChangeRefusal as R;
    match error {
        Error::Rejected(Rejection::MemberExists) => R::ChangeMemberExists,
        Error::Rejected(Rejection::PeerUrlExists) => R::ChangePeerUrlExists,
        Error::Rejected(Rejection::MemberNotFound) => R::ChangeMemberNotFound,
        Error::Rejected(Rejection::MemberNotLearner) => R::ChangeMemberNotLearner,
        Error::Rejected(Rejection::TooManyLearners) => R::ChangeTooManyLearners,
        Error::LearnerNotReady => R::ChangeLearnerNotReady,
        Error::NotEnoughStarted => R::ChangeNotEnoughStarted,
        Error::Unhealthy => R::ChangeUnhealthy,
        Error::NotLeader | Error::NoLeader | Error::LeaderChanged => R::ChangeNotLeader,
        _ => R::ChangeUnknown,
    }
}
