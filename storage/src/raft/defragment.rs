//! Gives back, at a start, what sled's file takes and nothing uses.
//!
//! sled reuses space but never returns it: a file stays as large as it ever was. Before anybody is served the state, and the log beyond it,
//! move into a new Db as those of a received snapshot do, with the same promises at every point where power may go (`Engine::switch`).
//! Log that the state covers stays behind; a member that still needs it gets a snapshot.

use super::{check_order, damaged};
use crate::engine::{Engine, FrameId, Options, ROOM_BYTES_MIN, Shown, Span, StateFrame, Usage};
use crate::error::StorageError;
use std::path::Path;
use std::sync::mpsc;

/// Rewrites the store if that gives back `threshold_bytes` at least, and there is room for both meanwhile.
///
/// # Errors
/// Those of opening it; the disk fails.
pub fn defragment(directory: &Path, options: Options, threshold_bytes: u64) -> Result<(), StorageError> {
    let mut frames: Vec<(FrameId, Span)> = Vec::new();
    let (engine, recovered) = Engine::open(directory, options, &mut |shown| {
        match shown {
            Shown::Frame(id, frame) => frames.push((id, frame.span)),
            Shown::Anew => frames.clear(),
        }
        Ok(())
    })?;
    let applied = frames.iter().map(|(_, span)| span.last).max();
    check_order(directory, applied, &recovered)?;
    let before = engine.usage();
    if is_worth_it(&engine, before, threshold_bytes)
        && let Some(last) = applied
    {
        tracing::info!(current_db_size_bytes = before.file_bytes, current_db_size_in_use_bytes = before.frame_bytes, "defragmenting");
        frames.sort_unstable_by_key(|(id, _)| id.0);
        let mut incoming = engine.begin_install()?;
        for (id, span) in frames {
            let body = engine.read_state(id)?.ok_or_else(|| damaged(directory, "state frame", "it is gone"))?;
            incoming.put_state(StateFrame { span, body })?;
        }
        incoming.finish()?;
        let (done, switched) = mpsc::sync_channel(1);
        engine.switch(incoming, last, Box::new(move |result| drop(done.send(result))));
        switched.recv().unwrap_or_else(|_| Err(StorageError::Closed("the writer has ended".into())))?;
        let after = engine.usage().file_bytes;
        tracing::info!(db_size_before_bytes = before.file_bytes, db_size_after_bytes = after, "finished defragmenting directory");
    }
    engine.close()
}

fn is_worth_it(engine: &Engine, usage: Usage, threshold_bytes: u64) -> bool {
    let freeable = usage.file_bytes.saturating_sub(usage.frame_bytes);
    let needed = usage.frame_bytes + usage.frame_bytes / 4 + ROOM_BYTES_MIN;
    let has_room = engine.free_bytes().is_none_or(|free| free >= needed);
    if freeable < threshold_bytes {
        tracing::info!(
            current_db_size_bytes = usage.file_bytes,
            current_db_size_in_use_bytes = usage.frame_bytes,
            bootstrap_defrag_threshold_bytes = threshold_bytes,
            "Skipping defragmentation"
        );
    } else if !has_room {
        tracing::warn!(needed, "Skipping defragmentation: the disk has no room for a second file meanwhile");
    }
    freeable >= threshold_bytes && has_room
}
