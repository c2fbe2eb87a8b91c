//! Clients at work: ask, wait, record. A client runs one operation at a time; several run on all members.

use crate::history::{Answer, Call, Operation};
use crate::perform::perform;
use crate::workload::Chooser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusd::pb::etcdserverpb::kv_client::KvClient;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// What all clients, watchers and the fault maker of a run share.
pub struct Shared {
    /// Client URLs, one per member.
    pub endpoints: Vec<String>,
    /// Set to end the run.
    pub stop: AtomicBool,
    /// Newest revision any client has seen.
    pub newest: AtomicI64,
    /// History up to here has been written down by watchers, so it may be compacted.
    pub compactable: AtomicI64,
    history: Mutex<Vec<Operation>>,
    begun: Instant,
}

impl Shared {
    /// A run about to begin.
    pub fn new(endpoints: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            endpoints,
            stop: AtomicBool::new(false),
            newest: AtomicI64::new(1),
            compactable: AtomicI64::new(0),
            history: Mutex::default(),
            begun: Instant::now(),
        })
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("a run is short")
    }

    /// Whether the run is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The history so far.
    pub fn history(&self) -> Vec<Operation> {
        self.history.lock().expect("no panic while held").clone()
    }

    /// Compacts and writes it down, as one more client.
    pub async fn compact(&self, member: usize, client: &mut KvClient<Channel>, revision: i64) {
        let (start, call) = (self.now(), Call::Compact { revision, physical: true });
        let answer = perform(client, &call).await;
        let end = if answer == Answer::Unknown { u64::MAX } else { self.now() };
        self.record(Operation { client: usize::MAX, member, start, end, call, answer });
    }

    fn record(&self, operation: Operation) {
        if let Some(header) = operation.answer.header() {
            self.newest.fetch_max(header, Ordering::Relaxed);
        }
        self.history.lock().expect("no panic while held").push(operation);
    }

    /// Whether a write that began after `moment` was acknowledged; the newest are looked at first.
    pub fn acknowledged_since(&self, moment: u64) -> bool {
        let history = self.history.lock().expect("no panic while held");
        history.iter().rev().take(5000).any(|operation| operation.start > moment && operation.answer.changed())
    }

    /// End of the first acknowledged write that began after `moment`.
    pub fn first_write_since(&self, moment: u64) -> Option<u64> {
        let history = self.history.lock().expect("no panic while held");
        history.iter().filter(|operation| operation.start >= moment && operation.answer.changed()).map(|operation| operation.end).min()
    }
}

/// A lazily connected channel with a time limit for each call.
pub fn channel(url: &str, limit: Duration) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_string()).expect("a valid URL");
    endpoint.connect_timeout(Duration::from_millis(500)).timeout(limit).connect_lazy()
}

/// A KV client whose answers may be large.
pub fn kv(url: &str, limit: Duration) -> KvClient<Channel> {
    KvClient::new(channel(url, limit)).max_decoding_message_size(usize::MAX)
}

/// Runs one client until the run ends; its choices follow from `seed`.
pub async fn client(shared: Arc<Shared>, number: usize, seed: u64, value_bytes_max: usize) {
    let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 * 7919));
    let mut chooser = Chooser::new(random, number, value_bytes_max);
    // Impatient ones keep asking, patient ones hear what the server has to say.
    let limit = Duration::from_millis(if number.is_multiple_of(3) { 8000 } else { 1500 });
    let mut members: Vec<KvClient<Channel>> = shared.endpoints.iter().map(|url| kv(url, limit)).collect();
    while !shared.stopped() {
        let member = chooser.below(members.len());
        let call = chooser.choose(shared.newest.load(Ordering::Relaxed), shared.compactable.load(Ordering::Relaxed));
        let start = shared.now();
        let answer = perform(&mut members[member], &call).await;
        let end = if answer == Answer::Unknown { u64::MAX } else { shared.now() };
        chooser.learn(&call, &answer);
        let failed = matches!(answer, Answer::Unknown | Answer::Refused);
        // A refusal by a dead member is instant: don't spin on it. A pause of the load, not a wait for a condition.
        let pause = if failed { 20 } else { chooser.below(8) as u64 };
        shared.record(Operation { client: number, member, start, end, call, answer });
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
