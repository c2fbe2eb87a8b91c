//! The one table of flags: every flag of etcd 3.7.1, those of older versions that manifests still carry, and ours.
//!
//! Everything else (the parser, the environment, the file, `--help`) is driven by it. clap doesn't fit: Go's `flag` accepts `-name`
//! and `--name`, takes a boolean's value only after `=`, lets the last of several win, and has error texts of its own that
//! scripts match; a parser for that is shorter than the bending of another one.

use Class::{Built, Later, NoMeaning, Refused};
use Kind::{Bool, Duration, Gates, Int, OneOf, Text, Uint, Uint32, Urls};

/// What a value must look like; the names follow Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true`, `false`, `1`, `0`, `t`, `f`; alone it means true.
    Bool,
    /// Anything.
    Text,
    /// Unsigned, 64 bits, also `0x..`, `0b..`.
    Uint,
    /// Unsigned, 32 bits.
    Uint32,
    /// Signed, 64 bits.
    Int,
    /// Go's durations: `1h2m3.5s`, `10ms`.
    Duration,
    /// URLs separated by commas, or empty.
    Urls,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `Gate=true,Other=false`.
    Gates,
}

/// What rusd makes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Works.
    Built,
    /// About bbolt, the WAL or the Go runtime: there is nothing here for it to change. Accepted with a log line.
    NoMeaning,
    /// Accepted and checked, with a warning until this is built.
    Later(&'static str),
    /// To ignore it would be dangerous, so anything but its default is refused until this is built.
    Refused(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How its value is checked.
    pub kind: Kind,
    /// etcd's default.
    pub default: &'static str,
    /// What we make of it.
    pub class: Class,
    /// A line for `--help`.
    pub help: &'static str,
}

/// A flag of an older etcd, and what it is called now.
#[derive(Clone, Copy, Debug)]
pub enum Old {
    /// Renamed.
    Renamed(&'static str),
    /// Became a feature gate.
    Gate(&'static str),
    /// Gone; boolean or not.
    Gone(Kind),
}

/// Finds a flag of [`FLAGS`].
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// Finds a flag of an older etcd.
pub fn find_old(name: &str) -> Option<Old> {
    OLD.iter().find(|(old, _)| *old == name).map(|(_, what)| *what)
}

/// All rows of [`FLAGS`].
pub fn all() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().flat_map(|(_, flags)| flags.iter())
}

/// `ETCD_DATA_DIR` for `data-dir`.
pub fn environment_name(name: &str) -> String {
    format!("ETCD_{}", name.to_uppercase().replace('-', "_"))
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, class: Class, help: &'static str) -> Flag {
    Flag { name, kind, default, class, help }
}

/// Feature gates with their defaults.
pub const GATES: &[(&str, bool)] = &[
    ("AllAlpha", false),
    ("AllBeta", false),
    ("CompactHashCheck", false),
    ("FastLeaseKeepAlive", true),
    ("InitialCorruptCheck", false),
    ("LeaseCheckpoint", false),
    ("LeaseCheckpointPersist", false),
    ("PriorityRequest", false),
    ("SetMemberLocalAddr", false),
    ("StopGRPCServiceOnDefrag", false),
    ("TxnModeWriteWithSharedBuffer", true),
];

/// Every flag, in the groups of etcd's help.
pub const FLAGS: &[(&str, &[Flag])] = &[
    (
        "Member",
        &[
            flag("name", Text, "default", Built, "Human-readable name for this member"),
            flag("data-dir", Text, "", Built, "Path to the data directory"),
            flag("wal-dir", Text, "", NoMeaning, "Path to the dedicated wal directory"),
            flag("snapshot-count", Uint, "10000", Built, "Number of committed transactions to trigger a snapshot"),
            flag("heartbeat-interval", Uint, "100", Built, "Time (in milliseconds) of a heartbeat interval"),
            flag("election-timeout", Uint, "1000", Built, "Time (in milliseconds) for an election to timeout"),
            flag(
                "initial-election-tick-advance",
                Bool,
                "true",
                NoMeaning,
                "Whether to fast-forward initial election ticks on boot for faster election",
            ),
            flag("listen-peer-urls", Urls, "http://localhost:2380", Built, "List of URLs to listen on for peer traffic"),
            flag(
                "listen-client-urls",
                Urls,
                "http://localhost:2379",
                Built,
                "List of URLs to listen on for client grpc traffic and http as long as --listen-client-http-urls is ...",
            ),
            flag("listen-client-http-urls", Urls, "", Built, "List of URLs to listen on for http only client traffic"),
            flag("max-snapshots", Uint, "5", NoMeaning, "Maximum number of snapshot files to retain (0 is unlimited)"),
            flag("max-wals", Uint, "5", NoMeaning, "Maximum number of wal files to retain (0 is unlimited)"),
            flag("memory-mlock", Bool, "false", NoMeaning, "Enable to enforce pages (in particular bbolt) to stay in RAM"),
            flag(
                "quota-backend-bytes",
                Int,
                "0",
                Later("the quota"),
                "Sets the maximum size (in bytes) that the etcd backend database may consume",
            ),
            flag(
                "backend-bbolt-freelist-type",
                Text,
                "map",
                NoMeaning,
                "BackendFreelistType specifies the type of freelist that boltdb backend uses(array and map are ...",
            ),
            flag(
                "backend-batch-interval",
                Duration,
                "0s",
                NoMeaning,
                "BackendBatchInterval is the maximum time before commit the backend transaction",
            ),
            flag(
                "backend-batch-limit",
                Int,
                "0",
                NoMeaning,
                "BackendBatchLimit is the maximum operations before commit the backend transaction",
            ),
            flag("max-txn-ops", Uint, "128", Built, "Maximum number of operations permitted in a transaction"),
            flag("max-request-bytes", Uint, "1572864", Built, "Maximum client request size in bytes the server will accept"),
            flag("max-concurrent-streams", Uint32, "4294967295", Built, "Maximum concurrent streams that each client can open at a time"),
            flag(
                "grpc-keepalive-min-time",
                Duration,
                "5s",
                Later("own keep-alive times"),
                "Minimum duration interval that a client should wait before pinging server",
            ),
            flag(
                "grpc-keepalive-interval",
                Duration,
                "2h",
                Later("own keep-alive times"),
                "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable)",
            ),
            flag(
                "grpc-keepalive-timeout",
                Duration,
                "20s",
                Later("own keep-alive times"),
                "Additional duration of wait before closing a non-responsive connection (0 to disable)",
            ),
            flag(
                "socket-reuse-port",
                Bool,
                "false",
                Built,
                "Enable to set socket option SO_REUSEPORT on listeners allowing rebinding of a port already in use",
            ),
            flag(
                "socket-reuse-address",
                Bool,
                "false",
                Built,
                "Enable to set socket option SO_REUSEADDR on listeners allowing binding to an address in TIME_WAIT ...",
            ),
            flag("enable-grpc-gateway", Bool, "true", Later("the JSON gateway"), "Enable GRPC gateway"),
            flag("raft-read-timeout", Duration, "5s", NoMeaning, "Read timeout set on each rafthttp connection"),
            flag("raft-write-timeout", Duration, "5s", NoMeaning, "Write timeout set on each rafthttp connection"),
            flag(
                "feature-gates",
                Gates,
                "",
                Later("feature gates"),
                "A set of key=value pairs that describe server level feature gates for alpha/experimental features",
            ),
        ],
    ),
    (
        "Clustering",
        &[
            flag(
                "initial-advertise-peer-urls",
                Urls,
                "http://localhost:2380",
                Built,
                "List of this member's peer URLs to advertise to the rest of the cluster",
            ),
            flag("initial-cluster", Text, "default=http://localhost:2380", Built, "Initial cluster configuration for bootstrapping"),
            flag(
                "initial-cluster-state",
                OneOf(&["new", "existing"]),
                "new",
                Built,
                "Initial cluster state ('new' when bootstrapping a new cluster or 'existing' when adding new members ...",
            ),
            flag("initial-cluster-token", Text, "etcd-cluster", Built, "Initial cluster token for the etcd cluster during bootstrap"),
            flag(
                "advertise-client-urls",
                Urls,
                "http://localhost:2379",
                Built,
                "List of this member's client URLs to advertise to the public",
            ),
            flag("discovery", Text, "", Refused("Discovery"), "Discovery URL used to bootstrap the cluster for v2 discovery"),
            flag(
                "discovery-token",
                Text,
                "",
                Refused("Discovery"),
                "V3 discovery: discovery token for the etcd cluster to be bootstrapped",
            ),
            flag("discovery-endpoints", Text, "", Refused("Discovery"), "V3 discovery: List of gRPC endpoints of the discovery service"),
            flag("discovery-dial-timeout", Duration, "2s", Refused("Discovery"), "V3 discovery: dial timeout for client connections"),
            flag(
                "discovery-request-timeout",
                Duration,
                "5s",
                Refused("Discovery"),
                "V3 discovery: timeout for discovery requests (excluding dial timeout)",
            ),
            flag("discovery-keepalive-time", Duration, "2s", Refused("Discovery"), "V3 discovery: keepalive time for client connections"),
            flag(
                "discovery-keepalive-timeout",
                Duration,
                "6s",
                Refused("Discovery"),
                "V3 discovery: keepalive timeout for client connections",
            ),
            flag(
                "discovery-insecure-transport",
                Bool,
                "true",
                Refused("Discovery"),
                "V3 discovery: disable transport security for client connections",
            ),
            flag(
                "discovery-insecure-skip-tls-verify",
                Bool,
                "false",
                Refused("Discovery"),
                "V3 discovery: skip server certificate verification (CAUTION: this option should be enabled only for ...",
            ),
            flag("discovery-cert", Text, "", Refused("Discovery"), "V3 discovery: identify secure client using this TLS certificate file"),
            flag("discovery-key", Text, "", Refused("Discovery"), "V3 discovery: identify secure client using this TLS key file"),
            flag(
                "discovery-cacert",
                Text,
                "",
                Refused("Discovery"),
                "V3 discovery: verify certificates of TLS-enabled secure servers using this CA bundle",
            ),
            flag(
                "discovery-user",
                Text,
                "",
                Refused("Discovery"),
                "V3 discovery: username[:password] for authentication (prompt if password is not supplied)",
            ),
            flag(
                "discovery-password",
                Text,
                "",
                Refused("Discovery"),
                "V3 discovery: password for authentication (if this option is used, --user option shouldn't include ...",
            ),
            flag(
                "discovery-fallback",
                OneOf(&["exit", "proxy"]),
                "exit",
                NoMeaning,
                "Expected behavior ('exit') when discovery services fails",
            ),
            flag("discovery-proxy", Text, "", Refused("Discovery"), "HTTP proxy to use for traffic to discovery service"),
            flag("discovery-srv", Text, "", Refused("Discovery"), "DNS srv domain used to bootstrap the cluster"),
            flag("discovery-srv-name", Text, "", Refused("Discovery"), "Suffix to the dns srv name queried when bootstrapping"),
            flag(
                "strict-reconfig-check",
                Bool,
                "true",
                Later("membership changes"),
                "Reject reconfiguration requests that would cause quorum loss",
            ),
            flag(
                "pre-vote",
                Bool,
                "true",
                Built,
                "Enable the raft Pre-Vote algorithm to prevent disruption when a node that has been partitioned away ...",
            ),
            flag("auto-compaction-retention", Text, "0", Built, "Auto compaction retention length"),
            flag("auto-compaction-mode", Text, "periodic", Built, "Interpret 'auto-compaction-retention' one of: periodic|revision"),
            flag("v2-deprecation", Text, "write-only", NoMeaning, "Phase of v2store deprecation"),
        ],
    ),
    (
        "Security",
        &[
            flag("cert-file", Text, "", Refused("TLS"), "Path to the client server TLS cert file"),
            flag("key-file", Text, "", Refused("TLS"), "Path to the client server TLS key file"),
            flag("client-cert-auth", Bool, "false", Refused("TLS"), "Enable client cert authentication"),
            flag(
                "client-cert-file",
                Text,
                "",
                Refused("TLS"),
                "Path to an explicit peer client TLS cert file otherwise cert file will be used when client auth is ...",
            ),
            flag(
                "client-key-file",
                Text,
                "",
                Refused("TLS"),
                "Path to an explicit peer client TLS key file otherwise key file will be used when client auth is ...",
            ),
            flag("client-crl-file", Text, "", Refused("TLS"), "Path to the client certificate revocation list file"),
            flag(
                "client-cert-allowed-hostname",
                Text,
                "",
                Refused("TLS"),
                "Comma-separated list of SAN hostnames for client cert authentication",
            ),
            flag("trusted-ca-file", Text, "", Refused("TLS"), "Path to the client server TLS trusted CA cert file"),
            flag("auto-tls", Bool, "false", Refused("TLS"), "Client TLS using generated certificates"),
            flag("peer-cert-file", Text, "", Refused("TLS"), "Path to the peer server TLS cert file"),
            flag("peer-key-file", Text, "", Refused("TLS"), "Path to the peer server TLS key file"),
            flag("peer-client-cert-auth", Bool, "false", Refused("TLS"), "Enable peer client cert authentication"),
            flag(
                "peer-client-cert-file",
                Text,
                "",
                Refused("TLS"),
                "Path to an explicit peer client TLS cert file otherwise peer cert file will be used when client ...",
            ),
            flag(
                "peer-client-key-file",
                Text,
                "",
                Refused("TLS"),
                "Path to an explicit peer client TLS key file otherwise peer key file will be used when client auth ...",
            ),
            flag("peer-trusted-ca-file", Text, "", Refused("TLS"), "Path to the peer server TLS trusted CA file"),
            flag("peer-cert-allowed-cn", Text, "", Refused("TLS"), "Comma-separated list of allowed CNs for inter-peer TLS authentication"),
            flag(
                "peer-cert-allowed-hostname",
                Text,
                "",
                Refused("TLS"),
                "Comma-separated list of allowed SAN hostnames for inter-peer TLS authentication",
            ),
            flag(
                "peer-auto-tls",
                Bool,
                "false",
                Refused("TLS"),
                "Peer TLS using self-generated certificates if --peer-key-file and --peer-cert-file are not provided",
            ),
            flag(
                "self-signed-cert-validity",
                Uint,
                "1",
                Later("TLS"),
                "The validity period of the client and peer certificates that are automatically generated by etcd ...",
            ),
            flag("peer-crl-file", Text, "", Refused("TLS"), "Path to the peer certificate revocation list file"),
            flag(
                "cipher-suites",
                Text,
                "",
                Refused("TLS"),
                "Comma-separated list of supported TLS cipher suites between client/server and peers (empty will be ...",
            ),
            flag(
                "cors",
                Text,
                "*",
                Later("the JSON gateway"),
                "Comma-separated whitelist of origins for CORS, or cross-origin resource sharing, (empty or * means ...",
            ),
            flag(
                "host-whitelist",
                Text,
                "*",
                Refused("Checking the Host header"),
                "Acceptable hostnames from HTTP client requests, if server is not secure (empty or * means allow ...",
            ),
            flag("tls-min-version", Text, "TLS1.2", Later("TLS"), "Minimum TLS version supported by etcd"),
            flag("tls-max-version", Text, "", Later("TLS"), "Maximum TLS version supported by etcd"),
        ],
    ),
    (
        "Auth",
        &[
            flag(
                "auth-token",
                Text,
                "simple",
                Refused("Auth with another token type than simple"),
                "Specify a v3 authentication token type and its options ('simple' or 'jwt')",
            ),
            flag(
                "bcrypt-cost",
                Uint,
                "10",
                Later("users and roles"),
                "Specify the cost / strength of the bcrypt algorithm for hashing auth passwords",
            ),
            flag("auth-token-ttl", Uint, "300", Later("users and roles"), "Time (in seconds) of the auth-token-ttl"),
        ],
    ),
    (
        "Profiling and Monitoring",
        &[
            flag("enable-pprof", Bool, "false", NoMeaning, "Enable runtime profiling data via HTTP server"),
            flag(
                "metrics",
                Text,
                "basic",
                Later("extensive metrics"),
                "Set level of detail for exported metrics, specify 'extensive' to include server side grpc histogram ...",
            ),
            flag("listen-metrics-urls", Urls, "", Built, "List of URLs to listen on for the /metrics and /health endpoints"),
        ],
    ),
    (
        "Logging",
        &[
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
                Later("warnings of slow requests"),
                "Set time duration after which a warning is logged if a unary request takes more than this duration",
            ),
        ],
    ),
    (
        "Distributed tracing",
        &[
            flag("enable-distributed-tracing", Bool, "false", Later("distributed tracing"), "Enable distributed tracing"),
            flag(
                "distributed-tracing-address",
                Text,
                "localhost:4317",
                Later("distributed tracing"),
                "Distributed tracing collector address",
            ),
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
        ],
    ),
    (
        "Features",
        &[
            flag(
                "corrupt-check-time",
                Duration,
                "0s",
                Later("corruption checks"),
                "Duration of time between cluster corruption check passes",
            ),
            flag(
                "compact-hash-check-time",
                Duration,
                "1m0s",
                Later("corruption checks"),
                "Duration of time between leader checks followers compaction hashes",
            ),
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
            flag(
                "warning-apply-duration",
                Duration,
                "100ms",
                Later("warnings of slow requests"),
                "Warning is generated if requests take more than this duration",
            ),
            flag(
                "bootstrap-defrag-threshold-megabytes",
                Uint,
                "0",
                NoMeaning,
                "Enable the defrag during etcd server bootstrap on condition that it will free at least the provided ...",
            ),
            flag(
                "max-learners",
                Int,
                "1",
                Later("membership changes"),
                "Set the max number of learner members allowed in the cluster membership",
            ),
            flag("compaction-sleep-interval", Duration, "10ms", Built, "Sets the sleep interval between each compaction batch"),
            flag("downgrade-check-time", Duration, "5s", Later("downgrades"), "Duration of time between two downgrade status checks"),
            flag(
                "snapshot-catchup-entries",
                Uint,
                "5000",
                Built,
                "Number of entries for a slow follower to catch up after compacting the raft storage entries",
            ),
        ],
    ),
    (
        "Unsafe feature",
        &[
            flag(
                "force-new-cluster",
                Bool,
                "false",
                Refused("Recovery by a new cluster of one member"),
                "Force to create a new one-member cluster",
            ),
            flag("unsafe-no-fsync", Bool, "false", NoMeaning, "Disables fsync, unsafe, will cause data loss"),
        ],
    ),
    (
        "rusd",
        &[flag(
            "rusd-memory-budget",
            Uint,
            "2147483648",
            Built,
            "Bytes of values kept in memory; older and further ones are read from disk",
        )],
    ),
    (
        "Other",
        &[
            flag(
                "config-file",
                Text,
                "",
                Built,
                "Path to a configuration file (YAML or JSON); all other flags and variables are then ignored",
            ),
            flag("version", Bool, "false", Built, "Print the version and exit"),
        ],
    ),
];

/// Flags of etcd 3.5 and 3.6, and those that etcd itself ignores.
const OLD: &[(&str, Old)] = &[
    ("experimental-initial-corrupt-check", Old::Gate("InitialCorruptCheck")),
    ("experimental-compact-hash-check-enabled", Old::Gate("CompactHashCheck")),
    ("experimental-enable-lease-checkpoint", Old::Gate("LeaseCheckpoint")),
    ("experimental-enable-lease-checkpoint-persist", Old::Gate("LeaseCheckpointPersist")),
    ("experimental-stop-grpc-service-on-defrag", Old::Gate("StopGRPCServiceOnDefrag")),
    ("experimental-txn-mode-write-with-shared-buffer", Old::Gate("TxnModeWriteWithSharedBuffer")),
    ("experimental-corrupt-check-time", Old::Renamed("corrupt-check-time")),
    ("experimental-compact-hash-check-time", Old::Renamed("compact-hash-check-time")),
    ("experimental-watch-progress-notify-interval", Old::Renamed("watch-progress-notify-interval")),
    ("experimental-compaction-batch-limit", Old::Renamed("compaction-batch-limit")),
    ("experimental-compaction-sleep-interval", Old::Renamed("compaction-sleep-interval")),
    ("experimental-warning-apply-duration", Old::Renamed("warning-apply-duration")),
    ("experimental-warning-unary-request-duration", Old::Renamed("warning-unary-request-duration")),
    ("experimental-bootstrap-defrag-threshold-megabytes", Old::Renamed("bootstrap-defrag-threshold-megabytes")),
    ("experimental-peer-skip-client-san-verification", Old::Renamed("peer-skip-client-san-verification")),
    ("experimental-memory-mlock", Old::Renamed("memory-mlock")),
    ("experimental-max-learners", Old::Renamed("max-learners")),
    ("experimental-downgrade-check-time", Old::Renamed("downgrade-check-time")),
    ("experimental-snapshot-catchup-entries", Old::Renamed("snapshot-catchup-entries")),
    ("experimental-enable-distributed-tracing", Old::Renamed("enable-distributed-tracing")),
    ("experimental-distributed-tracing-address", Old::Renamed("distributed-tracing-address")),
    ("experimental-distributed-tracing-service-name", Old::Renamed("distributed-tracing-service-name")),
    ("experimental-distributed-tracing-instance-id", Old::Renamed("distributed-tracing-instance-id")),
    ("experimental-distributed-tracing-sampling-rate", Old::Renamed("distributed-tracing-sampling-rate")),
    ("experimental-enable-v2v3", Old::Gone(Text)),
    ("enable-v2", Old::Gone(Bool)),
    ("proxy", Old::Gone(OneOf(&["off"]))),
    ("proxy-failure-wait", Old::Gone(Uint)),
    ("proxy-refresh-interval", Old::Gone(Uint)),
    ("proxy-dial-timeout", Old::Gone(Uint)),
    ("proxy-write-timeout", Old::Gone(Uint)),
    ("proxy-read-timeout", Old::Gone(Uint)),
    ("cluster-active-size", Old::Gone(Bool)),
    ("cluster-remove-delay", Old::Gone(Bool)),
    ("cluster-sync-interval", Old::Gone(Bool)),
    ("config", Old::Gone(Bool)),
    ("force", Old::Gone(Bool)),
    ("max-result-buffer", Old::Gone(Bool)),
    ("max-retry-attempts", Old::Gone(Bool)),
    ("peer-heartbeat-interval", Old::Gone(Bool)),
    ("peer-election-timeout", Old::Gone(Bool)),
    ("retry-interval", Old::Gone(Bool)),
    ("snapshot", Old::Gone(Bool)),
    ("v", Old::Gone(Bool)),
    ("vv", Old::Gone(Bool)),
    ("test.coverprofile", Old::Gone(Bool)),
    ("test.outputdir", Old::Gone(Bool)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_defaults_pass_their_own_check() {
        let mut seen = BTreeSet::new();
        for flag in all() {
            assert!(seen.insert(flag.name), "{} is there twice", flag.name);
            assert_eq!(crate::config::value::check(flag.kind, flag.default), Ok(()), "{}", flag.name);
        }
        assert_eq!(seen.len(), 116);
        for (name, old) in OLD {
            assert!(seen.insert(name), "{name} is there twice");
            match old {
                Old::Renamed(now) => assert!(find(now).is_some(), "{name} points to {now}"),
                Old::Gate(gate) => assert!(GATES.iter().any(|(known, _)| known == gate), "{name} points to {gate}"),
                Old::Gone(_) => {}
            }
        }
    }
}
