//! Removing is final, and nobody waits for it.

use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{
    self, CALM, QUICK, add, grow, id_of, insist, insist_added, insist_removed, members, newcomer, remove, start_joining, wait_equal,
};
use crate::writer::Writer;
use std::time::{Duration, Instant};

const SENTENCE: &str = "the member has been permanently removed from the cluster";

/// Waits for its end; checks what it said and with which code it went.
async fn must_leave(cluster: &mut Cluster, member: usize) -> Duration {
    let begin = Instant::now();
    let status = cluster.members[member].process().wait().await;
    let log = cluster.log(member);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains(SENTENCE) && log.contains("data-dir used by this member must be removed"), "{log}");
    cluster.kill(member);
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_goes_and_never_returns() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let leader = cluster.wait_leader().await;
    let victim = (leader + 1) % 3;
    let id = id_of(&cluster, leader, victim).await;
    // Asked of the member itself: it answers, then it goes.
    remove(&cluster, victim, id).await.expect("removed");
    println!("left after {:?}", must_leave(&mut cluster, victim).await);
    let rest: Vec<usize> = (0..3).filter(|member| *member != victim).collect();
    for member in &rest {
        insist("a write", || async { cluster.client(*member).put("k", "v").await }).await;
        assert_eq!(members(&cluster.client(*member)).await.expect("it lists").len(), 2);
    }
    cluster.start(victim);
    assert_eq!(cluster.members[victim].process().wait().await.code(), Some(1));
    assert!(cluster.log(victim).contains(SENTENCE));
    cluster.kill(victim);

    // The same address comes back under another id, with an empty data dir.
    let new = insist_added(&cluster, rest[0], victim, false).await;
    assert_ne!(new, id);
    cluster.start(victim);
    assert_eq!(cluster.members[victim].process().wait().await.code(), Some(1), "its old data dir doesn't become the new member's");
    cluster.kill(victim);
    std::fs::remove_dir_all(&cluster.members[victim].data_dir).expect("it was there");
    cluster.members[victim].flags.push("--initial-cluster-state=existing".into());
    start_joining(&mut cluster, victim, &rest);
    cluster.wait_ready(victim).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_learns_of_its_removal() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let leader = cluster.wait_leader().await;
    let (killed, stopped) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = id_of(&cluster, leader, killed).await;
    cluster.kill(killed);
    insist_removed(&cluster, leader, id).await;
    cluster.start(killed);
    must_leave(&mut cluster, killed).await;

    // Two are left; the other one sleeps through its removal, which only the leader's lease lets through. So there must be a third.
    let third = grow(&mut cluster, leader, &QUICK, &[leader, stopped]).await;
    let id = id_of(&cluster, leader, stopped).await;
    cluster.stop(stopped);
    insist_removed(&cluster, leader, id).await;
    cluster.resume(stopped);
    must_leave(&mut cluster, stopped).await;
    wait_equal(&cluster, &[leader, third]).await;
}

/// A member was away while others came and went; it goes on with those that are there now.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_finds_the_new_members() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let leader = cluster.wait_leader().await;
    let (away, goes) = ((leader + 1) % 3, (leader + 2) % 3);
    let going = id_of(&cluster, leader, goes).await;
    cluster.kill(away);
    let new = grow(&mut cluster, leader, &QUICK, &[leader, away, goes]).await;
    insist_removed(&cluster, leader, going).await;
    must_leave(&mut cluster, goes).await;
    cluster.start(away);
    cluster.wait_ready(away).await;
    wait_equal(&cluster, &[leader, away, new]).await;
    // Its vote counts among the new three: without the old leader it and the newcomer are a quorum.
    cluster.kill(leader);
    insist("a write without the old leader", || async { cluster.client(away).put("k", "v").await }).await;
    assert_eq!(cluster.client(new).get("k").await.expect("it reads"), Some(b"v".to_vec()));
}

/// A leader that is removed hands over first.
#[tokio::test(flavor = "multi_thread")]
async fn removing_the_leader_leaves_no_gap() {
    let mut cluster = Cluster::running(3, &CALM).await;
    let writer = Writer::start(&cluster);
    let mut left = vec![0, 1, 2];
    for size in [3, 2] {
        let leader = cluster.wait_leader().await;
        let id = id_of(&cluster, leader, leader).await;
        let asked = if size == 3 { leader } else { *left.iter().find(|member| **member != leader).expect("two are left") };
        remove(&cluster, asked, id).await.expect("removed");
        must_leave(&mut cluster, leader).await;
        left.retain(|member| *member != leader);
    }
    let written = writer.stop().await;
    assert_eq!(written.failed, []);
    println!("{} writes, longest gap {:?}", written.acknowledged.len(), written.gap);
    assert!(written.gap < Duration::from_secs(5), "an election timeout was waited for: {:?}", written.gap);
    written.must_be_at(&cluster.client(left[0])).await;
    assert_eq!(members(&cluster.client(left[0])).await.expect("it lists").len(), 1);
}

/// A member that was added and never came may go again, and so may its address.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_member_costs_nothing() {
    let mut cluster = Cluster::running(1, &QUICK).await;
    let typo = newcomer(&mut cluster, &QUICK);
    let id = add(&cluster, 0, typo, false).await.expect("added");
    for number in 0..50 {
        cluster.client(0).put(format!("k{number}"), "v").await.expect("a cluster of one");
    }
    // Also across a restart: the flag that it waits is part of the state.
    cluster.kill(0);
    cluster.start(0);
    cluster.wait_ready(0).await;
    cluster.client(0).put("again", "v").await.expect("a cluster of one");
    let shown = members(&cluster.client(0)).await.expect("it lists");
    assert!(shown.iter().any(|member| member.id == id && !member.is_learner && member.name.is_empty()), "{shown:?}");
    remove(&cluster, 0, id).await.expect("removed");
    let right = grow(&mut cluster, 0, &QUICK, &[0]).await;
    wait_equal(&cluster, &[0, right]).await;
    // It was removed before it ever came: it must not come any more.
    start_joining(&mut cluster, typo, &[0, right]);
    assert_eq!(cluster.members[typo].process().wait().await.code(), Some(1));
    cluster.kill(typo);
    eventually("a write", || async { operator::members(&cluster.client(0)).await.ok().filter(|members| members.len() == 2) }).await;
}
