//! Random mixtures of everything: short ones for every test run, and a long one (`make fault`).

use crate::fault::kinds::{Kind, possible};
use crate::fault::world::{Spec, World, with_world};
use crate::fault::{membership, nemesis};
use crate::trial::{Load, Report, Trial};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// So small that every pause of a second needs a snapshot.
const SNAPSHOTS: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];

/// etcd's check wants all members to have been in touch for five seconds, which is never so here: it would refuse every change.
const UNCHECKED: [&str; 1] = ["--strict-reconfig-check=false"];

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn seed() -> u64 {
    number("FAULT_SEED").unwrap_or_else(|| rand::random::<u32>().into())
}

/// Runs one cluster for so long; what came of it.
fn run(spec: Spec, load: Load, time: Duration, choose: impl Fn(&World) -> Vec<Kind> + Send + Sync) -> Report {
    let report = Mutex::new(Report::default());
    let seed = spec.seed;
    with_world(spec, |mut world| {
        let (report, choose) = (&report, &choose);
        async move {
            let kinds = choose(&world);
            let trial = Trial::begin(&world, load);
            trial.end_after(time);
            let tally = nemesis::run(&mut world, &trial.shared, &kinds).await;
            let judged = trial.judge(&mut world, tally).await;
            println!("FAULT_SEED={seed}: {judged}\n  {:?}", judged.tally.faults);
            report.lock().expect("no panic while held").add(judged);
        }
    });
    report.into_inner().expect("no panic while held")
}

const LOAD: Load = Load { clients: 9, value_bytes_max: 0, tenants: 3 };

#[test]
fn a_cluster_under_everything_is_linearizable() {
    run(Spec::new(3, seed()).network().shim(), LOAD, Duration::from_secs(20), possible).assert_clean();
}

#[test]
fn a_cluster_that_lives_on_snapshots_is_linearizable() {
    let load = Load { value_bytes_max: 20_000, ..LOAD };
    run(Spec::new(3, seed()).flags(&SNAPSHOTS).network().shim(), load, Duration::from_secs(15), possible).assert_clean();
}

/// Everything, and changes of the membership more often than anything else.
fn changing(world: &World) -> Vec<Kind> {
    let mut kinds = possible(world);
    kinds.extend([membership::KINDS, membership::KINDS].concat().into_iter().map(Kind::Membership));
    kinds
}

#[test]
fn a_cluster_whose_members_come_and_go_is_linearizable() {
    let spec = Spec::new(3, seed()).spare(3).flags(&SNAPSHOTS).flags(&UNCHECKED).network();
    run(spec, LOAD, Duration::from_secs(15), changing).assert_clean();
}

#[test]
fn five_members_on_disks_that_lose_power_are_linearizable() {
    run(Spec::new(5, seed()).network().disks(400), LOAD, Duration::from_secs(15), possible).assert_clean();
}

/// `make fault`: one cluster after the other, each with a seed that repeats it alone.
#[test]
#[ignore = "runs for FAULT_MINUTES"]
fn a_long_mixture() {
    let time = Duration::from_secs_f64(number::<f64>("FAULT_MINUTES").unwrap_or(10.0) * 60.0);
    let (first, begun) = (seed(), Instant::now());
    let mut sum = Report::default();
    for seed in first.. {
        let left = time.saturating_sub(begun.elapsed());
        if left < Duration::from_secs(5) && seed > first {
            break;
        }
        sum.add(run_drawn(seed, left.min(Duration::from_secs(45))));
    }
    println!("\nin {:?}: {sum}", begun.elapsed());
    sum.tally.faults.iter().for_each(|(name, count)| println!("{count:>6} {name}"));
    sum.assert_clean();
}

/// What a seed says about the cluster itself. Of four, three have members that come and go; most of these live on snapshots. Of seven, one
/// keeps the check that refuses most changes then.
fn run_drawn(seed: u64, time: Duration) -> Report {
    let changes = !seed.is_multiple_of(4);
    let mut random = StdRng::seed_from_u64(seed);
    let mut spec = Spec::new(if random.random_bool(0.4) { 5 } else { 3 }, seed).network();
    if random.random_bool(if changes { 0.8 } else { 0.5 }) {
        spec = spec.flags(&SNAPSHOTS);
    }
    if random.random_bool(0.4) {
        spec = spec.disks(400);
    }
    if random.random_bool(0.7) {
        spec = spec.shim();
    }
    if changes {
        spec = spec.spare(random.random_range(1..4));
        if !seed.is_multiple_of(7) {
            spec = spec.flags(&UNCHECKED);
        }
    }
    let value_bytes_max = if random.random_bool(0.3) { 30_000 } else { 0 };
    let load = Load { clients: random.random_range(4..16), value_bytes_max, tenants: random.random_range(0..6) };
    run(spec, load, time, if changes { changing } else { possible })
}
