//! Snapshots whose connection breaks in the middle, over and over: the next one goes on where it broke, whoever sends it.

use crate::bridge::Bridge;
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::{eventually, ports};
use crate::metrics::value as value_of;
use crate::operator::{QUICK, add, id_of, insist, newcomer, start_joining, wait_equal, wait_votes};
use crate::writer::Writer;
use rusd::pb::etcdserverpb as pb;

const FLAGS: [&str; 5] = [QUICK[0], QUICK[1], QUICK[2], "--snapshot-count=100", "--snapshot-catchup-entries=10"];
const KEYS: usize = 1600;
const VALUE_BYTES: usize = 25_000;
/// What a transfer takes at least.
const STATE_BYTES: u64 = (KEYS * VALUE_BYTES) as u64;
const CUT_BYTES: u64 = 7 << 20;

/// Random bytes, so that nothing on the way can make them fewer.
fn value(number: usize) -> Vec<u8> {
    let mut seed = number as u64 + 1;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

/// A state that takes several connections, with a lease and deleted keys.
async fn fill(cluster: &Cluster) {
    let client = Client::patient(&cluster.members[0].client_url());
    let grant = pb::LeaseGrantRequest { ttl: 3600, id: 7 };
    client.lease.clone().lease_grant(grant).await.expect("a lease");
    for from in (0..KEYS).step_by(16) {
        let puts = (from..from + 16).map(|number| {
            let client = client.clone();
            async move { client.put(format!("big/{number:05}"), value(number)).await.expect("a put") }
        });
        futures::future::join_all(puts).await;
    }
    let leased = pb::PutRequest { key: "leased".into(), value: "v".into(), lease: 7, ..Default::default() };
    client.kv.clone().put(leased).await.expect("a put");
    client.put("deleted", "v").await.expect("a put");
    let deletion = pb::DeleteRangeRequest { key: "deleted".into(), ..Default::default() };
    client.kv.clone().delete_range(deletion).await.expect("a delete");
}

/// One more member, behind a bridge.
async fn bridged_newcomer(cluster: &mut Cluster) -> (usize, Bridge) {
    let listens = ports::free();
    let url = format!("--listen-peer-urls=http://127.0.0.1:{listens}");
    let member = newcomer(cluster, &[&FLAGS[..], &[&url]].concat());
    (member, Bridge::open(cluster.members[member].peer_port, listens).await)
}

/// How often a member went on with a transfer, by its log since it was last started.
fn resumed(cluster: &Cluster, member: usize) -> usize {
    cluster.log(member).matches("snapshot transfer resumed").count()
}

fn installed(cluster: &Cluster, member: usize) -> usize {
    cluster.log(member).matches("snapshot installed").count()
}

/// Until a member went on with a transfer.
async fn wait_resumed(cluster: &Cluster, member: usize, times: usize) {
    eventually("a transfer to be gone on with", || async { (resumed(cluster, member) >= times).then_some(()) }).await;
}

async fn has_leased_key(cluster: &Cluster, member: usize) {
    let request = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
    let answer = insist("the lease", || async { cluster.client(member).lease.lease_time_to_live(request).await }).await.into_inner();
    assert_eq!(answer.keys, ["leased"]);
}

/// With writes, a compaction and deletions between the breaks. The log after the snapshot is kept meanwhile, though one is due all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_whose_connection_breaks_goes_on() {
    let mut cluster = Cluster::running(1, &FLAGS).await;
    fill(&cluster).await;
    let writer = Writer::start(&cluster);
    let (member, bridge) = bridged_newcomer(&mut cluster).await;
    bridge.cut_after(CUT_BYTES);
    let id = add(&cluster, 0, member, false).await.expect("added");
    start_joining(&mut cluster, member, &[0]);
    wait_resumed(&cluster, member, 1).await;
    let client = Client::patient(&cluster.members[0].client_url());
    client.put("big/00001", "overwritten").await.expect("a put");
    let deletion = pb::DeleteRangeRequest { key: "big/00002".into(), ..Default::default() };
    let revision = client.kv.clone().delete_range(deletion).await.expect("a delete").into_inner().header.expect("a header").revision;
    client.kv.clone().compact(pb::CompactionRequest { revision, physical: false }).await.expect("compacts");
    // The hash of a compaction's own revision is remembered until a restart, and is another one.
    client.put("after", "the compaction").await.expect("a put");
    wait_votes(&cluster, 0, id).await;
    let (cuts, bytes, times) = (bridge.cuts(), bridge.bytes(), resumed(&cluster, member));
    println!("{cuts} cuts, {times} times gone on with, {bytes} bytes for a state of {STATE_BYTES}");
    assert!(cuts >= 4 && times >= 4, "{cuts} cuts, {times} times gone on with");
    let leader = id_of(&cluster, 0, 0).await;
    let counted = value_of(&cluster, member, &format!("rusd_network_snapshot_receive_resumed_total{{From=\"{leader:x}\"}}")).await;
    assert_eq!(counted, Some(times as f64));
    assert_eq!(installed(&cluster, member), 1, "log that was needed next is gone");
    assert!(bytes < STATE_BYTES + STATE_BYTES / 2, "{bytes} bytes for a state of {STATE_BYTES}");
    bridge.heal();
    let written = writer.stop().await;
    println!("{} writes meanwhile", written.acknowledged.len());
    assert!(written.failed.is_empty() && written.acknowledged.len() > 100);
    wait_equal(&cluster, &[0, member]).await;
    written.must_be_at(&cluster.client(member)).await;
    has_leased_key(&cluster, member).await;
    assert_eq!(cluster.client(member).get("big/00002").await.expect("it reads"), None);
    // What it has on disk is the same.
    cluster.kill(member);
    cluster.start(member);
    cluster.wait_ready(member).await;
    wait_equal(&cluster, &[0, member]).await;
}

/// Killed in the middle of what it went on with, a member begins anew; killed right after the last part, it has the one or the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_killed_in_a_resumed_transfer_starts_again() {
    let mut cluster = Cluster::running(2, &FLAGS).await;
    let (member, bridge) = bridged_newcomer(&mut cluster).await;
    let id = add(&cluster, 0, member, false).await.expect("added");
    start_joining(&mut cluster, member, &[0, 1]);
    cluster.wait_ready(member).await;
    wait_votes(&cluster, 0, id).await;
    cluster.kill(member);
    fill(&cluster).await;
    bridge.cut_after(CUT_BYTES);
    for round in 0..3 {
        cluster.start(member);
        wait_resumed(&cluster, member, 1 + round).await;
        cluster.kill(member);
        assert!(std::fs::read_dir(cluster.members[member].data_dir.join("member")).expect("it was there").count() > 0);
    }
    cluster.start(member);
    cluster.wait_ready(member).await;
    assert!(installed(&cluster, member) > 0 && resumed(&cluster, member) > 0);
    bridge.heal();
    wait_equal(&cluster, &[0, 1, member]).await;
    has_leased_key(&cluster, member).await;
}

/// The new leader has the rest of what the dead one has sent half of.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_goes_on_with_what_a_dead_one_sent() {
    let mut cluster = Cluster::running(3, &FLAGS).await;
    fill(&cluster).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
    let (member, bridge) = bridged_newcomer(&mut cluster).await;
    bridge.shut_after(3 * CUT_BYTES);
    let leader = cluster.wait_leader().await;
    let id = add(&cluster, leader, member, false).await.expect("added");
    start_joining(&mut cluster, member, &[0, 1, 2]);
    eventually("half of a transfer", || async { (bridge.cuts() > 0).then_some(()) }).await;
    cluster.kill(leader);
    bridge.heal();
    let next = cluster.wait_leader().await;
    cluster.wait_ready(member).await;
    // On a busy machine leadership may move once more in the middle.
    assert!(resumed(&cluster, member) >= 1 && installed(&cluster, member) >= 1);
    let bytes = bridge.bytes();
    println!("{bytes} bytes for a state of {STATE_BYTES}");
    assert!(bytes < STATE_BYTES + STATE_BYTES / 2, "{bytes} bytes for a state of {STATE_BYTES}");
    cluster.start(leader);
    cluster.wait_ready(leader).await;
    wait_votes(&cluster, next, id).await;
    wait_equal(&cluster, &[0, 1, 2, member]).await;
    has_leased_key(&cluster, member).await;
}
