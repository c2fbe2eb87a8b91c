//! Disks that fail, hang or fill up: a member that can't keep its promises leaves service, and what was acknowledged is there.

use crate::fault::shim::Shim;
use crate::fault::world::{Spec, World, with_world};
use crate::harness::eventually;
use crate::trial::{Load, Trial};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LOAD: Load = Load { clients: 6, value_bytes_max: 0, tenants: 1 };
const SHORT: Duration = Duration::from_secs(2);

/// Puts numbered keys one after the other, until told to stop; what was acknowledged.
struct Writer {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn begin(world: &World, member: usize, value_bytes: usize) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended, client) = (acknowledged.clone(), stop.clone(), world.client(member, SHORT));
        let task = tokio::spawn(async move {
            for number in 0u64.. {
                if ended.load(Ordering::SeqCst) || client.put(name(number), vec![b'v'; value_bytes]).await.is_err() {
                    return;
                }
                count.store(number + 1, Ordering::SeqCst);
            }
        });
        Self { acknowledged, stop, task }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    async fn wait_for(&self, count: u64) {
        eventually("writes", || async { (self.count() >= count).then_some(()) }).await;
    }

    /// Ends it and looks whether everything that was acknowledged is there.
    async fn check(self, world: &World, member: usize) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("no panic");
        let client = world.client(member, Duration::from_secs(10));
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        for number in 0..acknowledged {
            let seen = eventually("a read", || async { client.get(name(number)).await.ok() }).await;
            assert!(seen.is_some(), "{} of {acknowledged} acknowledged writes is lost", name(number));
        }
    }
}

fn name(number: u64) -> String {
    format!("other/{number:08}")
}

/// Waits until a member has left service by itself, which is no success.
async fn leaves(world: &mut World, member: usize) {
    let status = world.cluster.members[member].process().wait().await;
    assert!(!status.success(), "a member whose disk fails says that it is well");
    let log = world.cluster.log(member);
    assert!(log.contains("this member leaves service"), "{}", crate::harness::process::tail(&log));
}

#[test]
fn a_member_whose_syncs_fail_leaves_service_and_forgets_nothing() {
    with_world(Spec::new(1, 1).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let writer = Writer::begin(&world, 0, 100);
        writer.wait_for(50).await;
        assert!(world.shims[0].calls() > 50, "the library isn't at work");
        world.shims[0].fail_syncs(libc::EIO);
        leaves(&mut world, 0).await;
        world.shims[0].heal();
        world.cluster.start(0);
        world.cluster.wait_ready(0).await;
        writer.check(&world, 0).await;
    });
}

#[test]
fn a_cluster_outlives_the_sick_disk_of_its_leader() {
    with_world(Spec::new(3, 2).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        for errno in [libc::EIO, libc::ENOSPC] {
            let leader = world.wait_leader().await;
            if errno == libc::EIO {
                world.shims[leader].fail_syncs(errno)
            } else {
                world.shims[leader].fail_writes(errno)
            }
            leaves(&mut world, leader).await;
            world.wait_writes(world.other(leader, 0)).await;
            world.shims[leader].heal();
            world.cluster.start(leader);
            world.cluster.wait_ready(leader).await;
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// Its syncs succeed, but each takes longer than an election timeout: it keeps the others waiting, until it hands over by itself.
#[test]
fn a_leader_on_a_slow_disk_hands_over() {
    with_world(Spec::new(3, 4).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let slow = Cell::new(world.wait_leader().await);
        let told = |member: &usize| world.cluster.log(*member).contains("this leader's disk is sick, handing leadership over");
        let sick = eventually("a hand-over", || async {
            // It takes some slow syncs. Who loses an election before that never hands over.
            if let Some(leader) = world.leader().await.filter(|leader| *leader != slow.get()) {
                world.shims[slow.replace(leader)].heal();
            }
            world.shims[slow.get()].slow(Duration::from_millis(700));
            (0..3).find(told)
        })
        .await;
        let next = eventually("another leader", || async { world.cluster.leader().await.filter(|next| *next != sick) }).await;
        world.wait_writes(next).await;
        world.shims.iter().for_each(Shim::heal);
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// Nothing is acknowledged while nothing is durable, and everything goes on when the disk does.
#[test]
fn a_disk_that_hangs_holds_up_but_loses_nothing() {
    with_world(Spec::new(3, 3).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        // Two of three: no quorum can be durable.
        for member in 0..2 {
            world.shims[member].stall();
        }
        let refused = world.client(2, Duration::from_secs(3)).put("other/hanging", "x").await;
        assert!(refused.is_err(), "acknowledged with one disk of three: {refused:?}");
        for member in 0..2 {
            world.shims[member].heal();
        }
        for member in 0..3 {
            world.wait_writes(member).await;
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

#[test]
fn a_full_disk_ends_service_and_room_brings_it_back() {
    with_world(Spec::new(1, 4).disks(96), |mut world| async move {
        if world.disks.is_empty() {
            return;
        }
        let writer = Writer::begin(&world, 0, 30_000);
        writer.wait_for(20).await;
        world.disks[0].fill();
        leaves(&mut world, 0).await;
        world.disks[0].make_room();
        world.cluster.start(0);
        world.cluster.wait_ready(0).await;
        writer.check(&world, 0).await;
        world.wait_writes(0).await;
    });
}

#[test]
fn a_clock_that_jumps_disturbs_nobody() {
    with_world(Spec::new(3, 5).shim(), |mut world| async move {
        if world.shims.is_empty() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        for jump in [86_400, -86_400, 0] {
            let leader = world.wait_leader().await;
            world.shims[leader].set_clock(jump);
            for member in 0..3 {
                world.wait_writes(member).await;
            }
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}
