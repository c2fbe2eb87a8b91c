//! Operating a member: logs, metrics, checks.

use super::Class::{Built, Later, NoMeaning};
use super::Kind::{Bool, Duration, Int, Text, Uint, Urls};
use super::{Flag, flag};

/// What an operator looks at.
pub const MONITORING: &[Flag] = &[
    flag("enable-pprof", Bool, "false", NoMeaning, "Enable runtime profiling data via HTTP server"),
    flag(
        "metrics",
        Text,
        "basic",
        Later("extensive metrics"),
        "Set level of detail for exported metrics, specify 'extensive' to include server side grpc histogram ...",
    ),
    flag("listen-metrics-urls", Urls, "", Built, "List of URLs to listen on for the /metrics and /health endpoints"),
];

/// Log lines.
pub const LOGGING: &[Flag] = &[
    flag("logger", Text, "zap", Built, "Currently only supports 'zap' for structured logging"),
    flag(
        "log-outputs",
        Text,
        "default",
        Built,
        "Specify 'stdout' or 'stderr' to skip journald logging even when running under systemd, or list of ...",
    ),
    flag("log-level", Text, "info", Built, "Configures log level"),
    flag("log-format", Text, "json", Built, "Configures log format"),
    flag("enable-log-rotation", Bool, "false", Later("log rotation"), "Enable log rotation of a single log-outputs file target"),
    flag(
        "log-rotation-config-json",
        Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        Later("log rotation"),
        "Configures log rotation if enabled with a JSON logger config",
    ),
    flag(
        "warning-unary-request-duration",
        Duration,
        "300ms",
        Built,
        "Set time duration after which a warning is logged if a unary request takes more than this duration",
    ),
];

/// Spans.
pub const TRACING: &[Flag] = &[
    flag("enable-distributed-tracing", Bool, "false", Later("distributed tracing"), "Enable distributed tracing"),
    flag("distributed-tracing-address", Text, "localhost:4317", Later("distributed tracing"), "Distributed tracing collector address"),
    flag(
        "distributed-tracing-service-name",
        Text,
        "etcd",
        Later("distributed tracing"),
        "Distributed tracing service name, must be same across all etcd instances",
    ),
    flag(
        "distributed-tracing-instance-id",
        Text,
        "",
        Later("distributed tracing"),
        "Distributed tracing instance ID, must be unique per each etcd instance",
    ),
    flag(
        "distributed-tracing-sampling-rate",
        Int,
        "0",
        Later("distributed tracing"),
        "Number of samples to collect per million spans for distributed tracing",
    ),
];

/// What etcd once called experimental.
pub const FEATURES: &[Flag] = &[
    flag("corrupt-check-time", Duration, "0s", Built, "Duration of time between cluster corruption check passes"),
    flag("compact-hash-check-time", Duration, "1m0s", Built, "Duration of time between leader checks followers compaction hashes"),
    flag(
        "compaction-batch-limit",
        Int,
        "1000",
        Later("paced compaction"),
        "CompactionBatchLimit sets the maximum revisions deleted in each compaction batch",
    ),
    flag(
        "peer-skip-client-san-verification",
        Bool,
        "false",
        Later("TLS"),
        "Skip verification of SAN field in client certificate for peer connections",
    ),
    flag("watch-progress-notify-interval", Duration, "10m", Built, "Duration of periodical watch progress notification"),
    flag("warning-apply-duration", Duration, "100ms", Built, "Warning is generated if requests take more than this duration"),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        Built,
        "Enable the defrag during etcd server bootstrap on condition that it will free at least the provided ...",
    ),
    flag("max-learners", Int, "1", Built, "Set the max number of learner members allowed in the cluster membership"),
    flag("compaction-sleep-interval", Duration, "10ms", Built, "Sets the sleep interval between each compaction batch"),
    flag("downgrade-check-time", Duration, "5s", Later("downgrades"), "Duration of time between two downgrade status checks"),
    flag(
        "snapshot-catchup-entries",
        Uint,
        "5000",
        Built,
        "Number of entries for a slow follower to catch up after compacting the raft storage entries",
    ),
];

/// What may lose data.
pub const UNSAFE: &[Flag] = &[
    flag("force-new-cluster", Bool, "false", Built, "Force to create a new one-member cluster"),
    flag("unsafe-no-fsync", Bool, "false", NoMeaning, "Disables fsync, unsafe, will cause data loss"),
];

/// What etcd doesn't have.
pub const OWN: &[Flag] =
    &[flag("rusd-memory-budget", Uint, "50331648", Built, "Bytes of values kept in memory; older and further ones are read from disk")];

/// The file, and the version.
pub const OTHER: &[Flag] = &[
    flag("config-file", Text, "", Built, "Path to a configuration file (YAML or JSON); all other flags and variables are then ignored"),
    flag("version", Bool, "false", Built, "Print the version and exit"),
];
