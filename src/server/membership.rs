//! openraft's side of a membership change: what is in effect, the one entry that changes it, and how far everybody has got.
//!
//! The entry carries the command too, so that voters and member records change together or not at all. Two conditions go with it: the
//! membership it was derived from is still the one in effect, and this member still leads the term in which it was decided.

use super::consensus::Consensus;
use bytes::Bytes;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::{ChangeMembershipRequest, ClientWriteResponse};
use openraft::{ChangeMembers, Precondition};
use rusd_storage::raft::types::{Command, CommittedLeaderId, Membership, Node, Payload, TypeConfig, log_id, position};
use rusd_storage::types::LogPosition;
use std::collections::{BTreeMap, BTreeSet};

/// The membership in effect; it may not be committed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Where its entry stands; none before the cluster is founded.
    pub at: Option<LogPosition>,
    /// Who votes. Only one set: every change of ours is a single step.
    pub voters: BTreeSet<u64>,
    /// Peer URLs of all members, learners too.
    pub peer_urls: BTreeMap<u64, Vec<String>>,
}

/// What is to be in effect after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These voters and nodes; no known node may have other URLs than before.
    Members(Effective),
    /// One node has other URLs.
    Moved(u64, Vec<String>),
}

/// Why nothing is known to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// Certainly not appended: this member doesn't lead.
    #[error("not leader")]
    NotLeader,
    /// Certainly not appended: another change is under way, or this leader has just begun. Worth another try soon.
    #[error("another change is under way")]
    Busy,
    /// Appended, then its leader was lost.
    #[error("the leader was lost")]
    Unknown,
    /// Consensus has ended.
    #[error("consensus has stopped")]
    Stopped,
}

/// Openraft's view of how far everybody is; only a leader has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries in this leader's log, counted as etcd does.
    pub last: u64,
    /// How many of them a member is known to have; members without any are missing.
    pub matched: BTreeMap<u64, u64>,
}

impl Consensus {
    /// What is in effect now.
    ///
    /// # Errors
    /// Consensus has ended.
    pub async fn effective_membership(&self) -> Result<Effective, AppendFailure> {
        self.raft()
            .with_raft_state(|state| {
                let effective = state.membership_state.effective();
                Effective {
                    at: effective.log_id().as_ref().map(position),
                    voters: effective.voter_ids().collect(),
                    peer_urls: effective.membership().nodes().map(|(id, node)| (*id, node.peer_urls.clone())).collect(),
                }
            })
            .await
            .map_err(|_| AppendFailure::Stopped)
    }

    /// Appends the entry and waits until this member has applied it. `base` is the membership it was derived from, `term` the one in which
    /// it was decided.
    ///
    /// # Errors
    /// See [`AppendFailure`].
    pub async fn change_membership(
        &self,
        next: Next,
        command: Bytes,
        base: Option<LogPosition>,
        term: u64,
    ) -> Result<LogPosition, AppendFailure> {
        let conditions = [
            Precondition::LastMembershipLogId { last_membership_log_id: base.map(log_id) },
            Precondition::CommittedLeaderId { committed_leader_id: CommittedLeaderId::new(term) },
        ];
        let payload = Payload { command: Some(Command(command)), membership: None };
        let answer = match next {
            Next::Members(next) => {
                let nodes: BTreeMap<u64, Node> = next.peer_urls.into_iter().map(|(id, peer_urls)| (id, Node { peer_urls })).collect();
                let membership = Membership::new(vec![next.voters], nodes).expect("every voter has a node: it was one before");
                self.raft().append_membership(membership, payload, conditions).await
            }
            Next::Moved(id, peer_urls) => {
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, Node { peer_urls })]));
                let request = ChangeMembershipRequest::new(moved, true).with_preconditions(conditions);
                // No voters change, so there is no joint step, and the one entry is the uniform one.
                let request = request.with_payload(Payload::default(), payload);
                self.raft().change_membership_with_payload(request).await.map(|outcome| outcome.uniform)
            }
        };
        answer.map(|ClientWriteResponse { log_id, .. }| position(&log_id)).map_err(failure)
    }

    /// How far everybody is; `None` unless this member leads.
    pub fn progress(&self) -> Option<Progress> {
        use openraft::async_runtime::WatchReceiver;
        let data = self.raft().data_metrics();
        let data = data.borrow_watched();
        let last = data.last_log.as_ref().map_or(0, |id| id.index + 1);
        let replication = data.replication.as_ref()?;
        let matched = replication.iter().filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index + 1))).collect();
        Some(Progress { last, matched })
    }

    /// Makes the state durable and purges log that nobody should need any more.
    ///
    /// # Errors
    /// Consensus has ended.
    pub async fn make_snapshot(&self) -> Result<(), AppendFailure> {
        self.raft().trigger().snapshot().await.map_err(|_| AppendFailure::Stopped)
    }

    /// Members that came back are replicated to at once, not after openraft's back-off.
    pub async fn hurry_replication(&self) {
        // Its only error is that consensus has ended, which is noticed elsewhere.
        let _ = self.raft().trigger().reset_backoff([]).await;
    }
}

fn failure(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> AppendFailure {
    let RaftError::APIError(error) = error else { return AppendFailure::Stopped };
    match error {
        ClientWriteError::ForwardToLeader(_) => AppendFailure::NotLeader,
        ClientWriteError::LogEntryDiscarded(_) => AppendFailure::Unknown,
        ClientWriteError::PreconditionFailed(_) => AppendFailure::Busy,
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)) => {
            AppendFailure::Busy
        }
        ClientWriteError::ChangeMembershipError(error) => {
            tracing::error!(%error, "openraft refuses a membership change that was checked");
            AppendFailure::Busy
        }
    }
}
