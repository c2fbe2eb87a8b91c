//! The page of metrics: which families there are, and what they tell after the same work.

use crate::build::{Op, compact, compare, delete, get, grant, put, range, then, txn};
use crate::call::Call;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::http::{ask, versions_decided};
use crate::pair::Pair;
use crate::watching::{Streams, key, span};
use rusd::pb::etcdserverpb::compare::{CompareResult, TargetUnion};
use rusd::pb::etcdserverpb::*;
use std::collections::{BTreeMap, BTreeSet};

/// A series as the page has it, and its value.
type Values = BTreeMap<String, f64>;

async fn page(cluster: &Cluster) -> String {
    let page = ask(cluster.members[0].client_port, "GET", "/metrics").await;
    assert_eq!(page.status, 200);
    let series = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
    let mut all: Vec<String> = page.body.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect();
    all.sort_unstable();
    assert!(all.is_sorted_by(|a, b| a < b), "a series is told twice:\n{}", page.body);
    page.body
}

/// All series whose values must be the same. Labels are in the order of their names on both pages.
fn values(page: &str, families: &[&str]) -> Values {
    let told = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        let of = |family: &&&str| name == **family || name.strip_suffix("_count") == Some(**family);
        families.iter().find(of)?;
        Some((series.to_string(), value.parse().expect("a number")))
    };
    page.lines().filter(|line| !line.starts_with('#')).filter_map(told).collect()
}

/// Names, types and labels of all families: etcd's dashboards and alerts must find theirs.
#[tokio::test]
async fn families_of_metrics() {
    let pair = Pair::start(&[]).await;
    pair.accepted(put("k", "v")).await;
    let mut families = Vec::new();
    for cluster in [&pair.etcd, &pair.rusd] {
        versions_decided(cluster).await;
        let page = ask(cluster.members[0].client_port, "GET", "/metrics").await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("etcd_cluster_version{cluster_version=\"3.7\"} 1\n"), "{}", page.body);
        families.push(parse(&page.body));
    }
    let rusd = families.pop().expect("two");
    let etcd = families.pop().expect("two");
    let wrong: Vec<String> = etcd
        .iter()
        .filter(|(name, family)| rusd.get(*name).is_some_and(|ours| ours != *family))
        .map(|(name, family)| format!("{name}\n  etcd: {family:?}\n  rusd: {:?}", rusd.get(name)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing = etcd.keys().filter(|name| !rusd.contains_key(*name) && !name.starts_with("go_"));
    assert_eq!(missing.collect::<Vec<_>>(), ABSENT);
}

/// What etcd counts and rusd doesn't.
const ABSENT: &[&str] = &[
    "etcd_debugging_auth_revision",
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
    "etcd_debugging_disk_backend_commit_spill_duration_seconds",
    "etcd_debugging_disk_backend_commit_write_duration_seconds",
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_debugging_store_watchers",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_events_coalescing_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
    "etcd_server_go_version",
];

#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    buckets: BTreeSet<String>,
}

fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("name and type");
            current = name.to_string();
            families.entry(current.clone()).or_default().kind = kind.to_string();
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{')
        {
            let family = families.get_mut(&current).expect("declared before");
            for label in labels.rsplit_once('}').expect("closed").0.split(',') {
                let Some((name, value)) = label.split_once('=') else { continue };
                if name == "le" {
                    let bound: f64 = value.trim_matches('"').parse().expect("a bound");
                    family.buckets.insert(format!("{bound:.6}"));
                } else {
                    family.labels.insert(name.to_string());
                }
            }
        }
    }
    families
}

/// Nothing counts as slow, however slow the machine is.
const NEVER_SLOW: [&str; 1] = ["--warning-apply-duration=1m"];

/// Counts of the state that the same requests must leave.
const SAME: &[&str] = &[
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_defrag_inflight",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_hash_duration_seconds",
    "etcd_mvcc_hash_rev_duration_seconds",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_server_apply_duration_seconds",
    "etcd_server_feature_enabled",
    "etcd_server_learner_promote_successes",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_range_duration_seconds",
    "etcd_server_request_duration_seconds",
    "etcd_server_slow_apply_total",
    "etcd_server_snapshot_apply_in_progress_total",
];

/// Messages, as long as no stream has ended and nothing was refused: etcd counts an end as one received, and a refusal as one sent.
const MESSAGES: &[&str] = &["grpc_server_msg_received_total", "grpc_server_msg_sent_total"];

async fn same_values(pair: &Pair, when: &str) -> Values {
    same_in(pair, SAME, when).await
}

/// Who a member is may take another number of entries to say, and how often it was asked before it served is chance.
fn comparable(series: &str) -> bool {
    let asked = |service| series.contains(&format!("grpc_service=\"etcdserverpb.{service}\""));
    !series.contains("=\"Cluster") && (!series.starts_with("grpc_") || ["KV", "Watch"].into_iter().any(asked))
}

/// Waits until both tell the same of these families; the last difference is the failure's text.
async fn same_in(pair: &Pair, families: &[&str], when: &str) -> Values {
    let last = parking_lot::Mutex::new(Vec::new());
    let look = || async {
        let [etcd, rusd] = [page(&pair.etcd).await, page(&pair.rusd).await].map(|page| {
            let mut values = values(&page, families);
            values.retain(|series, _| comparable(series));
            values
        });
        let names: BTreeSet<&String> = etcd.keys().chain(rusd.keys()).collect();
        let differs = |name: &&&String| etcd.get(**name) != rusd.get(**name);
        let wrong: Vec<String> =
            names.iter().filter(differs).map(|name| format!("{name}: {:?}, rusd {:?}", etcd.get(*name), rusd.get(*name))).collect();
        let same = wrong.is_empty();
        *last.lock() = wrong;
        same.then_some(rusd)
    };
    let patience = tokio::time::timeout(std::time::Duration::from_secs(10), eventually(when, look)).await;
    patience.unwrap_or_else(|_| panic!("{when}: not the same:\n{}", last.lock().join("\n")))
}

#[tokio::test]
async fn counts_of_keys_and_leases() {
    let pair = Pair::start(&NEVER_SLOW).await;
    pair.accepted(put("k", "value")).await;
    pair.accepted(PutRequest { prev_kv: true, ..put("k", "other") }).await;
    pair.accepted(get("k")).await;
    pair.accepted(range("a", "z")).await;
    pair.accepted(delete("k", "")).await;
    same_values(&pair, "single operations").await;
    let version = TargetUnion::Version(0);
    let once = |key| compare(key, CompareResult::Equal, version.clone());
    let write = txn(vec![once("t"), once("u")], vec![put("t", "1").op(), get("t").op()], vec![]);
    pair.accepted(write.clone()).await;
    pair.accepted(write).await;
    pair.accepted(then(vec![get("t").op(), range("a", "z").op()])).await;
    pair.accepted(txn(vec![once("t")], vec![], vec![get("t").op()])).await;
    pair.accepted(DeleteRangeRequest { prev_kv: true, ..delete("t", "u") }).await;
    same_in(&pair, &[SAME, MESSAGES].concat(), "transactions").await;
    pair.accepted(grant(7, 60)).await;
    pair.same(grant(7, 60)).await;
    pair.accepted(grant(8, 3000)).await;
    for key in ["l1", "l2"] {
        pair.accepted(PutRequest { lease: 7, ..put(key, "x") }).await;
    }
    pair.same(PutRequest { lease: 99, ..put("k", "x") }).await;
    pair.accepted(Call::KeepAlive(8)).await;
    pair.accepted(LeaseRevokeRequest { id: 7 }).await;
    pair.same(LeaseRevokeRequest { id: 99 }).await;
    let values = same_values(&pair, "leases").await;
    assert_eq!(values["etcd_debugging_lease_revoked_total"], 1.0);
    pair.accepted(grant(9, 1)).await;
    let expired = "etcd_debugging_server_lease_expired_total";
    eventually("both have ended the lease", || async {
        let [etcd, rusd] = [page(&pair.etcd).await, page(&pair.rusd).await].map(|page| values_of(&page, expired));
        (etcd == 1.0 && rusd == 1.0).then_some(())
    })
    .await;
    same_values(&pair, "a lease that was over").await;
}

fn values_of(page: &str, family: &str) -> f64 {
    values(page, &[family]).values().sum()
}

#[tokio::test]
async fn counts_of_compactions_and_hashes() {
    let pair = Pair::start(&NEVER_SLOW).await;
    for value in ["1", "2", "3"] {
        pair.accepted(put("k", value)).await;
        pair.accepted(put("gone", value)).await;
    }
    pair.accepted(delete("gone", "")).await;
    pair.accepted(put("k", "4")).await;
    pair.accepted(Call::Hash).await;
    pair.accepted(HashKvRequest { revision: 5 }).await;
    pair.same(HashKvRequest { revision: 99 }).await;
    let before = same_values(&pair, "hashes").await;
    assert_eq!(before["etcd_mvcc_hash_duration_seconds_count"], 1.0);
    let mut compactions = 0.0;
    for revision in [4, 8, 9] {
        pair.accepted(compact(revision)).await;
        compactions += 1.0;
    }
    pair.accepted(Call::Defragment).await;
    // etcd reads a key when it compacts, which counts as a range.
    let families: Vec<&str> = SAME.iter().copied().filter(|family| *family != "etcd_mvcc_range_total").collect();
    let values = same_in(&pair, &families, "compactions").await;
    assert_eq!(values["etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count"], compactions);
    for cluster in [&pair.etcd, &pair.rusd] {
        let page = page(cluster).await;
        assert!(values_of(&page, "etcd_debugging_mvcc_db_compaction_last") > 1e9);
        assert!(values_of(&page, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds") >= compactions);
        assert!(values_of(&page, "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds") >= compactions);
    }
}

#[tokio::test]
async fn counts_of_watches() {
    let pair = Pair::start(&NEVER_SLOW).await;
    pair.accepted(put("k", "1")).await;
    let mut streams = Streams::open(&pair);
    streams.create(WatchCreateRequest { start_revision: 1, ..key("k") }).await;
    streams.same("the put").await;
    streams.create(span("a", "z")).await;
    let values = same_values(&pair, "two watchers").await;
    assert_eq!(values["etcd_debugging_mvcc_watcher_total"], 2.0);
    assert_eq!(values["etcd_debugging_mvcc_events_total"], 1.0);
    pair.accepted(put("k", "2")).await;
    streams.same_in_any_order(2, "both").await;
    streams.cancel(0).await;
    streams.same("cancelled").await;
    let values = same_in(&pair, &[SAME, MESSAGES].concat(), "one watcher").await;
    assert_eq!(values["etcd_debugging_mvcc_watch_stream_total"], 1.0);
    // A stream ends when its client has let go of both halves.
    drop(streams);
    pair.accepted(put("k", "3")).await;
    let values = same_values(&pair, "no watchers").await;
    assert_eq!(values["etcd_debugging_mvcc_watch_stream_total"], 0.0);
    assert_eq!(values["etcd_debugging_mvcc_watcher_total"], 0.0);
}

#[tokio::test]
async fn versions_of_clients() {
    let pair = Pair::start(&[]).await;
    for cluster in [&pair.etcd, &pair.rusd] {
        cluster.etcdctl(&["put", "k", "v"]);
        cluster.etcdctl(&["get", "k"]);
        cluster.etcdctl(&["lease", "keep-alive", "--once", "7"]);
    }
    let of_etcdctl = |page: String| {
        let mut values = values(&page, &["etcd_server_client_requests_total"]);
        values.retain(|series, _| series.contains("client_api_version=\"3.7\""));
        values
    };
    let (etcd, rusd) = (of_etcdctl(page(&pair.etcd).await), of_etcdctl(page(&pair.rusd).await));
    assert_eq!((etcd.len(), &etcd), (2, &rusd));
}

/// All series of the members, as families.
async fn told_by_all(cluster: &Cluster) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for member in &cluster.members {
        for (name, family) in parse(&ask(member.client_port, "GET", "/metrics").await.body) {
            let known = families.entry(name).or_default();
            known.kind = family.kind;
            known.labels.extend(family.labels);
            known.buckets.extend(family.buckets);
        }
    }
    families
}

/// Peers that come, go, and need a snapshot.
#[tokio::test]
async fn families_of_peers() {
    let mut pair = Pair::with_members(3, &["--snapshot-count=10", "--snapshot-catchup-entries=1"]).await;
    for cluster in [&mut pair.etcd, &mut pair.rusd] {
        let leader = cluster.wait_leader().await;
        let away = (1..3).find(|member| *member != leader).expect("two of three");
        let client = cluster.client(0);
        // Until it has been away for so long that it needs a snapshot.
        while !told_by_all(cluster).await.contains_key("etcd_network_snapshot_receive_success") {
            cluster.kill(away);
            for _ in 0..100 {
                eventually("a put", || async { client.put("k", "v").await.ok() }).await;
            }
            cluster.start(away);
            cluster.wait_ready(away).await;
        }
    }
    let wanted = [
        "etcd_network_disconnected_peers_total",
        "etcd_network_peer_round_trip_time_seconds",
        "etcd_network_peer_sent_failures_total",
        "etcd_network_snapshot_receive_success",
        "etcd_network_snapshot_send_success",
    ];
    for cluster in [&pair.etcd, &pair.rusd] {
        eventually("all is told of peers", || async {
            let told = told_by_all(cluster).await;
            wanted.iter().all(|name| told.contains_key(*name)).then_some(())
        })
        .await;
    }
    for cluster in [&pair.etcd, &pair.rusd] {
        for family in [
            "etcd_disk_backend_snapshot_duration_seconds",
            "etcd_snap_db_fsync_duration_seconds",
            "etcd_snap_db_save_total_duration_seconds",
        ] {
            let mut count = 0.0;
            for member in &cluster.members {
                count += values_of(&ask(member.client_port, "GET", "/metrics").await.body, family);
            }
            assert!(count >= 1.0, "{family}");
        }
    }
    let (etcd, rusd) = (told_by_all(&pair.etcd).await, told_by_all(&pair.rusd).await);
    // Whether a snapshot was on its way to who had just been killed is chance.
    let chance = |name: &str| name.starts_with("etcd_network_snapshot_") && name.ends_with("_failures");
    let of_peers = |name: &&String| name.starts_with("etcd_network_") && !chance(name);
    for name in etcd.keys().filter(of_peers) {
        assert_eq!(rusd.get(name), etcd.get(name), "{name}");
    }
}
