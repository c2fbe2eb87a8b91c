//! What a member's metrics tell of its peers and of reads that nobody confirmed.

use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{QUICK, id_of, insist, leadership, wait_equal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The value of one series; `None` while there is none.
pub async fn value(cluster: &Cluster, member: usize, series: &str) -> Option<f64> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", cluster.members[member].client_port)).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_and_failed_reads_are_counted() {
    let cluster = &mut Cluster::running(3, &QUICK).await;
    // Who leads all the while sends it to both others.
    let leader = loop {
        let before = leadership(cluster).await;
        let client = Client::patient(&cluster.members[before.0].client_url());
        insist("a put", || async { client.put("k", "v".repeat(10_000)).await }).await;
        wait_equal(cluster, &[0, 1, 2]).await;
        if leadership(cluster).await == before {
            break before.0;
        }
    };
    let local = id_of(cluster, leader, leader).await;
    for other in (0..3).filter(|member| *member != leader) {
        let remote = id_of(cluster, leader, other).await;
        for family in ["etcd_network_known_peers", "etcd_network_active_peers"] {
            let series = format!("{family}{{Local=\"{local:x}\",Remote=\"{remote:x}\"}}");
            eventually(&series, || async { (value(cluster, leader, &series).await? == 1.0).then_some(()) }).await;
        }
        let sent = format!("etcd_network_peer_sent_bytes_total{{To=\"{remote:x}\"}}");
        eventually(&sent, || async { (value(cluster, leader, &sent).await? >= 10_000.0).then_some(()) }).await;
        let received = format!("etcd_network_peer_received_bytes_total{{From=\"{local:x}\"}}");
        eventually(&received, || async { (value(cluster, other, &received).await? >= 10_000.0).then_some(()) }).await;
    }
    let leader = cluster.wait_leader().await;
    let client = Client::patient(&cluster.members[leader].client_url());
    for other in (0..3).filter(|member| *member != leader) {
        cluster.stop(other);
    }
    client.get("k").await.expect_err("nobody confirms it");
    for series in ["etcd_server_slow_read_indexes_total", "etcd_server_read_indexes_failed_total"] {
        eventually(series, || async { (value(cluster, leader, series).await? >= 1.0).then_some(()) }).await;
    }
}
