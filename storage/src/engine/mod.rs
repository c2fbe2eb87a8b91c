//! The only room that knows sled: one Db, two trees used as slot rings of checksummed frames, one writer thread.
//!
//! | file | what |
//! |---|---|
//! | `directory` | lock, format version, pointer to the current Db |
//! | `disk` | the Db under the rules that make it durable |
//! | `frame` | bytes of a slot |
//! | `log`, `state` | where entries and state frames are |
//! | `queue`, `writer` | group commit: many producers, one thread that inserts and syncs |
//! | `open` | verification and repair |

mod directory;
mod disk;
mod frame;
mod log;
mod metrics;
mod open;
mod queue;
mod state;
mod writer;

pub use metrics::EngineMetrics;
pub use state::Incoming;

use crate::error::StorageError;
use crate::measure::Measures;
use crate::types::LogPosition;
use bytes::Bytes;
use directory::Directory;
use disk::Disk;
use frame::REPLACED_MAX;
use log::{LogFrame, LogView};
use parking_lot::{Mutex, RwLock};
use queue::{Job, Queue};
use state::{States, Stored};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Largest frame body; what exceeds it becomes a run of frames that counts only when complete.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// What must stay free of a disk beside a second Db and a quarter of its size, bytes.
pub const ROOM_BYTES_MIN: u64 = 32 << 20;

/// How the engine is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// sled's page cache, bytes (16-64 MiB; storage.md part 1, "Cache size").
    pub cache_bytes: u64,
    /// The tail of the log kept in memory, bytes; older entries are read from frames.
    pub tail_bytes_max: usize,
    /// How long the writer waits, since its last drain began, for more entries to share an fdatasync. Never when little is in flight.
    pub coalesce: Duration,
    /// Lets a purge pass the state (openraft's log suite purges what was never applied). Only for tests.
    pub purge_beyond_state: bool,
    /// Budget of resident values of a state on this engine, bytes; kept here for whoever rebuilds one from a received snapshot.
    pub memory_bytes: u64,
    /// While it opens, parts of frames that aren't whole yet take so much memory at most, bytes; the rest is read twice.
    pub run_bytes_max: usize,
    /// Test hook under the sync.
    pub faults: Option<Arc<dyn Faults>>,
}

/// What an opening store has.
#[derive(Clone, Debug)]
pub enum Shown {
    /// A state frame.
    Frame(FrameId, StateFrame),
    /// What was shown so far is to be forgotten: all that counts follows.
    Anew,
}

/// Makes syncs fail or slow, in tests.
pub trait Faults: Send + Sync + std::fmt::Debug {
    /// Called before each flush; an error is a failed fdatasync.
    fn before_sync(&self) -> std::io::Result<()> {
        Ok(())
    }
    /// Called between the steps of a switch with the name of the one just done; an error is a crash there.
    fn at(&self, _step: &'static str) -> std::io::Result<()> {
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            tail_bytes_max: 8 << 20,
            coalesce: writer::COALESCE,
            purge_beyond_state: false,
            memory_bytes: 1 << 30,
            run_bytes_max: 16 << 20,
            faults: None,
        }
    }
}

/// One Raft log entry as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub position: LogPosition,
    /// Its encoded payload.
    pub body: Bytes,
}

/// Name of a state frame; never reused. A run has one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u64);

/// What a state frame covers. Frames never overlap in log indexes, nor in revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Position of the first entry whose changes it holds (or that it merely accounts for).
    pub first: LogPosition,
    /// Position of the last one: applied up to here when the frame is durable.
    pub last: LogPosition,
    /// First main revision in it; 0 if it holds no key-value record.
    pub first_revision: i64,
    /// Last main revision in it; 0 if none.
    pub last_revision: i64,
}

/// A state frame: opaque body with its span.
#[derive(Clone, Debug)]
pub struct StateFrame {
    /// What it covers.
    pub span: Span,
    /// Encoded units; beyond [`FRAME_BYTES_MAX`] the engine writes it as a run.
    pub body: Bytes,
}

/// Runs once what it stands for is durable, or can never be. Called on the writer thread: keep it short.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// What `open` found, beside the state frames it has shown to the visitor.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The vote last saved, as given to `save_vote`.
    pub vote: Option<Bytes>,
    /// The floor: everything up to here was purged.
    pub purged: Option<LogPosition>,
    /// Last log entry, or `purged` when the log is empty.
    pub last: Option<LogPosition>,
    /// The newest commit position known to be durable, never beyond `last`.
    pub committed: Option<LogPosition>,
}

/// Figures for metrics and quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of frames in use (etcd's db size; what quota counts).
    pub frame_bytes: u64,
    /// Size of sled's file on disk.
    pub file_bytes: u64,
}

/// What readers, producers and the writer share.
struct Shared {
    directory: Directory,
    options: Options,
    disk: RwLock<Arc<Disk>>,
    log: Mutex<LogView>,
    state: Mutex<States>,
    queue: Queue,
    next_id: Arc<AtomicU64>,
    next_job: AtomicU64,
    current_db: AtomicU64,
    /// Highest number given to a Db directory, partial ones included.
    last_db: AtomicU64,
    committed: Mutex<Option<LogPosition>>,
    failure: tokio::sync::watch::Sender<Option<StorageError>>,
    metrics: Arc<EngineMetrics>,
    /// What the rooms count: they are replaced by a snapshot, this isn't.
    measures: Arc<Measures>,
    frame_bytes: AtomicU64,
}

impl Shared {
    /// Replaces Db, state and log frames at once: a reader sees all of the old or all of the new.
    fn become_current(&self, number: u64, disk: Arc<Disk>, mut state: States, frames: VecDeque<LogFrame>, last: LogPosition) {
        self.current_db.store(number, Ordering::Release);
        let mut current = self.disk.write();
        let mut states = self.state.lock();
        let mut log = self.log.lock();
        // What was queued for the new state after the switch keeps its place.
        state.extend(states.drain().filter(|(_, stored)| matches!(stored, Stored::Queued(_))));
        *states = state;
        log.frames = frames;
        log.purge(last);
        *current = disk;
    }
}

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        // The last clone may go in a completion, on the writer thread itself.
        if let Some(thread) = self.thread.lock().take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn push(&self, job: Job) {
        if let Err(job) = self.shared().queue.push(job) {
            job.fail(&StorageError::Closed("the member is going down".into()));
        }
    }

    /// Locks the member directory, opens the current Db, verifies every frame, shows each complete state frame to `visit` (in no particular
    /// order), and repairs what a crash may leave. If a frame turns out to be voided by a replacing one, all is shown anew without it.
    pub fn open(
        directory: &Path,
        options: Options,
        visit: &mut dyn FnMut(Shown) -> Result<(), StorageError>,
    ) -> Result<(Self, Recovered), StorageError> {
        open::open(directory, options, visit)
    }

    // ---- log: called by raft::log_store

    /// Queues consecutive entries; readable at once, `done` after they are on disk.
    pub fn append(&self, entries: Vec<LogEntry>, done: Completion) {
        let job = self.shared().next_job.fetch_add(1, Ordering::Relaxed);
        self.shared().log.lock().extend(&entries, job, self.shared().options.tail_bytes_max);
        self.push(Job::Append(entries, job, done));
    }

    /// Entries of [first, end), at least one if there is one, then up to `bytes_max`. Sees what was only queued.
    pub fn read_log(&self, first: u64, end: u64, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut out: Vec<LogEntry> = Vec::new();
        let mut room = bytes_max;
        loop {
            let (disk, frame, next, end) = {
                let disk = self.shared().disk.read();
                let log = self.shared().log.lock();
                let end = end.min(log.end_index());
                let next = out.last().map_or(first, |entry| entry.position.index + 1).max(log.oldest());
                if next >= end || (room == 0 && !out.is_empty()) {
                    return Ok(out);
                }
                // Where the tail begins, frames may still hold what a queued truncation drops.
                let start = log.tail_start().unwrap_or(u64::MAX);
                if start <= next {
                    log.read_tail(next, end, &mut room, &mut out);
                    return Ok(out);
                }
                match log.frame_of(next) {
                    Some(frame) => (Arc::clone(&disk), frame.clone(), next, end.min(start)),
                    None => return Err(StorageError::Closed(format!("log entry {next} is neither in memory nor in a frame"))),
                }
            };
            let entries = match self.shared().read_frame(&disk, &frame) {
                Ok(entries) => entries,
                // The frame was freed meanwhile: look again. If it is still listed, it is damaged.
                Err(error) => {
                    let listed = self.shared().log.lock().frame_of(next).is_some_and(|now| now.id == frame.id && now.last == frame.last);
                    if listed { return Err(error) } else { continue }
                }
            };
            for entry in entries.iter().filter(|entry| entry.position.index >= next && entry.position.index < end) {
                if !log::take(entry, &mut room, &mut out) {
                    return Ok(out);
                }
            }
        }
    }

    /// First and last position of what the log holds, `None` when empty; and the floor.
    pub fn log_bounds(&self) -> (Option<(u64, LogPosition)>, Option<LogPosition>) {
        let log = self.shared().log.lock();
        let last = log.last.filter(|last| last.index >= log.first_index());
        (last.map(|last| (log.oldest(), last)), log.floor)
    }

    /// Drops all entries with index >= `from`. Ordered after queued appends.
    pub fn truncate(&self, from: u64, done: Completion) {
        if from >= self.shared().log.lock().end_index() {
            // Nothing to drop; what was queued before still comes first.
            return self.sync(done);
        }
        let before = match from.checked_sub(1).map(|before| self.read_log(before, from, 0)).transpose() {
            Ok(entries) => entries.and_then(|entries| entries.first().map(|entry| entry.position)),
            Err(error) => return done(Err(error)),
        };
        self.shared().log.lock().truncate(from, before);
        self.push(Job::Truncate(from, done));
    }

    /// Drops all entries up to `upto`, which may lie beyond the last one. Beyond what state frames cover it takes the store out of service.
    pub fn purge(&self, upto: LogPosition, done: Completion) {
        self.shared().log.lock().purge(upto);
        self.push(Job::Purge(upto, done));
    }

    /// Saves the vote.
    pub fn save_vote(&self, vote: Bytes, done: Completion) {
        self.push(Job::Vote(vote, done));
    }

    /// Remembers the commit position; carried by the next log frame, clamped to its last entry.
    pub fn save_committed(&self, committed: LogPosition) {
        *self.shared().committed.lock() = Some(committed);
    }

    // ---- state: called by statelog

    /// Queues a frame; readable at once through the id. Blocks while too many bytes are queued (bounded memory).
    pub fn put_state(&self, frame: StateFrame) -> FrameId {
        let id = self.register(&frame);
        self.push(Job::State(id, frame));
        id
    }

    fn register(&self, frame: &StateFrame) -> FrameId {
        let id = self.shared().next_id.fetch_add(1, Ordering::Relaxed);
        self.shared().state.lock().insert(id, Stored::Queued(frame.body.clone()));
        FrameId(id)
    }

    /// Queues the copy of what is still alive in `old` and voids them, as one atomic step: after a crash either `old` or `new` counts.
    /// Without `new` the frames are simply freed. `old` names 4096 frames at most.
    pub fn replace_state(&self, new: Option<StateFrame>, old: Vec<FrameId>) -> Option<FrameId> {
        assert!(old.len() <= REPLACED_MAX, "{} frames are to be replaced at once, at most {REPLACED_MAX} can be", old.len());
        let new = new.map(|frame| (self.register(&frame), frame));
        let id = new.as_ref().map(|new| new.0);
        self.push(Job::Replace(new, old));
        id
    }

    /// Body of a frame, checksum verified. `None` if it was freed meanwhile (look the revision up again).
    pub fn read_state(&self, id: FrameId) -> Result<Option<Bytes>, StorageError> {
        let (disk, stored) = {
            let disk = self.shared().disk.read();
            let stored = self.shared().state.lock().get(&id.0).cloned();
            (Arc::clone(&disk), stored)
        };
        match stored {
            None => Ok(None),
            Some(Stored::Queued(body)) => Ok(Some(body)),
            Some(Stored::Slots { slots, .. }) => disk.read_run(disk::RingName::State, id.0, &slots),
        }
    }

    // ---- both

    /// `done` once all that was queued before is durable.
    pub fn sync(&self, done: Completion) {
        self.push(Job::Sync(done));
    }

    /// Current sizes.
    pub fn usage(&self) -> Usage {
        Usage { frame_bytes: self.shared().frame_bytes.load(Ordering::Relaxed), file_bytes: self.shared().disk.read().file_bytes() }
    }

    /// Figures of the writer.
    pub fn metrics(&self) -> Arc<EngineMetrics> {
        Arc::clone(&self.shared().metrics)
    }

    /// What is counted of the state in it.
    pub fn measures(&self) -> Arc<Measures> {
        Arc::clone(&self.shared().measures)
    }

    /// The error that took the store out of service, once there is one. The member must leave service when it fires.
    pub fn failure(&self) -> tokio::sync::watch::Receiver<Option<StorageError>> {
        self.shared().failure.subscribe()
    }

    /// Drains the queue and stops the writer. The lock goes with the last clone.
    pub fn close(&self) -> Result<(), StorageError> {
        self.shared().queue.close();
        if let Some(thread) = self.inner.thread.lock().take() {
            thread.join().map_err(|_| StorageError::Closed("the writer thread ended badly".into()))?;
        }
        self.shared().failure.borrow().clone().map_or(Ok(()), Err)
    }

    // ---- snapshot install

    /// A partial Db of its own beside the current one, filled while receiving. What an earlier one left is removed first.
    pub fn begin_install(&self) -> Result<Incoming, StorageError> {
        let shared = self.shared();
        shared.directory.remove_partial(|| Some(shared.current_db.load(Ordering::Acquire)))?;
        let number = shared.last_db.fetch_add(1, Ordering::Relaxed) + 1;
        Incoming::create(&shared.directory, number, &shared.options, Arc::clone(&shared.next_id))
    }

    /// Makes `incoming` current: the writer thread copies vote, floor = `last` and the log entries after `last` into it, syncs, renames the
    /// pointer file durably, and removes the old Db. Frame ids of `incoming` count from then on, all older ones are gone.
    pub fn switch(&self, incoming: Incoming, last: LogPosition, done: Completion) {
        self.push(Job::Switch(Box::new(incoming), last, done));
    }

    /// Bytes of log frames: what a purge can free.
    pub fn log_bytes(&self) -> u64 {
        self.shared().log.lock().frames.iter().map(|frame| frame.bytes).sum()
    }

    /// Bytes that may still be written to the file system it lives on; `None` if the system doesn't say.
    pub fn free_bytes(&self) -> Option<u64> {
        self.shared().directory.free_bytes()
    }

    /// The budget it was opened with.
    pub fn memory_bytes(&self) -> u64 {
        self.shared().options.memory_bytes
    }

    /// Directory the engine lives in.
    pub fn directory(&self) -> PathBuf {
        self.shared().directory.path().to_path_buf()
    }
}
