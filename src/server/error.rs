//! Fate and leadership: what can happen to a request beside the answer no.

use rusd_storage::mvcc::ReadError;
use rusd_storage::{Rejection, StorageError};

/// Why a request has no answer. `grpc::status` turns each into etcd's code and text (contract a.4).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer is no, the same on every member.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// This member does not lead.
    #[error("not leader")]
    NotLeader,
    /// The leader changed while a read index was fetched.
    #[error("leader changed")]
    LeaderChanged,
    /// Unknown fate of a write, or a read that could not be confirmed in time.
    #[error("request timed out")]
    Timeout,
    /// As above, the leader was lost meanwhile.
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFail,
    /// As above, the connection to the leader was lost.
    #[error("request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// The read index was not applied in time.
    #[error("request timed out, waiting for the applied index took too long")]
    TimeoutApplied,
    /// Proposals without a leader end so, raw as etcd's.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The backlog is full.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command exceeds `--max-request-bytes`.
    #[error("request is too large")]
    RequestTooLarge,
    /// The member is going down.
    #[error("server stopped")]
    Stopped,
    /// MoveLeader to a missing member or a learner.
    #[error("bad leader transferee")]
    BadLeaderTransferee,
    /// Leader transfer took too long.
    #[error("request timed out, leader transfer took too long")]
    TimeoutLeaderTransfer,
    /// Strict reconfiguration check: too few connected.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// Strict reconfiguration check: too few started.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// A peer URL that is none, or no peer URL at all.
    #[error("given member URLs are invalid")]
    BadMemberUrls,
    /// Promotion of a learner that lags.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// This node is broken.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => Self::Rejected(rejection),
            ReadError::Storage(error) => Self::Storage(error),
        }
    }
}
