//! When a leader last spoke to us: openraft's metrics don't tell a follower, and its `current_leader` lies under a partition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Set by the peer service whenever it hands openraft something of a leader that we don't know to be replaced.
#[derive(Debug)]
pub struct LeaderContact {
    start: Instant,
    /// Nanoseconds after `start`, plus one; 0 = never.
    last: AtomicU64,
}

impl Default for LeaderContact {
    fn default() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl LeaderContact {
    /// Now.
    pub fn touch(&self) {
        self.last.fetch_max(self.start.elapsed().as_nanos() as u64 + 1, Relaxed);
    }
    /// Time since, if ever.
    pub fn age(&self) -> Option<Duration> {
        let last = self.last.load(Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_nanos(last)))
    }
}
