//! A member tells the cluster its name, its client URLs and its data dir's id, through the log; a leader decides the cluster version.
//! Clients are served only after the first.

use super::{Error, Server};
use crate::grpc::ETCD_VERSION;
use rusd_storage::Rejection;
use rusd_storage::command::{self, proposal};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two tries; a proposal itself waits for a leader.
const RETRY: Duration = Duration::from_millis(100);
/// How often a leader looks whether there is a cluster version.
const VERSION_CHECK: Duration = Duration::from_millis(200);

/// Why a member can't be published, however often it tries.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The cluster knows this member with another data dir.
    #[error("the cluster knows this member with another data dir")]
    Wiped,
    /// The cluster doesn't know us (any more).
    #[error("the cluster refuses this member: {0}")]
    Refused(Rejection),
    /// Going down.
    #[error("server stopped")]
    Stopped,
}

/// Proposes this member's record until it is applied here.
pub async fn publish(server: &Server, cancel: &CancellationToken) -> Result<(), PublishError> {
    let record = command::PublishMember {
        id: server.identity.member_id,
        name: server.config.name.clone(),
        client_urls: server.config.advertise_client_urls.clone(),
        data_dir_id: server.identity.data_dir_id,
        protocol_version: rusd_network::PROTOCOL_VERSION,
    };
    loop {
        let proposal = server.propose.submit(proposal::Command::PublishMember(record.clone()));
        match cancel.run_until_cancelled(proposal).await {
            Some(Ok(_)) => return Ok(()),
            Some(Err(Error::Rejected(Rejection::OtherDataDir))) => return Err(PublishError::Wiped),
            Some(Err(Error::Rejected(rejection))) => return Err(PublishError::Refused(rejection)),
            None | Some(Err(Error::Stopped)) => return Err(PublishError::Stopped),
            Some(Err(error)) => tracing::warn!(%error, "failed to publish local member to cluster through raft"),
        }
        if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return Err(PublishError::Stopped);
        }
    }
}

/// Whoever leads sets the cluster version once; all members of one rusd release speak the same.
pub async fn decide_version(server: &Server, cancel: &CancellationToken) {
    let (major_minor, _) = ETCD_VERSION.rsplit_once('.').unwrap_or((ETCD_VERSION, ""));
    let version = format!("{major_minor}.0");
    while server.state.cluster_version().is_empty() {
        if server.consensus.status().leader == server.identity.member_id {
            let command = proposal::Command::SetClusterVersion(command::SetClusterVersion { version: version.clone() });
            match cancel.run_until_cancelled(server.propose.submit(command)).await {
                Some(Ok(_)) => return tracing::info!(cluster_version = version, "set initial cluster version"),
                Some(Err(error)) => tracing::debug!(%error, "the cluster version wasn't set"),
                None => return,
            }
        }
        if cancel.run_until_cancelled(tokio::time::sleep(VERSION_CHECK)).await.is_none() {
            return;
        }
    }
}
