//! Writes: from a command to its result on this member. STUB with the agreed face.

use super::Error;
use rusd_storage::command::{Response, proposal};

/// Submits commands and waits until this member has applied them.
pub struct Propose {}

#[allow(unused_variables)]
impl Propose {
    /// Proposes on the leader, or through it; answers once this member has applied the entry. Never retried once accepted.
    pub async fn submit(&self, command: proposal::Command) -> Result<Response, Error> {
        todo!()
    }
    /// Proposes only while this member leads `term`, else NotLeader; never forwarded.
    pub async fn submit_in_term(&self, command: proposal::Command, term: u64) -> Result<Response, Error> {
        todo!()
    }
}
