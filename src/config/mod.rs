//! Flags, `ETCD_*` environment, URLs and identity. STUB with the agreed face.

use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Everything the flags say, validated. Defaults are etcd's.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--listen-peer-urls`.
    pub listen_peer_urls: Vec<Url>,
    /// `--listen-client-urls`.
    pub listen_client_urls: Vec<Url>,
    /// `--initial-advertise-peer-urls`, as etcd prints them (no trailing slash).
    pub advertise_peer_urls: Vec<String>,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<String>,
    /// `--listen-metrics-urls`.
    pub listen_metrics_urls: Vec<Url>,
    /// `--initial-cluster`: name -> sorted peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--initial-cluster-state=existing`.
    pub join_existing: bool,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub snapshot_catchup_entries: u64,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-concurrent-streams`.
    pub max_concurrent_streams: u32,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--quota-backend-bytes`; effective (0 = 2 GiB), `None` = off.
    pub quota_bytes: Option<u64>,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_notify_interval: Duration,
    /// `--compaction-batch-limit`.
    pub compaction_batch_limit: usize,
    /// `--compaction-sleep-interval`.
    pub compaction_sleep_interval: Duration,
    /// `--auto-compaction-mode` = revision (else periodic).
    pub auto_compaction_by_revision: bool,
    /// `--auto-compaction-retention`; a duration or a count of revisions, raw.
    pub auto_compaction_retention: String,
    /// `--rusd-memory-budget`: resident values, bytes (ours).
    pub memory_budget_bytes: u64,
}

impl Config {
    /// etcd's ReqTimeout: 5 s + 2 election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}
