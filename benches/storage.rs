//! Micro-benches of the storage: log append, apply, key index, encoding of a range.
//!
//! `log_and_apply_cpu` is the one with a budget: CPU of all threads of this process, not time, per batch of puts that are logged, synced
//! and applied. `make bench-micro` takes it into docs/benchmarks.md.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openraft::entry::RaftEntry;
use openraft::storage::RaftStateMachine;
use prost::Message;
use rusd::pb::etcdserverpb::RangeResponse;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::{ApplyResult, Proposal, Put, Range};
use rusd_storage::engine::LogEntry;
use rusd_storage::raft::log_store::encode;
use rusd_storage::raft::types::{Command, Entry, Payload, log_id};
use rusd_storage::raft::{Opened, Options, ResultSink, open};
use rusd_storage::{LogPosition, StorageError};
use std::hint::black_box;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;

struct Nobody;

impl ResultSink for Nobody {
    fn applied(&self, _: u64, _: u64, _: LogPosition, result: ApplyResult) {
        black_box(result).expect("puts are never refused");
    }
    fn advanced(&self, _: LogPosition) {}
}

/// A store without consensus: entries are logged and applied as openraft would have it.
struct Member {
    opened: Opened,
    next: u64,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Member {
    fn new() -> Self {
        // Below target/, which is on a disk where /tmp may not be.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let options = Options { memory_bytes: 1 << 30, ..Options::default() };
        let opened = open(directory.path(), options, Arc::new(Nobody)).expect("the store opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut member = Self { opened, next: 0, runtime, _directory: directory };
        // A log begins with two entries that change no key: the founding membership and a leader's first.
        let blank = (0..2).map(|index| Entry::new(log_id(LogPosition { term: 1, index }), Payload::default()));
        member.append(&blank.collect::<Vec<_>>());
        member.next = 2;
        member
    }

    fn puts(&mut self, count: u64) -> Vec<Entry> {
        (0..count)
            .map(|_| {
                let index = self.next;
                self.next += 1;
                let put = Put { key: key(index.wrapping_mul(7919) % KEYS), value: vec![b'v'; VALUE_BYTES].into(), ..Put::default() };
                let proposal = Proposal { origin: 1, sequence: index, command: Some(Kind::Put(put)), ..Proposal::default() };
                let payload = Payload { command: Some(Command(proposal.encode_to_vec().into())), membership: None };
                Entry::new(log_id(LogPosition { term: 1, index }), payload)
            })
            .collect()
    }

    /// Logs a batch and waits until it is durable.
    fn append(&self, entries: &[Entry]) {
        let encoded: Vec<LogEntry> = entries.iter().map(encode).collect();
        let (sender, receiver) = mpsc::sync_channel::<Result<(), StorageError>>(1);
        self.opened.engine.append(encoded, Box::new(move |result| drop(sender.send(result))));
        receiver.recv().expect("the writer lives").expect("the disk is well");
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let entries = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        self.runtime.block_on(self.opened.state_machine.apply(entries)).expect("the node is well");
    }

    fn filled() -> Self {
        let mut member = Self::new();
        for _ in 0..KEYS / 1000 {
            let batch = member.puts(1000);
            member.append(&batch);
            member.apply(batch);
        }
        member
    }
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/default/{number:027}").into()
}

/// CPU of all threads of this process.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("proc");
    let nanos = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn log_append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_append");
    let mut member = Member::new();
    for batch in [1, 16, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let entries = member.puts(batch);
                    let begin = Instant::now();
                    member.append(&entries);
                    took += begin.elapsed();
                    member.apply(entries); // the log may not run away from the state
                }
                took
            });
        });
    }
    group.finish();
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    let mut member = Member::filled();
    for batch in [1, 16, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let entries = member.puts(batch);
                    member.append(&entries);
                    let begin = Instant::now();
                    member.apply(entries);
                    took += begin.elapsed();
                }
                took
            });
        });
    }
    group.finish();
}

/// The writer sleeps within a drain, so only CPU says what an entry costs.
fn log_and_apply_cpu(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_and_apply_cpu");
    let mut member = Member::filled();
    for batch in [1, 16, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|rounds| {
                let batches: Vec<Vec<Entry>> = (0..rounds).map(|_| member.puts(batch)).collect();
                let begin = cpu();
                for entries in batches {
                    member.append(&entries);
                    member.apply(entries);
                }
                cpu() - begin
            });
        });
    }
    group.finish();
}

fn key_index(c: &mut Criterion) {
    let member = Member::filled();
    let store = member.opened.state.store();
    let mut number = 0;
    c.bench_function("key_index/get", |b| {
        b.iter(|| {
            number = (number + 7919) % KEYS;
            store.range(&Range { key: key(number), ..Range::default() }).expect("a read").kvs.len()
        });
    });
    let page = Range { key: key(KEYS / 2), range_end: Bytes::from_static(b"/registry/pods0"), limit: 500, ..Range::default() };
    c.bench_function("key_index/page_of_500", |b| b.iter(|| store.range(&page).expect("a read").kvs.len()));
    let count = Range { count_only: true, limit: 0, ..page.clone() };
    c.bench_function("key_index/count", |b| b.iter(|| store.range(&count).expect("a read").count));
    let result = store.range(&page).expect("a read");
    assert_eq!(result.kvs.len(), 500, "a full page");
    c.bench_function("range_encode/page_of_500", |b| {
        b.iter_batched(|| result.clone(), |result| RangeResponse::from(result).encode_to_vec(), BatchSize::SmallInput);
    });
}

criterion_group!(benches, log_append, apply, log_and_apply_cpu, key_index);
criterion_main!(benches);
