//! Auto compaction, driven by the leader (contract b.5): keeps some hours, or some revisions, of history.

use super::Error;
use super::leases::Leadership;
use crate::config::Retention;
use crate::watch::History;
use rusd_storage::Rejection;
use rusd_storage::command::{Compact, proposal};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const HOUR: Duration = Duration::from_secs(3600);
/// How often mode `revision` compacts.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// However short the retention: looking more often would cost more than it frees.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Compacts while this member leads; others only keep their samples.
pub struct Compactor {
    retention: Retention,
    history: Arc<dyn History>,
    leadership: Arc<dyn Leadership>,
}

impl Compactor {
    /// Idle until [`Compactor::run`].
    pub fn new(retention: Retention, history: Arc<dyn History>, leadership: Arc<dyn Leadership>) -> Self {
        Self { retention, history, leadership }
    }

    /// Works until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let work = async {
            match self.retention {
                Retention::Off => std::future::pending().await,
                Retention::Periodic(period) => self.periodic(period).await,
                Retention::Revisions(keep) => self.by_revision(keep).await,
            }
        };
        tokio::select! {
            () = work => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Samples the revision ten times a period (an hour at most) and compacts to the sample of one period ago.
    async fn periodic(&self, period: Duration) {
        let every = period.min(HOUR);
        let sample_interval = (every / 10).max(SAMPLE_INTERVAL_MIN);
        let keep = (period.as_nanos() / sample_interval.as_nanos()) as usize + 1;
        let mut samples = VecDeque::from([self.history.revision()]);
        let (mut since, mut wait) = (Duration::ZERO, period);
        let mut done = 0;
        loop {
            tokio::time::sleep(sample_interval).await;
            since += sample_interval;
            samples.push_back(self.history.revision());
            while samples.len() > keep {
                samples.pop_front();
            }
            if since < wait {
                continue;
            }
            let target = samples.front().copied().unwrap_or(0);
            if target == done || self.compact(target).await {
                done = target;
                (since, wait) = (Duration::ZERO, every);
            }
        }
    }

    async fn by_revision(&self, keep: i64) {
        let mut done = 0;
        loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            let target = self.history.revision() - keep;
            if target > 0 && target != done && self.compact(target).await {
                done = target;
            }
        }
    }

    /// Whether this revision needs no further attempt.
    async fn compact(&self, revision: i64) -> bool {
        // Others are paused: they try again at the next sample.
        let Some(term) = self.leadership.leads() else { return false };
        match self.leadership.submit_in_term(proposal::Command::Compact(Compact { revision }), term).await {
            Ok(_) => {
                info!(revision, "auto compaction");
                true
            }
            Err(Error::Rejected(Rejection::Compacted)) => true,
            Err(error) => {
                warn!(%error, revision, "auto compaction failed");
                false
            }
        }
    }
}
