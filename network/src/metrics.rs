//! Counters per peer, read by the metrics page.

use rusd_storage::measure::{Counter, Histogram, Inflight, Stopwatch};
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
    /// Pings that were answered.
    pub round_trips: RoundTrips,
    /// Snapshots to it.
    pub sent_snapshots: Snapshots,
    /// Snapshots from it.
    pub received_snapshots: Snapshots,
    /// How often it was lost.
    pub disconnects: Counter,
    /// Whether the last call got through.
    pub active: AtomicBool,
    confirmations: AtomicU64,
}

/// How long pings take to be answered.
#[derive(Debug)]
pub struct RoundTrips(pub Histogram);

impl Default for RoundTrips {
    fn default() -> Self {
        Self(Histogram::seconds(0.0001, 16))
    }
}

/// Snapshots of one direction.
#[derive(Debug)]
pub struct Snapshots {
    /// Under way.
    pub in_flight: Inflight,
    /// Those that weren't transferred.
    pub failures: Counter,
    /// Those that were, and how long it took.
    pub transfers: Histogram,
    /// Transfers that went on where one before had broken.
    pub resumed: Counter,
}

impl Default for Snapshots {
    fn default() -> Self {
        let (in_flight, failures, resumed) = (Inflight::default(), Counter::default(), Counter::default());
        Self { in_flight, failures, transfers: Histogram::seconds(0.1, 10), resumed }
    }
}

impl Snapshots {
    /// Counts a transfer while it runs and by its end.
    pub async fn measured<T, E>(&self, transfer: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let _in_flight = self.in_flight.begin();
        let watch = Stopwatch::start();
        let result = transfer.await;
        match &result {
            Ok(_) => self.transfers.took(watch.elapsed()),
            Err(_) => self.failures.inc(),
        }
        result
    }
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
        if self.active.swap(ok, Relaxed) && !ok {
            self.disconnects.inc();
        }
        if !ok {
            self.sent_failures.fetch_add(1, Relaxed);
        }
    }
}
