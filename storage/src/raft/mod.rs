//! openraft's storage traits over the engine and the state. One of the three places that name openraft. STUB with the agreed face.

pub mod log_store;
pub mod types;

pub use log_store::{LogStore, VoteCell};

use crate::command::ApplyResult;
use crate::engine::{self, Engine};
use crate::error::StorageError;
use crate::types::LogPosition;
use std::path::Path;
use std::sync::Arc;

/// Where results of applied entries go: the proposing member's waiting requests.
pub trait ResultSink: Send + Sync + 'static {
    /// The entry proposed as (`origin`, `sequence`) was applied at `position`, and its changes are published. Called on the apply side for
    /// every entry, on every member: must be quick, and ignore origins that are not its own.
    fn applied(&self, origin: u64, sequence: u64, position: LogPosition, result: ApplyResult);
    /// Everything up to `applied` is published. Called once per batch, after its results.
    fn advanced(&self, applied: LogPosition);
}

/// How the replicated state is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The engine's.
    pub engine: engine::Options,
    /// Budget of resident values, bytes.
    pub memory_bytes: u64,
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

/// openraft's `RaftStateMachine`.
#[derive(Clone)]
pub struct StateMachine {}

/// Opens the member directory: engine, state, and both faces.
pub fn open(_directory: &Path, _options: Options, _sink: Arc<dyn ResultSink>) -> Result<Opened, StorageError> {
    todo!()
}
