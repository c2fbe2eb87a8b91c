//! openraft's log over the engine's.
//!
//! A body is the command's own bytes, uncopied, whenever it can be told from the other forms: empty is an entry without payload, and a
//! leading zero (which no protobuf message starts with) says `0, flags, membership length (u32 LE), membership, command`.

use super::durable;
use super::sole::SoleMember;
use super::types::{Command, Entry, LogId, Payload, TypeConfig, Vote, log_id, membership_from_state, membership_to_state, position};
use crate::command::state;
use crate::engine::{Engine, LogEntry};
use crate::error::StorageError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use prost::Message;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// What one replication request carries, unless a single entry is larger.
pub const REPLICATION_BYTES_MAX: usize = 1 << 20;

const HAS_COMMAND: u8 = 1;
const HAS_MEMBERSHIP: u8 = 2;

/// The newest vote this member has begun to save: set on entry of `save_vote`, so before any grant can be answered. What ConfirmLeader
/// compares with (openraft.md section 12, 4b).
#[derive(Debug, Default)]
pub struct VoteCell(Mutex<Option<Vote>>);

impl VoteCell {
    /// The newest vote, perhaps not yet durable.
    pub fn get(&self) -> Option<Vote> {
        *self.0.lock()
    }
    /// Whether this member can say that `leader` leads `term` as far as it knows: its vote is of a lower term, or of this term and leader.
    pub fn confirms(&self, term: u64, leader: u64) -> bool {
        self.get().is_none_or(|vote| vote.leader_id.term < term || (vote.leader_id.term == term && vote.leader_id.voted_for == leader))
    }
    fn set(&self, vote: Vote) {
        *self.0.lock() = Some(vote);
    }
}

#[derive(Debug, Default)]
struct Saved {
    vote: Option<Vote>,
    committed: Option<LogId>,
}

/// openraft's `RaftLogStorage`.
#[derive(Clone)]
pub struct LogStore {
    engine: Engine,
    vote: Arc<VoteCell>,
    saved: Arc<Mutex<Saved>>,
    sole: Arc<SoleMember>,
}

impl LogStore {
    /// Over an opened engine; `vote` and `committed` are what it recovered.
    pub fn new(engine: Engine, vote: Option<Vote>, committed: Option<LogId>) -> Self {
        let cell = VoteCell(Mutex::new(vote));
        let sole = Arc::new(SoleMember::new(engine.log_bounds().0.map(|(_, last)| last)));
        Self { engine, vote: Arc::new(cell), saved: Arc::new(Mutex::new(Saved { vote, committed })), sole }
    }

    /// The vote for ConfirmLeader.
    pub fn vote_cell(&self) -> Arc<VoteCell> {
        self.vote.clone()
    }

    /// Whether one member is the whole cluster.
    pub fn sole_member(&self) -> Arc<SoleMember> {
        self.sole.clone()
    }

    /// A vote that was made durable without consensus.
    pub(super) fn voted(&self, vote: Vote) {
        self.vote.set(vote);
        self.saved.lock().vote = Some(vote);
    }

    /// Reads whole chunks until `end` or the first hole; `bytes_max` bounds the first chunk when `once`.
    pub(super) fn read(&self, mut first: u64, end: u64, once: bool) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        while first < end {
            let chunk = self.engine.read_log(first, end, REPLICATION_BYTES_MAX)?;
            let Some(last) = chunk.last() else { break };
            first = last.position.index + 1;
            entries.reserve(chunk.len());
            for entry in chunk {
                entries.push(decode(entry)?);
            }
            if once {
                break;
            }
        }
        Ok(entries)
    }
}

/// Encodes an entry for the engine.
pub fn encode(entry: &Entry) -> LogEntry {
    LogEntry { position: position(&entry.log_id), body: encode_payload(&entry.payload) }
}

/// Encodes what an entry carries; a plain command is not copied.
pub fn encode_payload(payload: &Payload) -> Bytes {
    match (&payload.command, &payload.membership) {
        (None, None) => return Bytes::new(),
        (Some(command), None) if command.0.first().is_some_and(|byte| *byte != 0) => return command.0.clone(),
        _ => {}
    }
    let membership = payload.membership.as_ref().map(|membership| membership_to_state(membership).encode_to_vec());
    let command = payload.command.as_ref().map(|command| &command.0[..]);
    let flags = command.map_or(0, |_| HAS_COMMAND) | membership.as_ref().map_or(0, |_| HAS_MEMBERSHIP);
    let (membership, command) = (membership.unwrap_or_default(), command.unwrap_or_default());
    let mut body = BytesMut::with_capacity(6 + membership.len() + command.len());
    body.put_slice(&[0, flags]);
    body.put_u32_le(membership.len() as u32);
    body.put_slice(&membership);
    body.put_slice(command);
    body.freeze()
}

/// Decodes what [`encode_payload`] made; `None` if it never did.
pub fn decode_payload(mut body: Bytes) -> Option<Payload> {
    match body.first() {
        None => return Some(Payload::default()),
        Some(0) => {}
        Some(_) => return Some(Payload { command: Some(Command(body)), membership: None }),
    }
    if body.len() < 6 {
        return None;
    }
    body.advance(1);
    let flags = body.get_u8();
    let length = body.get_u32_le() as usize;
    if length > body.len() {
        return None;
    }
    let message = body.split_to(length);
    let membership = match flags & HAS_MEMBERSHIP {
        0 => None,
        _ => Some(membership_from_state(&state::Membership::decode(message).ok()?)?),
    };
    Some(Payload { command: (flags & HAS_COMMAND != 0).then_some(Command(body)), membership })
}

fn decode(entry: LogEntry) -> Result<Entry, StorageError> {
    let index = entry.position.index;
    let payload = decode_payload(entry.body)
        .ok_or_else(|| StorageError::UnknownCommand { index, detail: "its payload has an unknown form".into() })?;
    Ok(Entry::new(log_id(entry.position), payload))
}

/// A vote as saved: term, node id, committed.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut body = BytesMut::with_capacity(17);
    body.put_u64_le(vote.leader_id.term);
    body.put_u64_le(vote.leader_id.voted_for);
    body.put_u8(u8::from(vote.committed));
    body.freeze()
}

/// Reads a saved vote; `None` if it is none.
pub fn decode_vote(mut body: Bytes) -> Option<Vote> {
    if body.len() != 17 {
        return None;
    }
    let (term, node) = (body.get_u64_le(), body.get_u64_le());
    match body.get_u8() {
        0 => Some(Vote::new(term, node)),
        1 => Some(Vote::new_committed(term, node)),
        _ => None,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let first = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // Openraft's unbounded reads may start below the floor; the engine's may not.
        let (Some((oldest, newest)), _) = self.engine.log_bounds() else { return Ok(Vec::new()) };
        Ok(self.read(first.max(oldest), end.min(newest.index + 1), false)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.saved.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(start, end, true)?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (bounds, floor) = self.engine.log_bounds();
        let last_purged_log_id = floor.map(log_id);
        let last_log_id = bounds.map(|(_, last)| log_id(last)).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.vote.set(vote);
        durable(|done| self.engine.save_vote(encode_vote(&vote), done)).await?;
        self.saved.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.saved.lock().committed = committed;
        if let Some(committed) = committed {
            self.engine.save_committed(position(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.saved.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let told = |entry: &Entry| {
            if entry.payload.membership.is_some() {
                self.sole.changing(entry.log_id.index);
            }
        };
        let entries: Vec<LogEntry> = entries.into_iter().inspect(told).map(|entry| encode(&entry)).collect();
        self.engine.append(entries, Box::new(move |result| callback.io_completed(result.map_err(io::Error::from))));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        // Past the end there is nothing to drop, nor an entry that would become the last.
        let Some((_, newest)) = self.engine.log_bounds().0.filter(|(_, newest)| newest.index >= from) else { return Ok(()) };
        tracing::debug!(from, newest = newest.index, "truncating the log");
        Ok(durable(|done| self.engine.truncate(from, done)).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        Ok(durable(|done| self.engine.purge(position(&upto), done)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Membership, Node};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn payloads_and_votes_survive_their_encoding() {
        let nodes = BTreeMap::from([(7, Node { peer_urls: vec!["http://127.0.0.1:2380".into()] })]);
        let membership = Membership::new(vec![BTreeSet::from([7])], nodes).expect("voter 7 has a node");
        for command in [None, Some(Bytes::new()), Some(Bytes::from_static(&[9, 1])), Some(Bytes::from_static(&[0, 3]))] {
            for membership in [None, Some(membership.clone())] {
                let payload = Payload { command: command.clone().map(Command), membership };
                assert_eq!(decode_payload(encode_payload(&payload)), Some(payload));
            }
        }
        for broken in [&[0u8][..], &[0, 2, 255, 255, 255, 255], &[0, 2, 1, 0, 0, 0, 255]] {
            assert_eq!(decode_payload(Bytes::copy_from_slice(broken)), None);
        }
        for vote in [Vote::new(3, 9), Vote::new_committed(u64::MAX, 1)] {
            assert_eq!(decode_vote(encode_vote(&vote)), Some(vote));
        }
        assert_eq!(decode_vote(Bytes::from_static(b"short")), None);
    }

    #[test]
    fn a_newer_vote_denies_the_old_leader() {
        let cell = VoteCell::default();
        assert!(cell.confirms(1, 1));
        cell.set(Vote::new(2, 3));
        assert!(!cell.confirms(1, 1) && !cell.confirms(2, 1) && cell.confirms(2, 3) && cell.confirms(3, 1));
    }
}
