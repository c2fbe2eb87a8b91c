//! Crash points, all of them: what a trace of operations asks of the disk is recorded, and the store is opened as it would be found after
//! a power cut at every single write, sync and rename, with any part of what was not synced lost.
//!
//! `make crash-sweep` sweeps every point (`RUSD_SWEEP=full`); the tests take some. `RUSD_SWEEP=2000` takes about so many, `RUSD_PART=3/20` a part of a full sweep, `RUSD_SEED=7`
//! repeats a trace as far as threads do, `RUSD_POINT=812` takes one of its points.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod engine_judge;
mod engine_model;
mod engine_trace;
mod flips;
mod member_trace;
mod record;
mod rng;

use disk::{Disk, LOSSES, Loss};
use engine_judge::Progress;
use engine_trace::{Shape, Trace};
use rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// One recording at a time, and nobody else's syncs are skipped.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn full() -> bool {
    std::env::var("RUSD_SWEEP").is_ok_and(|sweep| sweep == "full")
}

/// Which of how many parts of a full sweep is to be done: `RUSD_PART=3/20`.
fn part() -> (u64, u64) {
    let part = std::env::var("RUSD_PART").unwrap_or_default();
    part.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?))).unwrap_or((0, 1))
}

/// Keeps all for a full sweep, or its part of it, else `some`, whatever the seed: a test may count on how many there are.
fn choose<T>(all: &mut Vec<T>, some: u64, rng: &mut Rng) {
    let (mut left, mut wanted) = (all.len() as u64, number("RUSD_SWEEP").unwrap_or(some));
    let ((part, of), mut at) = (part(), 0);
    all.retain(|_| {
        at += 1;
        let taken = rng.below(left) < wanted;
        (left, wanted) = (left - 1, wanted - u64::from(taken));
        if full() { at % of == part % of } else { taken }
    });
}

fn seed() -> u64 {
    let seed = number("RUSD_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("RUSD_SEED={seed}");
    seed
}

/// A point at which the power goes: how many operations were made, and what is lost then.
struct Point {
    at: usize,
    loss: Loss,
    seed: u64,
}

/// Which points to look at when `ops` are made on `disk`: every one that differs from the one before, or so many.
fn points(mut disk: Disk, ops: &[record::Op], seed: u64, some: u64) -> Vec<Point> {
    let mut all = Vec::new();
    for at in 0..=ops.len() {
        if !matches!(ops.get(at), Some(record::Op::Mark(_))) {
            let losses = (0..).zip(LOSSES).filter(|(_, loss)| disk.waits() || *loss == Loss::Nothing);
            all.extend(losses.map(|(number, loss)| Point { at, loss, seed: seed ^ (at as u64) << 4 ^ number }));
        }
        ops.get(at).into_iter().for_each(|op| disk.apply(op));
    }
    match number("RUSD_POINT") {
        Some(only) => all.retain(|point| point.at as u64 == only),
        None => choose(&mut all, some, &mut Rng::new(seed)),
    }
    all
}

/// Replays to every point, makes its image and has it judged; tells how many there were.
fn sweep<J>(mut disk: Disk, ops: &[record::Op], points: &[Point], mut judge: J) -> usize
where
    J: FnMut(&Path, &Point, &[record::Op]) -> Result<(), String>,
{
    let (mut made, mut judged) = (0, 0);
    for point in points {
        while made < point.at {
            disk.apply(&ops[made]);
            made += 1;
        }
        let place = tempfile::tempdir().expect("a directory");
        let image = place.path().join("member");
        disk.image(point.loss, &mut Rng::new(point.seed), &image);
        judged += 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(&image, point, &ops[..made]))).unwrap_or_else(|_| Err("it panics".into()));
        if let Err(reason) = outcome {
            let kept = place.keep();
            panic!(
                "cut before operation {} of {} ({:?}), {:?} lost: {reason}\nwhat is left of the image: {}",
                point.at,
                ops.len(),
                ops.get(point.at).map(short),
                point.loss,
                kept.display()
            );
        }
    }
    judged
}

fn short(op: &record::Op) -> String {
    format!("{op:?}").chars().take(100).collect()
}

/// The recording is whole: replayed without a loss it gives the directory that is there.
fn check_recording(ops: &[record::Op], directory: &Path) {
    let mut disk = Disk::default();
    ops.iter().for_each(|op| disk.apply(op));
    let place = tempfile::tempdir().expect("a directory");
    disk.finished(place.path());
    let same = std::process::Command::new("diff").arg("-r").arg(place.path()).arg(directory).output().expect("diff");
    assert!(same.status.success(), "something was not recorded:\n{}", String::from_utf8_lossy(&same.stdout));
}

fn engine_trace(seed: u64, shape: Shape) -> Trace {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("member");
    std::fs::create_dir(&directory).expect("creatable");
    let trace = engine_trace::trace(&directory, seed, shape);
    check_recording(&trace.ops, &directory);
    trace
}

/// Bytes that were written over others.
fn rewritten(ops: &[record::Op]) -> u64 {
    let (mut ends, mut bytes) = (std::collections::HashMap::new(), 0);
    for op in ops {
        if let record::Op::Write(path, at, content) = op {
            let end: &mut u64 = ends.entry(path).or_default();
            bytes += (*end).min(at + content.len() as u64).saturating_sub(*at);
            *end = (*end).max(at + content.len() as u64);
        }
    }
    println!("{} MiB written over others, files reach {:?}", bytes >> 20, ends);
    bytes
}

/// Sweeps a trace of the engine.
fn sweep_engine(trace: &Trace, points: &[Point]) -> usize {
    record::skip_syncs(true);
    let (mut progress, mut seen) = (Progress::default(), 0);
    let judged = sweep(Disk::default(), &trace.ops, points, |image, point, made| {
        made[seen..].iter().for_each(|op| progress.see(op, trace));
        seen = made.len();
        engine_judge::judge(image, trace, &progress, point.at % 4 == 0)
    });
    record::skip_syncs(false);
    println!("{} steps, {} operations, {judged} images judged", trace.steps.len(), trace.ops.len());
    judged
}

#[test]
fn the_recorder_sees_everything() {
    let _alone = ALONE.lock();
    assert!(record::works());
}

#[test]
fn the_engine_keeps_what_it_acknowledged_at_every_cut() {
    let _alone = ALONE.lock();
    let seed = seed();
    let trace = engine_trace(seed, Shape { steps: if full() { 500 } else { 250 }, installs: true, bulk: false });
    let judged = sweep_engine(&trace, &points(Disk::default(), &trace.ops, seed, 60));
    assert!(judged > 40, "only {judged} images were judged");
}

/// So much is written that sled reuses its segments: what is lost then may be what is written over.
#[test]
fn the_engine_keeps_what_it_acknowledged_when_space_is_reused() {
    let _alone = ALONE.lock();
    let seed = seed();
    let trace = engine_trace(seed, Shape { steps: 1400, installs: false, bulk: true });
    let mut points = points(Disk::default(), &trace.ops, seed, 8);
    // An image is large here.
    points.retain(|point| !full() || Rng::new(point.seed).below(4) == 0);
    assert!(rewritten(&trace.ops) > 4 << 20, "too little was written");
    let judged = sweep_engine(&trace, &points);
    assert!(judged > 2, "only {judged} images were judged");
}

/// The power goes again while the store is being opened and repaired.
#[test]
fn a_cut_while_opening_after_a_cut_loses_nothing_more() {
    let _alone = ALONE.lock();
    let seed = seed();
    let trace = engine_trace(seed, Shape { steps: 150, installs: true, bulk: false });
    let mut first = points(Disk::default(), &trace.ops, seed, 3);
    first.retain(|point| !full() || Rng::new(point.seed).below(16) == 0);
    let (mut progress, mut seen, mut judged) = (Progress::default(), 0, 0);
    let opened = sweep(Disk::default(), &trace.ops, &first, |image, point, made| {
        made[seen..].iter().for_each(|op| progress.see(op, &trace));
        seen = made.len();
        let before = Disk::of(image);
        record::start(image);
        let result = engine_judge::judge(image, &trace, &progress, false);
        let ops = record::stop();
        result?;
        let mut second = points(before.clone(), &ops, point.seed, 5);
        second.retain(|point| !full() || Rng::new(point.seed).below(2) == 0);
        record::skip_syncs(true);
        judged += sweep(before, &ops, &second, |image, _, _| engine_judge::judge(image, &trace, &progress, true));
        record::skip_syncs(false);
        Ok(())
    });
    println!("{opened} images opened, {judged} judged that were left by a second cut");
    assert!(judged > 9, "only {judged} images were judged");
}

#[test]
fn a_member_keeps_what_it_acknowledged_at_every_cut() {
    let _alone = ALONE.lock();
    let seed = seed();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("member");
    std::fs::create_dir(&directory).expect("creatable");
    let trace = runtime.block_on(member_trace::trace(&directory, seed, if full() { 1000 } else { 400 }));
    check_recording(&trace.ops, &directory);
    let points = points(Disk::default(), &trace.ops, seed, 40);
    record::skip_syncs(true);
    let (mut acknowledged, mut seen) = (None, 0);
    let judged = sweep(Disk::default(), &trace.ops, &points, |image, point, made| {
        let marks = made[seen..].iter().filter_map(|op| if let record::Op::Mark(index) = op { Some(*index) } else { None });
        acknowledged = acknowledged.max(marks.max());
        seen = made.len();
        runtime.block_on(member_trace::judge(image, &trace, acknowledged, point.at % 3 == 0))
    });
    record::skip_syncs(false);
    println!(
        "{} entries, {} compactions, {} installs ({} resumed), {} operations, {judged} images judged",
        trace.told.len(),
        trace.compactions,
        trace.installs,
        trace.resumed,
        trace.ops.len()
    );
    assert!(judged > 20, "only {judged} images were judged");
}

/// Flips bits, or spoils sectors, of every file of a store; some of them, or all.
fn spoil(bits: bool, some: u64) {
    let _alone = ALONE.lock();
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("member");
    let expected = flips::store(&directory, !bits);
    let files = flips::files(&directory);
    let (mut rng, mut count) = (Rng::new(seed()), flips::Count::default());
    record::skip_syncs(true);
    for (at, file) in files.iter().enumerate() {
        let mut damages = flips::damages(file, bits);
        choose(&mut damages, some, &mut rng);
        damages.into_iter().for_each(|damage| flips::damage(&directory, &files, at, damage, &expected, &mut count));
    }
    record::skip_syncs(false);
    println!("{count:?}");
    assert!(count.refused > 10, "{count:?}");
}

#[test]
fn a_flipped_bit_is_never_served() {
    spoil(true, 40);
}

#[test]
fn a_spoiled_sector_is_never_served() {
    spoil(false, 30);
}
