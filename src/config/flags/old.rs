//! Flags of other versions of etcd, which manifests still carry, and feature gates.

use super::Kind::{self, Bool, OneOf, Text, Uint};

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

/// Those that are heeded, or whose work is always done.
pub const BUILT_GATES: &[&str] = &["CompactHashCheck", "InitialCorruptCheck"];

/// Flags whose use etcd 3.7 warns of, in its words.
pub(super) const DEPRECATED: &[(&str, &str)] = &[
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    ),
];

/// Flags of etcd 3.5 and 3.6, and those that etcd itself ignores.
pub(super) const OLD: &[(&str, Old)] = &[
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
