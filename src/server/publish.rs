//! A member tells the cluster its name, its client URLs and its data dir's id, through the log. Clients are served only after that.
//! A leader names founders that haven't come yet.

use super::identity::Founder;
use super::{Error, Server};
use rusd_storage::Rejection;
use rusd_storage::command::{self, proposal};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two tries; a proposal itself waits for a leader.
const RETRY: Duration = Duration::from_millis(100);
/// How long founders get to say their names themselves.
const NAME_AFTER: Duration = Duration::from_secs(1);

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
        protocol_version: rusd_network::protocol().1,
    };
    loop {
        let proposal = server.propose.submit_idempotent(proposal::Command::PublishMember(record.clone()));
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

/// `--initial-cluster` names all founders, and etcd shows the names of those that have never been up. Their common first entry can't hold
/// names (only what the cluster id is made of), so a leader says the name of a founder that hasn't said it itself after a moment.
pub async fn name_founders(server: &Server, founders: &[Founder], cancel: &CancellationToken) {
    if cancel.run_until_cancelled(tokio::time::sleep(NAME_AFTER)).await.is_none() {
        return;
    }
    loop {
        let members = server.state.members();
        let nameless = |founder: &&Founder| members.iter().any(|member| member.id == founder.id && member.name.is_empty());
        let Some(founder) = founders.iter().find(nameless) else { return };
        if server.consensus.status().leader == server.identity.member_id {
            // Without a data dir: if the founder publishes first, this is rejected.
            let record = command::PublishMember { id: founder.id, name: founder.name.clone(), ..command::PublishMember::default() };
            let proposal = server.propose.submit(proposal::Command::PublishMember(record));
            match cancel.run_until_cancelled(proposal).await {
                Some(Ok(_)) => continue,
                Some(Err(error)) => tracing::debug!(%error, "a founder wasn't named"),
                None => return,
            }
        }
        if cancel.run_until_cancelled(tokio::time::sleep(NAME_AFTER)).await.is_none() {
            return;
        }
    }
}
