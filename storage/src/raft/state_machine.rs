//! openraft's state machine over [`State`]: applies batches, hands out snapshots at a pinned revision, installs received ones.

use super::sole::SoleMember;
use super::types::{
    Applied, LogId, SnapshotMeta, StoredMembership, TypeConfig, log_id, membership_from_state, membership_to_state, position,
};
use super::{ResultSink, durable};
use crate::apply::State;
use crate::command::operation::Operation;
use crate::command::proposal::Command;
use crate::command::{Proposal, Txn};
use crate::engine::Engine;
use crate::error::StorageError;
use crate::measure::Stopwatch;
use crate::mvcc::Pin;
use crate::snapshot::{Outgoing, Received, Receiver, SnapshotData};
use crate::statelog::StateLog;
use crate::types::LogPosition;
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use prost::Message;
use std::io;
use std::sync::{Arc, Weak};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Entries applied before readers are told and other tasks may run.
const BATCH_ENTRIES: usize = 256;

/// What a snapshot on its way was taken at; the same while a transfer of it lives.
struct Taken {
    meta: SnapshotMeta,
    position: LogPosition,
    image: Bytes,
    pin: Weak<Pin>,
}

/// openraft's `RaftStateMachine`.
#[derive(Clone)]
pub struct StateMachine {
    state: Arc<State>,
    engine: Engine,
    sink: Arc<dyn ResultSink>,
    taken: Arc<Mutex<Option<Taken>>>,
    sole: Arc<SoleMember>,
}

impl StateMachine {
    pub(super) fn new(state: Arc<State>, engine: Engine, sink: Arc<dyn ResultSink>, sole: Arc<SoleMember>) -> Self {
        Self { state, engine, sink, taken: Arc::default(), sole }
    }

    /// A batch is published up to `applied`.
    fn advanced(&self, applied: LogPosition) {
        self.sole.applied(applied, || self.membership().membership().clone());
        self.sink.advanced(applied);
    }

    fn apply_one(&self, (entry, responder): EntryResponder<TypeConfig>) -> Result<LogPosition, StorageError> {
        let at = position(&entry.log_id);
        let proposal = match entry.payload.command {
            None => None,
            Some(command) => Some(
                Proposal::decode(command.0).map_err(|error| StorageError::UnknownCommand { index: at.index, detail: error.to_string() })?,
            ),
        };
        // Meant for another leader: it counts as never made, and its proposer has been told nothing.
        let proposal = proposal.filter(|proposal| proposal.term == 0 || proposal.term == at.term);
        let membership = entry.payload.membership.as_ref().map(membership_to_state);
        let result = if proposal.as_ref().is_some_and(heavy) {
            aside(|| self.state.apply(at, proposal.as_ref(), membership))?
        } else {
            self.state.apply(at, proposal.as_ref(), membership)?
        };
        if let (Some(proposal), Some(result)) = (proposal, result) {
            self.sink.applied(proposal.origin, proposal.sequence, at, result);
        }
        if let Some(responder) = responder {
            responder.send(Applied { index: at.index });
        }
        Ok(at)
    }

    fn transfer(&self, mut outgoing: Outgoing) -> Result<Box<Received>, StorageError> {
        let mut receiver = Receiver::begin(self.engine.clone())?;
        while let Some(chunk) = outgoing.next_chunk()? {
            receiver.chunk(chunk)?;
        }
        match receiver.finish()? {
            SnapshotData::Received(received) => Ok(received),
            SnapshotData::Outgoing(_) | SnapshotData::Local => Err(StorageError::Closed("a receiver gave something to send".into())),
        }
    }

    fn meta(&self) -> (SnapshotMeta, Option<LogPosition>) {
        let applied = self.state.applied();
        let id = applied.map(log_id);
        let meta = SnapshotMeta { last_log_id: id, last_membership: self.membership() };
        (meta, applied)
    }

    fn membership(&self) -> StoredMembership {
        let stored = self.state.rooms().membership.read().clone();
        let at = stored.log_position.map(|at| log_id(LogPosition { term: at.term, index: at.index }));
        let membership = stored.membership.as_ref().and_then(membership_from_state).unwrap_or_default();
        StoredMembership::new(at, membership)
    }

    /// A handle at the applied position, or the one that is being sent already, unless log that its receiver would need next is gone.
    fn take(&self) -> Snapshot {
        let store = self.state.store();
        let weight = self.engine.usage().frame_bytes.saturating_sub(self.engine.log_bytes());
        let mut taken = self.taken.lock();
        let (_, floor) = self.engine.log_bounds();
        if let Some(taken) = taken.as_ref().filter(|taken| floor.is_none_or(|floor| floor <= taken.position))
            && let Some(pin) = taken.pin.upgrade()
        {
            let outgoing = Outgoing::new(store, pin, taken.image.clone(), taken.position, weight);
            return Snapshot { meta: taken.meta.clone(), snapshot: SnapshotData::Outgoing(outgoing) };
        }
        let (meta, applied) = self.meta();
        // An empty state has an empty snapshot, at no position.
        let position = applied.unwrap_or_default();
        let pin = Arc::new(store.pin());
        let image: Bytes = self.state.rooms().image().encode_to_vec().into();
        *taken = Some(Taken { meta: meta.clone(), position, image: image.clone(), pin: Arc::downgrade(&pin) });
        let outgoing = Outgoing::new(store, pin, image, position, weight);
        Snapshot { meta, snapshot: SnapshotData::Outgoing(outgoing) }
    }
}

/// Entries that may take long: consensus must not wait behind them on its thread.
fn heavy(proposal: &Proposal) -> bool {
    fn wide(txn: &Txn) -> bool {
        txn.success.len() + txn.failure.len() > 32
            || txn.compare.iter().any(|compare| !compare.range_end.is_empty())
            || txn.success.iter().chain(&txn.failure).any(|op| match &op.operation {
                Some(Operation::Range(range)) => !range.range_end.is_empty(),
                Some(Operation::DeleteRange(delete)) => !delete.range_end.is_empty(),
                Some(Operation::Txn(nested)) => wide(nested),
                _ => false,
            })
    }
    match &proposal.command {
        Some(Command::DeleteRange(delete)) => !delete.range_end.is_empty(),
        Some(Command::Txn(txn)) => wide(txn),
        Some(Command::LeaseRevoke(_)) => true,
        _ => false,
    }
}

fn aside<T>(work: impl FnOnce() -> T) -> T {
    let many =
        tokio::runtime::Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    if many { tokio::task::block_in_place(work) } else { work() }
}

/// Makes durable what was applied when it was made; apply goes on meanwhile.
pub struct Builder {
    log: Arc<StateLog>,
    engine: Engine,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    /// Once it returns, the log up to its position may be purged; none of it if nothing was applied. An error would end openraft.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (measures, whole) = (self.engine.measures(), Stopwatch::start());
        self.log.hand_over();
        measures.snapshots.framed.took(whole.elapsed());
        let sync = Stopwatch::start();
        durable(|done| self.engine.sync(done)).await?;
        measures.snapshots.synced.took(sync.elapsed());
        measures.snapshots.made.took(whole.elapsed());
        Ok(Snapshot { meta: self.meta.clone(), snapshot: SnapshotData::Local })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.state.applied().map(log_id), self.membership()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut next = entries.next().await;
        while let Some(first) = next.take() {
            let mut applied = self.apply_one(first?)?;
            // What else is ready belongs to the batch.
            for _ in 1..BATCH_ENTRIES {
                match entries.next().now_or_never() {
                    Some(Some(more)) => applied = self.apply_one(more?)?,
                    Some(None) => {
                        self.advanced(applied);
                        return Ok(());
                    }
                    None => break,
                }
            }
            self.advanced(applied);
            tokio::task::consume_budget().await;
            next = entries.next().await;
        }
        Ok(())
    }

    /// On the apply side: no entry is being applied, so position and membership fit together.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let (meta, _) = self.meta();
        Builder { log: Arc::clone(&self.state.rooms().log), engine: self.engine.clone(), meta }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let measures = self.engine.measures();
        let _installing = measures.installing.begin();
        let received = match data {
            SnapshotData::Received(received) => received,
            // Handed over in this process instead of received: it takes the same way.
            SnapshotData::Outgoing(outgoing) => aside(|| self.transfer(outgoing))?,
            SnapshotData::Local => return Err(io::Error::other("our own state can't be installed")),
        };
        let last = meta.last_log_id.as_ref().map(position);
        if last.unwrap_or_default() != received.position {
            return Err(io::Error::other(format!("the snapshot reaches {:?}, its announcement said {last:?}", received.position)));
        }
        let Received { incoming, rooms, position: at } = *received;
        // Frames of the old state that were queued after the switch would become part of the new one.
        let old = self.state.rooms();
        aside(|| old.log.retire());
        durable(|done| self.engine.switch(incoming, at, done)).await?;
        tracing::info!(term = at.term, index = at.index, "snapshot installed");
        self.state.replace(rooms);
        self.taken.lock().take();
        self.sole.changing(at.index);
        self.sole.applied(at, || self.membership().membership().clone());
        self.sink.installed(at);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.state.applied().map(|_| self.take()))
    }
}
