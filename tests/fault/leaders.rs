//! Leaders that were replaced without knowing it, and leaders that nobody can replace.

use crate::fault::partitions::{CUT, isolate};
use crate::fault::world::{Spec, World, with_world};
use crate::harness::eventually;
use crate::trial::{Load, Trial};
use std::time::Duration;

const LOAD: Load = Load { clients: 6, value_bytes_max: 0, tenants: 1 };
const SHORT: Duration = Duration::from_secs(2);

/// The term that a member knows.
async fn term(world: &World, member: usize) -> u64 {
    eventually("a status", || async { world.client(member, SHORT).status().await.ok()?.header.map(|header| header.raft_term) }).await
}

/// Another one than `old` leads.
async fn successor(world: &World, old: usize) -> usize {
    eventually("another leader", || async { world.leader().await.filter(|leader| *leader != old) }).await
}

/// Many linearizable reads of one key, asked of one member; what each answered, `None` if nothing.
fn ask(world: &World, member: usize, count: usize, limit: Duration) -> Vec<tokio::task::JoinHandle<Option<Vec<u8>>>> {
    (0..count)
        .map(|_| {
            let client = world.client(member, limit);
            tokio::spawn(async move { client.get("other/key").await.ok().flatten() })
        })
        .collect()
}

async fn never_old(reads: Vec<tokio::task::JoinHandle<Option<Vec<u8>>>>, round: u32) {
    for read in reads {
        let seen = read.await.expect("no panic");
        assert!(seen.as_deref().is_none_or(|seen| seen == b"new"), "round {round}: a replaced leader read {seen:?}");
    }
}

#[test]
fn a_leader_that_slept_past_its_lease_reads_nothing_old() {
    with_world(Spec::new(3, 1), |mut world| async move {
        let trial = Trial::begin(&world, LOAD);
        for round in 0..3 {
            let old = world.wait_leader().await;
            eventually("a write", || async { world.client(old, SHORT).put("other/key", "old").await.ok() }).await;
            // This connection stands before the leader sleeps, the others are accepted by its system.
            let warm = world.client(old, Duration::from_secs(20));
            eventually("a read", || async { warm.get("other/key").await.ok() }).await;
            world.cluster.stop(old);
            let new = successor(&world, old).await;
            let write = || async { world.client(new, SHORT).put("other/key", "new").await.ok() };
            eventually("a write through the new leader", write).await;
            // Not before: what was asked before the write may see what was there before it, and a process goes on for a moment after SIGSTOP.
            let mut reads = ask(&world, old, 16, Duration::from_secs(20));
            reads.push(tokio::spawn(async move { warm.get("other/key").await.ok().flatten() }));
            // Meanwhile the requests get into the sleeper's buffers.
            eventually("another write", write).await;
            world.cluster.resume(old);
            never_old(reads, round).await;
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

#[test]
fn a_leader_that_is_cut_off_answers_nothing_old_and_says_that_it_has_no_leader() {
    with_world(Spec::new(3, 2).network(), |mut world| async move {
        if world.network.is_none() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let old = world.wait_leader().await;
        eventually("a write", || async { world.client(old, SHORT).put("other/key", "old").await.ok() }).await;
        isolate(world.network.as_ref().expect("it was asked for"), old, &world.members());
        let new = successor(&world, old).await;
        eventually("a write through the new leader", || async { world.client(new, SHORT).put("other/key", "new").await.ok() }).await;
        never_old(ask(&world, old, 16, SHORT), 0).await;
        eventually("the old leader knows that it has no quorum", || async {
            world.client(old, SHORT).status().await.ok().filter(|status| status.leader == 0)
        })
        .await;
        let stale = world.client(old, SHORT).read("other/key", true).await.expect("a serializable read needs nobody");
        assert_eq!(stale.as_deref(), Some(b"old".as_slice()), "it can't have heard of the new value");
        world.network.as_ref().expect("it was asked for").heal();
        world.wait_writes(old).await;
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// A member that restarts has forgotten to whom it promised not to vote for another one. So a leader that the others can't hear any more may
/// be replaced before its own clock tells it: it may not read by its clock.
///
/// ```text
/// leader -x- candidate (cut, until the candidate misses its leader), then: voter restarts, and leader -x- voter -- candidate
/// ```
#[test]
fn a_voter_that_restarts_makes_no_leader_read_anything_old() {
    with_world(Spec::new(3, 6).flags(&["--heartbeat-interval=100", "--election-timeout=3000"]).network(), |mut world| async move {
        if world.network.is_none() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let old = world.wait_leader().await;
        let (candidate, voter) = (world.other(old, 0), world.other(old, 1));
        eventually("a write", || async { world.client(old, SHORT).put("other/key", "old").await.ok() }).await;
        cut(&world, old, candidate);
        eventually("the candidate misses its leader", || async {
            world.client(candidate, SHORT).status().await.ok().filter(|status| status.leader == 0)
        })
        .await;
        world.cluster.kill(voter);
        cut(&world, old, voter);
        world.cluster.start(voter);
        let write =
            eventually("a write through the candidate", || async { world.client(candidate, SHORT).put("other/key", "new").await.ok() });
        write.await;
        // Again and again over an election timeout; one that isn't answered by the clock waits until its limit.
        let mut reads = Vec::new();
        for _ in 0..30 {
            reads.extend(ask(&world, old, 2, SHORT));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        never_old(reads, 0).await;
        world.network.as_ref().expect("it is there").heal();
        world.wait_writes(old).await;
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

fn cut(world: &World, one: usize, other: usize) {
    world.network.as_ref().expect("it was asked for").set_both(one, other, CUT);
}

/// With an election timeout so long that nobody else has campaigned yet, a leader that is back would go on in its old term, although its
/// state may be older than what it has answered: it must be elected anew.
#[test]
fn a_leader_that_restarts_must_be_elected_again() {
    with_world(Spec::new(3, 3).flags(&["--heartbeat-interval=100", "--election-timeout=4000"]), |mut world| async move {
        let old = world.wait_leader().await;
        let before = term(&world, old).await;
        let trial = Trial::begin(&world, LOAD);
        world.cluster.kill(old);
        world.cluster.start(old);
        world.cluster.wait_ready(old).await;
        let leader = world.wait_leader().await;
        let after = term(&world, leader).await;
        assert!(after > before, "member {leader} leads term {after}, member {old} led term {before} before it was restarted");
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// openraft's #2080. Of five, one is dead; the leader reaches one other, and that one all but the dead one:
///
/// ```text
/// leader --- shared --- two others (who see each other, but not the leader)       one dead
/// ```
/// The leader has no quorum, yet its heartbeats keep the shared one from voting for anybody. It must fall silent now and then.
#[test]
fn a_leader_without_a_quorum_makes_way() {
    with_world(Spec::new(5, 4).network(), |mut world| async move {
        let leader = world.wait_leader().await;
        let Some(network) = &world.network else { return };
        let others: Vec<usize> = (0..5).filter(|member| *member != leader).collect();
        let [dead, shared, one, two] = others[..] else { panic!("five members") };
        for apart in [one, two] {
            network.set_both(leader, apart, CUT);
        }
        world.cluster.kill(dead);
        let trial = Trial::begin(&world, LOAD);
        let new = successor(&world, leader).await;
        assert!([shared, one, two].contains(&new), "{new}");
        world.wait_writes(one).await;
        world.network.as_ref().expect("it is there").heal();
        world.cluster.start(dead);
        for member in 0..5 {
            world.wait_writes(member).await;
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// A cut between two of three, which the third bridges, changes nothing: the leader has its quorum, and who can't hear it may not depose it,
/// neither meanwhile nor when the cut is healed.
#[test]
fn a_bridged_cut_deposes_nobody() {
    with_world(Spec::new(3, 5).flags(&["--heartbeat-interval=100", "--election-timeout=2000"]).network(), |mut world| async move {
        let leader = world.wait_leader().await;
        let Some(network) = &world.network else { return };
        let before = term(&world, leader).await;
        let deaf = world.other(leader, 0);
        network.set_both(leader, deaf, CUT);
        let trial = Trial::begin(&world, LOAD);
        eventually("the other one misses its leader", || async {
            world.client(deaf, SHORT).status().await.ok().filter(|status| status.leader == 0)
        })
        .await;
        // It can't say so by a term: its question before a campaign is refused. That it asked in vain is in its log.
        let asked = "while requesting pre-vote";
        eventually("it campaigns, more than once", || async { (world.cluster.log(deaf).matches(asked).count() > 1).then_some(()) }).await;
        world.wait_writes(leader).await;
        world.network.as_ref().expect("it is there").heal();
        world.wait_writes(deaf).await;
        assert_eq!((world.wait_leader().await, term(&world, deaf).await), (leader, before), "nobody was elected");
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}
