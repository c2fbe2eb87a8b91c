//! The maker of faults: draws them from a seed, lets them overlap, heals everything, and measures how long the cluster takes to work again.

use crate::clients::Shared;
use crate::fault::kinds::{Fault, Kind};
use crate::fault::membership;
use crate::fault::world::World;
use crate::harness::PATIENCE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// How many faults.
    pub fn count(&self) -> u32 {
        self.faults.values().sum()
    }

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
        let count = if random.random_bool(0.3) { 2 } else { 1 };
        let drawn: Vec<Kind> = (0..count).map(|_| kinds[random.random_range(0..kinds.len())]).collect();
        if !round(world, shared, &drawn, 200..2200, &mut random, &mut tally).await {
            break;
        }
    }
    tally.violations.extend(membership::settle(world).await);
    tally
}

/// Each kind once, one after the other, each past the time after which a leader may be replaced.
pub async fn each(world: &mut World, shared: &Arc<Shared>, kinds: &[Kind]) -> Tally {
    let mut random = StdRng::seed_from_u64(world.spec.seed);
    let mut tally = Tally::default();
    for kind in kinds {
        let (before, deadline) = (tally.count(), Instant::now() + PATIENCE);
        while tally.count() == before {
            assert!(Instant::now() < deadline, "{kind:?} isn't possible");
            if !round(world, shared, &[*kind], 800..1200, &mut random, &mut tally).await {
                return tally;
            }
        }
    }
    tally.violations.extend(membership::settle(world).await);
    tally
}

/// Begins faults, each for a while, ends them all, and waits until a write is acknowledged; whether one was.
async fn round(
    world: &mut World,
    shared: &Shared,
    kinds: &[Kind],
    milliseconds: Range<u64>,
    random: &mut StdRng,
    tally: &mut Tally,
) -> bool {
    let mut active = Vec::new();
    for kind in kinds {
        if let Some(fault) = Fault::begin(*kind, world, random).await {
            *tally.faults.entry(fault.name()).or_default() += 1;
            active.push(fault);
        }
        pause(random, milliseconds.clone()).await;
    }
    let names: Vec<&str> = active.iter().map(Fault::name).collect();
    for fault in active {
        fault.end(world);
    }
    revive(world, &mut tally.violations, &names).await;
    let healed = shared.now();
    let Some(time) = recovery(shared, healed).await else {
        tally.violations.push(format!("no write was acknowledged within {RECOVERY_MAX:?} after {names:?} had been healed"));
        return false;
    };
    let what = if names.is_empty() { format!("{kinds:?} in vain") } else { names.join(" + ") };
    tally.slowest_recovery = tally.slowest_recovery.clone().max((time, what));
    true
}

async fn pause(random: &mut StdRng, milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

/// Starts whatever is down, and waits for the end of who was removed. A member that ended although nothing made it is a violation, but it may
/// start again as others do.
async fn revive(world: &mut World, violations: &mut Vec<String>, names: &[&str]) {
    let (mut ended, mut outgrown) = (Vec::new(), Vec::new());
    for member in world.members() {
        let status = world.cluster.members[member].process.as_mut().map(|process| process.ended());
        if let Some(Some(status)) = status {
            if membership::outgrown(world, member).await {
                outgrown.push(member);
                continue;
            }
            ended.push((member, status));
        }
        if status != Some(None) {
            world.cluster.start(member);
        }
    }
    for member in outgrown {
        membership::start_again(world, member).await;
    }
    membership::resolve(world).await;
    for (member, status) in ended.into_iter().filter(|(member, _)| world.joined.contains(member)) {
        violations.push(format!("member {member} ended by itself ({status}) during {names:?}"));
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
