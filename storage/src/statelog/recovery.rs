//! From frames to memory at start.

use super::directory::{Directory, FrameInfo};
use super::unit::{Item, Units};
use crate::command::state::{Delta, delta};
use crate::engine::{FrameId, StateFrame};
use crate::error::StorageError;
use crate::types::{LogPosition, Record};
use bytes::Bytes;
use prost::Message;
use std::path::PathBuf;

/// Collects frames shown by `Engine::open` in any order. For each key-value record `on_record` is called at once; deltas are kept, and
/// given back by `finish` sorted by log index, from the newest image on.
#[derive(Default)]
pub struct Recovery {
    directory: Directory,
    applied: Option<LogPosition>,
    /// With frame order inside an entry: position, offset in the frame.
    deltas: Vec<(LogPosition, usize, Bytes)>,
}

/// What the frames said: applied position, deltas in order, directory.
pub type Recovered = (Option<LogPosition>, Vec<(LogPosition, Delta)>, Directory);

/// A frame says something impossible.
pub(super) fn damaged(id: FrameId, detail: &str) -> StorageError {
    StorageError::Damaged { path: PathBuf::from("db"), what: format!("state frame {}", id.0), detail: detail.to_string() }
}

impl Recovery {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes one frame; a record met twice (same revision) is shown twice, the receiver ignores doubles.
    pub fn frame(&mut self, id: FrameId, frame: StateFrame, on_record: &mut dyn FnMut(Record)) -> Result<(), StorageError> {
        let span = frame.span;
        let mut info = FrameInfo { id, span, bytes: frame.body.len(), records: 0, dead: 0, held: 0, last_delta: None };
        let mut units = Units::new(frame.body);
        for located in units.by_ref() {
            match located.item {
                Item::Record(record) => {
                    if record.revision.main < span.first_revision || record.revision.main > span.last_revision {
                        return Err(damaged(id, "a record lies outside its revisions"));
                    }
                    info.records += 1;
                    on_record(record);
                }
                Item::Delta(bytes) => {
                    info.last_delta = Some(located.position.index);
                    self.deltas.push((located.position, located.offset, Bytes::copy_from_slice(&bytes)));
                }
            }
        }
        if units.broken() {
            return Err(damaged(id, "its units contradict themselves"));
        }
        self.applied = self.applied.max(Some(span.last));
        self.directory.insert(info);
        Ok(())
    }

    /// Applied position (None for an empty store), deltas with their position in order, and the directory to build a `StateLog` with.
    pub fn finish(mut self) -> Result<Recovered, StorageError> {
        self.deltas.sort_by_key(|(position, offset, _)| (position.index, *offset));
        let mut deltas = Vec::with_capacity(self.deltas.len());
        for (position, _, bytes) in self.deltas {
            let delta = Delta::decode(bytes).map_err(|error| StorageError::Damaged {
                path: PathBuf::from("db"),
                what: format!("state change of log entry {}", position.index),
                detail: error.to_string(),
            })?;
            if is_image(&delta) {
                deltas.clear();
                self.directory.image = Some(position.index);
            }
            deltas.push((position, delta));
        }
        Ok((self.applied, deltas, self.directory))
    }
}

/// Whether a delta voids those before it.
pub(super) fn is_image(delta: &Delta) -> bool {
    matches!(delta.delta, Some(delta::Delta::Image(_)))
}
