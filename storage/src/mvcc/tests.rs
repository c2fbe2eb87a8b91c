//! The store on a fake keeper of frames, against a model that keeps every record ever written.

use super::*;
use crate::command::state::{Delta, delta};
use crate::command::{DeleteRange, Put, Range, SortOrder, SortTarget};
use crate::statelog::testing::FakeFrames;
use crate::statelog::{Directory, Recovery};
use crate::types::{LogPosition, Revision};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Barrier;

/// A store with its log and frames, and every record it should know.
struct Bench {
    frames: Arc<FakeFrames>,
    log: Arc<StateLog>,
    store: Store,
    model: Vec<Record>,
    revision: i64,
    compacted: i64,
    index: u64,
    memory: u64,
    /// What the entries did, for applying them again after a crash.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Changes(Vec<Change>),
    Compact(i64),
}

#[derive(Clone, Debug)]
enum Change {
    Put(Put),
    Delete(DeleteRange),
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.to_string().into(), value: value.to_string().into(), ..Put::default() }
}

fn range(key: &str, end: &str) -> Range {
    Range { key: key.to_string().into(), range_end: end.to_string().into(), ..Range::default() }
}

impl Bench {
    fn new(memory: u64) -> Self {
        let frames = Arc::new(FakeFrames::default());
        let log = Arc::new(StateLog::with_frames(frames.clone(), Directory::default(), None));
        let store = Builder::new(memory).finish(log.clone(), -1);
        Self { frames, log, store, model: Vec::new(), revision: 1, compacted: -1, index: 0, memory, entries: Vec::new() }
    }

    /// The keys as of `at`.
    fn at(&self, at: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut keys = BTreeMap::new();
        for record in self.model.iter().filter(|record| record.revision.main <= at) {
            if record.tombstone {
                keys.remove(&record.kv.key)
            } else {
                keys.insert(record.kv.key.clone(), record.kv.clone())
            };
        }
        keys
    }

    fn model_put(&mut self, put: &Put, sub: i64) -> Option<KeyValue> {
        let main = self.revision + 1;
        let previous = self.at(main).remove(&put.key);
        let (create_revision, version) = previous.as_ref().map_or((main, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv =
            KeyValue { key: put.key.clone(), value: put.value.clone(), create_revision, mod_revision: main, version, lease: put.lease };
        self.model.push(Record { revision: Revision::new(main, sub), tombstone: false, kv });
        previous
    }

    fn model_delete(&mut self, delete: &DeleteRange, mut sub: i64) -> Vec<KeyValue> {
        let main = self.revision + 1;
        let gone: Vec<KeyValue> = self.at(main).into_values().filter(|kv| in_range(&kv.key, &delete.key, &delete.range_end)).collect();
        for kv in &gone {
            let kv = KeyValue { key: kv.key.clone(), mod_revision: main, ..KeyValue::default() };
            self.model.push(Record { revision: Revision::new(main, sub), tombstone: true, kv });
            sub += 1;
        }
        gone
    }

    fn entry(&mut self, changes: &[Change]) {
        self.index += 1;
        self.entries.push(Entry::Changes(changes.to_vec()));
        self.log.begin(LogPosition { term: 1, index: self.index });
        let before = self.at(self.revision);
        let mut sub = 0;
        let mut answers: Vec<(Vec<KeyValue>, Vec<KeyValue>)> = Vec::new();
        let log = self.log.clone();
        let store = std::mem::replace(&mut self.store, Builder::new(0).finish(log, -1));
        let mut txn = store.write();
        for change in changes {
            match change {
                Change::Put(put) => {
                    let got = txn.put(put).expect("storage").expect("accepted");
                    answers.push((got.and_then(|got| got.kv).into_iter().collect(), self.model_put(put, sub).into_iter().collect()));
                    sub += 1;
                }
                Change::Delete(delete) => {
                    let expected = self.model_delete(delete, sub);
                    sub += i64::try_from(expected.len()).expect("small");
                    answers.push((txn.delete_range(delete).expect("storage").kvs, expected));
                }
            }
            let all = Range { key: "\0".into(), range_end: "\0".into(), ..Range::default() };
            let inside = txn.range(&all).expect("range");
            assert_eq!(inside.kvs, self.at(self.revision + 1).into_values().collect::<Vec<_>>());
            let outside = store.range(&all).expect("range");
            assert_eq!((outside.kvs, outside.count), (before.values().cloned().collect(), i64::try_from(before.len()).expect("small")));
        }
        for (got, expected) in answers {
            assert_eq!(got, expected);
        }
        self.revision += i64::from(sub > 0);
        assert_eq!(txn.publish(), self.revision);
        self.store = store;
        self.log.end();
    }

    fn put(&mut self, key: &str, value: &str) {
        self.entry(&[Change::Put(Put { prev_kv: true, ..put(key, value) })]);
    }

    fn delete(&mut self, key: &str, end: &str) {
        let (key, range_end) = (key.to_string().into(), end.to_string().into());
        self.entry(&[Change::Delete(DeleteRange { key, range_end, prev_kv: true })]);
    }

    fn compact(&mut self, revision: i64) {
        self.index += 1;
        self.entries.push(Entry::Compact(revision));
        self.log.begin(LogPosition { term: 1, index: self.index });
        self.store.compact(revision).expect("valid");
        self.store.compact_step().expect("storage");
        self.log.delta(&Delta { delta: Some(delta::Delta::CompactRevision(revision)) });
        self.log.end();
        self.compacted = revision;
    }

    fn work(&self) {
        while self.store.compact_step().expect("storage") {}
    }

    /// Stops in order and starts again.
    fn restart(&mut self) {
        self.log.hand_over();
        let applied = self.recover();
        assert_eq!(applied.map(|position| position.index), (self.index > 0).then_some(self.index));
        assert_eq!(self.store.revision(), self.revision);
        assert_eq!(self.store.compact_revision(), self.compacted);
    }

    /// Kills the process: what is open is lost and comes again from the entries.
    fn crash(&mut self) {
        let applied = self.recover().map_or(0, |position| position.index);
        let lost = self.entries.split_off(usize::try_from(applied).expect("small"));
        (self.index, self.revision, self.compacted) = (applied, self.store.revision(), self.store.compact_revision());
        self.model.retain(|record| record.revision.main <= self.revision);
        for entry in lost {
            match entry {
                Entry::Changes(changes) => self.entry(&changes),
                Entry::Compact(revision) => self.compact(revision),
            }
        }
    }

    fn recover(&mut self) -> Option<LogPosition> {
        let (mut recovery, mut builder) = (Recovery::new(), Builder::new(self.memory));
        for (id, frame) in self.frames.all() {
            recovery.frame(id, frame, &mut |record| builder.add(&record)).expect("sound");
        }
        let (applied, deltas, directory) = recovery.finish().expect("sound");
        let compacted = deltas.iter().rev().find_map(|(_, delta)| match delta.delta {
            Some(delta::Delta::CompactRevision(revision)) => Some(revision),
            _ => None,
        });
        self.log = Arc::new(StateLog::with_frames(self.frames.clone(), directory, applied));
        self.store = builder.finish(self.log.clone(), compacted.unwrap_or(-1));
        let there = self.store.index.read().tree.iter_from(b"").filter_map(|entry| entry.item.resident()).sum::<usize>();
        assert_eq!(self.store.resident_bytes(), there as u64);
        applied
    }

    /// Everything a reader can ask, compared.
    fn check(&self) {
        for at in self.compacted.max(1)..=self.revision {
            let expected: Vec<KeyValue> = self.at(at).into_values().collect();
            let all = Range { revision: at, ..range("\0", "\0") };
            let got = self.store.range(&all).expect("readable");
            assert_eq!(got.kvs, expected, "at {at}");
            assert_eq!(got.count, i64::try_from(expected.len()).expect("small"), "at {at}");
            for (start, end) in [("b", "e"), ("c", "\0"), ("e", "b"), ("d", "")] {
                let got = self.store.range(&Range { revision: at, count_only: true, ..range(start, end) }).expect("readable");
                let count = expected.iter().filter(|kv| in_range(&kv.key, start.as_bytes(), end.as_bytes())).count();
                assert_eq!(got.count, i64::try_from(count).expect("small"), "{start} {end} at {at}");
            }
        }
        if self.compacted > 1 {
            let old = self.store.range(&Range { revision: self.compacted - 1, ..range("a", "") });
            assert!(matches!(old, Err(ReadError::Rejected(Rejection::Compacted))));
        }
        let from = (self.compacted + 1).max(1);
        let expected: Vec<Record> = self.model.iter().filter(|record| record.revision.main >= from).cloned().collect();
        let mut history = Vec::new();
        let mut next = from;
        while next <= self.revision {
            let (mut records, after) = self.store.history(next, self.revision, 100).expect("readable");
            assert!(after > next);
            history.append(&mut records);
            next = after;
        }
        assert_eq!(history, expected);
        assert_eq!(self.store.key_count(), self.at(self.revision).len());
    }
}

fn change() -> impl Strategy<Value = Change> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let big = prop_oneof![24 => 0usize..20, 1 => Just(30_000usize)];
    prop_oneof![
        4 => (key(), big, 0i64..3, "[a-z]").prop_map(|(key, len, lease, fill)| {
            Change::Put(Put { lease, prev_kv: true, ..put(key, &fill.repeat(len)) })
        }),
        1 => (key(), prop::sample::select(vec!["", "\0", "d", "g"])).prop_map(|(key, end)| {
            Change::Delete(DeleteRange { key: key.into(), range_end: end.into(), prev_kv: true })
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<Change>),
    HandOver,
    Compact(u8),
    Work(u8),
    Restart,
    Crash,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        14 => prop::collection::vec(change(), 0..4).prop_map(Step::Entry),
        3 => Just(Step::HandOver),
        3 => (0u8..8).prop_map(Step::Compact),
        3 => (1u8..40).prop_map(Step::Work),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..40), memory in prop::sample::select(vec![0, 50, 1 << 30])) {
        let mut bench = Bench::new(memory);
        let mut hashes = BTreeMap::new();
        for step in steps {
            match step {
                Step::Entry(changes) => bench.entry(&changes),
                Step::HandOver => bench.log.hand_over(),
                Step::Compact(back) => {
                    let revision = bench.revision - i64::from(back);
                    if revision > bench.compacted.max(0) {
                        bench.compact(revision);
                        hashes.clear();
                    }
                }
                Step::Work(steps) => {
                    for _ in 0..steps {
                        bench.store.compact_step().expect("storage");
                    }
                }
                Step::Restart => bench.restart(),
                Step::Crash => bench.crash(),
                Step::Check => bench.check(),
            }
            // What a revision hashes to depends on neither frames nor pruning, as long as the compact revision stays.
            let cached: Vec<i64> = bench.store.hashes.lock().iter().map(|cached| cached.revision).collect();
            for at in [bench.revision - 1, bench.revision] {
                if !cached.contains(&at) && at > bench.compacted.max(0) {
                    let hash = bench.store.hash_kv(at).expect("readable").0;
                    prop_assert_eq!(*hashes.entry(at).or_insert(hash), hash);
                }
            }
        }
        bench.crash();
        bench.check();
        bench.work();
        bench.check();
        bench.restart();
        bench.check();
        bench.work();
        bench.check();
    }
}

#[test]
fn an_empty_store_is_at_one() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!((bench.store.revision(), bench.store.compact_revision()), (1, -1));
    bench.entry(&[]);
    bench.delete("a", "");
    assert_eq!(bench.store.revision(), 1);
    bench.store.compact(0).expect("once");
    assert_eq!(bench.store.compact(0), Err(Rejection::Compacted));
    assert_eq!(bench.store.compact(2), Err(Rejection::FutureRevision));
    bench.put("a", "1");
    assert_eq!(bench.store.revision(), 2);
    let mut published = bench.store.subscribe();
    bench.put("a", "2");
    assert_eq!(*published.borrow_and_update(), 3);
}

#[test]
fn ignore_keeps_value_or_lease() {
    let mut bench = Bench::new(0);
    bench.entry(&[Change::Put(Put { lease: 7, ..put("a", "one") })]);
    bench.log.begin(LogPosition { term: 1, index: 2 });
    let mut txn = bench.store.write();
    let missing = txn.put(&Put { ignore_value: true, ..put("x", "") }).expect("storage");
    assert_eq!(missing, Err(Rejection::KeyNotFound));
    assert!(!txn.changed());
    txn.put(&Put { ignore_value: true, lease: 9, ..put("a", "") }).expect("storage").expect("there");
    let kv = txn.get(b"a").expect("storage").expect("there");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"one"[..], 9, 2));
    txn.put(&Put { ignore_lease: true, ..put("a", "two") }).expect("storage").expect("there");
    assert_eq!(txn.get(b"a").expect("storage").expect("there").lease, 9);
    assert_eq!(txn.publish(), 3);
}

#[test]
fn limit_sort_and_filters_are_etcds() {
    let mut bench = Bench::new(1 << 20);
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("b", "9")] {
        bench.put(key, value);
    }
    let keys = |range: &Range| {
        let result = bench.store.range(range).expect("readable");
        (result.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect::<String>(), result.more, result.count)
    };
    let all = range("a", "\0");
    let sorted =
        |order: SortOrder, target: SortTarget, limit| Range { sort_order: order.into(), sort_target: target.into(), limit, ..all.clone() };
    assert_eq!(keys(&Range { limit: 2, ..all.clone() }), ("ab".into(), true, 3));
    assert_eq!(keys(&Range { limit: 3, ..all.clone() }), ("abc".into(), false, 3));
    assert_eq!(keys(&sorted(SortOrder::Descend, SortTarget::Mod, 1)), ("b".into(), true, 3));
    assert_eq!(keys(&sorted(SortOrder::Ascend, SortTarget::Value, 0)), ("cab".into(), false, 3));
    assert_eq!(
        keys(&sorted(SortOrder::None, SortTarget::Value, 1)),
        ("a".into(), true, 3),
        "the first limit + 1 keys are taken, then sorted"
    );
    assert_eq!(keys(&Range { min_mod_revision: 4, limit: 1, ..all.clone() }), ("b".into(), true, 3));
    assert_eq!(keys(&Range { max_create_revision: 2, ..all.clone() }), ("a".into(), false, 3));
    assert_eq!(keys(&Range { count_only: true, limit: 1, ..all.clone() }), (String::new(), false, 3));
    assert_eq!(keys(&range("c", "a")), (String::new(), false, 0));
    let names = bench.store.range(&Range { keys_only: true, ..all.clone() }).expect("readable");
    assert!(names.kvs.iter().all(|kv| kv.value.is_empty() && kv.version > 0));
    let future = bench.store.range(&Range { revision: 6, ..all });
    assert!(matches!(future, Err(ReadError::Rejected(Rejection::FutureRevision))));
}

#[test]
fn a_cursor_keeps_its_revision_through_a_compaction() {
    let mut bench = Bench::new(1 << 20);
    for number in 0..1500 {
        bench.entry(&[Change::Put(put(&format!("k{number:05}"), "old"))]);
        if number > 20 {
            break;
        }
    }
    let mut cursor_at = bench.revision;
    let store = std::mem::replace(&mut bench.store, Builder::new(0).finish(bench.log.clone(), -1));
    let mut cursor = store.cursor(&range("k", "l")).expect("readable");
    let first = cursor.next(5).expect("readable");
    bench.log.begin(LogPosition { term: 1, index: 1000 });
    let mut txn = store.write();
    txn.delete_range(&DeleteRange { key: "k".into(), range_end: "l".into(), prev_kv: false }).expect("storage");
    cursor_at += 1;
    assert_eq!(txn.publish(), cursor_at);
    bench.log.end();
    store.compact(cursor_at).expect("valid");
    for _ in 0..20 {
        store.compact_step().expect("storage");
    }
    assert!(store.index.read().tree.len() > 0, "the pin holds compaction back");
    let rest = cursor.next(1000).expect("readable");
    assert_eq!((cursor.count(), first.len() + rest.len()), (22, 22));
    assert!(cursor.next(1).expect("readable").is_empty());
}

#[test]
fn hash_is_etcds() {
    let mut bench = Bench::new(1 << 20);
    bench.put("foo", "bar");
    let mut bytes = b"key".to_vec();
    bytes.extend_from_slice(&2i64.to_be_bytes());
    bytes.push(b'_');
    bytes.extend_from_slice(&0i64.to_be_bytes());
    bytes.extend_from_slice(b"\x0a\x03foo\x10\x02\x18\x02\x20\x01\x2a\x03bar");
    assert_eq!(bench.store.hash_kv(0).expect("readable"), (crc32c::crc32c(&bytes), -1, 2));
    bench.delete("foo", "");
    bytes.extend_from_slice(&3i64.to_be_bytes());
    bytes.push(b'_');
    bytes.extend_from_slice(&0i64.to_be_bytes());
    bytes.extend_from_slice(b"t\x0a\x03foo");
    assert_eq!(bench.store.hash_kv(3).expect("readable").0, crc32c::crc32c(&bytes));
    let before = bench.store.hash_kv(3).expect("readable");
    bench.compact(3);
    bench.work();
    assert_eq!(bench.store.hash_kv(3).expect("cached"), before);
}

/// A member that is slow with the work on disk must not look corrupt to one that is quick.
#[test]
fn hashes_do_not_depend_on_the_pace_of_compaction() {
    let told = |quick: bool| {
        let mut bench = Bench::new(1 << 20);
        for round in 0..3 {
            for value in 0..9 {
                bench.put("foo", &format!("{round}.{value}"));
            }
            bench.delete("foo", "");
        }
        for tombstone in [11, 21] {
            bench.compact(tombstone);
            if quick {
                bench.work();
            }
        }
        bench.work();
        (21..=31).map(|revision| bench.store.hash_kv(revision).expect("readable")).collect::<Vec<_>>()
    };
    assert_eq!(told(true), told(false));
}

#[test]
fn compaction_frees_frames_and_erases_tombstones() {
    let mut bench = Bench::new(1 << 30);
    for round in 0..40 {
        for key in 0..20 {
            let value = format!("{round}").repeat(400);
            bench.index += 1;
            bench.log.begin(LogPosition { term: 1, index: bench.index });
            let mut txn = bench.store.write();
            txn.put(&put(&format!("k{key}"), &value)).expect("storage").expect("accepted");
            bench.revision = txn.publish();
            bench.log.end();
        }
    }
    let before = bench.log.frame_count();
    assert!(before > 5, "{before} frames");
    let bytes = bench.log.live_bytes();
    bench.compact(bench.revision);
    bench.work();
    assert!(bench.log.frame_count() <= 3, "{} frames of {before}", bench.log.frame_count());
    assert!(bench.log.live_bytes() * 5 < bytes);
    let all = bench.store.range(&range("k", "l")).expect("readable");
    bench.restart();
    assert_eq!(bench.store.range(&range("k", "l")).expect("readable"), all);
    bench.index += 1;
    bench.log.begin(LogPosition { term: 1, index: bench.index });
    let mut txn = bench.store.write();
    txn.delete_range(&DeleteRange { key: "k".into(), range_end: "l".into(), prev_kv: false }).expect("storage");
    bench.revision = txn.publish();
    bench.log.end();
    for _ in 0..3 {
        bench.index += 1;
        bench.log.begin(LogPosition { term: 1, index: bench.index });
        let mut txn = bench.store.write();
        txn.put(&put("other", "x")).expect("storage").expect("accepted");
        bench.revision = txn.publish();
        bench.log.end();
        bench.log.hand_over();
        bench.compact(bench.revision);
        bench.work();
    }
    let count = |tombstone: bool| -> usize {
        let mut found = 0;
        for (id, frame) in bench.frames.all() {
            Recovery::new().frame(id, frame, &mut |record| found += usize::from(record.tombstone == tombstone)).expect("sound");
        }
        found
    };
    assert_eq!(count(true), 0, "no tombstone is left");
    assert!(count(false) <= 3);
}

/// A range at some revision, old or new, holds what it says, while the writer writes and compaction compacts.
fn read_along(store: &Store, started: &Barrier, done: &std::sync::atomic::AtomicBool) {
    let mut reads = 0;
    started.wait();
    // However late this thread is, it reads once.
    while reads == 0 || !done.load(Ordering::Relaxed) {
        let revision = if reads % 2 == 0 { 0 } else { store.revision() - 5 };
        match store.range(&Range { revision, ..range("k", "l") }) {
            Ok(result) => {
                assert_eq!(result.kvs.len(), usize::try_from(result.count).expect("a count"));
                assert!(
                    result.kvs.iter().all(|kv| kv.value.starts_with(&kv.mod_revision.to_be_bytes()) && kv.mod_revision <= result.revision)
                );
            }
            Err(ReadError::Rejected(Rejection::Compacted)) => {}
            Err(error) => panic!("{error}"),
        }
        reads += 1;
    }
}

#[test]
fn readers_the_writer_and_compaction_get_along() {
    let bench = Bench::new(20_000);
    let (store, done, started) = (&bench.store, &std::sync::atomic::AtomicBool::new(false), &Barrier::new(3));
    std::thread::scope(|scope| {
        let readers = [scope.spawn(|| read_along(store, started, done)), scope.spawn(|| read_along(store, started, done))];
        started.wait();
        let compactor = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if !store.compact_step().expect("storage") {
                    std::thread::yield_now();
                }
            }
        });
        for index in 1..1500u64 {
            bench.log.begin(LogPosition { term: 1, index });
            let mut txn = store.write();
            let (key, mut value) = (format!("k{}", index * 7 % 100), txn.revision().to_be_bytes().to_vec());
            value.resize(1000, 0);
            if index % 5 == 0 {
                txn.delete_range(&DeleteRange { key: key.into(), ..DeleteRange::default() }).expect("storage");
            } else {
                txn.put(&Put { key: key.into(), value: value.into(), ..Put::default() }).expect("storage").expect("accepted");
            }
            let revision = txn.publish();
            if index % 40 == 0 {
                store.compact(revision - 3).expect("valid");
            }
            bench.log.end();
        }
        done.store(true, Ordering::Relaxed);
        compactor.join().expect("no panic");
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
    });
    assert!(store.resident_bytes() <= 21_000);
}
