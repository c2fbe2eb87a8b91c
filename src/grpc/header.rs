//! Response headers (contract b.8).

use super::Api;
use crate::pb::etcdserverpb::ResponseHeader;

impl Api {
    /// A header with `revision`, or with the current one if that is 0.
    pub fn header(&self, revision: i64) -> Option<ResponseHeader> {
        let revision = if revision == 0 { self.server.state.store().revision() } else { revision };
        self.header_exactly(revision)
    }

    /// A header whose revision may be 0: the Cluster service says nothing of revisions.
    pub fn header_exactly(&self, revision: i64) -> Option<ResponseHeader> {
        let identity = &self.server.identity;
        Some(ResponseHeader {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            revision,
            raft_term: self.server.consensus.term(),
        })
    }
}
