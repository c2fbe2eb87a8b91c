//! Figures of the writer: fdatasyncs and how long they took, in etcd's buckets (1 ms doubling, 14 of them).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, seconds: etcd's `Exp(0.001, 2, 14)`.
pub const BUCKETS: [f64; 14] = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// Cumulative since start.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    buckets: [AtomicU64; 14],
    count: AtomicU64,
    micros: AtomicU64,
}

impl EngineMetrics {
    /// One fdatasync took this long.
    pub fn synced(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// (count per bucket, not cumulated; count; sum in seconds).
    pub fn syncs(&self) -> ([u64; 14], u64, f64) {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (buckets, self.count.load(Ordering::Relaxed), self.micros.load(Ordering::Relaxed) as f64 / 1e6)
    }
}
