//! Opening: verify every frame, repair what a crash may leave, refuse everything else.
//!
//! | found | what it means | what happens |
//! |---|---|---|
//! | log frame at or below the floor | purged, slot not reused yet | its slot is free |
//! | run lacking its tail | never finished, or being freed | wiped |
//! | less than `SYNCED` says was durable | the file was cut or altered | refused |
//! | run lacking an earlier part, bad checksum, gap or overlap | damage | refused |
//! | state frame listed by a complete replacing frame | compaction was cut before the markers | wiped |

use super::directory::{Current, Directory};
use super::disk::{Disk, INSERTED_BYTES_MIN, RingName, Slots, UNSYNCED_BYTES_MAX};
use super::frame::{HEADER, Header};
use super::log::{LogFrame, LogView};
use super::queue::Queue;
use super::state::Stored;
use super::writer::{Writer, decode_position};
use super::{Engine, FrameId, Inner, Options, Recovered, Shared, Shown, StateFrame};
use crate::error::StorageError;
use crate::types::LogPosition;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

type Visit<'a> = &'a mut dyn FnMut(Shown) -> Result<(), StorageError>;

/// A frame or run as its slots say.
struct Run {
    header: Header,
    /// (part, slot, bytes), in order of parts once complete.
    parts: Vec<(u32, u32, u64)>,
}

impl Run {
    fn slots(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.1).collect()
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.2).sum()
    }
}

/// All frames of one ring by id.
struct Ring {
    runs: BTreeMap<u64, Run>,
    slots: Slots,
    /// Highest id seen, freed ones included: ids are never reused.
    max_id: u64,
}

/// See [`Engine::open`].
pub fn open(path: &Path, options: Options, visit: Visit<'_>) -> Result<(Engine, Recovered), StorageError> {
    let (directory, current) = Directory::open(path)?;
    let (number, new) = match current {
        Current::Create(number) => (number, true),
        Current::Open(number) => (number, false),
    };
    let disk = Disk::open(&directory.db(number), options.cache_bytes, options.faults.clone())?;
    if new {
        directory.point_to(number)?;
        directory.complete()?;
    }
    let floor = match disk.get_meta("floor")? {
        None => None,
        Some(bytes) => Some(decode_position(&bytes).ok_or_else(|| damaged(&disk, "floor key", "it has another length"))?),
    };
    let vote = disk.get_meta("vote")?.map(Bytes::from);
    let mut log = load(&disk, RingName::Log, floor, &mut |_, _| Ok(()))?;
    let mut runs = Runs { visit: &mut *visit, parts: HashMap::new(), bytes: 0, bytes_max: options.run_bytes_max, later: HashSet::new() };
    let mut state = load(&disk, RingName::State, None, &mut |header, body| runs.part(header, body))?;
    let later = runs.later;
    disk.check_watermark()?;
    let voided = repair(&disk, &mut log, &mut state)?;
    let recovered_log = recover_log(&disk, &mut log, floor)?;
    let next_id = log.max_id.max(state.max_id) + 1;
    let frame_bytes = log.runs.values().chain(state.runs.values()).map(Run::bytes).sum();
    let state_upto = state.runs.values().map(|run| run.header.span.last).max();
    if voided {
        visit(Shown::Anew)?;
        show(&disk, &state, &mut |_| true, visit)?;
    } else {
        show(&disk, &state, &mut |id| later.contains(&id), visit)?;
    }
    let states = state.runs.iter().map(|(id, run)| (*id, Stored::Slots { slots: run.slots(), bytes: run.bytes() })).collect();
    let view = LogView::recovered(floor, recovered_log.last, recovered_log.frames);
    let recovered = Recovered { vote: vote.clone(), purged: floor, last: view.last, committed: recovered_log.committed };
    let disk = Arc::new(disk);
    let shared = Arc::new(Shared {
        directory,
        options,
        disk: RwLock::new(Arc::clone(&disk)),
        log: Mutex::new(view),
        state: Mutex::new(states),
        queue: Queue::default(),
        next_id: Arc::new(AtomicU64::new(next_id)),
        next_job: AtomicU64::new(1),
        current_db: AtomicU64::new(number),
        last_db: AtomicU64::new(number),
        committed: Mutex::new(recovered_log.committed),
        failure: tokio::sync::watch::channel(None).0,
        metrics: Arc::default(),
        measures: Arc::default(),
        frame_bytes: AtomicU64::new(frame_bytes),
    });
    let writer = Writer {
        shared: Arc::clone(&shared),
        disk,
        log_slots: log.slots,
        state_slots: state.slots,
        vote,
        state_upto,
        unsynced: 0,
        packed: vec![0; HEADER],
        packed_span: None,
        framed: VecDeque::new(),
        pending: VecDeque::new(),
        waiting: VecDeque::new(),
    };
    let thread = std::thread::Builder::new().name("rusd-writer".into()).spawn(move || writer.run());
    let thread = thread.map_err(|error| StorageError::Closed(format!("no thread for the writer: {error}")))?;
    Ok((Engine { inner: Arc::new(Inner { shared, thread: Mutex::new(Some(thread)) }) }, recovered))
}

fn damaged(disk: &Disk, what: &str, detail: impl Into<String>) -> StorageError {
    StorageError::Damaged { path: disk.file_path(), what: what.into(), detail: detail.into() }
}

/// Puts the bodies of runs together while a ring is read, and shows what is whole: to read a large state twice takes as long again. The
/// parts of a run may lie far apart; what would take too much memory meanwhile is left for later.
struct Runs<'a> {
    visit: Visit<'a>,
    /// Of runs that aren't whole yet.
    parts: HashMap<u64, Vec<(u32, Bytes)>>,
    /// Of these parts.
    bytes: usize,
    bytes_max: usize,
    later: HashSet<u64>,
}

impl Runs<'_> {
    fn part(&mut self, header: &Header, part: Bytes) -> Result<(), StorageError> {
        let body = if header.parts == 1 { Some(part) } else { self.gather(header, part) };
        let Some(body) = body else { return Ok(()) };
        (self.visit)(Shown::Frame(FrameId(header.id), StateFrame { span: header.span, body }))
    }

    /// The whole run, if this was the last that was missing.
    fn gather(&mut self, header: &Header, part: Bytes) -> Option<Bytes> {
        if self.later.contains(&header.id) {
            return None;
        }
        let parts = self.parts.entry(header.id).or_default();
        self.bytes += part.len();
        parts.push((header.part, part));
        let whole = parts.len() >= header.parts as usize;
        if !whole && self.bytes <= self.bytes_max {
            return None;
        }
        let mut parts = self.parts.remove(&header.id).unwrap_or_default();
        self.bytes -= parts.iter().map(|(_, part)| part.len()).sum::<usize>();
        if !whole {
            self.later.insert(header.id);
            return None;
        }
        parts.sort_unstable_by_key(|(part, _)| *part);
        Some(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().concat().into())
    }
}

type See<'a> = &'a mut dyn FnMut(&Header, Bytes) -> Result<(), StorageError>;

/// Verifies a ring's frames; `see` gets those that count.
fn load(disk: &Disk, name: RingName, floor: Option<LogPosition>, see: See<'_>) -> Result<Ring, StorageError> {
    let mut ring = Ring { runs: BTreeMap::new(), slots: Slots::default(), max_id: 0 };
    disk.scan(name, |slot, frame| {
        let purged = |header: &Header| name == RingName::Log && floor.is_some_and(|floor| header.span.last.index <= floor.index);
        ring.max_id = ring.max_id.max(frame.as_ref().map_or(0, |(header, _)| header.id));
        match frame {
            Some((header, body)) if !purged(&header) => {
                ring.slots.found(slot, false);
                let part = (header.part, slot, body.len() as u64);
                let run = ring.runs.entry(header.id).or_insert_with(|| Run { header: header.clone(), parts: Vec::new() });
                if run.header.parts != header.parts || run.header.span != header.span {
                    return Err(disk.damaged(name, slot, format!("its run {} contradicts itself", header.id)));
                }
                run.parts.push(part);
                see(&header, body)?;
            }
            _ => ring.slots.found(slot, true),
        }
        Ok(())
    })?;
    Ok(ring)
}

/// Frees what a crash left half-done, durably, before anything new is inserted. True if a whole state frame was among it.
fn repair(disk: &Disk, log: &mut Ring, state: &mut Ring) -> Result<bool, StorageError> {
    let mut repair = Repair { disk, marked: 0 };
    repair.wipe_incomplete(RingName::Log, log)?;
    repair.wipe_incomplete(RingName::State, state)?;
    let void: HashSet<u64> = state.runs.values().flat_map(|run| run.header.replaced.iter().copied()).collect();
    let voided = void.iter().any(|id| state.runs.contains_key(id));
    void.into_iter().try_for_each(|id| repair.wipe(RingName::State, state, id))?;
    disk.sync()?;
    Ok(voided)
}

struct Repair<'a> {
    disk: &'a Disk,
    marked: usize,
}

impl Repair<'_> {
    fn wipe_incomplete(&mut self, name: RingName, ring: &mut Ring) -> Result<(), StorageError> {
        let mut incomplete = Vec::new();
        for (id, run) in &mut ring.runs {
            run.parts.sort_unstable();
            if let Some((at, part)) = run.parts.iter().enumerate().find(|(at, part)| part.0 as usize != *at) {
                return Err(self.disk.damaged(name, part.1, format!("run {id} lacks part {at} of {}", run.header.parts)));
            }
            if run.parts.len() < run.header.parts as usize {
                incomplete.push(*id);
            }
        }
        incomplete.into_iter().try_for_each(|id| self.wipe(name, ring, id))
    }

    /// From the last part backwards, as every run is freed.
    fn wipe(&mut self, name: RingName, ring: &mut Ring, id: u64) -> Result<(), StorageError> {
        let Some(run) = ring.runs.remove(&id) else { return Ok(()) };
        for slot in run.slots().into_iter().rev() {
            self.marked += 1;
            if self.marked.is_multiple_of(UNSYNCED_BYTES_MAX / INSERTED_BYTES_MIN) {
                self.disk.sync()?;
            }
            self.disk.mark(name, slot)?;
            ring.slots.release(slot);
        }
        Ok(())
    }
}

struct RecoveredLog {
    frames: VecDeque<LogFrame>,
    last: Option<LogPosition>,
    committed: Option<LogPosition>,
}

fn recover_log(disk: &Disk, log: &mut Ring, floor: Option<LogPosition>) -> Result<RecoveredLog, StorageError> {
    let mut runs: Vec<(&u64, &Run)> = log.runs.iter().collect();
    runs.sort_by_key(|(_, run)| run.header.span.first.index);
    let mut frames = VecDeque::new();
    let mut last = floor;
    let mut committed = None;
    for (id, run) in runs {
        let span = run.header.span;
        let expected = last.map_or(0, |last| last.index + 1);
        let follows = if frames.is_empty() { span.first.index <= expected } else { span.first.index == expected };
        if !follows {
            let detail = format!("it begins at entry {}, entry {expected} should follow", span.first.index);
            return Err(disk.damaged(RingName::Log, run.parts[0].1, detail));
        }
        committed = committed.max(run.header.committed);
        last = Some(span.last);
        frames.push_back(LogFrame { id: *id, first: span.first, last: span.last, slots: run.slots(), bytes: run.bytes() });
    }
    let committed = committed.map(|at| if last.is_some_and(|last| at.index > last.index) { last.unwrap_or(at) } else { at });
    Ok(RecoveredLog { frames, last, committed: committed.max(floor) })
}

/// Reads whole runs again, those that are `wanted`.
fn show(disk: &Disk, state: &Ring, wanted: &mut dyn FnMut(u64) -> bool, visit: Visit<'_>) -> Result<(), StorageError> {
    let mut in_slot_order: Vec<(u32, u64)> =
        state.runs.iter().filter(|(id, _)| wanted(**id)).map(|(id, run)| (run.parts[0].1, *id)).collect();
    in_slot_order.sort_unstable();
    for (slot, id) in in_slot_order {
        let run = &state.runs[&id];
        let body = disk
            .read_run(RingName::State, id, &run.slots())?
            .ok_or_else(|| disk.damaged(RingName::State, slot, "it changed while being read".into()))?;
        visit(Shown::Frame(FrameId(id), StateFrame { span: run.header.span, body }))?;
    }
    Ok(())
}
