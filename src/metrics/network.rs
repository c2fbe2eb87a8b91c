//! Peers and reads, as the member counts them itself.

use super::page::Page;
use crate::server::Server;
use rusd_network::PeerMetrics;
use rusd_network::metrics::Snapshots;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn read(page: &mut Page, server: &Server) {
    let local = format!("{:x}", server.identity.member_id);
    let links = server.consensus.links();
    let others = links.table.ids().into_iter().filter(|id| *id != server.identity.member_id);
    let remotes: Vec<String> = others.map(|id| format!("{id:x}")).collect();
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
    page.counter(
        "etcd_server_heartbeat_send_failures_total",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        &links.late_heartbeats,
    );
    calls(page, &local, &metrics);
    snapshots(page, &metrics);
    let (slow, failed) = server.read.failures();
    page.count(
        "etcd_server_slow_read_indexes_total",
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
        slow,
    );
    page.count("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen.", failed);
}

/// A peer's id, and what is counted of it.
type Peer = (String, Arc<PeerMetrics>);

/// A peer of which nothing was lost has no series, as with etcd.
fn calls(page: &mut Page, local: &str, peers: &[Peer]) {
    let mut family = page.counters("etcd_network_disconnected_peers_total", "The total number of disconnected peers.");
    for (remote, metrics) in peers.iter().filter(|(_, metrics)| metrics.disconnects.get() > 0) {
        family.add(&[("Local", local), ("Remote", remote)], metrics.disconnects.get());
    }
    drop(family);
    let mut failures = |name, help, label, of: fn(&PeerMetrics) -> u64| {
        let mut family = page.counters(name, help);
        for (remote, metrics) in peers.iter().filter(|(_, metrics)| of(metrics) > 0) {
            family.add(&[(label, remote)], of(metrics));
        }
    };
    failures("etcd_network_peer_sent_failures_total", "The total number of send failures from peers.", "To", |metrics| {
        metrics.sent_failures.load(Relaxed)
    });
    failures("etcd_network_peer_received_failures_total", "The total number of receive failures from peers.", "From", |metrics| {
        metrics.received_failures.load(Relaxed)
    });
    let mut family = page.histograms("etcd_network_peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers");
    peers.iter().for_each(|(remote, metrics)| family.add_used(&[("To", remote)], &metrics.round_trips.0));
}

fn snapshots(page: &mut Page, peers: &[Peer]) {
    for (name, what, label, of) in [
        ("send", "sends", "To", (|metrics| &metrics.sent_snapshots) as fn(&PeerMetrics) -> &Snapshots),
        ("receive", "receives", "From", |metrics| &metrics.received_snapshots),
    ] {
        let used: Vec<(&String, &Snapshots)> = peers.iter().map(|(remote, metrics)| (remote, of(metrics))).collect();
        let family = |end: &str| format!("etcd_network_snapshot_{name}_{end}");
        let done = |snapshots: &Snapshots| snapshots.transfers.observed().count;
        let mut success = page.counters(&family("success"), &format!("Total number of successful snapshot {what}"));
        for (remote, snapshots) in used.iter().filter(|(_, snapshots)| done(snapshots) > 0) {
            success.add(&[(label, remote)], done(snapshots));
        }
        drop(success);
        let mut failures = page.counters(&family("failures"), &format!("Total number of snapshot {name} failures"));
        for (remote, snapshots) in used.iter().filter(|(_, snapshots)| snapshots.failures.get() > 0) {
            failures.add(&[(label, remote)], snapshots.failures.get());
        }
        drop(failures);
        let mut inflights = page.gauges(&family("inflights_total"), &format!("Total number of inflight snapshot {what}"));
        for (remote, snapshots) in &used {
            let (now, ever) = (snapshots.in_flight.get(), done(snapshots) + snapshots.failures.get());
            if now + ever > 0 {
                inflights.add(&[(label, remote)], now as f64);
            }
        }
        drop(inflights);
        let help = format!("Total latency distributions of v3 snapshot {what}");
        let mut took = page.histograms(&family("total_duration_seconds"), &help);
        used.iter().for_each(|(remote, snapshots)| took.add_used(&[(label, remote)], &snapshots.transfers));
    }
    // etcd begins anew, and has no such figure.
    let help = "Total number of snapshot receives that went on where one before had broken";
    let mut resumed = page.counters("rusd_network_snapshot_receive_resumed_total", help);
    for (remote, metrics) in peers.iter().filter(|(_, metrics)| metrics.received_snapshots.resumed.get() > 0) {
        resumed.add(&[("From", remote)], metrics.received_snapshots.resumed.get());
    }
}
