//! A store without consensus: entries are applied as openraft would apply them.
#![allow(dead_code, missing_docs)]

pub mod copies;
pub mod moving;

use bytes::Bytes;
use openraft::RaftLogReader;
use openraft::entry::RaftEntry;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use prost::Message;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::{ApplyResult, Compact, DeleteRange, Proposal, Put, Range};
use rusd_storage::raft::log_store::encode;
use rusd_storage::raft::types::{Command, Entry, Membership, Payload, log_id};
use rusd_storage::raft::{Opened, Options, ResultSink, open};
use rusd_storage::{KeyValue, LogPosition, StorageError};
use std::path::Path;
use std::sync::Arc;

/// Keeps what was answered.
#[derive(Default)]
pub struct Answers {
    pub results: Mutex<Vec<(u64, ApplyResult)>>,
    pub advanced: Mutex<Vec<LogPosition>>,
}

impl ResultSink for Answers {
    fn applied(&self, _: u64, sequence: u64, _: LogPosition, result: ApplyResult) {
        self.results.lock().push((sequence, result));
    }
    fn advanced(&self, applied: LogPosition) {
        self.advanced.lock().push(applied);
    }
}

pub struct Member {
    pub opened: Opened,
    pub answers: Arc<Answers>,
    pub next: u64,
}

/// An encoded proposal; its sequence is its log index.
pub fn proposal(sequence: u64, command: Kind) -> Command {
    Command(Proposal { origin: 1, sequence, command: Some(command), ..Proposal::default() }.encode_to_vec().into())
}

impl Member {
    /// The first two entries of a log change no key: the founding membership and a leader's first.
    pub fn open(directory: &Path) -> Self {
        Self::open_with(directory, 1 << 20)
    }

    pub fn open_with(directory: &Path, memory_bytes: u64) -> Self {
        Self::try_open(directory, memory_bytes).expect("the store opens")
    }

    /// The reason if it does not open.
    pub fn try_open(directory: &Path, memory_bytes: u64) -> Result<Self, String> {
        let answers = Arc::new(Answers::default());
        let options = Options { memory_bytes, ..Options::default() };
        let opened = open(directory, options, answers.clone()).map_err(|error| format!("it does not open: {error}"))?;
        if opened.engine.log_bounds().0.is_none() && opened.state.applied().is_none() {
            let blank = |index| encode(&Entry::new(log_id(LogPosition { term: 1, index }), Payload::default()));
            opened.engine.append(vec![blank(0), blank(1)], Box::new(|result| result.expect("the disk is well")));
        }
        let next = opened.state.applied().map_or(2, |applied| applied.index + 1);
        Ok(Self { opened, answers, next })
    }

    pub async fn apply_payload(&mut self, payload: Payload) -> Result<(), StorageError> {
        self.append_and_apply(payload, || {}).await
    }

    /// `durable` runs when the entry is on disk.
    async fn append_and_apply(&mut self, payload: Payload, durable: impl FnOnce() + Send + 'static) -> Result<(), StorageError> {
        let at = LogPosition { term: 1, index: self.next };
        self.next += 1;
        let entry = Entry::new(log_id(at), payload);
        let done = move |result: Result<(), StorageError>| {
            result.expect("the disk is well");
            durable();
        };
        self.opened.engine.append(vec![encode(&entry)], Box::new(done));
        let entries = futures::stream::iter([Ok((entry, None))]);
        self.opened.state_machine.apply(entries).await.map_err(|error| StorageError::Closed(error.to_string()))
    }

    /// Applies one command; its answer.
    pub async fn apply(&mut self, command: Kind) -> ApplyResult {
        self.apply_then(command, || {}).await
    }

    /// The same; `durable` runs when the entry is on disk.
    pub async fn apply_then(&mut self, command: Kind, durable: impl FnOnce() + Send + 'static) -> ApplyResult {
        let command = proposal(self.next, command);
        self.append_and_apply(Payload { command: Some(command), membership: None }, durable).await.expect("the node is well");
        self.answers.results.lock().last().expect("an answer").1.clone()
    }

    /// Applies a command with a membership in one entry.
    pub async fn apply_with(&mut self, command: Kind, membership: Membership) -> ApplyResult {
        let command = proposal(self.next, command);
        self.apply_payload(Payload { command: Some(command), membership: Some(membership) }).await.expect("the node is well");
        self.answers.results.lock().last().expect("an answer").1.clone()
    }

    pub async fn put(&mut self, key: &str, value: &str) -> ApplyResult {
        self.apply(Kind::Put(put(key, value, 0))).await
    }

    pub async fn delete(&mut self, key: &str, end: &str) {
        let command = Kind::DeleteRange(DeleteRange { key: bytes(key), range_end: bytes(end), prev_kv: false });
        self.apply(command).await.expect("a delete");
    }

    pub async fn compact(&mut self, revision: i64) {
        self.apply(Kind::Compact(Compact { revision })).await.expect("compacts");
    }

    /// Does physically what was compacted.
    pub fn sweep(&self) {
        let store = self.opened.state.store();
        while store.compact_step().expect("a step") {}
    }

    /// All live keys, values too.
    pub fn all(&self) -> Vec<KeyValue> {
        self.range(&Range { key: Bytes::from_static(&[0]), range_end: Bytes::from_static(&[0]), ..Range::default() })
    }

    pub fn range(&self, range: &Range) -> Vec<KeyValue> {
        self.opened.state.store().range(range).expect("a read").kvs
    }

    pub fn value(&self, key: &str) -> Option<String> {
        let kvs = self.range(&Range { key: Bytes::copy_from_slice(key.as_bytes()), ..Range::default() });
        kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }

    pub fn revision(&self) -> i64 {
        self.opened.state.store().revision()
    }

    /// Hands over and waits until durable, as a snapshot build does.
    pub async fn settle(&mut self) {
        use openraft::RaftSnapshotBuilder;
        self.opened.state_machine.get_snapshot_builder().await.build_snapshot().await.expect("durable");
    }

    /// Stops and starts again. What was applied but not yet framed comes from the log again.
    pub async fn restart(self, directory: &Path) -> Self {
        self.restart_with(directory, 1 << 20).await
    }

    pub async fn restart_with(self, directory: &Path, memory_bytes: u64) -> Self {
        self.opened.engine.close().expect("closes");
        drop(self);
        Self::open_with(directory, memory_bytes).replayed().await.expect("the log applies")
    }

    /// Applies what the log has beyond the state.
    pub async fn replayed(mut self) -> Result<Self, String> {
        let Some((first, last)) = self.opened.engine.log_bounds().0 else { return Ok(self) };
        let from = self.opened.state.applied().map_or(first, |applied| applied.index + 1);
        let mut reader = self.opened.log_store.clone();
        let entries = reader.try_get_log_entries(from..=last.index).await.map_err(|error| error.to_string())?;
        let entries = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        self.opened.state_machine.apply(entries).await.map_err(|error| error.to_string())?;
        self.next = last.index + 1;
        Ok(self)
    }
}

pub fn put(key: &str, value: &str, lease: i64) -> Put {
    Put { key: bytes(key), value: bytes(value), lease, ..Put::default() }
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
