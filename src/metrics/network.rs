//! Peers and reads, as the member counts them itself: set when somebody scrapes.

use super::Maker;
use crate::server::Server;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};
use std::sync::atomic::Ordering::Relaxed;

/// See the module.
#[derive(Debug)]
pub(super) struct Network {
    known: IntGaugeVec,
    active: IntGaugeVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    slow_reads: IntCounter,
    failed_reads: IntCounter,
}

impl Network {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let pair = ["Local", "Remote"];
        Self {
            known: make.gauges("etcd_network_known_peers", "The current number of known peers.", &pair),
            active: make.gauges("etcd_network_active_peers", "The current number of active peer connections.", &pair),
            sent: make.counters("etcd_network_peer_sent_bytes_total", "The total number of bytes sent to peers.", &["To"]),
            received: make.counters("etcd_network_peer_received_bytes_total", "The total number of bytes received from peers.", &["From"]),
            slow_reads: make.counter(
                "etcd_server_slow_read_indexes_total",
                "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            ),
            failed_reads: make.counter("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen."),
        }
    }

    pub(super) fn read(&self, server: &Server) {
        let local = format!("{:x}", server.identity.member_id);
        for family in [&self.known, &self.active] {
            family.reset();
        }
        for family in [&self.sent, &self.received] {
            family.reset();
        }
        let links = server.consensus.links();
        self.known.with_label_values(&[&local, &local]).set(1);
        for remote in links.table.ids() {
            self.known.with_label_values(&[local.as_str(), &format!("{remote:x}")]).set(1);
        }
        for (id, metrics) in links.all_metrics() {
            let remote = format!("{id:x}");
            self.active.with_label_values(&[&local, &remote]).set(i64::from(metrics.active.load(Relaxed)));
            self.sent.with_label_values(&[&remote]).inc_by(metrics.sent_bytes.load(Relaxed));
            self.received.with_label_values(&[&remote]).inc_by(metrics.received_bytes.load(Relaxed));
        }
        let (slow, failed) = server.read.failures();
        for (counter, now) in [(&self.slow_reads, slow), (&self.failed_reads, failed)] {
            counter.reset();
            counter.inc_by(now);
        }
    }
}
