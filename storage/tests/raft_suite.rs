//! openraft's own conformance suite on the real engine.

use futures::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use rusd_storage::LogPosition;
use rusd_storage::command::ApplyResult;
use rusd_storage::engine::Engine;
use rusd_storage::raft::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use rusd_storage::raft::{LogStore, Options, ResultSink, StateMachine, open};
use rusd_storage::snapshot::{Receiver, SnapshotData};
use std::io;
use std::sync::Arc;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

struct Nobody;

impl ResultSink for Nobody {
    fn applied(&self, _: u64, _: u64, _: LogPosition, _: ApplyResult) {}
    fn advanced(&self, _: LogPosition) {}
}

/// The state machine with a network inside: the suite installs what another store hands out, without sending it.
struct Receiving {
    inner: StateMachine,
    engine: Engine,
}

impl RaftStateMachine<TypeConfig> for Receiving {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }
    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.inner.apply(entries).await
    }
    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.inner.get_snapshot_builder().await
    }
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let SnapshotData::Outgoing(mut outgoing) = data else { panic!("the suite installs what it was given") };
        let mut receiver = Receiver::begin(self.engine.clone())?;
        while let Some(chunk) = outgoing.next_chunk()? {
            receiver.chunk(chunk)?;
        }
        self.inner.install_snapshot(meta, receiver.finish()?).await
    }
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.inner.get_current_snapshot().await
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Receiving, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Receiving), openraft::StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut options = Options::default();
        // The suite purges what it never applied.
        options.engine.purge_beyond_state = true;
        let opened = open(directory.path(), options, Arc::new(Nobody)).expect("a new store opens");
        Ok((directory, opened.log_store, Receiving { inner: opened.state_machine, engine: opened.engine }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_state_machine_keep_openrafts_contract() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

#[tokio::test]
async fn a_snapshot_of_nothing_is_no_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut opened = open(directory.path(), Options::default(), Arc::new(Nobody)).expect("a new store opens");
    let snapshot = opened.state_machine.get_snapshot_builder().await.build_snapshot().await.expect("no error");
    assert_eq!(snapshot.meta.last_log_id, None);
}
