//! openraft asks here for connections.

use crate::channel::{Links, Purpose};
use crate::connection::Connection;
use openraft::RaftNetworkFactory;
use rusd_storage::raft::types::{Node, TypeConfig};
use std::sync::Arc;

/// Makes connections that know their target by id.
#[derive(Clone)]
pub struct Factory {
    links: Arc<Links>,
}

impl Factory {
    /// Over the member's links.
    pub fn new(links: Arc<Links>) -> Self {
        Self { links }
    }

    /// `node` may be newer than the applied membership (a member is spoken to before its entry is applied), so it fills gaps only.
    fn connection(&self, target: u64, node: &Node, purpose: Purpose) -> Connection {
        self.links.table.add_if_missing(target, &node.peer_urls);
        Connection::new(self.links.clone(), target, purpose)
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Node) -> Connection {
        self.connection(target, node, Purpose::Append)
    }
    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Connection {
        self.connection(target, node, Purpose::Heartbeat)
    }
    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> Connection {
        self.connection(target, node, Purpose::Snapshot)
    }
}
