//! Watchers at work: each follows a range of keys through crashes and partitions, from one member to the next, and writes down what it
//! hears. Some follow everything: together they write the log.

use crate::clients::{Shared, channel};
use crate::history::{Change, Version};
use crate::perform::version;
use crate::wire::{Range, WatchRequests};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusd::pb::etcdserverpb::WatchResponse;
use rusd::pb::etcdserverpb::watch_client::WatchClient;
use rusd::pb::mvccpb::event::EventType;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A member that says nothing for so long, not even when asked for progress, is left.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a watcher asks for progress.
const ASK_INTERVAL: Duration = Duration::from_millis(300);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its revision.
    pub revision: i64,
    /// What it says.
    pub change: Change,
    /// The previous value, if asked for and there was one that isn't compacted.
    pub previous: Option<Version>,
}

/// What happened to a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It asked a member to watch from this revision on; 0 = from now.
    Asked { member: usize, start: i64 },
    /// The member said it does; it stood at `header`.
    Created { header: i64 },
    /// Events in one response; more of it follows if it is a fragment.
    Events { header: i64, events: Vec<Heard>, fragment: bool },
    /// There were no other events up to here.
    Progress { header: i64 },
    /// The member can't go on: history before this revision is gone.
    Compacted { revision: i64 },
}

/// A watcher, and what it has been told.
pub struct Watcher {
    /// Its keys.
    pub range: Range,
    /// Whether it wants previous values.
    pub prev_kv: bool,
    /// All events below are known to it.
    pub next: AtomicI64,
    moments: Mutex<Vec<(u64, Moment)>>,
}

impl Watcher {
    /// Of all events from the first revision on.
    pub fn of_everything() -> Arc<Self> {
        Self::new(Range::everything(), true, 2)
    }

    /// From `start` on, or, if that is 0, from when it first gets through.
    pub fn new(range: Range, prev_kv: bool, start: i64) -> Arc<Self> {
        Arc::new(Self { range, prev_kv, next: AtomicI64::new(start), moments: Mutex::default() })
    }

    /// With times.
    pub fn moments(&self) -> Vec<(u64, Moment)> {
        self.moments.lock().expect("no panic while held").clone()
    }

    fn note(&self, shared: &Shared, moment: Moment) {
        self.moments.lock().expect("no panic while held").push((shared.now(), moment));
    }

    /// Follows until it is aborted.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let member = random.random_range(0..shared.endpoints.len());
            // Mostly until the member fails, sometimes only for a while.
            let stay = Duration::from_millis(if random.random_bool(0.5) { random.random_range(50..3000) } else { 60_000 });
            let lazy = random.random_bool(0.1);
            let _ = tokio::time::timeout(stay, self.follow(&shared, member, lazy)).await;
            // A pause between attempts, not a wait for a condition.
            tokio::time::sleep(Duration::from_millis(random.random_range(5..100))).await;
        }
    }

    /// Follows one member as long as it answers.
    async fn follow(&self, shared: &Shared, member: usize, lazy: bool) -> Option<()> {
        let start = self.next.load(Ordering::Relaxed);
        self.note(shared, Moment::Asked { member, start });
        // Streams have no time limit; their silence has.
        let channel = channel(&shared.endpoints[member], Duration::from_secs(3600));
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, incoming) = WatchRequests::new(&self.range, start, self.prev_kv);
        let mut responses = tokio::time::timeout(SILENCE_MAX, client.watch(incoming)).await.ok()?.ok()?.into_inner();
        let mut asking = tokio::time::interval(ASK_INTERVAL);
        let mut spoke = Instant::now();
        loop {
            let response = tokio::select! {
                response = responses.message() => response.ok()??,
                _ = asking.tick() => {
                    requests.ask_progress();
                    if spoke.elapsed() > SILENCE_MAX {
                        return None;
                    }
                    continue;
                }
            };
            spoke = Instant::now();
            self.take(shared, response)?;
            if lazy && !shared.stopped() {
                // Lets its queue fill. After the run all hurry, or the end would wait for this one.
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        }
    }

    /// `None` ends the stream.
    fn take(&self, shared: &Shared, response: WatchResponse) -> Option<()> {
        let header = response.header.map_or(0, |header| header.revision);
        if response.created && !response.canceled {
            self.next.compare_exchange(0, header + 1, Ordering::Relaxed, Ordering::Relaxed).ok();
            self.note(shared, Moment::Created { header });
        }
        if response.canceled {
            assert!(response.compact_revision > 0, "a watch was cancelled without reason: {response:?}");
            self.note(shared, Moment::Compacted { revision: response.compact_revision });
            self.next.fetch_max(response.compact_revision, Ordering::Relaxed);
            return None;
        }
        if !response.events.is_empty() {
            let fragment = response.fragment;
            let events: Vec<Heard> = response.events.into_iter().map(heard).collect();
            let last = events.last().map_or(0, |event| event.revision);
            self.note(shared, Moment::Events { header, events, fragment });
            // The rest of a fragmented revision would be asked for again.
            self.next.fetch_max(if fragment { last } else { last + 1 }, Ordering::Relaxed);
        } else if !response.created {
            self.note(shared, Moment::Progress { header });
            self.next.fetch_max(header + 1, Ordering::Relaxed);
        }
        Some(())
    }
}

/// Reads an event of the wire.
pub fn heard(event: rusd::pb::mvccpb::Event) -> Heard {
    let deleted = event.r#type == EventType::Delete as i32;
    let kv = event.kv.expect("every event names a key");
    let (key, revision) = (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision);
    let now = (!deleted).then(|| version(kv));
    Heard { revision, change: Change { key, now }, previous: event.prev_kv.map(version) }
}
