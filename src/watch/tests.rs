//! The hub's promises, told against a history of our own: nothing lost, doubled or reordered, whatever the client does.

use super::history::History;
use super::hub::{Counts, Hub, QUEUE_ITEMS};
use super::stream::{self, Create, Options, Response, WatchStream};
use super::watcher::Filters;
use bytes::Bytes;
use parking_lot::Mutex;
use rusd_storage::mvcc::ReadError;
use rusd_storage::{KeyValue, Record, Rejection, Revision};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A history in a vector.
struct Told {
    records: Mutex<Vec<Record>>,
    compacted: Mutex<i64>,
    published: watch::Sender<i64>,
    lookups: AtomicUsize,
    reads: AtomicUsize,
}

impl Told {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            compacted: Mutex::new(-1),
            published: watch::Sender::new(1),
            lookups: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        })
    }

    /// One revision that changes these keys; a value of `None` deletes.
    fn write(&self, changes: &[(&str, Option<&str>)]) -> i64 {
        let main = *self.published.borrow() + 1;
        let mut records = self.records.lock();
        for (sub, (key, value)) in changes.iter().enumerate() {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let before = records.iter().rev().find(|record| record.kv.key == key).filter(|record| !record.tombstone).map(|r| r.kv.clone());
            let kv = match value {
                None => KeyValue { key, mod_revision: main, ..KeyValue::default() },
                Some(value) => KeyValue {
                    key,
                    value: Bytes::copy_from_slice(value.as_bytes()),
                    create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
                    mod_revision: main,
                    version: before.map_or(1, |kv| kv.version + 1),
                    lease: 0,
                },
            };
            records.push(Record { revision: Revision::new(main, sub as i64), tombstone: value.is_none(), kv });
        }
        drop(records);
        self.published.send_replace(main);
        main
    }

    fn put(&self, key: &str) -> i64 {
        self.write(&[(key, Some("v"))])
    }

    /// What a snapshot install does: the revision jumps, the records below are there without having been published one by one.
    fn jump(&self, changes: i64, compacted: i64) {
        let mut main = *self.published.borrow();
        let mut records = self.records.lock();
        for _ in 0..changes {
            main += 1;
            let kv =
                KeyValue { key: Bytes::from_static(b"k"), create_revision: 2, mod_revision: main, version: main, ..KeyValue::default() };
            records.push(Record { revision: Revision::new(main, 0), tombstone: false, kv });
        }
        *self.compacted.lock() = compacted;
        drop(records);
        self.published.send_replace(main);
    }
}

impl History for Told {
    fn revision(&self) -> i64 {
        *self.published.borrow()
    }
    fn compact_revision(&self) -> i64 {
        *self.compacted.lock()
    }
    fn subscribe(&self) -> watch::Receiver<i64> {
        self.published.subscribe()
    }
    fn read(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if from < *self.compacted.lock() {
            return Err(Rejection::Compacted.into());
        }
        let records = self.records.lock();
        let (mut found, mut bytes): (Vec<Record>, usize) = (Vec::new(), 0);
        for record in records.iter().filter(|record| (from..=to).contains(&record.revision.main)) {
            let new_main = found.last().is_some_and(|last| last.revision.main != record.revision.main);
            if new_main && bytes >= bytes_max {
                return Ok((found, record.revision.main));
            }
            bytes += record.kv.value.len() + record.kv.key.len();
            found.push(record.clone());
        }
        Ok((found, to + 1))
    }
    fn value_at(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let records = self.records.lock();
        let last = records.iter().rev().find(|record| record.kv.key == *key && record.revision.main <= revision)?;
        (!last.tombstone).then(|| last.kv.clone())
    }
}

struct Scene {
    told: Arc<Told>,
    hub: Arc<Hub>,
    cancel: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Scene {
    fn new() -> Self {
        let told = Told::new();
        let hub = Hub::new(told.clone());
        let cancel = CancellationToken::new();
        tokio::spawn(hub.clone().follow(cancel.clone()));
        tokio::spawn(hub.clone().catch_up(cancel.clone()));
        Self { told, hub, cancel }
    }

    fn stream(&self) -> WatchStream {
        self.stream_with(1 << 20)
    }

    fn stream_with(&self, fragment_bytes: usize) -> WatchStream {
        let options = Options { progress_interval: Duration::from_secs(600), fragment_bytes };
        WatchStream::open(self.hub.clone(), options)
    }

    /// Lets the hub do what it can.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn create(key: &str) -> Create {
    Create { key: Bytes::copy_from_slice(key.as_bytes()), ..Create::default() }
}

fn prefix(key: &str, end: &str) -> Create {
    Create { range_end: Bytes::copy_from_slice(end.as_bytes()), ..create(key) }
}

async fn next(stream: &mut WatchStream) -> Response {
    loop {
        if let Some(response) = stream.pop() {
            return response;
        }
        tokio::time::timeout(Duration::from_secs(3000), stream.wait()).await.expect("a response within the test's (paused) time");
    }
}

async fn nothing_more(stream: &mut WatchStream) {
    while tokio::time::timeout(Duration::from_secs(5), stream.wait()).await.is_ok() {}
    let more = stream.pop();
    assert!(more.is_none(), "unexpected {more:?}");
}

fn revisions(response: &Response) -> Vec<i64> {
    response.events().iter().map(|event| event.revision()).collect()
}

async fn collect(stream: &mut WatchStream, until: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&until) {
        let response = next(stream).await;
        assert!(!response.canceled, "{response:?}");
        seen.extend(revisions(&response));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_now_sees_what_follows_and_only_that() {
    let scene = Scene::new();
    scene.told.put("a");
    let mut stream = scene.stream();
    stream.create(create("a"));
    let created = next(&mut stream).await;
    assert!(created.created && !created.canceled && created.revision == 2 && created.watch_id == 0);
    scene.told.put("b");
    scene.told.put("a");
    let response = next(&mut stream).await;
    assert_eq!((response.revision, revisions(&response)), (4, vec![4]));
    nothing_more(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn ids_and_refusals_are_etcds() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    let refusal = |response: &Response, reason: &str| {
        assert!(response.created && response.canceled && response.watch_id == -1 && response.compact_revision == 0, "{response:?}");
        assert_eq!(response.cancel_reason, reason);
    };
    stream.create(Create { watch_id: 1, ..create("a") });
    assert_eq!(next(&mut stream).await.watch_id, 1);
    stream.create(create("a"));
    assert_eq!(next(&mut stream).await.watch_id, 0);
    stream.create(create("a"));
    assert_eq!(next(&mut stream).await.watch_id, 2, "1 is taken");
    stream.create(Create { watch_id: -7, ..create("a") });
    assert_eq!(next(&mut stream).await.watch_id, -7);
    stream.create(Create { watch_id: 1, ..create("a") });
    refusal(&next(&mut stream).await, stream::DUPLICATE_ID);
    stream.create(Create { watch_id: 1, ..prefix("b", "a") });
    refusal(&next(&mut stream).await, stream::EMPTY_RANGE);
    stream.create(Create { watch_id: 1, start_revision: -1, ..prefix("b", "a") });
    refusal(&next(&mut stream).await, stream::COMPACTED);
    stream.cancel(99);
    stream.cancel(1);
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled && canceled.watch_id == 1 && canceled.cancel_reason.is_empty());
    nothing_more(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn the_past_comes_before_the_present() {
    let scene = Scene::new();
    for _ in 0..5000 {
        scene.told.put("a");
    }
    scene.settle().await;
    let mut stream = scene.stream();
    stream.create(Create { start_revision: 3, ..create("a") });
    scene.told.put("a");
    assert!(next(&mut stream).await.created);
    let first = next(&mut stream).await;
    assert!(first.events().len() <= 1000 && first.revision >= 5001, "catch-up headers tell the current revision");
    let mut seen = revisions(&first);
    let last = scene.told.put("a");
    seen.extend(collect(&mut stream, last).await);
    assert_eq!(seen, (3..=last).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_future_start_hides_what_comes_earlier() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(Create { start_revision: 4, ..create("a") });
    assert!(next(&mut stream).await.created);
    stream.request_progress();
    nothing_more(&mut stream).await;
    for _ in 0..4 {
        scene.told.put("a");
    }
    assert_eq!(collect(&mut stream, 5).await, [4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_reader_costs_a_bounded_queue_and_loses_nothing() {
    let scene = Scene::new();
    let (mut stopped, mut reading) = (scene.stream(), scene.stream());
    stopped.create(create("a"));
    stopped.create(create("b"));
    reading.create(create("a"));
    assert!(next(&mut stopped).await.created && next(&mut stopped).await.created && next(&mut reading).await.created);
    let rounds = 6 * QUEUE_ITEMS as i64;
    for _ in 0..rounds {
        scene.told.put("a");
        scene.settle().await;
        assert_eq!(next(&mut reading).await.events().len(), 1, "the other stream isn't held up");
    }
    let counts = Counts { streams: 2, watchers: 3, lagging: 1, pending_events: QUEUE_ITEMS };
    assert_eq!(scene.hub.counts(), counts, "only the watch with events lags");
    let b = scene.told.put("b");
    let last = scene.told.put("a");
    let mut seen = [Vec::new(), Vec::new()];
    while seen[0].last() != Some(&last) || seen[1].last() != Some(&b) {
        let response = next(&mut stopped).await;
        seen[response.watch_id as usize].extend(revisions(&response));
    }
    assert_eq!(seen[0], (2..b).chain([last]).collect::<Vec<_>>());
    assert_eq!(seen[1], [b]);
    scene.settle().await;
    assert_eq!(scene.hub.counts(), Counts { lagging: 0, pending_events: 1, ..counts }, "and joins again; the other stream has one to read");
}

#[tokio::test(start_paused = true)]
async fn one_revision_comes_in_one_response() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(prefix("k", "l"));
    assert!(next(&mut stream).await.created);
    let keys: Vec<String> = (0..3000).map(|n| format!("k{n:04}")).collect();
    let changes: Vec<(&str, Option<&str>)> = keys.iter().map(|key| (key.as_str(), Some("some value or other"))).collect();
    scene.told.write(&changes);
    assert_eq!(next(&mut stream).await.events().len(), 3000);
    // The same through catch-up.
    let mut late = scene.stream();
    late.create(Create { start_revision: 2, ..prefix("k", "l") });
    assert!(next(&mut late).await.created);
    assert_eq!(next(&mut late).await.events().len(), 3000);
}

#[tokio::test(start_paused = true)]
async fn fragments_stay_below_the_limit_and_say_so() {
    let scene = Scene::new();
    let mut stream = scene.stream_with(1000);
    stream.create(Create { fragment: true, ..prefix("k", "l") });
    stream.create(prefix("k", "l"));
    assert!(next(&mut stream).await.created && next(&mut stream).await.created);
    let big = "x".repeat(2000);
    scene.told.write(&[("k1", Some("v")), ("k2", Some("v")), ("k3", Some(&big)), ("k4", Some("v"))]);
    let mut parts = Vec::new();
    for _ in 0..3 {
        let response = next(&mut stream).await;
        assert_eq!((response.watch_id, response.revision), (0, 2));
        parts.push((response.fragment, response.events().len()));
    }
    assert_eq!(parts, [(true, 2), (true, 1), (false, 1)]);
    let whole = next(&mut stream).await;
    assert!(whole.watch_id == 1 && whole.events().len() == 4 && !whole.fragment);
}

#[tokio::test(start_paused = true)]
async fn compacted_history_cancels_and_keeps_the_id() {
    let scene = Scene::new();
    for _ in 0..10 {
        scene.told.put("a");
    }
    *scene.told.compacted.lock() = 5;
    let mut stream = scene.stream();
    stream.create(Create { start_revision: 4, watch_id: 9, ..create("a") });
    stream.create(Create { start_revision: 5, ..create("a") });
    assert!(next(&mut stream).await.created && next(&mut stream).await.created);
    let (mut canceled, mut seen) = (None, Vec::new());
    while canceled.is_none() || seen.len() < 7 {
        let response = next(&mut stream).await;
        match response.canceled {
            true => canceled = Some(response),
            false => seen.extend(revisions(&response)),
        }
    }
    let canceled = canceled.expect("just seen");
    assert_eq!((canceled.watch_id, canceled.compact_revision, canceled.revision), (9, 5, 0));
    assert!(canceled.cancel_reason.is_empty());
    assert_eq!(seen, (5..=11).collect::<Vec<_>>());
    // Its id stays taken and silences progress until the client cancels it.
    stream.create(Create { watch_id: 9, ..create("a") });
    assert_eq!(next(&mut stream).await.cancel_reason, stream::DUPLICATE_ID);
    stream.request_progress();
    nothing_more(&mut stream).await;
    stream.cancel(9);
    assert!(next(&mut stream).await.canceled);
    stream.request_progress();
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id, progress.revision), (-1, 11));
}

#[tokio::test(start_paused = true)]
async fn compacted_history_cancels_even_while_it_is_at_hand() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(create("a"));
    assert!(next(&mut stream).await.created);
    for _ in 0..4 {
        scene.told.put("a");
    }
    assert_eq!(collect(&mut stream, 5).await, [2, 3, 4, 5], "the hub has just seen them");
    *scene.told.compacted.lock() = 4;
    stream.create(Create { start_revision: 2, watch_id: 9, ..create("a") });
    assert!(next(&mut stream).await.created);
    let canceled = next(&mut stream).await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.compact_revision), (9, true, 4));
}

#[tokio::test(start_paused = true)]
async fn an_installed_snapshot_loses_nothing_or_says_so() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(create("k"));
    assert!(next(&mut stream).await.created);
    scene.told.jump(5000, -1);
    assert_eq!(collect(&mut stream, 5001).await, (2..=5001).collect::<Vec<_>>());
    scene.settle().await;
    scene.told.jump(100, 5050);
    let response = next(&mut stream).await;
    assert!(response.canceled && response.compact_revision == 5050, "{response:?}");
    stream.create(create("k"));
    assert!(next(&mut stream).await.created);
    scene.told.jump(1, 5050);
    assert_eq!(collect(&mut stream, 5102).await, [5102]);
}

#[tokio::test(start_paused = true)]
async fn progress_never_overtakes_events() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.request_progress();
    nothing_more(&mut stream).await;
    for key in ["a", "b", "c"] {
        stream.create(create(key));
        assert!(next(&mut stream).await.created);
    }
    for round in 0..50 {
        let last = scene.told.write(&[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
        // Asked before the hub has run: it must answer with this revision or a later one, after its events.
        stream.request_progress();
        let mut events = 0;
        loop {
            let response = next(&mut stream).await;
            if response.watch_id == -1 {
                assert!(response.revision >= last, "round {round}: progress {} below {last}", response.revision);
                break;
            }
            events += response.events().len();
        }
        assert_eq!(events, 3, "round {round}");
    }
    stream.create(Create { start_revision: 2, ..create("a") });
    stream.request_progress();
    assert!(next(&mut stream).await.created);
    assert_eq!(next(&mut stream).await.watch_id, 3, "no answer while a watch lags, then its events");
    nothing_more(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_are_told_the_revision() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(Create { progress_notify: true, ..create("a") });
    stream.create(create("a"));
    assert!(next(&mut stream).await.created && next(&mut stream).await.created);
    scene.told.put("b");
    let start = tokio::time::Instant::now();
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id, progress.revision, progress.events().len()), (0, 2, 0));
    assert!((600.0..=660.1).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    // Events spare the next one.
    scene.told.put("a");
    assert_eq!(next(&mut stream).await.events().len(), 1);
    assert_eq!(next(&mut stream).await.events().len(), 1);
    let start = tokio::time::Instant::now();
    assert_eq!(next(&mut stream).await.revision, 3);
    assert!(start.elapsed().as_secs() >= 1200, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn filters_drop_whole_responses() {
    let scene = Scene::new();
    let mut stream = scene.stream();
    stream.create(Create { filters: Filters { no_put: true, no_delete: false }, ..create("a") });
    stream.create(Create { filters: Filters { no_put: false, no_delete: true }, ..create("a") });
    assert!(next(&mut stream).await.created && next(&mut stream).await.created);
    scene.told.put("a");
    let put = next(&mut stream).await;
    assert_eq!((put.watch_id, revisions(&put)), (1, vec![2]));
    scene.told.write(&[("a", None)]);
    let delete = next(&mut stream).await;
    assert_eq!((delete.watch_id, revisions(&delete)), (0, vec![3]));
    nothing_more(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn previous_values_are_looked_up_once() {
    let scene = Scene::new();
    let mut streams: Vec<WatchStream> = (0..10).map(|_| scene.stream()).collect();
    for stream in &mut streams {
        stream.create(Create { prev_kv: true, ..create("a") });
        assert!(next(stream).await.created);
    }
    scene.told.put("a");
    scene.settle().await;
    scene.told.write(&[("a", Some("w"))]);
    scene.settle().await;
    scene.told.write(&[("a", None)]);
    for stream in &mut streams {
        let mut previous = Vec::new();
        while previous.len() < 3 {
            let response = next(stream).await;
            assert!(response.prev_kv);
            previous.extend(response.events().iter().map(|event| event.previous(&*scene.told).map(|kv| kv.value.clone())));
        }
        assert_eq!(previous, [None, Some(Bytes::from_static(b"v")), Some(Bytes::from_static(b"w"))]);
    }
    assert_eq!(scene.told.lookups.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn many_who_start_in_the_past_share_the_reading() {
    let scene = Scene::new();
    for _ in 0..3000 {
        scene.told.put("a");
    }
    scene.settle().await;
    let before = scene.told.reads.load(Ordering::SeqCst);
    let mut streams: Vec<WatchStream> = (0..200).map(|_| scene.stream()).collect();
    for stream in &mut streams {
        stream.create(Create { start_revision: 2, ..create("a") });
        assert!(next(stream).await.created);
    }
    for stream in &mut streams {
        assert_eq!(collect(stream, 3001).await, (2..=3001).collect::<Vec<_>>());
    }
    let reads = scene.told.reads.load(Ordering::SeqCst) - before;
    assert!(reads < 20, "{reads} reads for 200 watchers of 3 chunks");
}

#[tokio::test(start_paused = true)]
async fn streams_and_watches_leave_nothing_behind() {
    let scene = Scene::new();
    scene.told.put("a");
    for _ in 0..3 {
        let mut streams: Vec<WatchStream> = (0..50).map(|_| scene.stream()).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            for m in 0..20 {
                stream.create(Create { start_revision: (m % 3) as i64, ..prefix(&format!("{n}"), "x") });
            }
            stream.cancel(3);
        }
        scene.told.put("5");
        scene.settle().await;
        assert_eq!(scene.hub.counts().watchers, 50 * 19);
    }
    assert_eq!(scene.hub.counts(), Counts::default());
}

/// Any mix of writes, reads, stops, creates and cancels: each watch gets exactly its events, in order.
#[tokio::test(start_paused = true)]
async fn random_scenes_are_complete_and_ordered() {
    for seed in 0..20u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let scene = Scene::new();
        let mut stream = scene.stream();
        let mut expected: Vec<(i64, String, i64, Vec<i64>)> = Vec::new();
        for step in 0..600 {
            match random(20) {
                0 => {
                    let key = format!("k{}", random(4));
                    let start = random(*scene.told.published.borrow() as u64 + 5) as i64;
                    let from = if start == 0 { *scene.told.published.borrow() + 1 } else { start };
                    stream.create(Create { start_revision: start, watch_id: 1000 + step, ..create(&key) });
                    expected.push((1000 + step, key, from, Vec::new()));
                }
                1..=3 => scene.settle().await,
                4..=9 => {
                    let _ = tokio::time::timeout(Duration::from_millis(1), stream.wait()).await;
                    while let Some(response) = stream.pop() {
                        assert!(!response.canceled, "seed {seed}: {response:?}");
                        let watch = expected.iter_mut().find(|watch| watch.0 == response.watch_id).expect("a known id");
                        watch.3.extend(revisions(&response));
                    }
                }
                _ => {
                    let key = format!("k{}", random(4));
                    for _ in 0..=random(3) {
                        scene.told.put(&key);
                    }
                }
            }
        }
        while tokio::time::timeout(Duration::from_secs(5), stream.wait()).await.is_ok() {}
        while let Some(response) = stream.pop() {
            let watch = expected.iter_mut().find(|watch| watch.0 == response.watch_id).expect("a known id");
            watch.3.extend(revisions(&response));
        }
        for (id, key, from, seen) in expected {
            let records = scene.told.records.lock();
            let all = records.iter().filter(|record| record.kv.key == key.as_bytes() && record.revision.main >= from);
            assert_eq!(seen, all.map(|record| record.revision.main).collect::<Vec<_>>(), "seed {seed}, watch {id} from {from}");
        }
    }
}
