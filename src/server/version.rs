//! The cluster version: the lowest etcd version of all members, decided by whoever leads, through the log.
//!
//! | when | what |
//! |---|---|
//! | there is none | the leader's own, or lower if a member that it can reach says so |
//! | all members can be reached and are newer | their lowest |
//! | otherwise | it stays; it never falls by itself |

use super::Server;
use super::remote::major_minor;
use crate::grpc::ETCD_VERSION;
use rusd_network::Presence;
use rusd_storage::command::{self, proposal};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks while there is no version.
const UNDECIDED: Duration = Duration::from_millis(20);
/// And afterwards (etcd's monitorVersionInterval).
const DECIDED: Duration = Duration::from_secs(4);

/// Until `cancel`.
pub async fn decide(server: &Server, presence: &Presence, cancel: &CancellationToken) {
    loop {
        let now = server.state.cluster_version();
        if server.consensus.status().leader == server.identity.member_id
            && let Some(version) = next(&now, &versions(server, presence))
        {
            let command = proposal::Command::SetClusterVersion(command::SetClusterVersion { version: version.clone() });
            match cancel.run_until_cancelled(server.propose.submit(command)).await {
                Some(Ok(_)) if now.is_empty() => tracing::info!(cluster_version = version, "set initial cluster version"),
                Some(Ok(_)) => tracing::info!(from = now, to = version, "updated cluster version"),
                Some(Err(error)) => tracing::debug!(%error, "the cluster version wasn't set"),
                None => return,
            }
        }
        let pause = if server.state.cluster_version().is_empty() { UNDECIDED } else { DECIDED };
        if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

type MajorMinor = (u64, u64);

/// Of all members, in no order; `None` for one that can't be reached.
fn versions(server: &Server, presence: &Presence) -> Vec<Option<MajorMinor>> {
    let own = major_minor(ETCD_VERSION);
    let of = |id| if id == server.identity.member_id { own } else { presence.seen(id).map(|seen| seen.etcd_version) };
    server.state.members().into_iter().map(|member| of(member.id)).collect()
}

/// What to set, if anything.
fn next(now: &str, members: &[Option<MajorMinor>]) -> Option<String> {
    let lowest = members.iter().flatten().min()?;
    let all = members.iter().all(Option::is_some);
    let rises = major_minor(now).is_none_or(|now| all && *lowest > now);
    rises.then(|| format!("{}.{}.0", lowest.0, lowest.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_lowest_and_never_falls() {
        let (old, new) = (Some((3, 7)), Some((3, 8)));
        assert_eq!(next("", &[new, old, None]).as_deref(), Some("3.7.0"));
        assert_eq!(next("3.7.0", &[new, old]), None);
        assert_eq!(next("3.7.0", &[new, None]), None, "who can't be reached may be old");
        assert_eq!(next("3.7.0", &[new, new]).as_deref(), Some("3.8.0"));
        assert_eq!(next("3.8.0", &[new, old]), None);
        assert_eq!(next("", &[None]), None);
    }
}
