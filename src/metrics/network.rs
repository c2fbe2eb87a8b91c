//! Peers and reads, as the member counts them itself.

use super::page::Page;
use crate::server::Server;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn read(page: &mut Page, server: &Server) {
    let local = format!("{:x}", server.identity.member_id);
    let links = server.consensus.links();
    let remotes: Vec<String> = links.table.ids().into_iter().map(|id| format!("{id:x}")).collect();
    let mut known = page.gauges("etcd_network_known_peers", "The current number of known peers.");
    known.add(&[("Local", &local), ("Remote", &local)], 1.0);
    remotes.iter().for_each(|remote| known.add(&[("Local", &local), ("Remote", remote)], 1.0));
    drop(known);
    let metrics: Vec<_> = links.all_metrics().into_iter().map(|(id, metrics)| (format!("{id:x}"), metrics)).collect();
    let mut active = page.gauges("etcd_network_active_peers", "The current number of active peer connections.");
    for (remote, metrics) in &metrics {
        active.add(&[("Local", &local), ("Remote", remote)], f64::from(u8::from(metrics.active.load(Relaxed))));
    }
    drop(active);
    let mut sent = page.counters("etcd_network_peer_sent_bytes_total", "The total number of bytes sent to peers.");
    metrics.iter().for_each(|(remote, metrics)| sent.add(&[("To", remote)], metrics.sent_bytes.load(Relaxed)));
    drop(sent);
    let mut received = page.counters("etcd_network_peer_received_bytes_total", "The total number of bytes received from peers.");
    metrics.iter().for_each(|(remote, metrics)| received.add(&[("From", remote)], metrics.received_bytes.load(Relaxed)));
    drop(received);
    let (slow, failed) = server.read.failures();
    page.count(
        "etcd_server_slow_read_indexes_total",
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
        slow,
    );
    page.count("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen.", failed);
}
