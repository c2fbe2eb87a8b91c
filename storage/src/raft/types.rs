//! The type configuration of openraft: single-leader terms, peer URLs as node, and a payload that may carry application data and a
//! membership in one entry (a member record changes together with the voters).

use super::responder::Responder;
use crate::command::state;
use bytes::Bytes;
use openraft::OptionalSend;
use openraft::entry::RaftPayload;
use openraft::impls::leader_id_std;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Encoded [`crate::command::Proposal`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A member as openraft knows it: sorted peer URLs and nothing else (openraft.md section 12, 7).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Sorted peer URLs.
    pub peer_urls: Vec<String>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer_urls.join(","))
    }
}

/// openraft's membership over our node.
pub type Membership = openraft::Membership<u64, Node>;

/// What an entry carries: a command, a membership, both, or nothing (a new leader's first entry).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Application data.
    pub command: Option<Command>,
    /// New membership.
    pub membership: Option<Membership>,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl RaftPayload for Payload {
    type D = Command;
    type NodeId = u64;
    type Node = Node;

    fn blank() -> Self {
        Self::default()
    }
    fn with_normal(mut self, command: Command) -> Self {
        self.command = Some(command);
        self
    }
    fn with_membership(mut self, membership: Membership) -> Self {
        self.membership = Some(membership);
        self
    }
    fn get_membership(&self) -> Option<Membership> {
        self.membership.clone()
    }
}

/// The result openraft carries; the real one goes to the proposer through [`super::ResultSink`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Index of the applied entry.
    pub index: u64,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "applied {}", self.index)
    }
}

/// rusd's openraft configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

// By hand, for openraft's macro takes no responder of one's own.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = Payload;
    type Entry = openraft::Entry<CommittedLeaderId, Payload>;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Log id: (term, index).
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// Vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// Log entry.
pub type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
/// The committed form of a leader id: its term.
pub type CommittedLeaderId = <leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;
/// Membership with the log id it was set at.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// Snapshot metadata.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Our words for a log id.
pub fn position(id: &LogId) -> crate::types::LogPosition {
    crate::types::LogPosition { term: id.leader_id.term, index: id.index }
}

/// openraft's word for a position.
pub fn log_id(position: crate::types::LogPosition) -> LogId {
    LogId::new(CommittedLeaderId::new(position.term), position.index)
}

/// Encodes a membership.
pub fn membership_to_state(membership: &Membership) -> state::Membership {
    state::Membership {
        configs: membership.get_joint_config().iter().map(|ids| state::Voters { ids: ids.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, node)| state::Node { id: *id, peer_urls: node.peer_urls.clone() }).collect(),
    }
}

/// Decodes a membership; `None` if openraft finds it inconsistent (a voter without a node).
pub fn membership_from_state(message: &state::Membership) -> Option<Membership> {
    let configs: Vec<BTreeSet<u64>> = message.configs.iter().map(|voters| voters.ids.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, Node> = message.nodes.iter().map(|node| (node.id, Node { peer_urls: node.peer_urls.clone() })).collect();
    Membership::new(configs, nodes).ok()
}
