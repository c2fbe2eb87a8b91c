//! The one thread that inserts. It drains the queue, inserts everything in order, makes it durable with one fdatasync, and only then tells
//! who waits. The first failure takes the store out of service: nothing is acknowledged after it.
//!
//! The clock here only paces the writer and measures syncs; it never reaches the state.
#![allow(clippy::disallowed_methods)]

use super::directory::io;
use super::disk::{Disk, INSERTED_BYTES_MIN, RingName, Slots, UNSYNCED_BYTES_MAX};
use super::frame::{HEADER, Header, Kind};
use super::log::{LogFrame, decode_entries, encode_entry, fits};
use super::queue::Job;
use super::state::{Incoming, Ready, Stored};
use super::{Completion, FRAME_BYTES_MAX, FrameId, LogEntry, Shared, Span, StateFrame};
use crate::error::StorageError;
use crate::types::LogPosition;
use bytes::Bytes;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A drain is not delayed for company once this many entries wait (measured: storage probe "drain").
const COMPANY_ENTRIES: usize = 24;
/// Nor if the last drain carried fewer than this: then there is no company to wait for.
const COMPANY_LAST_MIN: usize = 4;

/// What only the writer knows.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<Disk>,
    pub(super) log_slots: Slots,
    pub(super) state_slots: Slots,
    /// The vote, for a switch to another Db.
    pub(super) vote: Option<Bytes>,
    /// Newest position covered by an inserted state frame: purge may not pass it.
    pub(super) state_upto: Option<LogPosition>,
    pub(super) unsynced: usize,
    /// Spare room for a header, then the entries waiting to be framed.
    pub(super) packed: Vec<u8>,
    pub(super) packed_span: Option<(LogPosition, LogPosition)>,
    /// Frames that were inserted but that readers don't know yet; their entries are still in the tail.
    pub(super) framed: VecDeque<LogFrame>,
    /// Jobs of the current drain that were not begun.
    pub(super) pending: VecDeque<Job>,
    /// Told after the next sync.
    pub(super) waiting: VecDeque<Completion>,
}

impl Writer {
    /// Until the queue is closed.
    pub fn run(mut self) {
        let mut last_drain = (Instant::now(), 0);
        loop {
            let company = (last_drain.1 >= COMPANY_LAST_MIN).then(|| (last_drain.0 + self.shared.options.coalesce, COMPANY_ENTRIES));
            let Some(drain) = self.shared.queue.drain(company) else { return };
            last_drain = (Instant::now(), drain.entries);
            let failed = self.shared.failure.borrow().clone();
            if let Some(error) = failed {
                drain.jobs.into_iter().for_each(|job| job.fail(&error));
                continue;
            }
            self.pending = drain.jobs;
            let error = match catch_unwind(AssertUnwindSafe(|| self.work())) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(_) => StorageError::Closed("the writer thread failed an assertion".into()),
            };
            self.fail(&error);
        }
    }

    /// For good: whatever waits gets the error, and so does whatever comes.
    fn fail(&mut self, error: &StorageError) {
        tracing::error!(%error, "storage failed: the member leaves service");
        self.shared.failure.send_replace(Some(error.clone()));
        self.waiting.drain(..).for_each(|done| done(Err(error.clone())));
        self.pending.drain(..).for_each(|job| job.fail(error));
    }

    fn work(&mut self) -> Result<(), StorageError> {
        let begun = Instant::now();
        let mut inserted = None;
        while let Some(job) = self.pending.pop_front() {
            if let Job::Append(_, number, _) = &job {
                inserted = Some(*number);
            } else {
                self.flush_packed()?;
                self.publish();
            }
            self.job(job)?;
        }
        self.flush_packed()?;
        self.publish();
        if let Some(number) = inserted {
            let mut log = self.shared.log.lock();
            log.inserted = number;
            log.evict(self.shared.options.tail_bytes_max);
        }
        if !self.waiting.is_empty() {
            self.sync()?;
            self.shared.metrics.commits.took(begun.elapsed());
            // The newest first: openraft only looks at the newest, and so wakes up once instead of for each.
            while let Some(done) = self.waiting.pop_back() {
                done(Ok(()));
            }
        }
        Ok(())
    }

    fn job(&mut self, job: Job) -> Result<(), StorageError> {
        match job {
            Job::Append(entries, _, done) => {
                self.waiting.push_back(done);
                entries.iter().try_for_each(|entry| self.append(entry))
            }
            Job::Truncate(from, done) => {
                self.waiting.push_back(done);
                self.truncate(from)
            }
            Job::Purge(upto, done) => {
                self.waiting.push_back(done);
                self.purge(upto)
            }
            Job::Vote(vote, done) => {
                self.waiting.push_back(done);
                self.count(INSERTED_BYTES_MIN)?;
                self.disk.put_meta("vote", &vote)?;
                self.vote = Some(vote);
                Ok(())
            }
            Job::State(id, frame) => self.put_state(id, &frame, Vec::new()),
            Job::Replace(new, old) => self.replace(new, old),
            Job::Sync(done) => {
                self.waiting.push_back(done);
                Ok(())
            }
            Job::Switch(incoming, last, done) => {
                self.waiting.push_back(done);
                self.switch(*incoming, last)
            }
        }
    }

    /// Counts bytes about to be inserted; syncs first when the cap would be passed.
    fn count(&mut self, bytes: usize) -> Result<(), StorageError> {
        let bytes = bytes.max(INSERTED_BYTES_MIN);
        if self.unsynced + bytes > UNSYNCED_BYTES_MAX {
            self.sync()?;
        }
        self.unsynced += bytes;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let begun = Instant::now();
        self.shared.metrics.syncing();
        self.disk.sync()?;
        self.unsynced = 0;
        self.shared.metrics.synced(begun.elapsed());
        Ok(())
    }

    fn append(&mut self, entry: &LogEntry) -> Result<(), StorageError> {
        if !fits(entry, self.packed.len() - HEADER) {
            self.flush_packed()?;
        }
        self.packed_span = Some((self.packed_span.map_or(entry.position, |span| span.0), entry.position));
        encode_entry(&mut self.packed, entry);
        if self.packed.len() - HEADER > FRAME_BYTES_MAX { self.flush_packed() } else { Ok(()) }
    }

    fn flush_packed(&mut self) -> Result<(), StorageError> {
        let Some((first, last)) = self.packed_span.take() else { return Ok(()) };
        let begun = Instant::now();
        let mut packed = std::mem::take(&mut self.packed);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let committed = self.shared.committed.lock().map(|at| if at.index > last.index { last } else { at });
        let span = Span { first, last, ..Span::default() };
        let header = Header { kind: Kind::Log, id, part: 0, parts: 1, span, committed, replaced: Vec::new() };
        let slots = if packed.len() - HEADER <= FRAME_BYTES_MAX {
            self.count(packed.len())?;
            vec![self.disk.insert_in_place(RingName::Log, &mut self.log_slots, &header, &mut packed)?]
        } else {
            self.insert_run(RingName::Log, header, &packed[HEADER..])?
        };
        let bytes = (packed.len() - HEADER) as u64;
        self.shared.frame_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.metrics.log_writes.took(begun.elapsed());
        self.shared.metrics.log_bytes.add(bytes);
        self.framed.push_back(LogFrame { id, first, last, slots, bytes });
        packed.truncate(HEADER);
        packed.shrink_to(2 * FRAME_BYTES_MAX);
        self.packed = packed;
        Ok(())
    }

    /// Shows new frames to readers.
    fn publish(&mut self) {
        if !self.framed.is_empty() {
            self.shared.log.lock().frames.append(&mut self.framed);
        }
    }

    fn insert_run(&mut self, ring: RingName, mut header: Header, body: &[u8]) -> Result<Vec<u32>, StorageError> {
        let parts = body.len().div_ceil(FRAME_BYTES_MAX).max(1);
        header.parts = u32::try_from(parts).expect("a run has few parts");
        let mut slots = Vec::with_capacity(parts);
        for part in 0..parts {
            let end = body.len().min((part + 1) * FRAME_BYTES_MAX);
            header.part = u32::try_from(part).expect("a run has few parts");
            self.count(end - part * FRAME_BYTES_MAX + HEADER + header.replaced.len() * 8)?;
            let free = match ring {
                RingName::Log => &mut self.log_slots,
                RingName::State => &mut self.state_slots,
            };
            slots.push(self.disk.insert(ring, free, &header, &body[part * FRAME_BYTES_MAX..end])?);
        }
        Ok(slots)
    }

    /// Highest frame first, in place: a truncated frame must not outlive its successors.
    fn truncate(&mut self, from: u64) -> Result<(), StorageError> {
        loop {
            let Some(frame) = self.shared.log.lock().frames.back().cloned() else { return Ok(()) };
            if frame.last.index < from {
                return Ok(());
            }
            if frame.first.index >= from {
                // Readers must not find it once its slots change.
                self.shared.log.lock().frames.pop_back();
                self.free(RingName::Log, &frame.slots, frame.bytes)?;
            } else {
                return self.shorten(frame, from);
            }
        }
    }

    fn shorten(&mut self, frame: LogFrame, from: u64) -> Result<(), StorageError> {
        let kept: Vec<LogEntry> =
            self.shared.read_frame(&self.disk, &frame)?.into_iter().filter(|entry| entry.position.index < from).collect();
        let last = kept.last().expect("the frame begins before the cut").position;
        let mut body = Vec::new();
        kept.iter().for_each(|entry| encode_entry(&mut body, entry));
        let span = Span { first: frame.first, last, ..Span::default() };
        let header = Header { kind: Kind::Log, id: frame.id, part: 0, parts: 1, span, committed: None, replaced: Vec::new() };
        self.count(body.len() + HEADER)?;
        // Held over both, else a reader could take the slot's new content for damage.
        let mut log = self.shared.log.lock();
        self.disk.overwrite(RingName::Log, frame.slots[0], &header, &body)?;
        let bytes = body.len() as u64;
        self.shared.frame_bytes.fetch_sub(frame.bytes - bytes, Ordering::Relaxed);
        if let Some(back) = log.frames.back_mut() {
            *back = LogFrame { last, bytes, ..frame };
        }
        Ok(())
    }

    /// Markers from the last part backwards: what remains of a half-freed run lacks its tail.
    fn free(&mut self, ring: RingName, slots: &[u32], bytes: u64) -> Result<(), StorageError> {
        for slot in slots.iter().rev() {
            self.count(INSERTED_BYTES_MIN)?;
            self.disk.mark(ring, *slot)?;
            match ring {
                RingName::Log => self.log_slots.release(*slot),
                RingName::State => self.state_slots.release(*slot),
            }
        }
        self.shared.frame_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn purge(&mut self, upto: LogPosition) -> Result<(), StorageError> {
        let covered = self.state_upto.is_some_and(|state| state.index >= upto.index);
        if !covered && !self.shared.options.purge_beyond_state {
            let detail = format!("purge up to {upto:?} was asked for, state frames reach {:?}", self.state_upto);
            return Err(StorageError::Damaged { path: self.disk.file_path(), what: "order of purge and state".into(), detail });
        }
        self.count(INSERTED_BYTES_MIN)?;
        self.disk.put_meta("floor", &encode_position(upto))?;
        self.release_below(upto.index);
        Ok(())
    }

    fn release_below(&mut self, index: u64) {
        let mut log = self.shared.log.lock();
        while log.frames.front().is_some_and(|frame| frame.last.index <= index) {
            let Some(frame) = log.frames.pop_front() else { return };
            self.shared.frame_bytes.fetch_sub(frame.bytes, Ordering::Relaxed);
            frame.slots.iter().for_each(|slot| self.log_slots.release(*slot));
        }
    }

    fn put_state(&mut self, id: FrameId, frame: &StateFrame, replaced: Vec<u64>) -> Result<(), StorageError> {
        let header = Header { kind: Kind::State, id: id.0, part: 0, parts: 1, span: frame.span, committed: None, replaced };
        let slots = self.insert_run(RingName::State, header, &frame.body)?;
        self.state_upto = self.state_upto.max(Some(frame.span.last));
        let bytes = frame.body.len() as u64;
        self.shared.frame_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.state.lock().insert(id.0, Stored::Slots { slots, bytes });
        Ok(())
    }

    /// The copy first, then the markers: after a crash either counts, never both, never neither.
    fn replace(&mut self, new: Option<(FrameId, StateFrame)>, old: Vec<FrameId>) -> Result<(), StorageError> {
        if let Some((id, frame)) = new {
            self.put_state(id, &frame, old.iter().map(|id| id.0).collect())?;
        }
        for id in old {
            let stored = self.shared.state.lock().remove(&id.0);
            if let Some(Stored::Slots { slots, bytes }) = stored {
                self.free(RingName::State, &slots, bytes)?;
            }
        }
        Ok(())
    }

    /// Vote, floor and the entries after the snapshot are promises: they move into the new Db before the pointer does.
    fn switch(&mut self, incoming: Incoming, last: LogPosition) -> Result<(), StorageError> {
        self.sync()?;
        let Ready { disk, states, number, slots, unsynced, live } = incoming.into_ready()?;
        let frames: Vec<LogFrame> = self.shared.log.lock().frames.iter().filter(|frame| frame.last.index > last.index).cloned().collect();
        let mut kept = Vec::new();
        for frame in &frames {
            kept.extend(self.shared.read_frame(&self.disk, frame)?.into_iter().filter(|entry| entry.position.index > last.index));
        }
        let old = std::mem::replace(&mut self.disk, disk);
        self.log_slots = Slots::default();
        self.state_slots = slots;
        self.unsynced = unsynced;
        self.state_upto = Some(last);
        if let Some(vote) = &self.vote {
            self.disk.put_meta("vote", vote)?;
        }
        self.disk.put_meta("floor", &encode_position(last))?;
        self.step("switch: keys copied")?;
        let state_bytes = states.values().map(Stored::bytes).sum();
        self.shared.frame_bytes.store(state_bytes, Ordering::Relaxed);
        kept.iter().try_for_each(|entry| self.append(entry))?;
        self.flush_packed()?;
        self.step("switch: log copied")?;
        self.sync()?;
        self.step("switch: synced")?;
        self.shared.directory.point_to(number)?;
        self.step("switch: pointed")?;
        self.shared.become_current(number, Arc::clone(&self.disk), states, std::mem::take(&mut self.framed), last);
        drop((old, live));
        if let Err(error) = self.shared.directory.remove_partial(|| Some(number)) {
            tracing::warn!(%error, "what the snapshot has replaced is still there; the next start or snapshot removes it");
        }
        self.step("switch: done")
    }

    /// A point at which a test may end the process.
    fn step(&self, name: &'static str) -> Result<(), StorageError> {
        match &self.shared.options.faults {
            None => Ok(()),
            Some(faults) => faults.at(name).map_err(io("switch", self.shared.directory.path())),
        }
    }
}

/// A log position as the floor key stores it.
pub fn encode_position(position: LogPosition) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.term.to_le_bytes());
    bytes[8..].copy_from_slice(&position.index.to_le_bytes());
    bytes
}

/// And back.
pub fn decode_position(bytes: &[u8]) -> Option<LogPosition> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let (term, index) = bytes.split_at(8);
    Some(LogPosition { term: u64::from_le_bytes(term.try_into().ok()?), index: u64::from_le_bytes(index.try_into().ok()?) })
}

impl Shared {
    /// Entries of a frame, read from disk and verified against the directory.
    pub(super) fn read_frame(&self, disk: &Disk, frame: &LogFrame) -> Result<Vec<LogEntry>, StorageError> {
        let body = disk.read_run(RingName::Log, frame.id, &frame.slots)?;
        let entries = body.as_ref().and_then(|body| decode_entries(frame.first.index, body));
        match entries {
            Some(entries) if entries.last().map(|entry| entry.position) == Some(frame.last) => Ok(entries),
            _ => Err(disk.damaged(RingName::Log, frame.slots[0], format!("it should hold entries {:?} to {:?}", frame.first, frame.last))),
        }
    }
}

/// How long the writer waits for company by default.
pub const COALESCE: Duration = Duration::from_micros(1000);
