//! New addresses, and leadership on its way.

use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::{eventually, ports};
use crate::operator::{CALM, QUICK, id_of, insist, insist_added_at, members, wait_equal};
use crate::writer::Writer;
use rusd::pb::etcdserverpb as pb;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

async fn update(cluster: &Cluster, asked: usize, id: u64, url: &str) -> Result<(), Status> {
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.to_string()] };
    cluster.client(asked).cluster.clone().member_update(request).await.map(drop)
}

async fn move_leader(cluster: &Cluster, asked: usize, target_id: u64) -> Result<(), Status> {
    let client = Client::patient(&cluster.members[asked].client_url());
    client.maintenance.clone().move_leader(pb::MoveLeaderRequest { target_id }).await.map(drop)
}

/// Established connections to this port on 127.0.0.1, as the kernel tells.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("it reads");
    let remote = format!("0100007F:{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().nth(2) == Some(&remote) && line.split_whitespace().nth(3) == Some("01"))
        .count()
}

/// A member listens on two addresses. When the second becomes its peer URL, all others go there, and leave the first; also one that has
/// led before, and has nothing more to say on the connection it made for appends.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_peer_url_takes_effect_on_live_connections() {
    let mut cluster = Cluster::prepare(3, &QUICK);
    let (first, second) = (cluster.members[2].peer_port, ports::free());
    cluster.members[2].flags.push(format!("--listen-peer-urls=http://127.0.0.1:{first},http://127.0.0.1:{second}"));
    cluster.start_all();
    cluster.wait_all().await;
    for target in [0, 1, 0, 1] {
        let id = id_of(&cluster, 0, target).await;
        insist("leadership there", || async { move_leader(&cluster, cluster.wait_leader().await, id).await }).await;
        insist("a write of its term", || async { cluster.client(target).put("k", "v").await }).await;
    }
    assert!(connections_to(first) > 0 && connections_to(second) == 0);
    let id = id_of(&cluster, 0, 2).await;
    let taken = update(&cluster, 0, id, &cluster.members[1].peer_url()).await.expect_err("it belongs to another");
    assert_eq!((taken.code(), taken.message()), (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"));
    let bad = update(&cluster, 0, id, "nowhere").await.expect_err("no URL");
    assert_eq!(bad.message(), "etcdserver: given member URLs are invalid");

    let writer = Writer::start(&cluster);
    let url = format!("http://127.0.0.1:{second}");
    update(&cluster, 1, id, &url).await.expect("updated");
    eventually("everybody has moved", || async { (connections_to(first) == 0 && connections_to(second) > 0).then_some(()) }).await;
    let written = writer.stop().await;
    assert_eq!(written.failed, []);
    wait_equal(&cluster, &[0, 1, 2]).await;
    for member in 0..3 {
        assert!(members(&cluster.client(member)).await.expect("it lists").iter().any(|known| known.peer_ur_ls == [url.clone()]));
    }
}

/// An operator changes the URL first and moves the member then. Meanwhile it is reached where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_not_moved_yet_is_not_lost() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let id = id_of(&cluster, 0, 2).await;
    let other = ports::free();
    update(&cluster, 0, id, &format!("http://127.0.0.1:{other}")).await.expect("updated");
    cluster.kill(1);
    insist("a write that needs the member", || async { cluster.client(0).put("k", "v").await }).await;
    cluster.start(1);
    cluster.wait_ready(1).await;
    let status = cluster.terminate(2).await;
    assert_eq!(status.code(), Some(0));
    cluster.members[2].peer_port = other;
    cluster.start(2);
    cluster.wait_ready(2).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request() {
    let mut cluster = Cluster::running(3, &CALM).await;
    let leader = cluster.wait_leader().await;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let ids = [id_of(&cluster, 0, 0).await, id_of(&cluster, 0, 1).await, id_of(&cluster, 0, 2).await];
    let refused = move_leader(&cluster, other, ids[third]).await.expect_err("not the leader");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
    let refused = move_leader(&cluster, leader, 0x1234).await.expect_err("nobody");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    move_leader(&cluster, leader, ids[leader]).await.expect("it leads already");

    let writer = Writer::start(&cluster);
    for target in [other, third, leader] {
        let now = cluster.wait_leader().await;
        move_leader(&cluster, now, ids[target]).await.expect("moved");
        assert_eq!(cluster.wait_leader().await, target);
    }
    let written = writer.stop().await;
    assert_eq!(written.failed, []);
    println!("3 moves, {} writes, longest gap {:?}", written.acknowledged.len(), written.gap);
    assert!(written.gap < Duration::from_secs(5), "an election timeout was waited for: {:?}", written.gap);

    // To a dead member it takes an election timeout, an error, and nothing else changes.
    cluster.kill(other);
    let term = cluster.client(leader).status().await.expect("a status").raft_term;
    let refused = move_leader(&cluster, leader, ids[other]).await.expect_err("it is dead");
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "etcdserver: request timed out, leader transfer took too long"));
    cluster.client(leader).put("still", "leading").await.expect("the leader goes on at once");
    assert_eq!(cluster.client(leader).status().await.expect("a status").raft_term, term);
}

/// SIGTERM of the leader: it hands over, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        let leader = cluster.wait_leader().await;
        let begin = Instant::now();
        let status = cluster.terminate(leader).await;
        println!("ended after {:?} with {status:?}", begin.elapsed());
        assert!(cluster.log(leader).contains("handed leadership over"), "{}", cluster.log(leader));
        let next = cluster.wait_leader().await;
        assert_ne!(next, leader);
        cluster.start(leader);
        cluster.wait_ready(leader).await;
    }
    let written = writer.stop().await;
    assert_eq!(written.failed, []);
    println!("3 stops, {} writes, longest gap {:?}", written.acknowledged.len(), written.gap);
    assert!(written.gap < Duration::from_secs(10), "no stop may cost an election and more: {:?}", written.gap);
    wait_equal(&cluster, &[0, 1, 2]).await;
    for member in 0..3 {
        written.must_be_at(&cluster.client(member)).await;
    }
}

/// Members that find each other by socket files: they found a cluster, survive their leader's death, and another one joins.
#[tokio::test(flavor = "multi_thread")]
async fn members_may_live_at_socket_files() {
    let mut cluster = Cluster::prepare(3, &CALM);
    let url = |cluster: &Cluster, member: usize| format!("unix://{}", cluster.root().join(format!("peer{member}")).display());
    let settle = |cluster: &mut Cluster, member: usize| {
        let url = url(cluster, member);
        cluster.members[member].flags.extend([format!("--listen-peer-urls={url}"), format!("--initial-advertise-peer-urls={url}")]);
    };
    (0..3).for_each(|member| settle(&mut cluster, member));
    let all =
        |cluster: &Cluster| (0..cluster.len()).map(|member| format!("m{member}={}", url(cluster, member))).collect::<Vec<_>>().join(",");
    cluster.initial_cluster = all(&cluster);
    cluster.start_all();
    cluster.wait_all().await;
    let dead = cluster.wait_leader().await;
    cluster.kill(dead);
    let leader = eventually("another leader", || async { cluster.leader().await.filter(|leader| *leader != dead) }).await;
    let follower = (0..3).find(|member| ![dead, leader].contains(member)).expect("the third");
    Client::patient(&cluster.members[follower].client_url()).put("k", "v").await.expect("a put by way of the new leader");
    assert!(
        cluster.log(leader).contains("the leader's process has ended") || cluster.log(follower).contains("the leader's process has ended")
    );
    cluster.start(dead);
    cluster.wait_ready(dead).await;

    let fourth = cluster.add(&CALM);
    settle(&mut cluster, fourth);
    cluster.members[fourth].flags.push("--initial-cluster-state=existing".into());
    let peer = url(&cluster, fourth);
    insist_added_at(&cluster, leader, &peer, false).await;
    cluster.initial_cluster = all(&cluster);
    cluster.start(fourth);
    cluster.wait_ready(fourth).await;
    wait_equal(&cluster, &[0, 1, 2, 3]).await;
}

/// Members that stop one after the other: the last ones have nobody to hand over to, and don't wait for one.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_successor_stops_at_once() {
    let mut cluster = Cluster::running(3, &[]).await;
    let leader = cluster.wait_leader().await;
    for member in (0..3).filter(|member| *member != leader) {
        cluster.kill(member);
    }
    assert!(cluster.terminate(leader).await.success());
    let log = cluster.log(leader);
    assert!(log.contains("leadership wasn't handed over") && !log.contains("leader transfer took too long"), "{log}");
}
