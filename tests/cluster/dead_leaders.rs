//! A leader that is killed is replaced at once; one that is merely silent is waited for.

use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{insist, wait_equal};
use crate::writer::Writer;
use std::time::Duration;

const SENTENCE: &str = "the leader's process has ended";

/// Waits for a leader other than `old`.
async fn successor(cluster: &Cluster, old: usize) -> usize {
    eventually("another leader", || async { cluster.leader().await.filter(|leader| *leader != old) }).await
}

/// With these flags no timer helps within ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_without_waiting() {
    for count in [3, 5] {
        let mut cluster = Cluster::running(count, &["--heartbeat-interval=1000", "--election-timeout=40000"]).await;
        let first = cluster.wait_leader().await;
        let writer = Writer::start(&cluster);
        let mut dead = first;
        for _ in 0..count / 2 {
            cluster.kill(dead);
            dead = successor(&cluster, dead).await;
            insist("a write", || async { cluster.client(dead).put("k", "v").await }).await;
        }
        assert!(cluster.log(dead).contains(SENTENCE));
        let written = writer.stop().await;
        assert!(written.gap < Duration::from_secs(9), "no write was taken for {:?}", written.gap);
        println!("{count} members: no write was taken for {:?}", written.gap);
        let alive: Vec<usize> = (0..count).filter(|member| cluster.members[*member].process.is_some()).collect();
        wait_equal(&cluster, &alive).await;
        written.must_be_at(&cluster.client(dead)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_not_taken_for_dead() {
    let mut cluster = Cluster::running(3, &[]).await;
    let leader = cluster.wait_leader().await;
    cluster.stop(leader);
    let next = successor(&cluster, leader).await;
    cluster.resume(leader);
    insist("a write", || async { cluster.client(next).put("k", "v").await }).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
    assert!((0..3).all(|member| !cluster.log(member).contains(SENTENCE)));
}
