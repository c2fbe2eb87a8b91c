//! What Prometheus sees, under etcd's names (contract c.3).
//!
//! Counters are bumped where things happen; whatever the member knows anyway (sizes, Raft indexes) is read when somebody scrapes.

mod network;

use crate::pb;
use crate::server::Server;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Code;

/// Codes by their number, as grpc-go's interceptor names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many requests, one response.
    ClientStream,
    /// Many and many.
    BidiStream,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Counters of one gRPC method, found once per request by its path.
#[derive(Debug)]
pub struct Method {
    /// How it is called.
    pub kind: Kind,
    /// Calls begun.
    pub started: IntCounter,
    /// Calls ended, by code.
    handled: Vec<IntCounter>,
}

impl Method {
    /// Counts a call that ended with `code`.
    pub fn handled(&self, code: Code) {
        self.handled[code as usize].inc();
    }
}

/// Histograms of the disk, to be observed by whoever watches the engine.
#[derive(Debug)]
pub struct Disk {
    /// fdatasync of the log, seconds.
    pub wal_fsync: Histogram,
    /// State written and synced, seconds.
    pub backend_commit: Histogram,
}

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    methods: HashMap<String, Arc<Method>>,
    /// Puts asked of this member.
    pub puts: IntCounter,
    /// Ranges asked of this member.
    pub ranges: IntCounter,
    /// Txns asked of this member.
    pub txns: IntCounter,
    /// Deletes asked of this member.
    pub deletes: IntCounter,
    /// Proposals under way.
    pub proposals_pending: IntGauge,
    /// Proposals without an answer.
    pub proposals_failed: IntCounter,
    /// Bytes of gRPC messages from clients.
    pub received_bytes: IntCounter,
    /// Bytes of gRPC messages to clients.
    pub sent_bytes: IntCounter,
    /// Health checks that failed.
    pub health_failures: IntCounter,
    /// Health checks that passed.
    pub health_successes: IntCounter,
    /// The disk.
    pub disk: Disk,
    scraped: Scraped,
    /// Scrapes set what they read: one at a time.
    scraping: parking_lot::Mutex<()>,
}

/// Gauges that are set when somebody scrapes.
#[derive(Debug)]
struct Scraped {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    leader_changes: IntCounter,
    committed: IntGauge,
    applied: IntGauge,
    db_total: IntGauge,
    db_in_use: IntGauge,
    quota: IntGauge,
    revision: IntGauge,
    compact_revision: IntGauge,
    keys: IntGauge,
    cluster_version: IntGaugeVec,
    server_id: IntGaugeVec,
    alarms: IntGaugeVec,
    fds_used: Gauge,
    fds_limit: Gauge,
    network: network::Network,
}

/// Registers as it makes: a name given twice is a mistake of ours.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("names and labels are constants");
        self.0.register(Box::new(metric.clone())).expect("each name is used once");
        metric
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }
    /// etcd's buckets for disk latencies: 1 ms, doubled 13 times.
    fn latency(&self, name: &str, help: &str) -> Histogram {
        let buckets = exponential_buckets(0.001, 2.0, 14).expect("constants");
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }
}

impl Metrics {
    /// A fresh registry with every series at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("registered once, into a fresh registry");
        let version = make.gauges(
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            &["server_version"],
        );
        version.with_label_values(&[crate::grpc::ETCD_VERSION]).set(1);
        Self {
            methods: methods(&make),
            puts: make.counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
            ranges: make.counter("etcd_mvcc_range_total", "Total number of ranges seen by this member."),
            txns: make.counter("etcd_mvcc_txn_total", "Total number of txns seen by this member."),
            deletes: make.counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member."),
            proposals_pending: make.gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
            proposals_failed: make.counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
            received_bytes: make
                .counter("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients."),
            sent_bytes: make.counter("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients."),
            health_failures: make.counter("etcd_server_health_failures", "The total number of failed health checks"),
            health_successes: make.counter("etcd_server_health_success", "The total number of successful health checks"),
            disk: Disk {
                wal_fsync: make.latency("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL."),
                backend_commit: make
                    .latency("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend."),
            },
            scraped: Scraped::new(&make),
            scraping: parking_lot::Mutex::default(),
            registry,
        }
    }

    /// The counters of the method at `path` ("/package.Service/Method").
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Whether any method belongs to this service.
    pub fn has_service(&self, service: &str) -> bool {
        self.methods
            .keys()
            .any(|path| path.strip_prefix('/').and_then(|path| path.rsplit_once('/')).is_some_and(|(known, _)| known == service))
    }

    /// Where further families are registered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text of a scrape.
    pub fn render(&self, server: &Server) -> Vec<u8> {
        let _one = self.scraping.lock();
        self.scraped.read(server);
        self.encode()
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(64 << 10);
        // Only an inconsistent family can fail, and families come from the registry.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics not encoded");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Scraped {
    fn new(make: &Maker<'_>) -> Self {
        Self {
            has_leader: make.gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not."),
            is_leader: make.gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise."),
            is_learner: make.gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise."),
            leader_changes: make.counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen."),
            committed: make.gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed."),
            applied: make.gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied."),
            db_total: make
                .gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes."),
            db_in_use: make
                .gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes."),
            quota: make.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes."),
            revision: make.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store."),
            compact_revision: make.gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store."),
            keys: make.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys."),
            cluster_version: make.gauges(
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                &["cluster_version"],
            ),
            server_id: make.gauges(
                "etcd_server_id",
                "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
                &["server_id"],
            ),
            alarms: make.gauges(
                "etcd_debugging_server_alarms",
                "Alarms for every member in cluster. 1 for 'server_id' label with current ID.",
                &["server_id", "alarm_type"],
            ),
            fds_used: make.keep(Gauge::new("os_fd_used", "The number of used file descriptors.")),
            fds_limit: make.keep(Gauge::new("os_fd_limit", "The file descriptor limit.")),
            network: network::Network::new(make),
        }
    }

    fn read(&self, server: &Server) {
        let (status, store) = (server.consensus.status(), server.state.store());
        let usage = server.engine.usage();
        let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.has_leader.set(i64::from(status.leader != 0));
        self.is_leader.set(i64::from(status.leader == server.identity.member_id));
        self.is_learner.set(i64::from(status.is_learner));
        self.leader_changes.reset();
        self.leader_changes.inc_by(server.consensus.leader_changes());
        self.committed.set(int(status.committed));
        self.applied.set(int(status.applied));
        self.db_total.set(int(usage.frame_bytes));
        self.db_in_use.set(int(usage.frame_bytes));
        self.quota.set(int(server.config.quota_bytes.unwrap_or(0)));
        self.revision.set(store.revision());
        self.compact_revision.set(store.compact_revision());
        self.keys.set(int(store.key_count() as u64));
        self.cluster_version.reset();
        // "3.7": etcd leaves out the patch, and the family until there is a version.
        if let Some((minor, _)) = server.state.cluster_version().rsplit_once('.') {
            self.cluster_version.with_label_values(&[minor]).set(1);
        }
        self.server_id.with_label_values(&[&format!("{:x}", server.identity.member_id)]).set(1);
        self.alarms.reset();
        for alarm in server.state.alarms() {
            let name = crate::grpc::alarm_name(alarm.r#type);
            self.alarms.with_label_values(&[&format!("{:x}", alarm.member_id), name]).set(1);
        }
        let (used, limit) = file_descriptors();
        self.fds_used.set(used);
        self.fds_limit.set(limit);
        self.network.read(server);
    }
}

/// Used and allowed; zero where the system doesn't tell.
fn file_descriptors() -> (f64, f64) {
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = std::fs::read_to_string("/proc/self/limits").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse::<f64>().ok()
    });
    (used as f64, limit.unwrap_or(0.0))
}

/// Every method of every service, with all its series at zero.
fn methods(make: &Maker<'_>) -> HashMap<String, Arc<Method>> {
    let labels = ["grpc_method", "grpc_service", "grpc_type"];
    let started = make.counters("grpc_server_started_total", "Total number of RPCs started on the server.", &labels);
    let labels = ["grpc_code", "grpc_method", "grpc_service", "grpc_type"];
    let handled = make.counters(
        "grpc_server_handled_total",
        "Total number of RPCs completed on the server, regardless of success or failure.",
        &labels,
    );
    let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).expect("written by build.rs");
    let mut methods = HashMap::new();
    for file in set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => Kind::Unary,
                    (false, true) => Kind::ServerStream,
                    (true, false) => Kind::ClientStream,
                    (true, true) => Kind::BidiStream,
                };
                let counters = Method {
                    kind,
                    started: started.with_label_values(&[method.name(), &name, kind.name()]),
                    handled: CODES.iter().map(|code| handled.with_label_values(&[code, method.name(), &name, kind.name()])).collect(),
                };
                methods.insert(format!("/{name}/{}", method.name()), Arc::new(counters));
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_are_there_from_the_start() {
        let metrics = Metrics::new();
        assert_eq!(metrics.methods.len(), 6 + 1 + 5 + 5 + 8 + 17 + 2 + 5 + 3);
        assert_eq!(metrics.method("/etcdserverpb.Watch/Watch").expect("it is etcd's").kind, Kind::BidiStream);
        let put = metrics.method("/etcdserverpb.KV/Put").expect("it is etcd's");
        put.started.inc();
        put.handled(Code::Cancelled);
        let text = String::from_utf8(metrics.encode()).expect("text");
        let want =
            r#"grpc_server_handled_total{grpc_code="Canceled",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#;
        assert!(text.contains(want), "{text}");
        assert!(text.contains(
            r#"grpc_server_started_total{grpc_method="Snapshot",grpc_service="etcdserverpb.Maintenance",grpc_type="server_stream"} 0"#
        ));
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(text.contains(r#"etcd_server_version{server_version="3.7.1"} 1"#));
    }
}
