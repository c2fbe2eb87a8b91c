//! The maker of faults: draws them from a seed, lets them overlap, heals everything, and measures how long the cluster takes to work again.

use crate::clients::Shared;
use crate::fault::kinds::{Fault, Kind};
use crate::fault::membership;
use crate::fault::world::World;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A cluster that is healed and has not acknowledged a write after this has a fault of its own. Generous: the machine may be busy.
const RECOVERY_MAX: Duration = Duration::from_secs(45);

/// What was done to a cluster.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u32>,
    /// From the end of the last fault to the end of the first acknowledged write that began after it: the longest, and after what.
    pub slowest_recovery: (Duration, String),
    /// What a cluster under faults must not do, beside lying.
    pub violations: Vec<String>,
}

impl Tally {
    /// Takes in another one.
    pub fn add(&mut self, other: Self) {
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.slowest_recovery = self.slowest_recovery.clone().max(other.slowest_recovery);
        self.violations.extend(other.violations);
    }
}

/// Makes faults until the run ends.
pub async fn run(world: &mut World, shared: &Arc<Shared>, kinds: &[Kind]) -> Tally {
    let mut random = StdRng::seed_from_u64(world.spec.seed ^ 0x0f);
    let mut tally = Tally::default();
    while !shared.stopped() {
        // Time for the cluster to do work between two faults: part of the schedule, not a wait for a condition.
        pause(&mut random, 200..1500).await;
        let mut active = Vec::new();
        let count = if random.random_bool(0.3) { 2 } else { 1 };
        for _ in 0..count {
            let kind = kinds[random.random_range(0..kinds.len())];
            if let Some(fault) = Fault::begin(kind, world, &mut random).await {
                *tally.faults.entry(fault.name()).or_default() += 1;
                active.push(fault);
            }
            pause(&mut random, 200..2200).await;
        }
        let names: Vec<&str> = active.iter().map(Fault::name).collect();
        for fault in active {
            fault.end(world);
        }
        revive(world, &mut tally.violations, &names).await;
        let healed = shared.now();
        let recovered = recovery(shared, healed).await;
        match recovered {
            Some(time) => tally.slowest_recovery = tally.slowest_recovery.clone().max((time, names.join(" + "))),
            None => {
                tally.violations.push(format!("no write was acknowledged within {RECOVERY_MAX:?} after {names:?} had been healed"));
                break;
            }
        }
    }
    tally.violations.extend(membership::settle(world).await);
    tally
}

async fn pause(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

/// Starts whatever is down, and waits for the end of who was removed. A member that ended although nothing made it is a violation, but it may
/// start again as others do.
async fn revive(world: &mut World, violations: &mut Vec<String>, names: &[&str]) {
    for member in world.members() {
        let ended = world.cluster.members[member].process.as_mut().map(|process| process.ended());
        match ended {
            Some(None) => {}
            None => world.cluster.start(member),
            Some(Some(status)) => {
                violations.push(format!("member {member} ended by itself ({status}) during {names:?}"));
                world.cluster.start(member);
            }
        }
    }
    violations.extend(membership::farewell(world).await);
}

/// Until a write is acknowledged that began after `healed`.
async fn recovery(shared: &Shared, healed: u64) -> Option<Duration> {
    loop {
        if shared.acknowledged_since(healed) {
            let end = shared.first_write_since(healed)?;
            return Some(Duration::from_micros(end - healed));
        }
        if shared.stopped() && shared.now() > healed + 1_000_000 {
            // The clients have gone home; the end of the run looks for itself.
            return Some(Duration::ZERO);
        }
        if shared.now() > healed + u64::try_from(RECOVERY_MAX.as_micros()).expect("a short time") {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
