//! What the clocks of this room (leases, auto compaction) know of the cluster.

use super::leases::Leadership;
use super::{Error, Server};
use futures::future::BoxFuture;
use rusd_storage::command::{Response, proposal};
use std::sync::Weak;

/// Leadership as Raft and the applied state tell it. Weak, for the server's own tasks hold it.
pub struct RaftLeadership(pub Weak<Server>);

impl Leadership for RaftLeadership {
    /// The applied position carries the term we lead as soon as that term's first entry is applied, and not before: until then leases
    /// may lack what an earlier leader committed.
    fn leads(&self) -> Option<u64> {
        let server = self.0.upgrade()?;
        let status = server.consensus.status();
        let leads = status.leader == server.identity.member_id && server.state.applied().is_some_and(|applied| applied.term == status.term);
        leads.then_some(status.term)
    }

    fn leads_alone(&self) -> Option<u64> {
        let server = self.0.upgrade()?;
        let consensus = &server.consensus;
        let (leader, term) = consensus.believed_leadership();
        consensus.sole_term().filter(|applied| *applied == term && leader == consensus.member_id())
    }

    /// A read's round proves leadership by a quorum; many callers share one.
    fn confirm(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let server = self.0.upgrade().ok_or(Error::Stopped)?;
            if self.leads().is_none() {
                return Err(Error::NotLeader);
            }
            server.read.linearizable().await?;
            // Read rounds of followers are answered, too: the proof counts only for who still leads.
            self.leads().map(|_| ()).ok_or(Error::NotLeader)
        })
    }

    fn submit_in_term(&self, command: proposal::Command, term: u64) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(async move {
            let server = self.0.upgrade().ok_or(Error::Stopped)?;
            server.propose.submit_in_term(command, term).await
        })
    }
}
