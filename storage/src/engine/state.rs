//! State frames: where each is, and a Db that a snapshot fills.

use super::directory::{Directory, Live};
use super::disk::{Disk, INSERTED_BYTES_MIN, RingName, Slots, UNSYNCED_BYTES_MAX};
use super::frame::{HEADER, Header, Kind};
use super::{FRAME_BYTES_MAX, FrameId, Options, StateFrame};
use crate::error::StorageError;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a state frame is.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Still queued.
    Queued(Bytes),
    /// In these slots, one per part.
    Slots {
        /// In order of parts.
        slots: Vec<u32>,
        /// Bytes of the body.
        bytes: u64,
    },
}

impl Stored {
    /// Bytes of the body.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Queued(body) => body.len() as u64,
            Self::Slots { bytes, .. } => *bytes,
        }
    }
}

/// All state frames by id.
pub type States = HashMap<u64, Stored>;

/// A Db being filled by a snapshot. Dropped without a switch: removed. It waits for each of its syncs: that keeps the disk's work, and what
/// others that share it wait for, small.
pub struct Incoming {
    disk: Arc<Disk>,
    number: u64,
    slots: Slots,
    states: States,
    next_id: Arc<AtomicU64>,
    unsynced: usize,
    /// A sync has failed. The kernel tells it once, so nothing here may succeed after it.
    failed: bool,
    // After the Db, so that it is closed when its directory goes.
    partial: Partial,
    // Last: until then the directory is not anybody else's to remove.
    live: Live,
}

/// What a switch takes over.
pub struct Ready {
    /// The Db.
    pub disk: Arc<Disk>,
    /// Its frames.
    pub states: States,
    /// Number of its directory.
    pub number: u64,
    /// Free slots of its state ring.
    pub slots: Slots,
    /// Bytes inserted since its last sync.
    pub unsynced: usize,
    /// To be kept until the Db is current.
    pub live: Live,
}

/// Removes a directory unless told to keep it.
struct Partial {
    path: PathBuf,
    keep: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next install or open.
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "partial snapshot not removed");
        }
    }
}

impl Incoming {
    pub(super) fn create(directory: &Directory, number: u64, options: &Options, next_id: Arc<AtomicU64>) -> Result<Self, StorageError> {
        let live = directory.live(number);
        let partial = Partial { path: directory.db(number), keep: false };
        let disk = Arc::new(Disk::open(&partial.path, options.cache_bytes, options.faults.clone())?);
        let (slots, states) = (Slots::default(), States::new());
        Ok(Self { disk, number, slots, states, next_id, unsynced: 0, failed: false, partial, live })
    }

    /// Writes a frame, syncing whenever the byte cap is reached. Blocking.
    pub fn put_state(&mut self, frame: StateFrame) -> Result<FrameId, StorageError> {
        self.check()?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let parts = frame.body.len().div_ceil(FRAME_BYTES_MAX).max(1);
        let count = |number| u32::try_from(number).expect("a run has few parts");
        let (kind, span, parts_header) = (Kind::State, frame.span, count(parts));
        let mut header = Header { kind, id, part: 0, parts: parts_header, span, committed: None, replaced: Vec::new() };
        let mut slots = Vec::with_capacity(parts);
        for part in 0..parts {
            let body = &frame.body[part * FRAME_BYTES_MAX..frame.body.len().min((part + 1) * FRAME_BYTES_MAX)];
            header.part = count(part);
            let bytes = (body.len() + HEADER).max(INSERTED_BYTES_MIN);
            if self.unsynced + bytes > UNSYNCED_BYTES_MAX {
                self.finish()?;
            }
            self.unsynced += bytes;
            slots.push(self.disk.insert(RingName::State, &mut self.slots, &header, body)?);
        }
        self.states.insert(id, Stored::Slots { slots, bytes: frame.body.len() as u64 });
        Ok(FrameId(id))
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.failed { Err(StorageError::Closed("a sync of the partial snapshot has failed".into())) } else { Ok(()) }
    }

    /// All frames durable.
    pub fn finish(&mut self) -> Result<(), StorageError> {
        self.check()?;
        self.disk.sync().inspect_err(|_| self.failed = true)?;
        self.unsynced = 0;
        Ok(())
    }

    pub(super) fn into_ready(mut self) -> Result<Ready, StorageError> {
        self.check()?;
        self.partial.keep = true;
        let Self { disk, number, slots, states, unsynced, live, .. } = self;
        Ok(Ready { disk, states, number, slots, unsynced, live })
    }
}
