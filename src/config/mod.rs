//! Flags, `ETCD_*` environment, file and URLs, down to one validated [`Config`].
//!
//! ```text
//! arguments, environment, file -> parse (table: flags) -> Flags (checked values) -> Config::new (etcd's rules between flags)
//! ```
//!
//! Nothing below this room knows a flag's text.

mod addresses;
mod announce;
mod error;
pub mod file;
pub mod flags;
pub mod parse;
pub mod retention;
pub mod urls;
pub mod value;

pub use error::ConfigError;
pub use parse::{Flags, Notice, ParseError};
pub use retention::Retention;

use addresses::Addresses;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;
use urls::Address;

const DEFAULT_NAME: &str = "default";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
/// etcd's maxElectionMs.
const ELECTION_MAX_MS: u64 = 50_000;
/// etcd's snapshot count when the flag says 0.
const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
/// etcd's quota when the flag says 0.
const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;

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
    /// `--listen-client-http-urls`; not empty = HTTP is served there and the client URLs are gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    /// `--listen-metrics-urls`.
    pub listen_metrics_urls: Vec<Url>,
    /// `--socket-reuse-port`.
    pub socket_reuse_port: bool,
    /// `--initial-cluster`: name -> sorted peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--initial-cluster-state=existing`.
    pub join_existing: bool,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--corrupt-check-time`; zero = at our own pace.
    pub corrupt_check_time: Duration,
    /// `--compact-hash-check-time`; never zero.
    pub compact_hash_check_time: Duration,
    /// Feature gates, by name.
    pub gates: Vec<(&'static str, bool)>,
    /// The feature gate `InitialCorruptCheck`.
    pub initial_corrupt_check: bool,
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
    /// `--watch-progress-notify-interval`; effective (0 = 10 minutes, at least 100 ms).
    pub watch_progress_notify_interval: Duration,
    /// `--compaction-batch-limit`.
    pub compaction_batch_limit: usize,
    /// `--warning-apply-duration`.
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`; zero = no warnings.
    pub warning_unary_request_duration: Duration,
    /// `--bootstrap-defrag-threshold-megabytes`.
    pub defrag_threshold_megabytes: u64,
    /// `--compaction-sleep-interval`.
    pub compaction_sleep_interval: Duration,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub auto_compaction: Retention,
    /// `--wal-dir`: nothing of ours lies there, but an etcd's log may.
    pub wal_dir: Option<PathBuf>,
    /// `--rusd-memory-budget`: resident values, bytes (ours).
    pub memory_budget_bytes: u64,
}

impl Config {
    /// What the flags mean together. Texts of the refusals are etcd's where etcd has one.
    pub fn new(flags: &Flags) -> Result<Self, ConfigError> {
        if let Some(sentence) = flags.refusal() {
            return Err(ConfigError::NotBuilt(sentence));
        }
        let addresses = Addresses::new(flags)?;
        check_times(flags)?;
        check_rest(flags)?;
        let name = flags.text("name").to_owned();
        let data_dir = if flags.text("data-dir").is_empty() { format!("{name}.etcd") } else { flags.text("data-dir").to_owned() };
        let size = |name: &str| usize::try_from(flags.uint(name)).unwrap_or(usize::MAX);
        let count = |name: &str| usize::try_from(flags.int(name)).unwrap_or(0);
        Ok(Self {
            data_dir: data_dir.into(),
            listen_peer_urls: only_urls(&addresses.listen_peer),
            listen_client_urls: only_urls(&addresses.listen_client),
            advertise_peer_urls: urls::texts(&addresses.advertise_peer),
            advertise_client_urls: urls::texts(&addresses.advertise_client),
            listen_client_http_urls: only_urls(&addresses.listen_http),
            listen_metrics_urls: only_urls(&addresses.listen_metrics),
            socket_reuse_port: flags.boolean("socket-reuse-port"),
            initial_cluster: initial_cluster(flags, &name, &addresses.advertise_peer)?,
            initial_cluster_token: flags.text("initial-cluster-token").into(),
            join_existing: flags.text("initial-cluster-state") == "existing",
            force_new_cluster: flags.boolean("force-new-cluster"),
            corrupt_check_time: flags.duration("corrupt-check-time"),
            compact_hash_check_time: flags.duration("compact-hash-check-time"),
            gates: flags::GATES.iter().map(|(name, _)| (*name, flags.gate(name))).collect(),
            initial_corrupt_check: flags.gate("InitialCorruptCheck"),
            heartbeat_interval: Duration::from_millis(flags.uint("heartbeat-interval")),
            election_timeout: Duration::from_millis(flags.uint("election-timeout")),
            pre_vote: flags.boolean("pre-vote"),
            snapshot_count: or_default(flags.uint("snapshot-count"), SNAPSHOT_COUNT_DEFAULT),
            snapshot_catchup_entries: flags.uint("snapshot-catchup-entries"),
            max_request_bytes: size("max-request-bytes"),
            max_txn_ops: size("max-txn-ops"),
            max_concurrent_streams: or_default(u32::try_from(flags.uint("max-concurrent-streams")).unwrap_or(u32::MAX), u32::MAX),
            max_learners: count("max-learners"),
            strict_reconfig_check: flags.boolean("strict-reconfig-check"),
            quota_bytes: quota(flags.int("quota-backend-bytes")),
            watch_progress_notify_interval: progress_interval(flags.duration("watch-progress-notify-interval")),
            compaction_batch_limit: count("compaction-batch-limit"),
            warning_apply_duration: flags.duration("warning-apply-duration"),
            warning_unary_request_duration: flags.duration("warning-unary-request-duration"),
            defrag_threshold_megabytes: flags.uint("bootstrap-defrag-threshold-megabytes"),
            compaction_sleep_interval: flags.duration("compaction-sleep-interval"),
            auto_compaction: auto_compaction(flags)?,
            wal_dir: Some(flags.text("wal-dir")).filter(|text| !text.is_empty()).map(PathBuf::from),
            memory_budget_bytes: flags.uint("rusd-memory-budget"),
            name,
        })
    }

    /// etcd's ReqTimeout: 5 s + 2 election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}

fn only_urls(addresses: &[Address]) -> Vec<Url> {
    addresses.iter().map(|address| address.url.clone()).collect()
}

/// `--name X` alone means a cluster of X at its advertised URLs.
fn initial_cluster(flags: &Flags, name: &str, advertised: &[Address]) -> Result<urls::Cluster, ConfigError> {
    let text = flags.text("initial-cluster");
    let default = flags::find("initial-cluster").map_or("", |flag| flag.default);
    if name != DEFAULT_NAME && text == default {
        let name = if name.is_empty() { DEFAULT_NAME } else { name };
        let pairs: Vec<String> = advertised.iter().map(|address| format!("{name}={}", address.text)).collect();
        // By way of its text, as etcd does: a name with a comma is found out here.
        return Ok(urls::parse_cluster(&pairs.join(","))?);
    }
    Ok(urls::parse_cluster(text)?)
}

fn check_times(flags: &Flags) -> Result<(), ConfigError> {
    let (heartbeat, election) = (flags.uint("heartbeat-interval"), flags.uint("election-timeout"));
    match (heartbeat, election) {
        (0, _) => Err(ConfigError::ZeroTime("heartbeat-interval")),
        (_, 0) => Err(ConfigError::ZeroTime("election-timeout")),
        _ if heartbeat.saturating_mul(5) > election => Err(ConfigError::ElectionTooShort(election, heartbeat)),
        _ if election > ELECTION_MAX_MS => Err(ConfigError::ElectionTooLong(election)),
        _ => Ok(()),
    }
}

fn check_rest(flags: &Flags) -> Result<(), ConfigError> {
    let mode = flags.text("auto-compaction-mode");
    match mode {
        "periodic" | "revision" => {}
        "" => return Err(ConfigError::NoCompactionMode),
        other => return Err(ConfigError::CompactionMode(other.into())),
    }
    if flags.gate("LeaseCheckpointPersist") && !flags.gate("LeaseCheckpoint") {
        return Err(ConfigError::PersistWithoutCheckpoint);
    }
    if flags.duration("compact-hash-check-time").is_zero() {
        return Err(ConfigError::CompactHashCheckTime(flags.text("compact-hash-check-time").into()));
    }
    for flag in ["tls-min-version", "tls-max-version"] {
        if !matches!(flags.text(flag), "" | "TLS1.2" | "TLS1.3") {
            return Err(ConfigError::TlsVersion(flags.text(flag).into()));
        }
    }
    if flags.text("discovery-fallback") == "proxy" {
        return Err(ConfigError::Fallback);
    }
    match flags.int("distributed-tracing-sampling-rate") {
        _ if !flags.boolean("enable-distributed-tracing") => {}
        ..0 => return Err(ConfigError::SamplingRate("positive")),
        1_000_001.. => return Err(ConfigError::SamplingRate("less than 1000000")),
        _ => {}
    }
    if flags.int("max-learners") < 0 { Err(ConfigError::MaxLearners) } else { Ok(()) }
}

fn auto_compaction(flags: &Flags) -> Result<Retention, ConfigError> {
    Ok(retention::parse(flags.text("auto-compaction-mode") == "revision", flags.text("auto-compaction-retention"))?)
}

/// 0 means etcd's default.
fn or_default<T: Default + PartialEq>(flag: T, default: T) -> T {
    if flag == T::default() { default } else { flag }
}

/// 0 means etcd's 2 GiB, less means no quota.
fn quota(flag: i64) -> Option<u64> {
    match u64::try_from(flag) {
        Ok(0) => Some(QUOTA_DEFAULT_BYTES),
        Ok(bytes) => Some(bytes),
        Err(_) => None,
    }
}

/// 0, which is the default of etcd's library, means 10 minutes; less than 100 ms would be all that a stream does.
fn progress_interval(flag: Duration) -> Duration {
    if flag.is_zero() { Duration::from_secs(600) } else { flag.max(Duration::from_millis(100)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, ConfigError> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Config::new(&Flags::read(&arguments, &[]).expect("they parse"))
    }

    fn refusal(arguments: &[&str]) -> String {
        config(arguments).expect_err("refused").to_string()
    }

    #[test]
    fn without_flags_all_is_as_with_etcd() {
        let config = config(&[]).expect("the defaults");
        assert_eq!((config.name.as_str(), config.data_dir.as_os_str()), ("default", "default.etcd".as_ref()));
        assert_eq!(config.initial_cluster, [("default".to_owned(), vec![DEFAULT_PEER_URL.to_owned()])]);
        assert_eq!(config.advertise_client_urls, [DEFAULT_CLIENT_URL]);
        assert_eq!((config.max_request_bytes, config.max_txn_ops, config.max_concurrent_streams), (1_572_864, 128, u32::MAX));
        assert_eq!((config.snapshot_count, config.snapshot_catchup_entries, config.quota_bytes), (10_000, 5_000, Some(2 << 30)));
        assert_eq!(config.request_timeout(), Duration::from_secs(7));
    }

    #[test]
    fn a_name_alone_makes_a_cluster_of_one() {
        let config = config(&["--name", "x", "--initial-advertise-peer-urls=http://127.0.0.1:1"]).expect("a config");
        assert_eq!(config.initial_cluster, [("x".to_owned(), vec!["http://127.0.0.1:1".to_owned()])]);
        assert_eq!(config.data_dir.as_os_str(), "x.etcd");
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_in_etcds_words() {
        assert_eq!(
            refusal(&["--listen-client-urls=http://127.0.0.1:1"]),
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        );
        assert_eq!(refusal(&["--listen-peer-urls=http://foo:1"]), "expected IP in URL for binding (http://foo:1)");
        assert_eq!(
            refusal(&["--heartbeat-interval=300"]),
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]"
        );
        assert_eq!(refusal(&["--election-timeout=50001"]), "--election-timeout[50001ms] is too long, and should be set less than 50000ms");
        assert_eq!(refusal(&["--name=a,b"]), "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ");
        assert_eq!(refusal(&["--auto-compaction-mode=x"]), "unknown auto-compaction-mode \"x\"");
        assert!(refusal(&["--listen-peer-urls=https://127.0.0.1:1"]).contains("TLS is not built yet"));
        assert!(refusal(&["--initial-cluster=a"]).contains("URL scheme must be http"));
        let error = config(&["--auto-compaction-retention=1d"]).expect_err("refused");
        assert!(error.ends_start());
        assert_eq!(error.to_string(), "error parsing CompactionRetention: time: unknown unit \"d\" in duration \"1d\"");
    }

    #[test]
    fn the_progress_interval_is_never_zero() {
        for (text, millis) in [("0s", 600_000), ("-1s", 600_000), ("1ms", 100), ("5s", 5000), ("10m", 600_000)] {
            let config = config(&["--watch-progress-notify-interval", text]).expect("a config");
            assert_eq!(config.watch_progress_notify_interval, Duration::from_millis(millis), "{text}");
        }
    }
}
