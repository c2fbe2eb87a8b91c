//! STUB: the faces the peer network is written against.
#![allow(missing_docs, unused_variables, clippy::all)]
use crate::engine::Engine;
use crate::error::StorageError;
use crate::raft::StateMachine;
use crate::raft::types::*;
use bytes::Bytes;
use futures::Stream;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::io;
type C = TypeConfig;
type Snap = openraft::alias::SnapshotOf<C, SnapshotData>;
pub struct Outgoing {}
impl Outgoing {
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        todo!()
    }
}
pub enum SnapshotData {
    Outgoing(Outgoing),
    Received,
}
pub struct Receiver {}
impl Receiver {
    pub fn begin(engine: Engine) -> Result<Self, StorageError> {
        todo!()
    }
    pub fn chunk(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        todo!()
    }
    pub fn finish(self) -> Result<SnapshotData, StorageError> {
        todo!()
    }
}
impl RaftSnapshotBuilder<C> for StateMachine {
    type SnapshotData = SnapshotData;
    async fn build_snapshot(&mut self) -> Result<Snap, io::Error> {
        todo!()
    }
}
impl RaftStateMachine<C> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachine;
    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        todo!()
    }
    async fn apply<X>(&mut self, es: X) -> Result<(), io::Error>
    where
        X: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + Send,
    {
        todo!()
    }
    async fn get_snapshot_builder(&mut self) -> StateMachine {
        todo!()
    }
    async fn install_snapshot(&mut self, m: &SnapshotMeta, d: SnapshotData) -> Result<(), io::Error> {
        todo!()
    }
    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, io::Error> {
        todo!()
    }
}
