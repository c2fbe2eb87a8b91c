//! The engine against a naive model, across restarts, kills, damage and failing disks.

#[path = "common/copies.rs"]
mod copies;

use bytes::Bytes;
use copies::Copies;
use proptest::prelude::*;
use rusd_storage::engine::{Engine, Faults, FrameId, LogEntry, Options, Recovered, Shown, Span, StateFrame};
use rusd_storage::{LogPosition, StorageError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let body: Vec<u8> = (0..len).map(|at| (at as u64 ^ index ^ (term << 3)) as u8).collect();
    LogEntry { position: position(term, index), body: body.into() }
}

fn open(path: &Path, options: Options) -> Result<(Engine, Recovered, BTreeMap<u64, Bytes>), StorageError> {
    let mut frames = BTreeMap::new();
    let (engine, recovered) = Engine::open(path, options, &mut |shown| {
        match shown {
            Shown::Frame(id, frame) => drop(frames.insert(id.0, frame.body)),
            Shown::Anew => frames.clear(),
        }
        Ok(())
    })?;
    Ok((engine, recovered, frames))
}

/// Runs an operation and waits for its completion.
fn wait(start: impl FnOnce(rusd_storage::engine::Completion)) -> Result<(), StorageError> {
    let (sender, receiver) = mpsc::channel();
    start(Box::new(move |result| sender.send(result).expect("the test waits")));
    receiver.recv().expect("a completion is always called")
}

fn state_frame(index: u64, len: usize) -> StateFrame {
    let span = Span { first: position(1, index), last: position(1, index), first_revision: 0, last_revision: 0 };
    StateFrame { span, body: vec![index as u8; len].into() }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    State(usize),
    Replace(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0usize..2000, 1 => 60_000usize..200_000];
    prop_oneof![
        6 => prop::collection::vec(len.clone(), 1..6).prop_map(Step::Append),
        1 => (0u64..8).prop_map(Step::Truncate),
        1 => (0u64..20).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        2 => len.prop_map(Step::State),
        1 => (1usize..4).prop_map(Step::Replace),
        2 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, LogEntry>,
    next: u64,
    term: u64,
    floor: Option<LogPosition>,
    vote: Option<Bytes>,
    states: BTreeMap<u64, Bytes>,
    made: u64,
}

fn check(engine: &Engine, model: &Model) {
    let (bounds, floor) = engine.log_bounds();
    assert_eq!(floor, model.floor);
    assert_eq!(bounds.map(|bounds| bounds.1), model.entries.values().last().map(|entry| entry.position));
    let read = engine.read_log(0, u64::MAX, usize::MAX).expect("readable");
    assert!(read.iter().eq(model.entries.values()), "log differs");
    for (id, body) in &model.states {
        assert_eq!(engine.read_state(FrameId(*id)).expect("readable").as_ref(), Some(body));
    }
}

fn run(steps: Vec<Step>, options: &Options) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut engine, ..) = open(directory.path(), options.clone()).expect("a new store");
    let mut model = Model { term: 1, ..Model::default() };
    for step in steps {
        match step {
            Step::Append(lens) => {
                let entries: Vec<LogEntry> = lens.iter().zip(model.next..).map(|(len, index)| entry(model.term, index, *len)).collect();
                model.next += entries.len() as u64;
                model.entries.extend(entries.iter().map(|entry| (entry.position.index, entry.clone())));
                wait(|done| engine.append(entries, done)).expect("appended");
            }
            Step::Truncate(back) => {
                let first = model.floor.map_or(0, |floor| floor.index + 1);
                let from = model.next.saturating_sub(back).max(first);
                model.entries.split_off(&from);
                model.next = from;
                model.term += 1;
                wait(|done| engine.truncate(from, done)).expect("truncated");
            }
            Step::Purge(keep) => {
                let Some(last) = model.next.checked_sub(keep + 1).and_then(|index| model.entries.get(&index)).map(|entry| entry.position)
                else {
                    continue;
                };
                model.entries = model.entries.split_off(&(last.index + 1));
                model.floor = Some(last);
                wait(|done| engine.purge(last, done)).expect("purged");
            }
            Step::Vote(vote) => {
                model.vote = Some(vec![vote; 9].into());
                wait(|done| engine.save_vote(vec![vote; 9].into(), done)).expect("saved");
            }
            Step::State(len) => {
                model.made += 1;
                let frame = state_frame(model.made, len);
                let id = engine.put_state(frame.clone());
                model.states.insert(id.0, frame.body);
            }
            Step::Replace(count) => {
                let old: Vec<u64> = model.states.keys().copied().take(count).collect();
                old.iter().for_each(|id| drop(model.states.remove(id)));
                model.made += 1;
                let frame = state_frame(model.made, 100);
                let id = engine.replace_state(Some(frame.clone()), old.into_iter().map(FrameId).collect()).expect("a new frame");
                model.states.insert(id.0, frame.body);
            }
            Step::Reopen => {
                wait(|done| engine.sync(done)).expect("synced");
                drop(engine);
                let (again, recovered, states) = open(directory.path(), options.clone()).expect("reopened");
                assert_eq!(states, model.states);
                assert_eq!((recovered.vote, recovered.purged), (model.vote.clone(), model.floor));
                assert_eq!(recovered.last, model.entries.values().last().map(|entry| entry.position).or(model.floor));
                engine = again;
            }
        }
        check(&engine, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..40), small_tail in any::<bool>()) {
        let tail_bytes_max = if small_tail { 500 } else { 32 << 20 };
        run(steps, &Options { tail_bytes_max, purge_beyond_state: true, ..Options::default() });
    }
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = open(directory.path(), Options::default()).expect("a new store");
    assert!(matches!(open(directory.path(), Options::default()), Err(StorageError::Locked(_))));
    drop(first);
    open(directory.path(), Options::default()).expect("free again");
}

#[derive(Debug, Default)]
struct Broken(AtomicBool);

impl Faults for Broken {
    fn before_sync(&self) -> std::io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(std::io::Error::other("no space left on the test device")) } else { Ok(()) }
    }
}

#[test]
fn a_failed_sync_ends_service_and_acknowledges_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(Broken::default());
    let options = Options { faults: Some(broken.clone()), ..Options::default() };
    let (engine, ..) = open(directory.path(), options).expect("a new store");
    wait(|done| engine.append(vec![entry(1, 0, 100)], done)).expect("a healthy disk");
    broken.0.store(true, Ordering::SeqCst);
    wait(|done| engine.append(vec![entry(1, 1, 100)], done)).expect_err("a failed sync is no acknowledgement");
    broken.0.store(false, Ordering::SeqCst);
    wait(|done| engine.append(vec![entry(1, 2, 100)], done)).expect_err("nor does it come back");
    assert!(engine.failure().borrow().is_some());
    drop(engine);
    let (engine, ..) = open(directory.path(), Options::default()).expect("the store opens on a healthy disk");
    assert_eq!(engine.read_log(0, 1, usize::MAX).expect("readable"), [entry(1, 0, 100)]);
}

/// The kernel tells of a failed sync once; a later success must not hide it.
#[test]
fn a_failed_sync_of_a_partial_store_is_never_forgotten() {
    let directory = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(Broken::default());
    let options = Options { faults: Some(broken.clone()), ..Options::default() };
    let (engine, ..) = open(directory.path(), options).expect("a new store");
    wait(|done| engine.append(vec![entry(1, 0, 100)], done)).expect("a healthy disk");
    let mut incoming = engine.begin_install().expect("a partial store");
    broken.0.store(true, Ordering::SeqCst);
    let failed = (1..).find(|index| incoming.put_state(state_frame(*index, 60_000)).is_err());
    assert!(failed.is_some_and(|index| index > 20), "some of it may wait: {failed:?}");
    broken.0.store(false, Ordering::SeqCst);
    incoming.put_state(state_frame(500, 10)).expect_err("it is spoiled");
    incoming.finish().expect_err("it is spoiled");
    wait(|done| engine.switch(incoming, position(1, 500), done)).expect_err("it is spoiled");
}

/// Parts of frames that lie far apart take little memory, and each frame is shown once.
#[test]
fn runs_are_shown_once_however_little_memory_they_may_take() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    wait(|done| engine.append((0..41).map(|index| entry(1, index, 10)).collect(), done)).expect("appended");
    let mut ids: Vec<FrameId> = (0..40).map(|index| engine.put_state(state_frame(index, 70_000 * (index as usize % 4)))).collect();
    // What goes in between is scattered over the freed slots.
    let gone: Vec<FrameId> = ids.iter().copied().step_by(3).collect();
    engine.replace_state(None, gone.clone());
    wait(|done| engine.sync(done)).expect("synced");
    ids.retain(|id| !gone.contains(id));
    ids.extend((0..4).map(|_| engine.put_state(state_frame(40, 300_000))));
    wait(|done| engine.sync(done)).expect("synced");
    drop(engine);
    for run_bytes_max in [0, 100_000, 400_000, usize::MAX] {
        let mut shown = Vec::new();
        let opened = Engine::open(directory.path(), Options { run_bytes_max, ..Options::default() }, &mut |frame| {
            let Shown::Frame(id, frame) = frame else { panic!("nothing is void") };
            assert!(frame.body.iter().all(|byte| u64::from(*byte) == frame.span.first.index));
            shown.push((id, frame.body.len()));
            Ok(())
        });
        opened.expect("a whole store");
        shown.sort_unstable_by_key(|(id, _)| id.0);
        assert_eq!(shown.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids, "{run_bytes_max}");
        assert_eq!(shown.iter().filter(|(_, bytes)| *bytes == 300_000).count(), 4);
    }
}

/// So many frames are replaced at once that a sync comes between the new one and the markers of the last old ones. Who opens what is there
/// then has been shown old frames before it knows better.
#[test]
fn frames_that_a_newer_one_replaces_do_not_count() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    wait(|done| engine.append((0..301).map(|index| entry(1, index, 10)).collect(), done)).expect("appended");
    let old: Vec<FrameId> = (0..300).map(|index| engine.put_state(state_frame(index, 200))).collect();
    wait(|done| engine.sync(done)).expect("synced");
    drop(engine);
    let copies = Arc::new(Copies::of(directory.path()));
    let (engine, ..) = open(directory.path(), Options { faults: Some(copies.clone()), ..Options::default() }).expect("a whole store");
    drop(copies.take());
    let new = engine.replace_state(Some(state_frame(300, 80_000)), old.clone()).expect("a new frame");
    wait(|done| engine.sync(done)).expect("synced");
    let taken = copies.take();
    drop(engine);
    let mut anew = 0;
    for copy in &taken {
        let mut frames = Vec::new();
        let (engine, _) = Engine::open(copy.path(), Options::default(), &mut |shown| {
            match shown {
                Shown::Frame(id, _) => frames.push(id),
                Shown::Anew => {
                    anew += 1;
                    frames.clear();
                }
            }
            Ok(())
        })
        .expect("a whole store");
        frames.sort_by_key(|id| id.0);
        assert!(frames == old || frames == [new], "{} frames", frames.len());
        drop(engine);
        let (_, _, again) = open(copy.path(), Options::default()).expect("a whole store");
        assert_eq!(again.len(), frames.len());
    }
    assert!(anew > 0, "{} copies, none with both", taken.len());
}

#[test]
fn purge_never_passes_the_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    wait(|done| engine.append((0..10).map(|index| entry(1, index, 10)).collect(), done)).expect("appended");
    engine.put_state(state_frame(5, 10));
    wait(|done| engine.purge(position(1, 5), done)).expect("covered by the state");
    wait(|done| engine.purge(position(1, 6), done)).expect_err("not covered");
}

#[test]
fn a_switch_keeps_vote_and_later_entries() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    wait(|done| engine.save_vote(Bytes::from_static(b"vote"), done)).expect("saved");
    let old = engine.put_state(state_frame(3, 10));
    wait(|done| engine.append((0..20).map(|index| entry(1, index, 50)).collect(), done)).expect("appended");
    let mut incoming = engine.begin_install().expect("a partial store");
    let new = incoming.put_state(state_frame(12, 200_000)).expect("written");
    incoming.finish().expect("durable");
    wait(|done| engine.switch(incoming, position(1, 12), done)).expect("switched");
    let expected: Vec<LogEntry> = (13..20).map(|index| entry(1, index, 50)).collect();
    for round in ["before", "after"] {
        assert_eq!(engine.read_log(0, 100, usize::MAX).expect("readable"), expected, "{round}");
        assert_eq!(engine.read_state(old).expect("readable"), None);
        assert_eq!(engine.read_state(new).expect("readable").map(|body| body.len()), Some(200_000));
    }
    drop(engine);
    let (engine, recovered, states) = open(directory.path(), Options::default()).expect("reopened");
    assert_eq!(engine.read_log(0, 100, usize::MAX).expect("readable"), expected);
    assert_eq!((recovered.vote, recovered.purged), (Some(Bytes::from_static(b"vote")), Some(position(1, 12))));
    assert_eq!(states.keys().copied().collect::<Vec<_>>(), [new.0]);
}

#[test]
fn an_install_that_was_cut_short_leaves_the_old_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    wait(|done| engine.append(vec![entry(1, 0, 10)], done)).expect("appended");
    let mut incoming = engine.begin_install().expect("a partial store");
    incoming.put_state(state_frame(12, 100)).expect("written");
    drop((incoming, engine));
    let (engine, _, states) = open(directory.path(), Options::default()).expect("reopened");
    assert_eq!((states.len(), engine.read_log(0, 9, 99).expect("readable").len()), (0, 1));
}

fn small_store(path: &Path) -> Vec<LogEntry> {
    let (engine, ..) = open(path, Options::default()).expect("a new store");
    let entries: Vec<LogEntry> = (0..40).map(|index| entry(1, index, 300)).collect();
    for entry in &entries {
        wait(|done| engine.append(vec![entry.clone()], done)).expect("appended");
    }
    engine.put_state(state_frame(20, 3000));
    wait(|done| engine.sync(done)).expect("synced");
    entries
}

#[test]
fn damaged_control_files_are_refused() {
    for (name, content) in [("CURRENT", "db-9 00000000\n"), ("CURRENT", ""), ("FORMAT", "77\n")] {
        let directory = tempfile::tempdir().expect("a directory");
        small_store(directory.path());
        std::fs::write(directory.path().join(name), content).expect("writable");
        let error = open(directory.path(), Options::default()).err().expect("refused");
        assert!(error.to_string().contains(name), "{error}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    small_store(directory.path());
    std::fs::remove_file(directory.path().join("CURRENT")).expect("removable");
    open(directory.path(), Options::default()).err().expect("a lost pointer is damage");
}
