//! Compaction (contract b.5): logical at once, physical in paced steps. A round hashes what was (b.11), prunes the index, makes sure that
//! what killed the dead is on its way to disk, and sweeps the frames.

use super::Store;
use super::entry::Older;
use super::hash::{CACHED_MAX, Hashing};
use crate::error::{Rejection, StorageError};
use crate::measure::Stopwatch;
use crate::types::Record;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Keys pruned per step.
const PRUNE_KEYS: usize = 1000;

/// Compact revisions pinned, with how many pins each has.
pub(super) type Pins = BTreeMap<i64, usize>;

/// A logical compaction still to be done on disk.
#[derive(Clone, Copy)]
struct Pending {
    revision: i64,
    /// The compact revision before it.
    before: i64,
}

enum Phase {
    Idle,
    NextHash,
    Hash(Hashing),
    Prune(Vec<u8>),
    Settle,
    Sweep,
}

/// Physical compaction. Locked by its one thread; `compact` only touches `queue`.
pub(super) struct Work {
    queue: VecDeque<Pending>,
    pub(super) round: Arc<Mutex<Round>>,
}

pub(super) struct Round {
    phase: Phase,
    target: i64,
    /// Compactions that the round does at once, to be hashed before anything is pruned: each hash is what all members have, however
    /// far they are with the work on disk.
    hashes: VecDeque<Pending>,
    /// Since when; none for what an earlier run has left to sweep.
    watch: Option<Stopwatch>,
}

impl Work {
    /// Everything up to `compact_revision` is done as far as the index goes; dead frames are swept by the first round.
    pub(super) fn new(compact_revision: i64) -> Self {
        let phase = if compact_revision < 0 { Phase::Idle } else { Phase::Settle };
        let round = Round { phase, target: compact_revision, hashes: VecDeque::new(), watch: None };
        Self { queue: VecDeque::new(), round: Arc::new(Mutex::new(round)) }
    }
}

impl Store {
    /// Logical compaction; the delta is the caller's. Checks as etcd's: <= compact revision is Compacted, > current FutureRevision.
    pub fn compact(&self, revision: i64) -> Result<(), Rejection> {
        let before = self.compact_revision();
        if revision <= before {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision() {
            return Err(Rejection::FutureRevision);
        }
        let mut work = self.work.lock();
        let _pins = self.pins.lock();
        self.compacted.store(revision, Ordering::Release);
        work.queue.push_back(Pending { revision, before });
        Ok(())
    }

    /// One paced step of physical compaction (index pruning, then frames); false when done. Called by a background thread.
    pub fn compact_step(&self) -> Result<bool, StorageError> {
        let round = self.work.lock().round.clone();
        let mut round = round.lock();
        if self.log.retired() {
            return Ok(false);
        }
        let step = Stopwatch::start();
        let compactions = &self.log.measures().compactions;
        let phase = std::mem::replace(&mut round.phase, Phase::Idle);
        let swept = matches!(phase, Phase::Sweep);
        let pause = match phase {
            Phase::Prune(_) => Some(&compactions.index_step),
            Phase::Hash(_) | Phase::Sweep => Some(&compactions.step),
            Phase::Idle | Phase::NextHash | Phase::Settle => None,
        };
        round.phase = match phase {
            Phase::Idle => {
                round.hashes = self.next_targets();
                let Some(last) = round.hashes.back() else { return Ok(false) };
                (round.target, round.watch) = (last.revision, Some(step));
                Phase::NextHash
            }
            Phase::NextHash => match round.hashes.pop_front() {
                None => Phase::Prune(Vec::new()),
                Some(pending) => Phase::Hash(self.begin_hash(pending.revision, pending.before, true)),
            },
            Phase::Hash(hashing) => self.hash_step(hashing)?,
            Phase::Prune(from) => self.prune(&from, round.target).map_or(Phase::Settle, Phase::Prune),
            Phase::Settle if !self.log.settle() => Phase::Settle,
            Phase::Settle => Phase::Sweep,
            Phase::Sweep => self.sweep()?,
        };
        if let Some(pause) = pause {
            pause.observe(step.millis());
        }
        if swept
            && matches!(round.phase, Phase::Idle)
            && let Some(watch) = round.watch.take()
        {
            compactions.done(watch);
        }
        Ok(!matches!(round.phase, Phase::Idle) || !self.work.lock().queue.is_empty())
    }

    fn sweep(&self) -> Result<Phase, StorageError> {
        if self.log.compact_step(&|record| self.alive(record))? {
            return Ok(Phase::Sweep);
        }
        Ok(Phase::Idle)
    }

    /// The logical compactions that no pin forbids; of many the newest, as many as are remembered.
    fn next_targets(&self) -> VecDeque<Pending> {
        let mut work = self.work.lock();
        let pins = self.pins.lock();
        let limit = pins.first_key_value().map_or(i64::MAX, |(compact_revision, _)| *compact_revision);
        let ready = work.queue.partition_point(|pending| pending.revision <= limit);
        let mut targets: VecDeque<Pending> = work.queue.drain(..ready).collect();
        targets.drain(..targets.len().saturating_sub(CACHED_MAX));
        targets
    }

    /// Hashes some of what is about to be pruned.
    fn hash_step(&self, mut hashing: Hashing) -> Result<Phase, StorageError> {
        if !self.hash_some(&mut hashing)? {
            return Ok(Phase::Hash(hashing));
        }
        self.cache_hash(hashing);
        Ok(Phase::NextHash)
    }

    /// Prunes some keys from `from` on; where to go on.
    fn prune(&self, from: &[u8], target: i64) -> Option<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut last = None;
        {
            let index = self.index.read();
            for (passed, entry) in index.tree.iter_from(from).enumerate() {
                if passed == PRUNE_KEYS {
                    last = Some(entry.key().to_vec());
                    break;
                }
                if entry.has_past() {
                    keys.push(entry.key().to_vec());
                }
            }
        }
        let mut dead: Vec<(usize, Older)> = Vec::new();
        if !keys.is_empty() {
            let mut index = self.index.write();
            for (at, key) in keys.iter().enumerate() {
                let stays = index.tree.update(key, |entry| entry.prune(target, |older| dead.push((at, older))));
                if stays == Some(false) {
                    index.tree.remove(key);
                }
            }
        }
        self.log.measures().compactions.keys.add(dead.len() as u64);
        self.log.died_all(dead.iter().map(|(at, older)| (&keys[*at][..], older.revision(), older.tombstone())));
        last
    }

    /// Whether a record must survive (for the frame sweep).
    pub fn alive(&self, record: &Record) -> bool {
        self.index.read().tree.get(&record.kv.key).is_some_and(|entry| entry.knows(record.revision))
    }

    /// Pins history at the current revision and compact revision: nothing of it is physically removed while the pin lives.
    pub fn pin(&self) -> Pin {
        let mut pins = self.pins.lock();
        let compact_revision = self.compact_revision();
        *pins.entry(compact_revision).or_default() += 1;
        drop(pins);
        Pin { pins: self.pins.clone(), revision: self.revision(), compact_revision }
    }
}

/// Holds physical compaction back.
pub struct Pin {
    pins: Arc<Mutex<Pins>>,
    revision: i64,
    compact_revision: i64,
}

impl Pin {
    /// Published revision at the time of pinning.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Compact revision at the time of pinning.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&self.compact_revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.compact_revision);
            }
        }
    }
}
