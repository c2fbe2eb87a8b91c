//! Clients: each runs one operation after another against random members and records what it saw.

use crate::harness;
use crate::history::{Answer, Call, Operation, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusd::pb::etcdserverpb::kv_client::KvClient;
use rusd::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op, response_op,
};
use rusd::pb::mvccpb::KeyValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How many keys the clients fight over.
pub const KEYS: usize = 6;
/// All keys share this prefix, and nothing else of the store has it.
pub const PREFIX: &str = "lin/";

/// What all clients of a run share.
pub struct Shared {
    /// Client URLs, one per member.
    pub endpoints: Vec<String>,
    /// Set to end the run.
    pub stop: AtomicBool,
    /// The recorded history.
    pub history: Mutex<Vec<Operation>>,
    /// Newest revision any client has seen.
    pub newest: AtomicI64,
    /// Microseconds (of `begun`) of the last acknowledged write, and the longest pause between two.
    pub last_write: AtomicU64,
    /// Longest pause between acknowledged writes, microseconds.
    pub longest_gap: AtomicU64,
    begun: Instant,
}

impl Shared {
    /// A run about to begin.
    pub fn new(endpoints: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            endpoints,
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            newest: AtomicI64::new(1),
            last_write: AtomicU64::new(0),
            longest_gap: AtomicU64::new(0),
            begun: Instant::now(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("a run is short")
    }

    fn record(&self, operation: Operation) {
        let revision = match &operation.answer {
            Answer::Written { revision, .. } => {
                let before = self.last_write.swap(operation.end, Ordering::Relaxed);
                self.longest_gap.fetch_max(operation.end.saturating_sub(before), Ordering::Relaxed);
                *revision
            }
            Answer::NotWritten { revision } => *revision,
            Answer::Read { header, .. } => *header,
            _ => 0,
        };
        self.newest.fetch_max(revision, Ordering::Relaxed);
        self.history.lock().expect("no panic while held").push(operation);
    }
}

/// A channel with short time limits.
pub fn channel(url: &str) -> Channel {
    harness::client::channel(url, Duration::from_secs(4))
}

/// Runs one client until `stop`; its choices follow from `seed`.
pub async fn client(shared: Arc<Shared>, number: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 * 7919));
    let mut members: Vec<KvClient<Channel>> = shared.endpoints.iter().map(|url| KvClient::new(channel(url))).collect();
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    let mut sequence = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        sequence += 1;
        let member = random.random_range(0..members.len());
        let call = choose(&mut random, number, sequence, &known, shared.newest.load(Ordering::Relaxed));
        let start = shared.now();
        let answer = perform(&mut members[member], &call).await;
        let end = if answer == Answer::Unknown { u64::MAX } else { shared.now() };
        learn(&mut known, &call, &answer);
        let failed = matches!(answer, Answer::Unknown | Answer::Refused);
        shared.record(Operation { client: number, member, start, end, call, answer });
        // A refusal by a dead member is instant: don't spin on it. A pause of the load, not a wait for a condition.
        let pause = if failed { 20 } else { random.random_range(0..6) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

fn choose(random: &mut StdRng, client: usize, sequence: u64, known: &BTreeMap<String, i64>, newest: i64) -> Call {
    let key = format!("{PREFIX}{}", random.random_range(0..KEYS));
    let value = format!("{client}-{sequence}");
    match random.random_range(0..100) {
        0..35 => Call::Put { key, value },
        35..45 => Call::Delete { key },
        45..60 => {
            let expected = known.get(&key).copied().unwrap_or(0);
            Call::CompareAndSwap { key, expected, value }
        }
        60..85 => Call::Range { revision: 0, serializable: false },
        85..93 => Call::Range { revision: 0, serializable: true },
        _ => Call::Range { revision: random.random_range((newest - 50).max(1)..=newest), serializable: false },
    }
}

fn learn(known: &mut BTreeMap<String, i64>, call: &Call, answer: &Answer) {
    match (call, answer) {
        (Call::Put { key, .. } | Call::CompareAndSwap { key, .. }, Answer::Written { revision, .. }) => {
            known.insert(key.clone(), *revision);
        }
        (Call::Range { revision: 0, .. }, Answer::Read { contents, .. }) => {
            *known = contents.iter().map(|(key, version)| (key.clone(), version.mod_revision)).collect();
        }
        _ => {}
    }
}

async fn perform(member: &mut KvClient<Channel>, call: &Call) -> Answer {
    let result = match call {
        Call::Put { key, value } => put(member, key, value).await,
        Call::Delete { key } => delete(member, key).await,
        Call::CompareAndSwap { key, expected, value } => swap(member, key, *expected, value).await,
        Call::Range { revision, serializable } => range(member, *revision, *serializable).await,
    };
    let reads = matches!(call, Call::Range { .. });
    result.unwrap_or_else(|status| if reads || never_tried(&status) { Answer::Refused } else { Answer::Unknown })
}

/// Refusals that promise no effect. Everything else leaves a write's fate open.
fn never_tried(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::ResourceExhausted)
        || status.message() == "etcdserver: too many requests"
        || status.message() == "etcdserver: no leader"
}

async fn put(member: &mut KvClient<Channel>, key: &str, value: &str) -> Result<Answer, Status> {
    let request = PutRequest { key: key.to_string().into(), value: value.to_string().into(), prev_kv: true, ..Default::default() };
    let response = member.put(request).await?.into_inner();
    Ok(Answer::Written { revision: header(response.header)?, previous: response.prev_kv.map(version) })
}

async fn delete(member: &mut KvClient<Channel>, key: &str) -> Result<Answer, Status> {
    let request = DeleteRangeRequest { key: key.to_string().into(), prev_kv: true, ..Default::default() };
    let response = member.delete_range(request).await?.into_inner();
    let revision = header(response.header)?;
    if response.deleted == 0 {
        return Ok(Answer::NotWritten { revision });
    }
    Ok(Answer::Written { revision, previous: response.prev_kvs.into_iter().next().map(version) })
}

async fn swap(member: &mut KvClient<Channel>, key: &str, expected: i64, value: &str) -> Result<Answer, Status> {
    let put = PutRequest { key: key.to_string().into(), value: value.to_string().into(), prev_kv: true, ..Default::default() };
    let request = TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key: key.to_string().into(),
            target_union: Some(compare::TargetUnion::ModRevision(expected)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![],
    };
    let response = member.txn(request).await?.into_inner();
    let revision = header(response.header)?;
    if !response.succeeded {
        return Ok(Answer::NotWritten { revision });
    }
    let previous = response.responses.into_iter().find_map(|op| match op.response {
        Some(response_op::Response::ResponsePut(put)) => put.prev_kv.map(version),
        _ => None,
    });
    Ok(Answer::Written { revision, previous })
}

async fn range(member: &mut KvClient<Channel>, revision: i64, serializable: bool) -> Result<Answer, Status> {
    let request = all_keys(revision, serializable);
    let response = member.range(request).await?.into_inner();
    Ok(Answer::Read { header: header(response.header)?, contents: contents(response.kvs) })
}

/// A range over all keys of the run.
pub fn all_keys(revision: i64, serializable: bool) -> RangeRequest {
    RangeRequest { key: PREFIX.into(), range_end: "lin0".into(), revision, serializable, ..Default::default() }
}

/// Keys and versions of a range answer.
pub fn contents(kvs: Vec<KeyValue>) -> BTreeMap<String, Version> {
    kvs.into_iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), version(kv))).collect()
}

fn version(kv: KeyValue) -> Version {
    Version { value: String::from_utf8_lossy(&kv.value).into_owned(), mod_revision: kv.mod_revision }
}

fn header(header: Option<rusd::pb::etcdserverpb::ResponseHeader>) -> Result<i64, Status> {
    header.map(|header| header.revision).ok_or_else(|| Status::internal("an answer without a header"))
}
