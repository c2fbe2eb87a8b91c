//! State frames: where each is, and a Db that a snapshot fills.

use super::directory::Directory;
use super::disk::{Disk, RingName, Slots, UNSYNCED_BYTES_MAX};
use super::frame::{Header, Kind};
use super::{FRAME_BYTES_MAX, FrameId, StateFrame};
use crate::error::StorageError;
use bytes::Bytes;
use std::collections::HashMap;
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

/// A Db being filled by a snapshot. Dropped without a switch it is removed at the next install or open.
pub struct Incoming {
    disk: Arc<Disk>,
    number: u64,
    slots: Slots,
    states: States,
    next_id: Arc<AtomicU64>,
    unsynced: usize,
    syncs: u64,
}

impl Incoming {
    pub(super) fn create(directory: &Directory, number: u64, cache_bytes: u64, next_id: Arc<AtomicU64>) -> Result<Self, StorageError> {
        let disk = Arc::new(Disk::open(&directory.db(number), cache_bytes, None)?);
        Ok(Self { disk, number, slots: Slots::default(), states: States::new(), next_id, unsynced: 0, syncs: 0 })
    }

    /// Writes a frame, syncing whenever the byte cap is reached. Blocking.
    pub fn put_state(&mut self, frame: StateFrame) -> Result<FrameId, StorageError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let parts = frame.body.len().div_ceil(FRAME_BYTES_MAX).max(1);
        let mut slots = Vec::with_capacity(parts);
        for part in 0..parts {
            let body = &frame.body[part * FRAME_BYTES_MAX..frame.body.len().min((part + 1) * FRAME_BYTES_MAX)];
            let count = |number| u32::try_from(number).expect("a run has few parts");
            let header = Header {
                kind: Kind::State,
                id,
                part: count(part),
                parts: count(parts),
                span: frame.span,
                committed: None,
                replaced: Vec::new(),
            };
            if self.unsynced + body.len() > UNSYNCED_BYTES_MAX {
                self.finish()?;
            }
            self.unsynced += body.len() + 128;
            slots.push(self.disk.insert(RingName::State, &mut self.slots, &header, body)?);
        }
        self.states.insert(id, Stored::Slots { slots, bytes: frame.body.len() as u64 });
        Ok(FrameId(id))
    }

    /// All frames durable.
    pub fn finish(&mut self) -> Result<(), StorageError> {
        self.syncs += 1;
        self.disk.sync(self.syncs)?;
        self.unsynced = 0;
        Ok(())
    }

    pub(super) fn into_parts(self) -> (Arc<Disk>, States, u64, Slots) {
        (self.disk, self.states, self.number, self.slots)
    }
}
