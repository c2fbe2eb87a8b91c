//! The engine on damaged files, a full disk, and with readers that race the writer: what is served is what was stored, or there is an error.

use bytes::Bytes;
use rusd_storage::engine::{Completion, Engine, Faults, LogEntry, Options, Shown, Span, StateFrame};
use rusd_storage::{LogPosition, StorageError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let body: Vec<u8> = (0..len).map(|at| (at as u64 ^ index ^ (term << 3)) as u8).collect();
    LogEntry { position: position(term, index), body: body.into() }
}

fn frame(first: u64, last: u64, len: usize) -> StateFrame {
    let span = Span { first: position(1, first), last: position(1, last), first_revision: 0, last_revision: 0 };
    StateFrame { span, body: vec![last as u8; len].into() }
}

fn wait(start: impl FnOnce(Completion)) -> Result<(), StorageError> {
    let (sender, receiver) = mpsc::channel();
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("a completion is always called")
}

fn open(path: &Path, options: Options) -> Result<(Engine, Option<Bytes>, Vec<StateFrame>), StorageError> {
    let mut frames = Vec::new();
    let (engine, recovered) = Engine::open(path, options, &mut |shown| {
        match shown {
            Shown::Frame(_, frame) => frames.push(frame),
            Shown::Anew => frames.clear(),
        }
        Ok(())
    })?;
    frames.sort_by_key(|frame| frame.span.first.index);
    Ok((engine, recovered.vote, frames))
}

const ENTRIES: u64 = 60;

/// A closed store of 60 entries, one state frame, one run and a vote that was saved twice.
fn small_store(path: &Path) -> PathBuf {
    let (engine, ..) = open(path, Options::default()).expect("a new store");
    for index in 0..ENTRIES {
        wait(|done| engine.append(vec![entry(1, index, 300)], done)).expect("appended");
        if index % 30 == 5 {
            wait(|done| engine.save_vote(Bytes::from(vec![index as u8; 9]), done)).expect("saved");
        }
    }
    engine.put_state(frame(0, 19, 3000));
    engine.put_state(frame(20, 40, 100_000));
    wait(|done| engine.sync(done)).expect("synced");
    path.join("db-1")
}

/// Opens the store: all of it, or an error that says what to do.
fn whole_or_refused(path: &Path, case: &str) -> bool {
    let (engine, vote, frames) = match open(path, Options::default()) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(error.to_string().contains(&path.display().to_string()), "{case}: the error names no file: {error}");
            return false;
        }
    };
    let Ok(log) = engine.read_log(0, u64::MAX, usize::MAX) else { return false };
    assert!(log.iter().cloned().eq((0..ENTRIES).map(|index| entry(1, index, 300))), "{case}: {} entries, not the stored ones", log.len());
    assert_eq!(vote, Some(Bytes::from(vec![35; 9])), "{case}");
    let bodies: Vec<Bytes> = frames.into_iter().map(|frame| frame.body).collect();
    assert!(bodies == [frame(0, 19, 3000).body, frame(20, 40, 100_000).body], "{case}: other state frames");
    true
}

/// The files of a directory tree, so that each case starts from the same.
struct Image(Vec<(PathBuf, Vec<u8>)>);

impl Image {
    fn take(directory: &Path) -> Self {
        let mut files = Vec::new();
        let mut directories = vec![directory.to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("listable").flatten() {
                if entry.path().is_dir() {
                    directories.push(entry.path());
                } else {
                    files.push((entry.path(), std::fs::read(entry.path()).expect("readable")));
                }
            }
        }
        Self(files)
    }

    fn put_back(&self, directory: &Path) {
        std::fs::remove_dir_all(directory).expect("removable");
        for (path, content) in &self.0 {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("creatable");
            std::fs::write(path, content).expect("writable");
        }
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("member");
    let db = small_store(&path).join("db");
    let image = Image::take(&path);
    let content = std::fs::read(&db).expect("readable");
    let used = content.iter().rposition(|byte| *byte != 0).expect("not empty");
    for part in 0..16 {
        image.put_back(&path);
        std::fs::write(&db, &content[..used * part / 16]).expect("writable");
        assert!(!whole_or_refused(&path, &format!("cut to {part}/16")), "cut to {part}/16: opened as if nothing were missing");
    }
}

#[test]
fn a_store_without_its_format_file_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("member");
    let db = small_store(&path);
    std::fs::remove_file(path.join("FORMAT")).expect("removable");
    std::fs::remove_file(path.join("CURRENT")).expect("removable");
    assert!(matches!(open(&path, Options::default()), Err(StorageError::Damaged { .. })));
    assert!(db.join("db").is_file(), "it was removed");
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_service_and_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    std::fs::create_dir(&small).expect("a directory");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("\n*** SKIPPED: a small disk needs root ***\n");
        return;
    }
    let _mount = Mount(small.clone());
    let path = small.join("member");
    let (engine, ..) = open(&path, Options::default()).expect("a new store");
    let failure = engine.failure();
    let acknowledged =
        (0..5000).take_while(|index| wait(|done| engine.append(vec![entry(1, *index, 60_000)], done)).is_ok()).count() as u64;
    assert!(acknowledged < 5000, "40 MB can't hold that");
    assert!(failure.borrow().is_some(), "the member must leave service");
    wait(|done| engine.save_vote(Bytes::from_static(b"vote"), done)).expect_err("out of service for good");
    drop(engine);
    let bigger = Command::new("mount").args(["-o", "remount,size=400m"]).arg(&small).status();
    assert!(bigger.is_ok_and(|status| status.success()));
    let (engine, ..) = open(&path, Options::default()).expect("there is room again");
    let log = engine.read_log(0, acknowledged, usize::MAX).expect("readable");
    assert!(log.into_iter().eq((0..acknowledged).map(|index| entry(1, index, 60_000))), "acknowledged entries are missing");
}

/// Holds the writer before its syncs, so that jobs queue up behind it.
#[derive(Debug, Default)]
struct Gate {
    closed: AtomicBool,
}

/// Opens the gate also when the test fails, else dropping the engine would wait for ever.
struct Open(Arc<Gate>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.store(false, Ordering::Release);
    }
}

impl Faults for Gate {
    fn before_sync(&self) -> std::io::Result<()> {
        while self.closed.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[test]
fn what_a_queued_truncation_drops_is_not_read_from_frames() {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let options = Options { tail_bytes_max: 0, faults: Some(gate.clone()), ..Options::default() };
    let (engine, ..) = open(directory.path(), options).expect("a new store");
    wait(|done| engine.append((0..10).map(|index| entry(1, index, 100)).collect(), done)).expect("appended");
    let open_at_end = Open(gate.clone());
    gate.closed.store(true, Ordering::Release);
    engine.sync(Box::new(|_| {}));
    let (sender, done) = mpsc::channel();
    engine.truncate(5, Box::new(move |result| drop(sender.send(result))));
    let expected: Vec<LogEntry> = (0..5).map(|index| entry(1, index, 100)).chain((5..8).map(|index| entry(2, index, 100))).collect();
    assert_eq!(engine.log_bounds().0.map(|bounds| bounds.1), Some(position(1, 4)));
    assert_eq!(engine.read_log(0, 100, usize::MAX).expect("readable"), expected[..5], "after the truncation");
    engine.append((5..8).map(|index| entry(2, index, 100)).collect(), Box::new(|_| {}));
    assert_eq!(engine.read_log(0, 100, usize::MAX).expect("readable"), expected, "while both are queued");
    drop(open_at_end);
    done.recv().expect("called").expect("truncated");
    wait(|done| engine.sync(done)).expect("synced");
    assert_eq!(engine.read_log(0, 100, usize::MAX).expect("readable"), expected, "when both are done");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_never_see_a_slot_change_under_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options { tail_bytes_max: 0, ..Options::default() }).expect("a new store");
    let kept = 40;
    wait(|done| engine.append((0..kept).map(|index| entry(1, index, 100)).collect(), done)).expect("appended");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Readers end with an error of their own or with this flag; a failing round must not leave them running.
        let _stop = Stop(&stop);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let log = engine.read_log(5, 40, usize::MAX).expect("no damage");
                        for (found, index) in log.into_iter().zip(5..) {
                            assert_eq!(found, entry(found.position.term, index, 100));
                        }
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for round in 0..150 {
            // Frees the frame of the last round, writes another one, and shortens that in place.
            wait(|done| engine.truncate(5, done)).expect("truncated");
            wait(|done| engine.append((5..kept).map(|index| entry(2 + round, index, 100)).collect(), done)).expect("appended");
            wait(|done| engine.truncate(20 + round % 19, done)).expect("truncated");
        }
        stop.store(true, Ordering::Relaxed);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        assert!(reads > 0);
    });
}

#[test]
fn an_install_that_is_dropped_leaves_no_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, ..) = open(directory.path(), Options::default()).expect("a new store");
    let first = engine.begin_install().expect("a partial store");
    let second = engine.begin_install().expect("another one");
    assert!(directory.path().join("db-2").exists(), "it is still being filled");
    drop(first);
    assert!(!directory.path().join("db-2").exists());
    assert!(directory.path().join("db-3").exists());
    drop(second);
    assert!(!directory.path().join("db-3").exists());
}

/// Begins another install at each step of a switch.
#[derive(Debug, Default)]
struct Another {
    engine: std::sync::OnceLock<std::sync::Weak<Engine>>,
    begun: std::sync::Mutex<Vec<bool>>,
}

impl Faults for Another {
    fn at(&self, _step: &'static str) -> std::io::Result<()> {
        let engine = self.engine.get().and_then(std::sync::Weak::upgrade).expect("open");
        let begun = std::thread::spawn(move || engine.begin_install().map(drop).is_ok()).join().expect("it does not panic");
        self.begun.lock().expect("not poisoned").push(begun);
        Ok(())
    }
}

#[test]
fn another_install_may_begin_at_any_step_of_a_switch() {
    let directory = tempfile::tempdir().expect("a directory");
    let another = Arc::new(Another::default());
    let (engine, ..) = open(directory.path(), Options { faults: Some(another.clone()), ..Options::default() }).expect("a new store");
    let engine = Arc::new(engine);
    another.engine.set(Arc::downgrade(&engine)).expect("once");
    let mut incoming = engine.begin_install().expect("a partial store");
    let span = Span { first: position(1, 12), last: position(1, 12), ..Span::default() };
    incoming.put_state(StateFrame { span, body: vec![12; 1000].into() }).expect("written");
    incoming.finish().expect("durable");
    // What arrives while the switch goes on stays, too.
    let other = engine.begin_install().expect("another one");
    wait(|done| engine.switch(incoming, position(1, 12), done)).expect("switched");
    assert_eq!(*another.begun.lock().expect("not poisoned"), [true; 5]);
    assert!(directory.path().join("db-3").join("db").exists());
    wait(|done| engine.append(vec![entry(1, 13, 10)], done)).expect("appended");
    drop((other, engine));
    let (engine, _, states) = open(directory.path(), Options::default()).expect("reopened");
    assert_eq!((states.len(), engine.read_log(0, 99, 9999).expect("readable").len()), (1, 1));
}
