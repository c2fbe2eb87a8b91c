//! `--force-new-cluster`: this member goes on alone, with all it has, when the majority is lost for ever.
//!
//! It is refused where it would be a mistake: without data, by a member that never voted (it may lack what was acknowledged), by one that
//! was removed, and while enough others answer to be a majority with this one, for then nothing is lost. Repeated, or left in place in a
//! cluster of one, it does nothing.

use super::bootstrap::{BootstrapError, member_dir};
use super::identity::Stored;
use super::remote;
use crate::config::Config;
use rusd_storage::raft::Opened;
use rusd_storage::raft::types::Membership;
use std::time::Duration;

/// How long another member may take to show that it lives.
const ASK: Duration = Duration::from_secs(2);

/// Makes this member the only one, if it was not.
///
/// # Errors
/// It would be a mistake, or the store fails.
pub async fn force(config: &Config, stored: &Stored, opened: &mut Opened) -> Result<(), super::boot::BootError> {
    let (me, membership) = (stored.member_id, opened.newest_membership()?);
    if membership.voter_ids().next().is_none() {
        return Err(BootstrapError::NothingToForce(member_dir(config)).into());
    }
    if !membership.voter_ids().any(|id| id == me) {
        let learns = membership.get_node(&me).is_some();
        return Err(if learns { BootstrapError::ForcedLearner(me) } else { BootstrapError::Removed(config.data_dir.clone()) }.into());
    }
    if membership.nodes().count() == 1 {
        tracing::info!("--force-new-cluster: this member is the only one already; take the flag out");
        return Ok(());
    }
    refuse_majority(stored, &membership).await?;
    let gone: Vec<String> = membership.nodes().filter(|(id, _)| **id != me).map(|(id, _)| format!("{id:x}")).collect();
    let at = opened.go_on_alone(me).await?;
    tracing::warn!(
        member = format!("{me:x}"),
        removed = gone.join(","),
        term = at.term,
        index = at.index,
        "forced a new cluster of this member alone; the others are removed for ever"
    );
    Ok(())
}

/// Whoever tells the members of our cluster on a peer URL of a voter lives.
async fn refuse_majority(stored: &Stored, membership: &Membership) -> Result<(), BootstrapError> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    let others = membership.nodes().filter(|(id, _)| **id != stored.member_id && voters.contains(id));
    let asked = others.map(|(id, node)| async move {
        let answer = remote::first(&node.peer_urls, ASK).await;
        answer.filter(|remote| remote.cluster_id == stored.cluster_id).map(|_| format!("{id:x}"))
    });
    let alive: Vec<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    if alive.len() + 1 > voters.len() / 2 && !alive.is_empty() {
        return Err(BootstrapError::MajorityLives { alive: alive.join(", "), voters: voters.len() });
    }
    Ok(())
}
