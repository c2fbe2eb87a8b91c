//! A snapshot on its way: the state at one applied position, as chunks.
//!
//! | chunk | what |
//! |---|---|
//! | `1` | head: applied position, revision, then (checksummed) the image of the small rooms |
//! | `2` | a state frame with its span: key-value records in revision order |
//! | `4` | the first part of the next frame's body: one revision may change more keys than a message holds; empty: nothing to send was found for a while |
//! | `3` | end: how many frames and records there were |
//!
//! The sender pins history and reads it lazily, and leaves out what its compact revision hides; the receiver fills a Db of its own and
//! rebuilds the rooms while receiving, so that the install is only a switch. A transfer that broke is continued by the next one, if what
//! was received can be its first part (`progress.rs`). The units of the records count as log entries 0, 1, and so on. Their real entries were others, but all of
//! them lie below the applied position, where the image stands: every revision took an entry, and entry 0 changes no key.

mod progress;

pub use progress::{Hold, Progress};

use crate::apply::{Recovering, Rooms};
use crate::command::state::{Delta, Image, delta};
use crate::engine::{Engine, Incoming, Span, StateFrame};
use crate::error::StorageError;
use crate::measure::Stopwatch;
use crate::mvcc::{Pin, Store};
use crate::statelog::open::Open;
use crate::statelog::{Recovery, StateLog};
use crate::types::{LogPosition, Record};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// A chunk's records, about.
const CHUNK_BYTES: usize = 256 << 10;
/// A frame is closed at this size.
const FRAME_BYTES: usize = 60 << 10;
/// No chunk is much larger than this; a larger frame goes in parts.
const PART_BYTES: usize = 512 << 10;
/// The largest frame a receiver takes: what one revision may change.
const BODY_BYTES_MAX: usize = 1 << 30;

/// What openraft carries.
pub enum SnapshotData {
    /// To be sent.
    Outgoing(Outgoing),
    /// Our own durable state, as openraft's snapshot builder answers: only its position counts, it is never sent.
    Local,
    /// Received and ready to be switched to.
    Received(Box<Received>),
}

/// A snapshot being sent.
pub struct Outgoing {
    store: Arc<Store>,
    pin: Arc<Pin>,
    /// Since the first chunk.
    watch: Stopwatch,
    image: Bytes,
    position: LogPosition,
    next: Next,
    /// The first revision to be sent.
    from: i64,
    frames: u64,
    records: u64,
    /// One per revision.
    units: u64,
    /// About what it takes on a disk, bytes.
    weight: u64,
    ready: VecDeque<StateFrame>,
    /// How much of the first frame in `ready` is sent.
    sent: usize,
}

enum Next {
    Head,
    Records(i64),
    End,
    Nothing,
}

impl Outgoing {
    pub(crate) fn new(store: Arc<Store>, pin: Arc<Pin>, image: Bytes, position: LogPosition, weight: u64) -> Self {
        let (next, ready) = (Next::Head, VecDeque::new());
        Self {
            store,
            pin,
            watch: Stopwatch::start(),
            image,
            position,
            next,
            from: 1,
            frames: 0,
            records: 0,
            units: 0,
            weight,
            ready,
            sent: 0,
        }
    }

    /// About what it takes on a disk, bytes.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Applied position.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Makes the next call of `get_current_snapshot` give this snapshot again.
    pub fn hold(&self) -> Hold {
        Hold { _pin: Arc::clone(&self.pin) }
    }

    /// Goes on from what a receiver has, instead of the beginning; false, and nothing is changed, if it may not. Before the first chunk.
    pub fn resume(&mut self, held: &Progress) -> bool {
        let follows = held.precedes(self.position, self.pin.compact_revision()) && held.revision <= self.pin.revision();
        let may = matches!(self.next, Next::Head) && follows && held.is_plausible();
        if may {
            (self.from, self.units) = (held.revision + 1, held.units);
            (self.frames, self.records) = (held.frames, held.records);
        }
        may
    }

    /// The next chunk, `None` after the last. Blocking.
    ///
    /// # Errors
    /// History can't be read.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            if let Some(frame) = self.ready.front() {
                let rest = frame.body.slice(self.sent..);
                if rest.len() > PART_BYTES {
                    self.sent += PART_BYTES;
                    return Ok(Some([&[4], &rest[..PART_BYTES]].concat().into()));
                }
                let chunk = frame_chunk(frame, &rest);
                self.ready.pop_front();
                (self.sent, self.frames) = (0, self.frames + 1);
                return Ok(Some(chunk));
            }
            match self.next {
                Next::Head => {
                    self.watch = Stopwatch::start();
                    self.next = Next::Records(self.from);
                    return Ok(Some(self.head()));
                }
                Next::Records(from) if from <= self.pin.revision() => {
                    self.fill(from)?;
                    // All of it was dead. Neither side takes a long search for a standstill.
                    if self.ready.is_empty() {
                        return Ok(Some(Bytes::from_static(&[4])));
                    }
                }
                Next::Records(_) => self.next = Next::End,
                Next::End => {
                    self.next = Next::Nothing;
                    self.store.measures().snapshots.sent.took(self.watch.elapsed());
                    let mut chunk = vec![3];
                    chunk.put_u64_le(self.frames);
                    chunk.put_u64_le(self.records);
                    return Ok(Some(chunk.into()));
                }
                Next::Nothing => return Ok(None),
            }
        }
    }

    fn head(&self) -> Bytes {
        let mut chunk = vec![1];
        chunk.put_u64_le(self.position.term);
        chunk.put_u64_le(self.position.index);
        chunk.put_u32_le(crc32c::crc32c(&self.image));
        chunk.extend_from_slice(&self.image);
        chunk.into()
    }

    fn fill(&mut self, from: i64) -> Result<(), StorageError> {
        let (records, next) = self.store.pinned_history(&self.pin, from, CHUNK_BYTES)?;
        self.records += records.len() as u64;
        let mut open = Open::new(None);
        let mut main = None;
        for record in &records {
            if main != Some(record.revision.main) {
                self.close(&mut open, main.is_some(), FRAME_BYTES);
                main = Some(record.revision.main);
                open.begin(LogPosition { term: self.position.term, index: self.units });
                self.units += 1;
            }
            open.record(record);
        }
        self.close(&mut open, main.is_some(), 0);
        self.next = Next::Records(next);
        Ok(())
    }

    fn close(&mut self, open: &mut Open, in_unit: bool, at_least: usize) {
        if in_unit {
            open.end();
        }
        if open.bytes() >= at_least.max(1)
            && let Some((frame, _)) = open.take_frame()
        {
            self.ready.push_back(frame);
            open.clear();
        }
    }
}

/// The checksum is of the whole body, `rest` its last or only part.
fn frame_chunk(frame: &StateFrame, rest: &[u8]) -> Bytes {
    let span = &frame.span;
    let mut chunk = Vec::with_capacity(rest.len() + 64);
    chunk.put_u8(2);
    chunk.put_u32_le(crc32c::crc32c(&frame.body));
    for position in [span.first, span.last] {
        chunk.put_u64_le(position.term);
        chunk.put_u64_le(position.index);
    }
    chunk.put_i64_le(span.first_revision);
    chunk.put_i64_le(span.last_revision);
    chunk.extend_from_slice(rest);
    chunk.into()
}

/// A received snapshot.
pub struct Received {
    pub(crate) incoming: Incoming,
    pub(crate) rooms: Rooms,
    pub(crate) position: LogPosition,
}

/// A snapshot being received: writes a partial Db and rebuilds the rooms. Blocking, also when it is dropped: that removes the Db.
pub struct Receiver {
    engine: Engine,
    watch: Stopwatch,
    incoming: Incoming,
    recovery: Recovery,
    rooms: Recovering,
    head: Option<(LogPosition, Image)>,
    parts: Vec<u8>,
    /// The next frame may start at entry `units`.
    progress: Progress,
    /// Of frames taken in.
    bytes: u64,
    done: bool,
}

fn garbled(what: &str) -> StorageError {
    StorageError::Damaged {
        path: PathBuf::from("(snapshot being received)"),
        what: what.into(),
        detail: "it does not fit the format or its checksum".into(),
    }
}

impl Receiver {
    /// Starts a partial Db, removing an older one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn begin(engine: Engine) -> Result<Self, StorageError> {
        let memory_bytes = engine.memory_bytes();
        let incoming = engine.begin_install()?;
        Ok(Self {
            engine,
            watch: Stopwatch::start(),
            incoming,
            recovery: Recovery::new(),
            rooms: Recovering::new(memory_bytes)?,
            head: None,
            parts: Vec::new(),
            progress: Progress::default(),
            bytes: 0,
            done: false,
        })
    }

    /// What remains of it when the transfer breaks, to be gone on with from `progress`: the whole frames. `None` if there is none.
    pub fn interrupted(mut self) -> Option<Self> {
        (self.head, self.parts, self.done) = (None, Vec::new(), false);
        (self.progress.revision > 0).then_some(self)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Bytes of what it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a chunk.
    ///
    /// # Errors
    /// The chunk is garbled or out of order, or the disk fails.
    pub fn chunk(&mut self, mut chunk: Bytes) -> Result<(), StorageError> {
        let kind = if chunk.is_empty() { 0 } else { chunk.get_u8() };
        match kind {
            1 if self.head.is_none() && chunk.len() >= 20 => self.take_head(chunk),
            2 if self.head.is_some() && chunk.len() >= 52 => self.take_frame(chunk),
            4 if self.head.is_some() && self.parts.len() + chunk.len() <= BODY_BYTES_MAX => {
                self.parts.extend_from_slice(&chunk);
                Ok(())
            }
            3 if self.head.is_some() && chunk.len() == 16 => {
                self.done = chunk.get_u64_le() == self.progress.frames && chunk.get_u64_le() == self.progress.records;
                if self.done { Ok(()) } else { Err(garbled("end of the snapshot")) }
            }
            _ => Err(garbled("order of chunks")),
        }
    }

    /// Position and image.
    fn take_head(&mut self, mut chunk: Bytes) -> Result<(), StorageError> {
        let position = LogPosition { term: chunk.get_u64_le(), index: chunk.get_u64_le() };
        if chunk.get_u32_le() != crc32c::crc32c(&chunk) {
            return Err(garbled("image"));
        }
        let image = Image::decode(chunk).map_err(|_| garbled("image"))?;
        if self.progress.revision == 0 {
            self.progress.compact_revision = image.compact_revision;
        } else if !self.progress.precedes(position, image.compact_revision) {
            return Err(garbled("head of a snapshot that goes on"));
        }
        self.progress.position = position;
        // Whoever goes on doesn't answer for the time before.
        self.watch = Stopwatch::start();
        self.head = Some((position, image));
        Ok(())
    }

    fn take_frame(&mut self, mut chunk: Bytes) -> Result<(), StorageError> {
        let checksum = chunk.get_u32_le();
        let first = LogPosition { term: chunk.get_u64_le(), index: chunk.get_u64_le() };
        let last = LogPosition { term: chunk.get_u64_le(), index: chunk.get_u64_le() };
        let span = Span { first, last, first_revision: chunk.get_i64_le(), last_revision: chunk.get_i64_le() };
        let mut body = std::mem::take(&mut self.parts);
        let body = if body.is_empty() {
            chunk
        } else {
            body.extend_from_slice(&chunk);
            body.into()
        };
        let progress = &mut self.progress;
        let follows = span.first.index >= progress.units && span.first_revision > progress.revision;
        let ascends = span.first <= span.last && span.first_revision <= span.last_revision && span.last.index < progress.position.index;
        if checksum != crc32c::crc32c(&body) || !follows || !ascends {
            return Err(garbled("frame"));
        }
        (progress.units, progress.revision) = (span.last.index + 1, span.last_revision);
        progress.frames += 1;
        self.put(StateFrame { span, body })
    }

    fn put(&mut self, frame: StateFrame) -> Result<(), StorageError> {
        self.bytes += frame.body.len() as u64;
        let id = self.incoming.put_state(frame.clone())?;
        let (rooms, records) = (&mut self.rooms, &mut self.progress.records);
        self.recovery.frame(id, frame, &mut |record: Record| {
            *records += 1;
            rooms.record(record);
        })
    }

    /// All chunks are there: the state is durable and rebuilt, ready to be switched to.
    ///
    /// # Errors
    /// The end is missing, or the disk fails.
    pub fn finish(mut self) -> Result<SnapshotData, StorageError> {
        let (Some((position, image)), true) = (self.head.take(), self.done) else { return Err(garbled("end of the snapshot")) };
        let mut open = Open::new(None);
        open.begin(position);
        open.delta(&Delta { delta: Some(delta::Delta::Image(image)) });
        open.end();
        let (frame, _) = open.take_frame().expect("a unit was ended");
        self.put(frame)?;
        let (measures, sync) = (self.engine.measures(), Stopwatch::start());
        self.incoming.finish()?;
        measures.snapshots.received_synced.took(sync.elapsed());
        measures.snapshots.received.took(self.watch.elapsed());
        let (applied, deltas, directory) = self.recovery.finish()?;
        let log = StateLog::new(self.engine.clone(), directory, applied);
        let rooms = self.rooms.finish(log, deltas)?;
        Ok(SnapshotData::Received(Box::new(Received { incoming: self.incoming, rooms, position })))
    }
}
