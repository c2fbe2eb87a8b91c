//! What flags can't mean together, in etcd's words where etcd has some.

use super::urls::UrlError;
use super::value::DurationError;

/// Why these flags can't go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("{0}")]
    NotBuilt(String),
    #[error("{0}")]
    Bind(String),
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUnset,
    #[error("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}")]
    SameForHttp(String),
    #[error("--{flag}={url}: {what} is not built yet in this version of rusd")]
    UrlNotBuilt { flag: &'static str, url: String, what: &'static str },
    #[error("--initial-advertise-peer-urls {0:?} must be \"host:port\" (unexpected empty host ({1}))")]
    EmptyPeerHost(String, String),
    #[error("listen tcp: address {0}: invalid port")]
    ImpossiblePort(String),
    #[error("error setting up initial cluster: {0}")]
    Cluster(#[from] UrlError),
    #[error("--{0} must be >0 (set to 0ms)")]
    ZeroTime(&'static str),
    #[error("--election-timeout[{0}ms] should be at least as 5 times as --heartbeat-interval[{1}ms]")]
    ElectionTooShort(u64, u64),
    #[error("--election-timeout[{0}ms] is too long, and should be set less than 50000ms")]
    ElectionTooLong(u64),
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(String),
    #[error("undefined auto-compaction-mode")]
    NoCompactionMode,
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(#[from] DurationError),
    #[error("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")]
    PersistWithoutCheckpoint,
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    Fallback,
    #[error("distributed tracing configurition is not valid: (tracing sampling rate must be {0})")]
    SamplingRate(&'static str),
    #[error("membership: too many learner members in cluster")]
    MaxLearners,
}

impl ConfigError {
    /// etcd finds some of these only while it starts, and says so in another way.
    pub fn ends_start(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::ImpossiblePort(_) | Self::CompactionRetention(_) | Self::SameForHttp(_) | Self::MaxLearners)
    }
}
