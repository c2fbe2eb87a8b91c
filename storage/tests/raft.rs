//! openraft's own log suite on the real store, and the state across restarts and snapshots.

use openraft::RaftSnapshotBuilder;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use prost::Message;
use rusd_storage::command::{ApplyResult, Proposal, Put, proposal::Command};
use rusd_storage::engine;
use rusd_storage::raft::types::{Entry, Membership, Node, Payload, TypeConfig, log_id};
use rusd_storage::raft::{LogStore, Opened, Options, ResultSink, StateMachine, open};
use rusd_storage::snapshot::{Receiver, SnapshotData};
use rusd_storage::{LogPosition, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct Nobody;

impl ResultSink for Nobody {
    fn applied(&self, _: u64, _: u64, _: LogPosition, _: ApplyResult) {}
    fn advanced(&self, _: LogPosition) {}
}

fn opened(path: &Path) -> Result<Opened, StorageError> {
    let engine = engine::Options { purge_beyond_state: true, ..engine::Options::default() };
    open(path, Options { engine, memory_bytes: 64 << 20, ..Options::default() }, Arc::new(Nobody))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = opened(directory.path()).expect("a new store");
        Ok((directory, opened.log_store, opened.state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.expect("every case");
}

fn put(index: u64, key: &str, value: &str) -> Entry {
    let put = Put { key: key.to_string().into(), value: value.to_string().into(), ..Put::default() };
    let proposal = Proposal { command: Some(Command::Put(put)), ..Proposal::default() };
    let command = rusd_storage::raft::types::Command(proposal.encode_to_vec().into());
    Entry::new(log_id(LogPosition { term: 1, index }), Payload { command: Some(command), membership: None })
}

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) {
    let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    machine.apply(stream).await.expect("applied");
}

fn all(opened: &Opened) -> rusd_storage::mvcc::RangeResult {
    let range = rusd_storage::command::Range { key: b"\0".as_slice().into(), range_end: b"\0".as_slice().into(), ..Default::default() };
    opened.state.store().range(&range).expect("readable")
}

#[tokio::test]
async fn a_snapshot_carries_everything() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut sender = opened(from.path()).expect("a new store");
    let entries = (1..2000).map(|index| put(index, &format!("key{}", index % 300), &format!("value{index}")));
    apply(&mut sender.state_machine, entries.collect()).await;
    let snapshot = sender.state_machine.get_current_snapshot().await.expect("readable").expect("something was applied");
    let SnapshotData::Outgoing(mut outgoing) = snapshot.snapshot else { panic!("our own") };

    let mut receiver = opened(to.path()).expect("a new store");
    let mut incoming = Receiver::begin(receiver.engine.clone()).expect("a partial store");
    while let Some(chunk) = outgoing.next_chunk().expect("readable") {
        incoming.chunk(chunk).expect("intact");
    }
    let data = incoming.finish().expect("complete");
    receiver.state_machine.install_snapshot(&snapshot.meta, data).await.expect("installed");

    assert_eq!(all(&receiver), all(&sender));
    assert_eq!(receiver.state.applied(), sender.state.applied());
    let hash = |opened: &Opened| opened.state.store().hash_kv(0).expect("hashed");
    assert_eq!(hash(&receiver), hash(&sender));
    let (expected, hashed) = (all(&sender), hash(&sender));
    drop(receiver);
    let again = opened(to.path()).expect("reopened");
    assert_eq!((all(&again), hash(&again)), (expected, hashed));
}

#[tokio::test]
async fn a_garbled_snapshot_is_refused() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut sender = opened(from.path()).expect("a new store");
    apply(&mut sender.state_machine, (1..50).map(|index| put(index, "key", "value")).collect()).await;
    let snapshot = sender.state_machine.get_current_snapshot().await.expect("readable").expect("something was applied");
    let SnapshotData::Outgoing(mut outgoing) = snapshot.snapshot else { panic!("our own") };
    let receiver = opened(to.path()).expect("a new store");
    let mut incoming = Receiver::begin(receiver.engine.clone()).expect("a partial store");
    while let Some(chunk) = outgoing.next_chunk().expect("readable") {
        let mut flipped = chunk.to_vec();
        if let Some(last) = flipped.last_mut().filter(|_| chunk[0] == 2) {
            *last ^= 1;
        }
        if incoming.chunk(flipped.into()).is_err() {
            return;
        }
    }
    panic!("a flipped bit went unnoticed");
}

#[tokio::test]
async fn what_was_not_framed_comes_back_from_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut before = opened(directory.path()).expect("a new store");
    let entries: Vec<Entry> = (0..100).map(|index| put(index, &format!("key{index}"), "value")).collect();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let records = entries.iter().map(rusd_storage::raft::log_store::encode).collect();
    before.engine.append(records, Box::new(move |result| drop(sender.send(result))));
    receiver.await.expect("answered").expect("durable");
    apply(&mut before.state_machine, entries.clone()).await;
    let expected = all(&before);
    drop(before);
    let mut after = opened(directory.path()).expect("reopened");
    let applied = after.state.applied().map_or(0, |at| at.index + 1);
    let state = after.log_store.get_log_state().await.expect("readable");
    assert_eq!(state.last_log_id.map(|id| id.index), Some(99));
    apply(&mut after.state_machine, entries.into_iter().skip(applied as usize).collect()).await;
    assert_eq!(all(&after), expected);
}

#[tokio::test]
async fn a_build_of_nothing_is_no_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut opened = opened(directory.path()).expect("a new store");
    let snapshot = opened.state_machine.get_snapshot_builder().await.build_snapshot().await.expect("openraft would end at an error");
    assert_eq!(snapshot.meta.last_log_id, None);
}

async fn append(store: &Opened, entries: &[Entry]) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let records = entries.iter().map(rusd_storage::raft::log_store::encode).collect();
    store.engine.append(records, Box::new(move |result| drop(sender.send(result))));
    receiver.await.expect("answered").expect("durable");
}

/// Of all that it has in its log it knows nothing to be committed but the first entry, and it has voted in a later term than it has heard from.
#[tokio::test]
async fn who_goes_on_alone_keeps_its_whole_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = opened(directory.path()).expect("a new store");
    let nodes: BTreeMap<u64, Node> = (1..=3).map(|id| (id, Node { peer_urls: vec![format!("http://m{id}")] })).collect();
    let three = Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes).expect("all have nodes");
    assert_eq!(store.newest_membership().expect("readable").voter_ids().count(), 0);
    let first = Entry::new(log_id(LogPosition::default()), Payload { command: None, membership: Some(three) });
    let tail: Vec<Entry> = (1..3000).map(|index| put(index, &format!("key{index}"), "value")).collect();
    append(&store, std::slice::from_ref(&first)).await;
    append(&store, &tail).await;
    apply(&mut store.state_machine, vec![first]).await;
    store.log_store.save_vote(&rusd_storage::raft::types::Vote::new(7, 2)).await.expect("durable");
    assert_eq!(store.will_be_alone(3).expect("readable"), None);
    let forced = store.go_on_alone(3).await.expect("it has a node");
    assert_eq!(forced, LogPosition { term: 8, index: 3000 });
    drop(store);

    let mut again = opened(directory.path()).expect("reopened");
    assert_eq!(again.newest_membership().expect("readable").voter_ids().collect::<Vec<_>>(), [3]);
    assert_eq!(again.will_be_alone(3).expect("readable"), Some(3000), "whoever starts it again must wait for the entry");
    let vote = again.log_store.vote_cell().get().expect("a vote");
    assert_eq!((vote.leader_id.term, vote.leader_id.voted_for, vote.committed), (8, 3, false));
    let applied = again.state.applied().map_or(0, |at| at.index + 1);
    let rest = openraft::RaftLogReader::try_get_log_entries(&mut again.log_store.clone(), applied..).await.expect("readable");
    apply(&mut again.state_machine, rest).await;
    assert_eq!((all(&again).kvs.len(), again.state.applied()), (2999, Some(forced)));
    assert_eq!(again.state.members().iter().map(|member| member.id).collect::<Vec<_>>(), [3]);
    assert!(again.state.is_removed(1) && again.state.is_removed(2));
    assert_eq!(again.will_be_alone(3).expect("readable"), None);
}
