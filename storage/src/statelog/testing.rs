//! A keeper of frames in memory.

use super::Frames;
use crate::engine::{FrameId, StateFrame};
use crate::error::StorageError;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Frames in a map.
#[derive(Default)]
pub(crate) struct FakeFrames {
    inner: Mutex<(u64, BTreeMap<u64, StateFrame>)>,
}

impl FakeFrames {
    /// All frames, as `Engine::open` shows them.
    pub(crate) fn all(&self) -> Vec<(FrameId, StateFrame)> {
        self.inner.lock().1.iter().rev().map(|(id, frame)| (FrameId(*id), frame.clone())).collect()
    }

    fn put(inner: &mut (u64, BTreeMap<u64, StateFrame>), frame: StateFrame) -> FrameId {
        inner.0 += 1;
        inner.1.insert(inner.0, frame);
        FrameId(inner.0)
    }
}

impl Frames for FakeFrames {
    fn put_state(&self, frame: StateFrame) -> FrameId {
        Self::put(&mut self.inner.lock(), frame)
    }
    fn replace_state(&self, new: Option<StateFrame>, old: Vec<FrameId>) -> Option<FrameId> {
        let mut inner = self.inner.lock();
        for id in old {
            assert!(inner.1.remove(&id.0).is_some(), "only frames in use are replaced");
        }
        new.map(|frame| Self::put(&mut inner, frame))
    }
    fn read_state(&self, id: FrameId) -> Result<Option<Bytes>, StorageError> {
        Ok(self.inner.lock().1.get(&id.0).map(|frame| frame.body.clone()))
    }
}
