//! Counters per peer, read by the metrics page.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What went to and came from one peer since start.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// Bytes of messages sent.
    pub sent_bytes: AtomicU64,
    /// Bytes of messages received.
    pub received_bytes: AtomicU64,
    /// Calls that failed to be sent.
    pub sent_failures: AtomicU64,
    /// Calls that failed on our side.
    pub received_failures: AtomicU64,
    /// Last measured round trip, microseconds; 0 = none yet.
    pub round_trip_micros: AtomicU64,
    /// Snapshots sent whole.
    pub snapshots_sent: AtomicU64,
    /// Snapshot transfers that failed.
    pub snapshot_failures: AtomicU64,
    /// Whether the last call got through.
    pub active: AtomicBool,
    confirmations: AtomicU64,
}

/// Calls under way to a peer that may not be answering.
const CONFIRMATIONS_MAX: u64 = 64;

/// One call under way.
pub struct ConfirmationSlot<'a>(&'a PeerMetrics);

impl Drop for ConfirmationSlot<'_> {
    fn drop(&mut self) {
        self.0.confirmations.fetch_sub(1, Relaxed);
    }
}

impl PeerMetrics {
    /// A place for one more confirmation call, if there are not too many under way.
    pub fn confirmation_slot(&self) -> Option<ConfirmationSlot<'_>> {
        let slot = ConfirmationSlot(self);
        (self.confirmations.fetch_add(1, Relaxed) < CONFIRMATIONS_MAX).then_some(slot)
    }
    /// Counts a message sent.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }
    /// Counts a message received.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }
    /// Notes the end of a call.
    pub fn outcome(&self, ok: bool) {
        self.active.store(ok, Relaxed);
        if !ok {
            self.sent_failures.fetch_add(1, Relaxed);
        }
    }
}
