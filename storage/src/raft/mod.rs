//! openraft's storage traits over the engine and the state. One of the three places that name openraft.

mod alone;
mod defragment;
pub mod log_store;
mod responder;
mod sole;
mod state_machine;
pub mod types;

pub use log_store::{LogStore, VoteCell};
pub use responder::{Loss, Losses, Responder};
pub use sole::SoleMember;
pub use state_machine::StateMachine;

use crate::apply::{Recovering, State};
use crate::command::ApplyResult;
use crate::engine::{self, Completion, Engine, Shown};
use crate::error::StorageError;
use crate::statelog::{Recovery, StateLog};
use crate::types::LogPosition;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where results of applied entries go: the proposing member's waiting requests.
pub trait ResultSink: Send + Sync + 'static {
    /// The entry proposed as (`origin`, `sequence`) was applied at `position`, and its changes are published. Called on the apply side for
    /// every entry, on every member: must be quick, and ignore origins that are not its own.
    fn applied(&self, origin: u64, sequence: u64, position: LogPosition, result: ApplyResult);
    /// Everything up to `applied` is published. Called once per batch, after its results.
    fn advanced(&self, applied: LogPosition);
    /// A snapshot up to `applied` was installed: what its entries answered is not known here.
    fn installed(&self, applied: LogPosition) {
        self.advanced(applied);
    }
}

/// How the replicated state is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The engine's.
    pub engine: engine::Options,
    /// Budget of resident values, bytes.
    pub memory_bytes: u64,
    /// What takes longer to be applied is counted and logged.
    pub slow_apply: Option<Duration>,
    /// Rewrites the store first, if that gives back so many bytes of disk.
    pub defragment_from_bytes: Option<u64>,
}

/// The opened store and openraft's two faces of it.
pub struct Opened {
    /// The engine, for sizes, failure and close.
    pub engine: Engine,
    /// The replicated state, for readers.
    pub state: Arc<crate::apply::State>,
    /// For `openraft::Raft::new`.
    pub log_store: LogStore,
    /// For `openraft::Raft::new`.
    pub state_machine: StateMachine,
    /// What the last run knew committed; serve clients only once this is applied.
    pub committed: Option<LogPosition>,
    /// The vote on disk, none for a new member.
    pub has_vote: bool,
}

/// Opens the member directory: engine, state, and both faces.
///
/// # Errors
/// The directory is locked, damaged, of an unknown format, or the disk fails.
pub fn open(directory: &Path, options: Options, sink: Arc<dyn ResultSink>) -> Result<Opened, StorageError> {
    if let Some(threshold) = options.defragment_from_bytes {
        defragment::defragment(directory, options.engine.clone(), threshold)?;
    }
    let mut recovery = Recovery::new();
    let mut rooms = Recovering::new(options.memory_bytes)?;
    let engine_options = engine::Options { memory_bytes: options.memory_bytes, ..options.engine };
    let (engine, recovered) = Engine::open(directory, engine_options, &mut |shown| match shown {
        Shown::Frame(id, frame) => recovery.frame(id, frame, &mut |record| rooms.record(record)),
        Shown::Anew => {
            (recovery, rooms) = (Recovery::new(), Recovering::new(options.memory_bytes)?);
            Ok(())
        }
    })?;
    let (applied, deltas, frames) = recovery.finish()?;
    check_order(directory, applied, &recovered)?;
    let log = StateLog::new(engine.clone(), frames, applied);
    let state = Arc::new(State::new(rooms.finish(log, deltas)?, options.slow_apply));
    let vote = match &recovered.vote {
        None => None,
        Some(bytes) => Some(log_store::decode_vote(bytes.clone()).ok_or_else(|| damaged(directory, "vote", "it can't be decoded"))?),
    };
    let log_store = LogStore::new(engine.clone(), vote, recovered.committed.map(types::log_id));
    let state_machine = StateMachine::new(Arc::clone(&state), engine.clone(), sink, log_store.sole_member());
    Ok(Opened { engine, state, log_store, state_machine, committed: recovered.committed, has_vote: vote.is_some() })
}

/// The state may be behind the log, never ahead of it, and never before its floor: the entries between would be lost.
fn check_order(directory: &Path, applied: Option<LogPosition>, recovered: &engine::Recovered) -> Result<(), StorageError> {
    if applied.map(|at| at.index) > recovered.last.map(|at| at.index) {
        return Err(damaged(directory, "order of log and state", format!("applied {applied:?}, last entry {:?}", recovered.last)));
    }
    if recovered.purged.map(|at| at.index) > applied.map(|at| at.index) {
        return Err(damaged(directory, "order of log and state", format!("purged {:?}, applied {applied:?}", recovered.purged)));
    }
    Ok(())
}

fn damaged(directory: &Path, what: &str, detail: impl Into<String>) -> StorageError {
    StorageError::Damaged { path: directory.to_path_buf(), what: what.into(), detail: detail.into() }
}

/// Starts an engine operation and waits until it is durable.
async fn durable(start: impl FnOnce(Completion)) -> Result<(), StorageError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.await.unwrap_or_else(|_| Err(StorageError::Closed("the writer has ended".into())))
}
