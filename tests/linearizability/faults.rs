//! Random faults on a running cluster, following from a seed.

use crate::harness::cluster::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often each fault happened.
pub type Tally = BTreeMap<&'static str, u32>;

/// Makes one fault after the other until `stop`, then heals everything. At most a minority is down at a time, but for restarts of all.
pub async fn run(members: &mut Cluster, seed: u64, stop: &AtomicBool) -> Tally {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0fau64);
    let mut tally = Tally::new();
    while !stop.load(Ordering::Relaxed) {
        let victim = random.random_range(0..members.len());
        let hold = Duration::from_millis(random.random_range(200..2500));
        let name = match random.random_range(0..100) {
            0..35 => kill(members, victim, hold).await,
            35..50 => kill_leader(members, hold).await,
            50..75 => pause(members, victim, hold).await,
            75..88 => pause_leader(members, hold).await,
            _ => kill_all(members).await,
        };
        *tally.entry(name).or_default() += 1;
        // Time for the cluster to do work between two faults: part of the schedule, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(random.random_range(300..2500))).await;
    }
    tally
}

async fn kill(members: &mut Cluster, victim: usize, hold: Duration) -> &'static str {
    members.kill(victim);
    tokio::time::sleep(hold).await;
    members.start(victim);
    members.wait_ready(victim).await;
    "kill -9"
}

async fn kill_leader(members: &mut Cluster, hold: Duration) -> &'static str {
    match members.leader().await {
        Some(leader) => {
            kill(members, leader, hold).await;
            "kill -9 of the leader"
        }
        None => "no leader to hit",
    }
}

async fn pause(members: &mut Cluster, victim: usize, hold: Duration) -> &'static str {
    members.stop(victim);
    tokio::time::sleep(hold).await;
    members.resume(victim);
    "SIGSTOP"
}

async fn pause_leader(members: &mut Cluster, hold: Duration) -> &'static str {
    match members.leader().await {
        // Past its lease: three quarters of the election timeout and more.
        Some(leader) => {
            pause(members, leader, hold + Duration::from_secs(1)).await;
            "SIGSTOP of the leader"
        }
        None => "no leader to hit",
    }
}

async fn kill_all(members: &mut Cluster) -> &'static str {
    for member in 0..members.len() {
        members.kill(member);
    }
    for member in 0..members.len() {
        members.start(member);
    }
    for member in 0..members.len() {
        members.wait_ready(member).await;
    }
    "kill -9 of all"
}
