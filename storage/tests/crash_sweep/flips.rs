//! A small store, damaged: any flipped bit, any sector that is lost or holds something else, is refused, or touches nothing that counts.

use crate::rng::Rng;
use bytes::Bytes;
use rusd_storage::LogPosition;
use rusd_storage::engine::{Completion, Engine, FrameId, LogEntry, Options, Shown, Span, StateFrame};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

const SECTOR: usize = 512;

fn position(index: u64) -> LogPosition {
    LogPosition { term: 1, index }
}

fn entry(index: u64) -> LogEntry {
    LogEntry { position: position(index), body: Bytes::from(vec![index as u8; 30]) }
}

fn frame(first: u64, last: u64, len: usize) -> StateFrame {
    let span = Span { first: position(first), last: position(last), ..Span::default() };
    StateFrame { span, body: Bytes::from(vec![last as u8; len]) }
}

fn wait(start: impl FnOnce(Completion)) {
    let (sender, receiver) = channel();
    start(Box::new(move |result| {
        let _ = sender.send(result);
    }));
    receiver.recv().expect("called").expect("a healthy disk");
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    log: Vec<LogEntry>,
    vote: Option<Bytes>,
    floor: Option<LogPosition>,
    frames: Vec<(u64, u64, Bytes)>,
}

/// Opens, reads all, closes.
fn held(directory: &Path) -> Result<Held, String> {
    let mut frames = Vec::new();
    let options = Options { cache_bytes: 1 << 20, ..Options::default() };
    let opened = Engine::open(directory, options, &mut |shown| {
        match shown {
            Shown::Frame(_, frame) => frames.push((frame.span.first.index, frame.span.last.index, frame.body)),
            Shown::Anew => frames.clear(),
        }
        Ok(())
    });
    let (engine, recovered) = opened.map_err(|error| error.to_string())?;
    frames.sort_unstable();
    let log = engine.read_log(0, u64::MAX, usize::MAX).map_err(|error| error.to_string())?;
    Ok(Held { log, vote: recovered.vote, floor: recovered.purged, frames })
}

/// Everything a store can hold, in little room: entries that were cut off and purged, a vote, frames of which some took the place of
/// others, and, if it may be larger, runs.
pub fn store(directory: &Path, runs: bool) -> Held {
    let (engine, _) = Engine::open(directory, Options::default(), &mut |_| Ok(())).expect("a new store");
    let len = if runs { 70_000 } else { 200 };
    for first in [0, 4, 8] {
        wait(|done| engine.append((first..first + 4).map(entry).collect(), done));
        wait(|done| engine.save_vote(Bytes::from(vec![first as u8; 9]), done));
    }
    wait(|done| engine.truncate(10, done));
    wait(|done| engine.append((10..13).map(entry).collect(), done));
    let old: Vec<FrameId> = (0..3).map(|at| engine.put_state(frame(at, at, 50))).collect();
    engine.replace_state(Some(frame(0, 2, len)), old);
    engine.put_state(frame(3, 7, 90));
    wait(|done| engine.purge(position(3), done));
    engine.close().expect("a healthy disk");
    drop(engine);
    held(directory).expect("a healthy store")
}

/// A file of a store.
pub struct File {
    path: PathBuf,
    /// Up to the last byte that is not zero.
    content: Vec<u8>,
    len: u64,
}

/// The files of a store.
pub fn files(directory: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("listable").flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else {
                let mut content = std::fs::read(entry.path()).expect("readable");
                let len = content.len() as u64;
                content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                files.push(File { path: entry.path(), content, len });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// A single damage of a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    Bit(usize),
    /// This sector is zeros.
    Lost(usize),
    /// It holds noise.
    Noise(usize),
    /// It holds what another one should.
    Misplaced(usize),
}

impl Damage {
    fn make(self, content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        let len = content.len();
        let sector = |at: usize| at * SECTOR..((at + 1) * SECTOR).min(len);
        match self {
            Self::Bit(bit) => content[bit / 8] ^= 1 << (bit % 8),
            Self::Lost(at) => content[sector(at)].fill(0),
            Self::Noise(at) => {
                let mut rng = Rng::new(at as u64 + 1);
                content[sector(at)].iter_mut().for_each(|byte| *byte = rng.next() as u8);
            }
            Self::Misplaced(at) => {
                let other = content[sector((at + 1) % len.div_ceil(SECTOR))].to_vec();
                let into = &mut content[sector(at)];
                let shared = into.len().min(other.len());
                into[..shared].copy_from_slice(&other[..shared]);
            }
        }
        content
    }
}

/// Every damage that a file can take: of its bits, or of its sectors.
pub fn damages(file: &File, bits: bool) -> Vec<Damage> {
    let len = file.content.len();
    if bits {
        return (0..len * 8).map(Damage::Bit).collect();
    }
    (0..len.div_ceil(SECTOR)).flat_map(|at| [Damage::Lost(at), Damage::Noise(at), Damage::Misplaced(at)]).collect()
}

/// How damages ended.
#[derive(Debug, Default)]
pub struct Count {
    pub refused: usize,
    pub harmless: usize,
}

/// Damages one file of the store, opens it and puts everything back.
pub fn damage(directory: &Path, files: &[File], at: usize, damage: Damage, expected: &Held, count: &mut Count) {
    put_back(directory, files, at, damage);
    let case = || format!("{} with {damage:?}", files[at].path.strip_prefix(directory).expect("inside").display());
    match catch_unwind(AssertUnwindSafe(|| held(directory))) {
        Err(_) => panic!("{}: it panics", case()),
        Ok(Ok(found)) => {
            assert!(found == *expected, "{}: something else is served: {found:?}", case());
            count.harmless += 1;
        }
        Ok(Err(reason)) => {
            assert!(reason.contains(&directory.display().to_string()), "{}: the error names no file: {reason}", case());
            count.refused += 1;
        }
    }
}

fn put_back(directory: &Path, files: &[File], damaged: usize, damage: Damage) {
    std::fs::remove_dir_all(directory).expect("removable");
    for (at, File { path, content, len }) in files.iter().enumerate() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("creatable");
        let content = if at == damaged { &damage.make(content) } else { content };
        std::fs::write(path, content).expect("writable");
        std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(*len)).expect("room");
    }
}
