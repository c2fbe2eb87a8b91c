//! `kill -9` at the worst moments of a change.

use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{QUICK, add, id_of, insist_added, insist_removed, members, newcomer, remove, start_joining, wait_equal, wait_votes};
use crate::writer::Writer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::time::Duration;

fn seed() -> u64 {
    let seed = std::env::var("CLUSTER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("CLUSTER_SEED={seed}");
    seed
}

async fn ids(client: &Client) -> Option<BTreeSet<u64>> {
    Some(members(client).await.ok()?.into_iter().map(|member| member.id).collect())
}

/// The leader dies between the commit of a change and its answer, or before, or after. Whatever was answered is true, whatever wasn't is
/// one thing or the other, and all members say the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_amid_a_change_leaves_one_truth() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::running(3, &QUICK).await;
    let writer = Writer::start(&cluster);
    for round in 0..8 {
        let leader = cluster.wait_leader().await;
        let asked = if random.random() { leader } else { (leader + 1) % 3 };
        let peer_ur_ls = vec![format!("http://127.0.0.1:{}", 1 + round)];
        let client = Client::patient(&cluster.members[asked].client_url());
        let adding = tokio::spawn(async move {
            let request = rusd::pb::etcdserverpb::MemberAddRequest { peer_ur_ls, is_learner: false };
            client.cluster.clone().member_add(request).await
        });
        tokio::time::sleep(Duration::from_micros(random.random_range(0..6000))).await;
        cluster.kill(leader);
        let answer = adding.await.expect("the call ends");
        cluster.start(leader);
        cluster.wait_ready(leader).await;
        let added = answer.ok().map(|answer| answer.into_inner().member.expect("a member").id);
        wait_equal(&cluster, &[0, 1, 2]).await;
        let known = ids(&cluster.client(leader)).await.expect("it lists");
        println!("round {round}: asked {asked}, leader {leader}, added {added:x?}, {} members", known.len());
        if let Some(added) = added {
            assert!(known.contains(&added), "an answered change is lost");
        }
        for extra in members(&cluster.client(asked)).await.expect("it lists").into_iter().filter(|member| member.name.is_empty()) {
            insist_removed(&cluster, asked, extra.id).await;
        }
    }
    let written = writer.stop().await;
    wait_equal(&cluster, &[0, 1, 2]).await;
    for member in 0..3 {
        written.must_be_at(&cluster.client(member)).await;
    }
}

/// Several members are asked for changes at once. Each change is made or refused, and none is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn changes_in_flight_together_are_made_one_after_the_other() {
    // They wait for one another, each no longer than the time for a request, which grows with the election timeout.
    let cluster = Cluster::running(3, &[&QUICK[..], &["--max-learners=100", "--election-timeout=5000"]].concat()).await;
    let calls: Vec<_> = (0..12u16)
        .map(|number| {
            let client = Client::patient(&cluster.members[usize::from(number) % 3].client_url());
            let peer_ur_ls = vec![format!("http://127.0.0.1:{}", 1 + number)];
            tokio::spawn(async move {
                let request = rusd::pb::etcdserverpb::MemberAddRequest { peer_ur_ls, is_learner: number % 2 == 0 };
                client.cluster.clone().member_add(request).await
            })
        })
        .collect();
    let mut added = BTreeSet::new();
    for call in calls {
        let answer = call.await.expect("it ends").expect("nothing is wrong with it").into_inner();
        let id = answer.member.expect("a member").id;
        assert!(answer.members.iter().any(|member| member.id == id), "the answer shows the change");
        added.insert(id);
    }
    assert_eq!(added.len(), 12);
    wait_equal(&cluster, &[0, 1, 2]).await;
    assert_eq!(ids(&cluster.client(0)).await.expect("it lists").len(), 15);
    cluster.client(1).put("k", "v").await.expect("three voters of which all are there");
    let removals: Vec<_> = added.iter().map(|id| remove(&cluster, 2, *id)).collect();
    for removal in futures::future::join_all(removals).await {
        removal.expect("removed");
    }
    assert_eq!(ids(&cluster.client(2)).await.expect("it lists").len(), 3);
}

/// A member was added and has come; every leader that is to give it its vote is killed at some moment around that. In the end it votes, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_finished_by_whoever_leads() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::running(3, &QUICK).await;
    for round in 0..4 {
        let leader = cluster.wait_leader().await;
        let member = newcomer(&mut cluster, &QUICK);
        let id = insist_added(&cluster, leader, member, false).await;
        // Whoever it asks must know of it.
        wait_equal(&cluster, &[0, 1, 2]).await;
        start_joining(&mut cluster, member, &[0, 1, 2]);
        // Somewhere between its first entry and its vote.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        for _ in 0..2 {
            let Some(leader) = cluster.leader().await.filter(|leader| *leader < 3) else { continue };
            cluster.kill(leader);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            cluster.start(leader);
        }
        cluster.wait_all().await;
        wait_votes(&cluster, 0, id).await;
        println!("round {round}: {id:x} votes");
        wait_equal(&cluster, &[0, 1, 2, member]).await;
        insist_removed(&cluster, 0, id).await;
        cluster.members[member].process().wait().await;
        cluster.kill(member);
        // What is gone isn't asked any more.
        cluster.members.truncate(3);
        std::fs::remove_dir_all(cluster.root().join(format!("m{member}"))).expect("it was there");
    }
    let leader = cluster.wait_leader().await;
    assert_eq!(ids(&cluster.client(leader)).await.expect("it lists").len(), 3);
}

/// The joining member itself is killed again and again while it is sent the state.
#[tokio::test(flavor = "multi_thread")]
async fn a_joining_member_may_die_at_any_moment() {
    let mut random = StdRng::seed_from_u64(seed());
    let flags = [&QUICK[..], &["--snapshot-count=100", "--snapshot-catchup-entries=10"]].concat();
    let mut cluster = Cluster::running(1, &flags).await;
    let client = Client::patient(&cluster.members[0].client_url());
    for number in 0..400 {
        client.put(format!("big/{number}"), vec![b'x'; 20_000]).await.expect("a put");
    }
    let writer = Writer::start(&cluster);
    let member = newcomer(&mut cluster, &flags);
    let id = add(&cluster, 0, member, false).await.expect("added");
    start_joining(&mut cluster, member, &[0]);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..700))).await;
        cluster.kill(member);
        cluster.start(member);
    }
    cluster.wait_ready(member).await;
    wait_votes(&cluster, 0, id).await;
    let written = writer.stop().await;
    assert_eq!(written.failed, []);
    let other = cluster.client(member);
    eventually("all writes", || async { other.get("big/399").await.ok().flatten() }).await;
    wait_equal(&cluster, &[0, member]).await;
    written.must_be_at(&other).await;
    assert_eq!(id_of(&cluster, 0, member).await, id);
}
