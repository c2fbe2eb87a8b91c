//! What isn't gRPC on the client port.

use crate::build::put;
use crate::harness::PATIENCE;
use crate::harness::cluster::Cluster;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::AlarmRequest;
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, PartialEq, Eq)]
struct Page {
    status: u16,
    content_type: String,
    body: String,
}

/// Asks over HTTP/1.1, with a connection of its own.
async fn ask(port: u16, method: &str, path: &str) -> Page {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it answers");
        String::from_utf8(bytes).expect("text")
    };
    let text = tokio::time::timeout(PATIENCE, talk).await.expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let field = |name: &str| head.lines().filter_map(|line| line.split_once(": ")).find(|(field, _)| field.eq_ignore_ascii_case(name));
    let chunked = field("transfer-encoding").is_some_and(|(_, value)| value == "chunked");
    Page {
        status: head.split(' ').nth(1).expect("a status").parse().expect("a number"),
        content_type: field("content-type").map_or("", |(_, value)| value).to_string(),
        body: if chunked { unchunk(body) } else { body.to_string() },
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Checks come in no order.
fn sorted(page: Page) -> Page {
    let mut lines: Vec<&str> = page.body.split_inclusive('\n').collect();
    if lines.iter().any(|line| line.starts_with("[+]") || line.starts_with("[-]")) {
        lines.sort_unstable();
    }
    Page { body: lines.concat(), ..page }
}

async fn same_pages(pair: &Pair, requests: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (method, path) in requests {
        let mut pages = Vec::new();
        for cluster in [&pair.etcd, &pair.rusd] {
            pages.push(sorted(ask(cluster.members[0].client_port, method, path).await));
        }
        if pages[0] != pages[1] {
            wrong.push(format!("{method} {path}\n  etcd: {:?}\n  rusd: {:?}", pages[0], pages[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const HEALTH: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("POST", "/health"),
    ("HEAD", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?serializable=false"),
    ("GET", "/health?exclude=NOSPACE"),
    ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
    ("GET", "/health?exclude=nonsense"),
    ("GET", "/livez"),
    ("PUT", "/livez"),
    ("GET", "/livez?verbose"),
    ("GET", "/livez?verbose=false"),
    ("GET", "/livez?exclude=serializable_read"),
    ("GET", "/livez?verbose&exclude=serializable_read"),
    ("GET", "/livez/serializable_read"),
    ("GET", "/livez/serializable_read?verbose"),
    ("GET", "/livez/linearizable_read"),
    ("GET", "/livez/nonsense"),
    ("GET", "/readyz"),
    ("DELETE", "/readyz"),
    ("GET", "/readyz?verbose"),
    ("GET", "/readyz?verbose&exclude=linearizable_read&exclude=nonsense"),
    ("GET", "/readyz/data_corruption"),
    ("GET", "/readyz/serializable_read"),
    ("GET", "/readyz/linearizable_read"),
    ("GET", "/readyz/non_learner?verbose"),
    ("GET", "/readyz/nonsense"),
];

/// A moment after the start.
async fn versions_decided(cluster: &Cluster) {
    crate::harness::eventually("the versions are decided", || async {
        ask(cluster.members[0].client_port, "GET", "/version").await.body.contains(r#""storage":"3.7.0""#).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_and_version() {
    let pair = Pair::start(&[]).await;
    pair.accepted(put("k", "v")).await;
    for cluster in [&pair.etcd, &pair.rusd] {
        versions_decided(cluster).await;
    }
    same_pages(&pair, HEALTH).await;
    let others = [
        ("GET", "/version"),
        ("POST", "/version"),
        ("GET", "/"),
        ("GET", "/nonsense"),
        ("GET", "/v2/keys"),
        ("GET", "/v2/members"),
        ("GET", "/config/local/log"),
        ("GET", "/debug/pprof/heap"),
        ("GET", "/debug/requests"),
    ];
    same_pages(&pair, &others).await;
    for alarm in [1, 2] {
        pair.accepted(AlarmRequest { action: 1, member_id: 0, alarm }).await;
        same_pages(&pair, HEALTH).await;
        pair.accepted(AlarmRequest { action: 2, member_id: 0, alarm }).await;
    }
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
    let missing = etcd.keys().filter(|name| !rusd.contains_key(*name) && !name.starts_with("go_") && !name.starts_with("promhttp_"));
    assert_eq!(missing.collect::<Vec<_>>(), ABSENT);
}

/// What etcd counts and rusd doesn't.
const ABSENT: &[&str] = &[
    "etcd_debugging_auth_revision",
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
    "etcd_debugging_disk_backend_commit_spill_duration_seconds",
    "etcd_debugging_disk_backend_commit_write_duration_seconds",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    "etcd_debugging_mvcc_db_compaction_last",
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
    "etcd_debugging_snap_save_marshalling_duration_seconds",
    "etcd_debugging_snap_save_total_duration_seconds",
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_debugging_store_watchers",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_backend_snapshot_duration_seconds",
    "etcd_disk_defrag_inflight",
    "etcd_disk_wal_write_bytes_total",
    "etcd_disk_wal_write_duration_seconds",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_events_coalescing_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
    "etcd_mvcc_db_open_read_transactions",
    "etcd_mvcc_hash_duration_seconds",
    "etcd_mvcc_hash_rev_duration_seconds",
    "etcd_server_apply_duration_seconds",
    "etcd_server_client_requests_total",
    "etcd_server_feature_enabled",
    "etcd_server_go_version",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_learner_promote_successes",
    "etcd_server_request_duration_seconds",
    "etcd_server_slow_apply_total",
    "etcd_server_snapshot_apply_in_progress_total",
    "etcd_snap_db_fsync_duration_seconds",
    "etcd_snap_db_save_total_duration_seconds",
    "etcd_snap_fsync_duration_seconds",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "process_network_receive_bytes_total",
    "process_network_transmit_bytes_total",
    "process_virtual_memory_max_bytes",
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
