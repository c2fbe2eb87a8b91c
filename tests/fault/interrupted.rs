//! Members that end in the middle of what takes several steps: taking in a snapshot, purging the log, compacting.

use crate::fault::shim::DieAt;
use crate::fault::world::{Spec, World, with_world};
use crate::harness::cluster::READY;
use crate::trial::{Load, Trial};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

const LOAD: Load = Load { clients: 6, value_bytes_max: 4000, tenants: 0 };
/// So small that whoever was away needs a snapshot, and purges all the time.
const TINY: [&str; 2] = ["--snapshot-count=20", "--snapshot-catchup-entries=5"];

/// How a start under a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Ready,
    Died,
}

/// Starts a member that will end at a call of its file system, unless it is ready before.
async fn start_to_die(world: &mut World, member: usize, call: DieAt, after: i32) -> Start {
    world.shims[member].die_at(call, after);
    world.cluster.start(member);
    let deadline = Instant::now() + crate::harness::PATIENCE;
    loop {
        let process = world.cluster.members[member].process();
        if process.ended().is_some() {
            world.shims[member].heal();
            return Start::Died;
        }
        if process.line(READY).is_some() {
            world.shims[member].heal();
            if !world.shims[member].died() {
                return Start::Ready;
            }
            // Between its last words and the healing.
            process.wait().await;
            return Start::Died;
        }
        assert!(Instant::now() < deadline, "it neither ends nor serves");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often a member says that it took in a snapshot.
fn installs(world: &World, member: usize) -> usize {
    world.cluster.log(member).matches("snapshot installed").count()
}

/// For so long a leader may still take a dead member for one that is only slow, and keep the log for it.
const MISSED_AFTER: Duration = Duration::from_secs(1);

/// Lets the others write so much, and for so long, that the log that `member` knows is gone.
async fn move_on(world: &World, member: usize) {
    let writer = world.client(world.other(member, 0), Duration::from_secs(4));
    let begin = Instant::now();
    for number in 0.. {
        if number >= 60 && begin.elapsed() > MISSED_AFTER {
            break;
        }
        crate::harness::eventually("a write", || async { writer.put(format!("other/{number}"), vec![b'x'; 3000]).await.ok() }).await;
    }
}

/// The sweep ends a follower at the first, the second, .. call of each kind, from its start over the taking in of a snapshot to its first
/// service; each time it must come up with the old state or the new one.
#[test]
#[ignore = "takes a minute"]
fn a_member_that_ends_while_it_takes_in_a_snapshot_comes_back() {
    let steps = [(DieAt::Rename, 3), (DieAt::Unlink, 4), (DieAt::Sync, 5), (DieAt::Write, 5)];
    end_while_taking_in(&steps.map(|(call, steps)| (0..steps).map(|step| (call, step)).collect::<Vec<_>>()).concat(), 8, 4);
}

/// One of each.
#[test]
fn a_member_that_ends_in_the_middle_of_a_snapshot_comes_back() {
    end_while_taking_in(&[(DieAt::Rename, 0), (DieAt::Unlink, 0), (DieAt::Sync, 2), (DieAt::Write, 3)], 3, 2);
}

fn end_while_taking_in(ends: &[(DieAt, i32)], died_min: usize, installed_min: usize) {
    with_world(Spec::new(3, 1).flags(&TINY).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let member = world.other(world.wait_leader().await, 0);
        let (mut died, mut installed) = (0, 0);
        for (call, step) in ends {
            world.cluster.kill(member);
            move_on(&world, member).await;
            let stride = if matches!(call, DieAt::Sync | DieAt::Write) { 4 } else { 1 };
            let ended = start_to_die(&mut world, member, *call, step * stride).await;
            died += usize::from(ended == Start::Died);
            if ended == Start::Died {
                world.cluster.members[member].process = None;
                world.cluster.start(member);
                world.cluster.wait_ready(member).await;
            }
            installed += installs(&world, member);
        }
        println!("{died} sudden ends, {installed} snapshots taken in");
        let enough = died >= died_min && installed >= installed_min;
        assert!(enough, "{died} sudden ends, {installed} snapshots taken in: this tests nothing");
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// Under writes, snapshots, purges and compactions, members end at some call or other.
#[test]
fn members_that_end_while_they_purge_and_compact_come_back() {
    with_world(Spec::new(3, 2).flags(&TINY).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let compacting = compact_all_the_time(&world, &trial);
        let mut random = StdRng::seed_from_u64(2);
        for round in 0..8 {
            let member = round % 3;
            let call = if random.random_bool(0.5) { DieAt::Write } else { DieAt::Sync };
            world.shims[member].die_at(call, random.random_range(0..60));
            world.cluster.members[member].process().wait().await;
            world.shims[member].heal();
            world.cluster.members[member].process = None;
            world.cluster.start(member);
            world.cluster.wait_ready(member).await;
        }
        compacting.abort();
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// Physical compactions, one after the other, of all that watchers have written down.
fn compact_all_the_time(world: &World, trial: &Trial) -> tokio::task::JoinHandle<()> {
    let clients: Vec<_> = (0..world.len()).map(|member| world.client(member, Duration::from_secs(5))).collect();
    let shared = trial.shared.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let revision = shared.compactable.load(std::sync::atomic::Ordering::Relaxed);
            let member = number % clients.len();
            shared.compact(member, &mut clients[member].kv.clone(), revision).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}
