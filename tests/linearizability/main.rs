//! Linearizability under faults: concurrent clients on all members of real clusters, random faults, a recorded history, and checkers that
//! are themselves checked.
//!
//! `LIN_SEED` repeats a run's choices as far as real processes allow, `LIN_SECONDS` and `LIN_MEMBERS` size it (`make fault`).

mod checked;
mod checker;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod search;
mod workload;

use harness::cluster::Cluster;
use history::{Answer, Call, Change, Operation, Version, render};
use rusd::pb::etcdserverpb::kv_client::KvClient;
use search::{Event, Register};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use workload::{Shared, all_keys, channel, contents};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn fresh_seed() -> u64 {
    number("LIN_SEED", rand::random::<u32>().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_under_faults_is_linearizable() {
    let members = usize::try_from(number("LIN_MEMBERS", 3)).expect("a small number");
    run(members, &["--heartbeat-interval=50", "--election-timeout=500"], fresh_seed(), number("LIN_SECONDS", 15)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lives_on_snapshots_is_linearizable() {
    let flags = ["--heartbeat-interval=50", "--election-timeout=500", "--snapshot-count=50", "--snapshot-catchup-entries=10"];
    run(3, &flags, fresh_seed(), number("LIN_SECONDS", 15)).await;
}

/// Two clusters at once would measure the machine, not the store.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn run(count: usize, flags: &[&str], seed: u64, seconds: u64) {
    let _alone = ONE_AT_A_TIME.lock().await;
    println!("LIN_SEED={seed} members={count} flags={flags:?}");
    let mut members = Cluster::running(count, flags).await;
    let shared = Shared::new(members.endpoints());
    let clients: Vec<_> = (0..2 * count).map(|client| tokio::spawn(workload::client(Arc::clone(&shared), client, seed))).collect();
    let timer = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            shared.stop.store(true, Ordering::Relaxed);
        })
    };
    let tally = faults::run(&mut members, seed, &shared.stop).await;
    timer.await.expect("the timer ends");
    for client in clients {
        client.await.expect("a client ends");
    }
    let log = settle(&mut members).await;
    judge(&mut members, &shared, &log, &format!("LIN_SEED={seed} {tally:?}"));
}

fn judge(members: &mut Cluster, shared: &Shared, log: &[Change], title: &str) {
    let operations = shared.history.lock().expect("no panic while held").clone();
    let mut violations: Vec<String> = checker::check(&operations, log, 2).into_iter().map(|violation| violation.0).collect();
    violations.extend(search_each_key(&operations));
    let acknowledged = operations.iter().filter(|operation| matches!(operation.answer, Answer::Written { .. })).count();
    let unknown = operations.iter().filter(|operation| operation.answer == Answer::Unknown).count();
    println!(
        "{title}: {} operations, {acknowledged} acknowledged writes, {unknown} unknown, {} revisions, longest gap between writes {} ms, {} violations",
        operations.len(),
        log.len(),
        shared.longest_gap.load(Ordering::Relaxed) / 1000,
        violations.len()
    );
    if !violations.is_empty() {
        let kept = members.keep();
        std::fs::write(kept.join("history.txt"), render(&operations, log)).expect("the history can be kept");
        panic!("{title}: history and logs in {}\n{}", kept.display(), violations.join("\n"));
    }
    assert!(acknowledged > 0, "{title}: nothing was ever acknowledged");
}

/// Waits until all members answer equally, compares contents and hashes, and reads the log back revision by revision.
async fn settle(members: &mut Cluster) -> Vec<Change> {
    let mut reads: Vec<(i64, BTreeMap<String, Version>)> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    for (member, url) in members.endpoints().iter().enumerate() {
        members.wait_ready(member).await;
        loop {
            match KvClient::new(channel(url)).range(all_keys(0, false)).await {
                Ok(response) => {
                    let response = response.into_inner();
                    reads.push((response.header.expect("a header").revision, contents(response.kvs)));
                    break;
                }
                Err(status) => {
                    assert!(Instant::now() < deadline, "member {member} does not read linearizably: {status}; {}", members.keep().display())
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Late writes of unknown outcome may have landed between the reads: ask all again at the newest revision.
    let newest = reads.iter().map(|read| read.0).max().expect("there are members");
    let urls = members.endpoints();
    let mut logs = Vec::new();
    for url in &urls {
        KvClient::new(channel(url)).range(all_keys(0, false)).await.expect("it just answered");
        logs.push(read_log(url, newest).await);
    }
    for (member, log) in logs.iter().enumerate() {
        assert_eq!(log, &logs[0], "members 0 and {member} differ; {}", members.keep().display());
    }
    logs.swap_remove(0)
}

async fn read_log(url: &str, newest: i64) -> Vec<Change> {
    let mut client = KvClient::new(channel(url));
    let mut before: BTreeMap<String, Version> = BTreeMap::new();
    let mut log = Vec::new();
    for revision in 2..=newest {
        let kvs = client.range(all_keys(revision, true)).await.expect("history can be read").into_inner().kvs;
        let now = contents(kvs);
        for (key, version) in &now {
            if before.get(key) != Some(version) {
                log.push(Change { revision, key: key.clone(), value: Some(version.value.clone()) });
            }
        }
        for key in before.keys().filter(|key| !now.contains_key(*key)) {
            log.push(Change { revision, key: key.clone(), value: None });
        }
        before = now;
    }
    log
}

/// The second opinion, which does not look at revisions.
fn search_each_key(operations: &[Operation]) -> Vec<String> {
    let number_of = |value: &str, values: &mut HashMap<String, u32>| {
        let next = u32::try_from(values.len()).expect("few values");
        *values.entry(value.to_string()).or_insert(next)
    };
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut violations = Vec::new();
    for key in (0..workload::KEYS).map(|key| format!("{}{key}", workload::PREFIX)) {
        let mut events = Vec::new();
        for operation in operations {
            let register = match (&operation.call, &operation.answer) {
                (Call::Put { key: of, value }, Answer::Written { .. } | Answer::Unknown) if *of == key => {
                    Register::Write(Some(number_of(value, &mut numbers)))
                }
                // A swap of unknown outcome may write at any time: its compare is judged by the revision check.
                (Call::CompareAndSwap { key: of, value, .. }, Answer::Written { .. } | Answer::Unknown) if *of == key => {
                    Register::Write(Some(number_of(value, &mut numbers)))
                }
                (Call::Delete { key: of }, Answer::Written { .. } | Answer::Unknown) if *of == key => Register::Write(None),
                (Call::Delete { key: of }, Answer::NotWritten { .. }) if *of == key => Register::Read(None),
                (Call::Range { revision: 0, serializable: false }, Answer::Read { contents, .. }) => {
                    Register::Read(contents.get(&key).map(|version| number_of(&version.value, &mut numbers)))
                }
                _ => continue,
            };
            events.push(Event { start: operation.start, end: operation.end, operation: register });
        }
        if search::linearizable(&events, 100_000) == Some(false) {
            violations.push(format!("no order of the operations on {key} explains what was seen"));
        }
    }
    violations
}
