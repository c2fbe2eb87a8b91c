//! A leader whose disk is sick gives leadership to one whose isn't.
//!
//! The rule: a disk is sick when the last three fdatasyncs took an election timeout or longer each, or one has been running for five. A
//! leader on such a disk makes everybody wait whose answer needs it, and its log queue fills. It hands over to a voter that has the log
//! and doesn't complain of its own disk; to nobody else, for two sick ones would only play ball. Not more than once in half a minute.

use super::Server;
use rusd_storage::engine::Engine;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// After a hand-over, or a failed one.
const REST: Duration = Duration::from_secs(30);

/// Whether the disk is sick.
pub fn is_sick(engine: &Engine, election_timeout: Duration) -> bool {
    engine.metrics().is_sick(election_timeout, election_timeout * 5)
}

/// Hands over when it has to, until `stop`.
pub async fn watch(server: &Server, stop: &CancellationToken) {
    let election_timeout = server.config.election_timeout;
    let mut rest_until = Instant::now();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let leads = server.consensus.status().leader == server.identity.member_id;
        if !leads || Instant::now() < rest_until || !is_sick(&server.engine, election_timeout) {
            continue;
        }
        let Some(to) = server.members.hand_over().healthy_successor() else { continue };
        rest_until = Instant::now() + REST;
        tracing::warn!(to = format!("{to:x}"), "this leader's disk is sick, handing leadership over");
        if let Err(error) = server.members.hand_over().to(to, election_timeout).await {
            tracing::warn!(%error, "leadership wasn't handed over");
        }
    }
}
