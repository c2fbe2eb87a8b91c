//! The one openraft door of the root crate. STUB with the agreed face.

use super::Error;

/// openraft, and what we know about leadership.
pub struct Consensus {}

/// A moment's view of Raft, for headers, Status and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaftStatus {
    /// Current term.
    pub term: u64,
    /// Leader id, 0 = none; computed from the last quorum ack or the last contact, never from openraft's belief alone.
    pub leader: u64,
    /// Committed index, counted as etcd does (openraft's + 1).
    pub committed: u64,
    /// Applied index, counted as etcd does.
    pub applied: u64,
    /// Whether this member is a learner.
    pub is_learner: bool,
}

#[allow(unused_variables)]
impl Consensus {
    /// Current view; cheap (atomics), called for every response header.
    pub fn status(&self) -> RaftStatus {
        todo!()
    }
    /// Leader changes seen since start.
    pub fn leader_changes(&self) -> u64 {
        todo!()
    }
    /// Hands leadership to `target` and waits for it.
    pub async fn transfer_leader(&self, target: u64) -> Result<(), Error> {
        todo!()
    }
}
