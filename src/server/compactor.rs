//! Auto compaction, driven by the leader (contract b.5): keeps some hours, or some revisions, of history.

use super::Error;
use super::leases::Leadership;
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

/// What to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing is compacted.
    Off,
    /// Revisions younger than this.
    Periodic(Duration),
    /// So many of the last revisions.
    Revisions(i64),
}

/// The retention is neither a number nor a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse auto-compaction-retention {0:?}")]
pub struct RetentionError(String);

impl Retention {
    /// Reads `--auto-compaction-retention`: hours or a duration in periodic mode, else a number of revisions; "" and 0 turn it off.
    pub fn parse(by_revision: bool, text: &str) -> Result<Self, RetentionError> {
        let refused = || RetentionError(text.to_owned());
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Ok(number) = text.parse::<i64>() {
            return match number {
                0 => Ok(Self::Off),
                1.. if by_revision => Ok(Self::Revisions(number)),
                1.. => Ok(Self::Periodic(Duration::from_secs((number as u64).checked_mul(3600).ok_or_else(refused)?))),
                _ => Err(refused()),
            };
        }
        let duration = parse_duration(text).filter(|_| !by_revision).ok_or_else(refused)?;
        Ok(if duration.is_zero() { Self::Off } else { Self::Periodic(duration) })
    }
}

/// Go's duration syntax as far as flags use it: `1h30m`, `300ms`, `2.5s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..number_end].parse().ok()?;
        let tail = &rest[number_end..];
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit = match &tail[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &tail[unit_end..];
    }
    Some(total)
}

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
        let sample_interval = every / 10;
        let keep = (period.as_nanos() / sample_interval.as_nanos().max(1)) as usize + 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcds() {
        let hours = |n: u64| Ok(Retention::Periodic(Duration::from_secs(3600 * n)));
        assert_eq!(Retention::parse(false, "0"), Ok(Retention::Off));
        assert_eq!(Retention::parse(false, "3"), hours(3));
        assert_eq!(Retention::parse(false, "1h"), hours(1));
        assert_eq!(Retention::parse(false, "1h30m500ms"), Ok(Retention::Periodic(Duration::from_millis(5_400_500))));
        assert_eq!(Retention::parse(true, "1000"), Ok(Retention::Revisions(1000)));
        assert!(Retention::parse(true, "1h").is_err());
        assert!(Retention::parse(false, "soon").is_err());
        assert!(Retention::parse(false, "-1").is_err());
    }
}
