//! The paced sweep after a compaction: fully dead frames are freed, half dead and small neighbours are rewritten as one.
//!
//! Two orders make a crash harmless. What killed a record is handed over before the record is erased (`StateLog::settle`). And a dead
//! tombstone leaves only after all dead puts of its key: a put that outlived it would rise again at the next start.

use super::directory::{Directory, FrameInfo, key_hash};
use super::recovery::damaged;
use super::unit::{Item, Located, Units, encode_head, encode_raw_delta, encode_record};
use super::{FULL_BYTES, StateLog};
use crate::engine::{Span, StateFrame};
use crate::error::StorageError;
use crate::types::{LogPosition, Record};
use bytes::Bytes;
use parking_lot::RwLock;

/// Frames below this size are merged with their neighbours.
const SMALL_BYTES: usize = 16 << 10;
/// Frames looked at per step.
const LOOKS_PER_STEP: usize = 256;
/// Frames merged per step at most.
const MERGES_PER_STEP: usize = 16;

/// How far the sweep is.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Log index it goes on from; 0 between two sweeps.
    next: u64,
    /// Another state has taken the place of this one: its frames are no longer ours.
    pub(super) retired: bool,
}

/// What remains of the frames being merged.
#[derive(Default)]
struct Merged {
    body: Vec<u8>,
    span: Span,
    records: usize,
    held: usize,
    last_delta: Option<u64>,
    erased: usize,
    old: Vec<FrameInfo>,
}

impl FrameInfo {
    fn half_dead(&self) -> bool {
        self.dead * 2 > self.records
    }

    fn needless(&self, image: Option<u64>) -> bool {
        self.dead >= self.records && (self.last_delta.is_none() || self.last_delta < image)
    }

    fn worth(&self, image: Option<u64>) -> bool {
        self.half_dead() || self.needless(image)
    }
}

impl StateLog {
    /// One paced step: rewrites or frees at most a few frames in revision order. `alive(record)` asks the index whether a record must stay.
    /// Returns false when nothing is left to do; the next call starts over. Call `settle` once before a sweep.
    pub fn compact_step(&self, alive: &dyn Fn(&Record) -> bool) -> Result<bool, StorageError> {
        let mut sweep = self.sweep.lock();
        if sweep.retired {
            return Ok(false);
        }
        let (chosen, next) = choose(&self.directory.read(), sweep.next);
        if !chosen.is_empty() {
            self.rewrite(chosen, alive)?;
        }
        sweep.next = next.unwrap_or(0);
        Ok(next.is_some())
    }

    fn rewrite(&self, chosen: Vec<FrameInfo>, alive: &dyn Fn(&Record) -> bool) -> Result<(), StorageError> {
        let mut merged = Merged::default();
        merged.span.first = chosen[0].span.first;
        for info in chosen {
            let body = self.frames.read_state(info.id)?.ok_or_else(|| damaged(info.id, "it is gone"))?;
            merged.add(info, body, &self.directory, alive)?;
        }
        if merged.old.len() == 1 && merged.erased == 0 && merged.records > 0 {
            let mut directory = self.directory.write();
            let info = FrameInfo { held: merged.held, dead: merged.held, ..merged.old[0] };
            directory.insert(info);
            return Ok(());
        }
        let old = merged.old.iter().map(|info| info.id).collect();
        let bytes = merged.body.len();
        let frame = (bytes > 0).then(|| StateFrame { span: merged.span, body: Bytes::from(merged.body) });
        let id = self.frames.replace_state(frame, old);
        let mut directory = self.directory.write();
        for info in &merged.old {
            directory.remove(info);
        }
        if let Some(id) = id {
            let (records, held, last_delta) = (merged.records, merged.held, merged.last_delta);
            directory.insert(FrameInfo { id, span: merged.span, bytes, records, dead: held, held, last_delta });
        }
        Ok(())
    }
}

/// The next frames to merge from log index `from` on, and where to go on; `None` at the end. The last frame is never chosen: it says how
/// far the log is applied.
fn choose(directory: &Directory, from: u64) -> (Vec<FrameInfo>, Option<u64>) {
    let mut chosen: Vec<FrameInfo> = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    for _ in 0..LOOKS_PER_STEP {
        let Some(info) = directory.from_index(next).filter(|info| !directory.is_last(info)) else {
            return (settle(chosen, directory), None);
        };
        let live = info.bytes / info.records.max(1) * (info.records + info.held - info.dead);
        let fits = info.worth(directory.image) || info.bytes < SMALL_BYTES;
        if !chosen.is_empty() && (!fits || bytes + live > FULL_BYTES || chosen.len() == MERGES_PER_STEP) {
            let settled = settle(std::mem::take(&mut chosen), directory);
            if !settled.is_empty() {
                return (settled, Some(next));
            }
            bytes = 0;
        }
        if fits {
            chosen.push(info);
            bytes += live;
        }
        next = info.span.first.index + 1;
    }
    (settle(chosen, directory), Some(next))
}

/// Drops a choice that is not worth the work: one small frame that has nothing dead in it.
fn settle(chosen: Vec<FrameInfo>, directory: &Directory) -> Vec<FrameInfo> {
    if chosen.len() == 1 && !chosen[0].worth(directory.image) { Vec::new() } else { chosen }
}

/// Items of one entry that stay.
#[derive(Default)]
struct Kept {
    position: LogPosition,
    items: u64,
    body: Vec<u8>,
}

impl Merged {
    /// Asks `alive` before it locks the directory: the index is never waited for with a lock of ours held.
    fn add(
        &mut self,
        info: FrameInfo,
        body: Bytes,
        directory: &RwLock<Directory>,
        alive: &dyn Fn(&Record) -> bool,
    ) -> Result<(), StorageError> {
        let mut units = Units::new(body);
        let judge = |located: Located| (matches!(&located.item, Item::Record(record) if alive(record)), located);
        let items: Vec<(bool, Located)> = units.by_ref().map(judge).collect();
        if units.broken() {
            return Err(damaged(info.id, "its units contradict themselves"));
        }
        let mut directory = directory.write();
        let mut kept = Kept::default();
        for (alive, located) in items {
            if located.position != kept.position {
                self.flush(&mut kept);
                kept.position = located.position;
            }
            match located.item {
                Item::Record(record) => self.record(&record, &mut kept, &mut directory, alive),
                Item::Delta(bytes) if Some(located.position.index) >= directory.image => {
                    self.last_delta = Some(located.position.index);
                    encode_raw_delta(&mut kept.body, &bytes);
                    kept.items += 1;
                }
                Item::Delta(_) => self.erased += 1,
            }
        }
        self.flush(&mut kept);
        self.span.last = info.span.last;
        self.old.push(info);
        Ok(())
    }

    fn record(&mut self, record: &Record, kept: &mut Kept, directory: &mut Directory, alive: bool) {
        if !alive && !directory.holds(record) {
            self.erased += 1;
            if !record.tombstone {
                directory.put_erased(key_hash(&record.kv.key));
            }
            return;
        }
        self.held += usize::from(!alive);
        self.records += 1;
        if self.span.first_revision == 0 {
            self.span.first_revision = record.revision.main;
        }
        self.span.last_revision = record.revision.main;
        encode_record(&mut kept.body, record);
        kept.items += 1;
    }

    fn flush(&mut self, kept: &mut Kept) {
        if kept.items > 0 {
            encode_head(&mut self.body, kept.position, kept.items);
            self.body.append(&mut kept.body);
            kept.items = 0;
        }
    }
}
