//! openraft's types on the wire and back. What comes from the network is decoded to an error, never to a panic.

use crate::pb;
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use rusd_storage::command::state;
use rusd_storage::raft::types::{
    Command, Entry, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id, membership_from_state, membership_to_state,
    position,
};
use rusd_storage::snapshot::Progress;
use rusd_storage::types::LogPosition;

/// A message that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer message: {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<Malformed> for RPCError<TypeConfig> {
    fn from(error: Malformed) -> Self {
        Self::Network(NetworkError::new(&error))
    }
}

/// A log id as sent.
pub fn log_id_to(id: &LogId) -> state::LogPosition {
    let LogPosition { term, index } = position(id);
    state::LogPosition { term, index }
}

/// A log id as received.
pub fn log_id_from(message: state::LogPosition) -> LogId {
    log_id(LogPosition { term: message.term, index: message.index })
}

/// A vote as sent.
pub fn vote_to(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote as received.
pub fn vote_from(message: Option<pb::Vote>) -> Result<Vote, Malformed> {
    let message = message.ok_or(Malformed("no vote"))?;
    let new = if message.committed { Vote::new_committed } else { Vote::new };
    Ok(new(message.term, message.voted_for))
}

/// An append as sent; commands are shared, not copied.
pub fn append_to(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to),
        entries: request.entries.into_iter().map(entry_to).collect(),
        committed: request.leader_commit.as_ref().map(log_id_to),
    }
}

fn entry_to(entry: Entry) -> pb::Entry {
    pb::Entry {
        position: Some(log_id_to(&entry.log_id)),
        command: entry.payload.command.map(|command| command.0),
        membership: entry.payload.membership.as_ref().map(membership_to_state),
    }
}

/// An append as received. Entries must follow one another: openraft asserts what it could not have sent itself.
pub fn append_from(message: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = vote_from(message.vote)?;
    let prev_log_id = message.previous.map(log_id_from);
    let entries = message.entries.into_iter().map(entry_from).collect::<Result<Vec<_>, _>>()?;
    let mut last = prev_log_id;
    for entry in &entries {
        let expected = last.map_or(0, |last| last.index.saturating_add(1));
        if entry.log_id.index != expected || last.is_some_and(|last| entry.log_id.leader_id < last.leader_id) {
            return Err(Malformed("entries don't follow one another"));
        }
        if entry.log_id.leader_id.term > vote.leader_id.term {
            return Err(Malformed("an entry is newer than its leader"));
        }
        last = Some(entry.log_id);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: message.committed.map(log_id_from) })
}

fn entry_from(message: pb::Entry) -> Result<Entry, Malformed> {
    let log_id = log_id_from(message.position.ok_or(Malformed("an entry without position"))?);
    let membership = match message.membership {
        Some(membership) => Some(membership_from_state(&membership).ok_or(Malformed("an inconsistent membership"))?),
        None => None,
    };
    Ok(Entry { log_id, payload: Payload { command: message.command.map(Command), membership } })
}

/// An answer of the append stream as sent.
pub fn stream_answer_to(answer: StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let (outcome, position, vote) = match answer {
        Ok(last) => (Outcome::Success, last.as_ref().map(log_id_to), None),
        Err(StreamAppendError::Conflict(at)) => (Outcome::Conflict, Some(log_id_to(&at)), None),
        Err(StreamAppendError::HigherVote(vote)) => (Outcome::HigherVote, None, Some(vote_to(&vote))),
    };
    pb::AppendResponse { outcome: outcome as i32, position, vote }
}

/// An answer of the append stream as received.
pub fn stream_answer_from(message: pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, Malformed> {
    use pb::append_response::Outcome;
    Ok(match message.outcome() {
        Outcome::Success | Outcome::Partial => Ok(message.position.map(log_id_from)),
        Outcome::Conflict => {
            Err(StreamAppendError::Conflict(log_id_from(message.position.ok_or(Malformed("a conflict without position"))?)))
        }
        Outcome::HigherVote => Err(StreamAppendError::HigherVote(vote_from(message.vote)?)),
        Outcome::Unspecified => return Err(Malformed("an unknown append outcome")),
    })
}

/// A unary append's answer as sent.
pub fn append_answer_to(answer: AppendEntriesResponse<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let (outcome, position, vote) = match answer {
        AppendEntriesResponse::Success => (Outcome::Success, None, None),
        AppendEntriesResponse::PartialSuccess(last) => (Outcome::Partial, last.as_ref().map(log_id_to), None),
        AppendEntriesResponse::Conflict => (Outcome::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => (Outcome::HigherVote, None, Some(vote_to(&vote))),
    };
    pb::AppendResponse { outcome: outcome as i32, position, vote }
}

/// A unary append's answer as received.
pub fn append_answer_from(message: pb::AppendResponse) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    use pb::append_response::Outcome;
    Ok(match message.outcome() {
        Outcome::Success => AppendEntriesResponse::Success,
        Outcome::Partial => AppendEntriesResponse::PartialSuccess(message.position.map(log_id_from)),
        Outcome::Conflict => AppendEntriesResponse::Conflict,
        Outcome::HigherVote => AppendEntriesResponse::HigherVote(vote_from(message.vote)?),
        Outcome::Unspecified => return Err(Malformed("an unknown append outcome")),
    })
}

/// A (pre-)vote request as sent.
pub fn ask_vote_to(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to),
        leadership_transfer: request.leadership_transfer,
    }
}

/// A (pre-)vote request as received.
pub fn ask_vote_from(message: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut request = VoteRequest::new(vote_from(message.vote)?, message.last.map(log_id_from));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

/// A (pre-)vote answer as sent.
pub fn vote_answer_to(answer: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse { vote: Some(vote_to(&answer.vote)), granted: answer.vote_granted, last: answer.last_log_id.as_ref().map(log_id_to) }
}

/// A (pre-)vote answer as received.
pub fn vote_answer_from(message: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, Malformed> {
    Ok(VoteResponse::new(vote_from(message.vote)?, message.last.map(log_id_from), message.granted))
}

/// A leader transfer as sent.
pub fn transfer_to(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferRequest {
    pb::TransferRequest {
        from: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to),
    }
}

/// A leader transfer as received.
pub fn transfer_from(message: pb::TransferRequest) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    Ok(TransferLeaderRequest::new(vote_from(message.from)?, message.to, message.last.map(log_id_from)))
}

/// A transfer's answer as sent.
pub fn transfer_answer_to(answer: TransferLeaderResponse<TypeConfig>) -> pb::TransferResponse {
    use pb::transfer_response::Outcome;
    let mut message = pb::TransferResponse { outcome: Outcome::Accepted as i32, ..Default::default() };
    match answer {
        Ok(()) => {}
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            message.outcome = Outcome::VoteChanged as i32;
            (message.expected_vote, message.actual_vote) = (Some(vote_to(&expected)), Some(vote_to(&actual)));
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            message.outcome = Outcome::LogNotFlushed as i32;
            (message.expected_last, message.actual_last) = (expected.as_ref().map(log_id_to), actual.as_ref().map(log_id_to));
        }
    }
    message
}

/// A transfer's answer as received.
pub fn transfer_answer_from(message: pb::TransferResponse) -> Result<TransferLeaderResponse<TypeConfig>, Malformed> {
    use pb::transfer_response::Outcome;
    Ok(match message.outcome() {
        Outcome::Accepted => Ok(()),
        Outcome::VoteChanged => {
            Err(TransferLeaderError::VoteChanged { expected: vote_from(message.expected_vote)?, actual: vote_from(message.actual_vote)? })
        }
        Outcome::LogNotFlushed => Err(TransferLeaderError::LogNotFlushed {
            expected: message.expected_last.map(log_id_from),
            actual: message.actual_last.map(log_id_from),
        }),
        Outcome::Unspecified => return Err(Malformed("an unknown transfer outcome")),
    })
}

/// A snapshot's head as sent.
pub fn head_to(vote: &Vote, meta: &SnapshotMeta) -> pb::SnapshotHead {
    let membership = &meta.last_membership;
    pb::SnapshotHead {
        vote: Some(vote_to(vote)),
        last: meta.last_log_id.as_ref().map(log_id_to),
        membership: Some(state::StoredMembership {
            log_position: membership.log_id().as_ref().map(log_id_to),
            membership: Some(membership_to_state(membership.membership())),
        }),
        ..pb::SnapshotHead::default()
    }
}

/// A receiver's progress as sent.
pub fn progress_to(progress: &Progress) -> pb::SnapshotPosition {
    let LogPosition { term, index } = progress.position;
    let Progress { compact_revision, revision, units, frames, records, .. } = *progress;
    pb::SnapshotPosition { snapshot: Some(state::LogPosition { term, index }), compact_revision, revision, units, frames, records }
}

/// A receiver's progress as received; it may say anything.
pub fn progress_from(message: pb::SnapshotPosition) -> Progress {
    let position = message.snapshot.map(|at| LogPosition { term: at.term, index: at.index }).unwrap_or_default();
    let pb::SnapshotPosition { compact_revision, revision, units, frames, records, .. } = message;
    Progress { position, compact_revision, revision, units, frames, records }
}

/// A snapshot's head as received. A snapshot beyond its leader's vote would make openraft panic, so it ends here.
pub fn head_from(message: pb::SnapshotHead) -> Result<(Vote, SnapshotMeta), Malformed> {
    let vote = vote_from(message.vote)?;
    let last_log_id = message.last.map(log_id_from);
    if last_log_id.is_some_and(|last| last.leader_id.term > vote.leader_id.term) {
        return Err(Malformed("a snapshot newer than its leader"));
    }
    let stored = message.membership.ok_or(Malformed("a snapshot without membership"))?;
    let membership = membership_from_state(&stored.membership.unwrap_or_default()).ok_or(Malformed("an inconsistent membership"))?;
    let last_membership = StoredMembership::new(stored.log_position.map(log_id_from), membership);
    Ok((vote, SnapshotMeta { last_log_id, last_membership }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use prost::Message;
    use rusd_storage::raft::types::{Membership, Node};
    use std::collections::{BTreeMap, BTreeSet};

    fn id(term: u64, index: u64) -> LogId {
        log_id(LogPosition { term, index })
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let nodes = BTreeMap::from([(1, Node { peer_urls: vec!["http://127.0.0.1:1".into()] }), (2, Node::default())]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("consistent");
        let command = Some(Command(Bytes::from_static(b"command")));
        let entry = |index, payload| Entry { log_id: id(2, index), payload };
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(id(1, 4)),
            entries: vec![
                entry(5, Payload { command: command.clone(), membership: Some(membership) }),
                entry(6, Payload { command, membership: None }),
                entry(7, Payload::default()),
            ],
            leader_commit: Some(id(2, 5)),
        }
    }

    #[test]
    fn append_survives_the_wire() {
        let bytes = append_to(request()).encode_to_vec();
        let back = append_from(pb::AppendRequest::decode(&bytes[..]).expect("decodes")).expect("is well formed");
        let sent = request();
        assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (sent.vote, sent.prev_log_id, sent.leader_commit));
        assert_eq!(back.entries, sent.entries);
    }

    #[test]
    fn answers_survive_the_wire() {
        for answer in
            [Ok(None), Ok(Some(id(1, 2))), Err(StreamAppendError::Conflict(id(1, 2))), Err(StreamAppendError::HigherVote(Vote::new(2, 1)))]
        {
            assert_eq!(stream_answer_from(stream_answer_to(answer.clone())), Ok(answer));
        }
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(1, 1))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new_committed(2, 1)),
        ] {
            assert_eq!(append_answer_from(append_answer_to(answer.clone())), Ok(answer));
        }
        let mut ask = VoteRequest::new(Vote::new(4, 2), Some(id(3, 9)));
        ask.leadership_transfer = true;
        assert_eq!(ask_vote_from(ask_vote_to(&ask)), Ok(ask));
        let answer = VoteResponse::new(Vote::new(4, 2), Some(id(3, 9)), true);
        assert_eq!(vote_answer_from(vote_answer_to(&answer)), Ok(answer));
        let transfer = TransferLeaderRequest::new(Vote::new_committed(1, 1), 2, None);
        assert_eq!(transfer_from(transfer_to(&transfer)), Ok(transfer));
        let refused = Err(TransferLeaderError::LogNotFlushed { expected: Some(id(1, 2)), actual: None });
        assert_eq!(transfer_answer_from(transfer_answer_to(refused.clone())), Ok(refused));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(append_from(pb::AppendRequest::default()).is_err());
        let break_it = |damage: fn(&mut pb::AppendRequest)| {
            let mut message = append_to(request());
            damage(&mut message);
            append_from(message)
        };
        assert!(break_it(|message| message.previous = None).is_err(), "a gap");
        assert!(break_it(|message| message.entries[1].position = None).is_err());
        assert!(break_it(|message| message.entries.swap(0, 1)).is_err());
        assert!(break_it(|message| message.vote = Some(vote_to(&Vote::new_committed(1, 1)))).is_err(), "newer than its leader");
        assert!(break_it(|message| message.entries[0].membership.as_mut().expect("is there").nodes.clear()).is_err());
        assert!(stream_answer_from(pb::AppendResponse { outcome: 77, ..Default::default() }).is_err());
        assert!(transfer_answer_from(pb::TransferResponse { outcome: 2, ..Default::default() }).is_err());
        assert!(head_from(pb::SnapshotHead { vote: Some(vote_to(&Vote::new(1, 1))), ..Default::default() }).is_err());
    }
}
