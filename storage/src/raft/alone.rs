//! One member goes on alone, when the majority of its cluster is lost for ever.
//!
//! ```text
//! the log:   .. applied .. committed as far as this member knows | tail            | forced entry, in a term that nobody had
//! after it:  ............ all of it is committed by the cluster of one .............................................. |
//! ```
//!
//! The whole tail stays. What a majority acknowledged is in the log of every member of it; whether it was committed, the others may not
//! have had time to tell. So an acknowledged write that this member has lies before the forced entry, and nothing can take it away any
//! more. What in the tail never was acknowledged has an unknown fate, as after every change of leaders, and is kept too. (etcd drops
//! what lies behind the commit that this member knew, and with it what was acknowledged in the last moment.)
//!
//! The vote goes first: a crash between the two leaves a member that has only seen a higher term.

use super::log_store::{self, encode_payload};
use super::types::{Command, Membership, Node, Payload, Vote, membership_from_state};
use super::{Opened, durable};
use crate::command::change_member::Change;
use crate::command::{ChangeMember, Proposal, proposal};
use crate::engine::LogEntry;
use crate::error::StorageError;
use crate::types::LogPosition;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Entries read at once.
const CHUNK: u64 = 1024;

impl Opened {
    /// The membership that consensus would go on with: the newest in the log, else the applied one. Without voters in a member that has
    /// neither.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn newest_membership(&self) -> Result<Membership, StorageError> {
        let applied = || self.state.rooms().membership.read().membership.as_ref().and_then(membership_from_state);
        Ok(self.membership_to_come()?.map(|(_, membership)| membership).or_else(applied).unwrap_or_default())
    }

    /// The newest membership that is in the log but not applied, and its index.
    fn membership_to_come(&self) -> Result<Option<(u64, Membership)>, StorageError> {
        let (bounds, _) = self.engine.log_bounds();
        let Some((oldest, last)) = bounds else { return Ok(None) };
        let (mut newest, mut next) = (None, self.state.applied().map_or(oldest, |applied| oldest.max(applied.index + 1)));
        while next <= last.index {
            let end = (next + CHUNK).min(last.index + 1);
            let entries = self.log_store.read(next, end, false)?.into_iter();
            let changes = entries.filter_map(|entry| Some((entry.log_id.index, entry.payload.membership?)));
            newest = changes.last().or(newest);
            next = end;
        }
        Ok(newest)
    }

    /// The index of an entry, not applied yet, that makes `id` the only member. Until it is applied no peer may be heard: it would not be
    /// told that it was removed, and might take the entry away.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn will_be_alone(&self, id: u64) -> Result<Option<u64>, StorageError> {
        let alone = |membership: &Membership| membership.nodes().count() == 1 && membership.get_node(&id).is_some();
        Ok(self.membership_to_come()?.filter(|(_, membership)| alone(membership)).map(|(index, _)| index))
    }

    /// Makes `id` the only member, for ever; call it before consensus starts. Durable when it returns: the position of the entry that says
    /// so.
    ///
    /// # Errors
    /// The log can't be read or written.
    ///
    /// # Panics
    /// `id` isn't in the membership: ask [`Self::newest_membership`] before.
    pub async fn go_on_alone(&mut self, id: u64) -> Result<LogPosition, StorageError> {
        let membership = self.newest_membership()?;
        let node = membership.get_node(&id).cloned().expect("the caller has looked");
        let (bounds, floor) = self.engine.log_bounds();
        let last = bounds.map(|(_, last)| last).or(floor);
        let voted = self.log_store.vote_cell().get().map_or(0, |vote| vote.leader_id.term);
        let term = voted.max(last.map_or(0, |last| last.term)) + 1;
        let position = LogPosition { term, index: last.map_or(0, |last| last.index + 1) };
        let vote = log_store::encode_vote(&Vote::new(term, id));
        durable(|done| self.engine.save_vote(vote, done)).await?;
        let entry = LogEntry { position, body: encode_payload(&alone(id, node)) };
        durable(|done| self.engine.append(vec![entry], done)).await?;
        self.log_store.voted(Vote::new(term, id));
        self.log_store.sole_member().changing(position.index);
        Ok(position)
    }
}

fn alone(id: u64, node: Node) -> Payload {
    let membership = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)])).expect("the one voter has a node");
    let change = ChangeMember { change: Some(Change::KeepOnly(id)) };
    let proposal = Proposal { command: Some(proposal::Command::ChangeMember(change)), ..Proposal::default() };
    Payload { command: Some(Command(proposal.encode_to_vec().into())), membership: Some(membership) }
}
