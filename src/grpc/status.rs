//! THE table: what went wrong -> gRPC code and exact text (contract a.4). Clients compare both.
//!
//! Two of etcd's errors reach the wire with code Unknown because its own mapping misses; clients have come to know them so.

use crate::pb::Refusal;
use crate::server::Error;
use rusd_storage::{AuthRejection, Rejection};
use tonic::{Code, Status};

/// Code and text, or `None` where the text is the error's own.
fn entry(error: &Error) -> Option<(Code, &'static str)> {
    Some(match error {
        Error::Rejected(rejection) => rejected(rejection),
        Error::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Error::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        Error::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        Error::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
        Error::TimeoutLeaderFail => (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
        Error::TimeoutConnectionLost => (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost"),
        Error::TimeoutApplied => (Code::Unavailable, "etcdserver: request timed out, waiting for the applied index took too long"),
        Error::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        Error::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
        Error::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        Error::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        Error::BadLeaderTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        Error::TimeoutLeaderTransfer => (Code::Unknown, "etcdserver: request timed out, leader transfer took too long"),
        Error::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        Error::NotEnoughStarted => (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members"),
        Error::BadMemberUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        Error::LearnerNotReady => (Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"),
        Error::Storage(_) => return None,
    })
}

fn rejected(rejection: &Rejection) -> (Code, &'static str) {
    match rejection {
        Rejection::Compacted => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        Rejection::FutureRevision => (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        Rejection::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Rejection::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Rejection::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Rejection::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Rejection::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Rejection::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Rejection::MemberExists => (Code::FailedPrecondition, "etcdserver: member ID already exist"),
        Rejection::PeerUrlExists => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Rejection::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        Rejection::OtherDataDir => (Code::FailedPrecondition, "etcdserver: the data dir is not the one this member joined with"),
        Rejection::MemberNotLearner => (Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
        Rejection::TooManyLearners => (Code::FailedPrecondition, "etcdserver: too many learner members in cluster"),
        Rejection::Auth(rejection) => auth(*rejection),
    }
}

fn auth(rejection: AuthRejection) -> (Code, &'static str) {
    use AuthRejection as R;
    match rejection {
        R::RootUserNotExist => (Code::FailedPrecondition, "etcdserver: root user does not exist"),
        R::RootRoleNotExist => (Code::FailedPrecondition, "etcdserver: root user does not have root role"),
        R::UserAlreadyExist => (Code::FailedPrecondition, "etcdserver: user name already exists"),
        R::UserEmpty => (Code::InvalidArgument, "etcdserver: user name is empty"),
        R::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
        R::RoleAlreadyExist => (Code::FailedPrecondition, "etcdserver: role name already exists"),
        R::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
        R::RoleEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
        R::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
        R::PermissionDenied => (Code::PermissionDenied, "etcdserver: permission denied"),
        R::RoleNotGranted => (Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
        R::PermissionNotGranted => (Code::FailedPrecondition, "etcdserver: permission is not granted to the role"),
        R::AuthNotEnabled => (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        R::InvalidAuthManagement => (Code::InvalidArgument, "etcdserver: invalid auth management"),
        R::AuthOldRevision => (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match entry(&error) {
            Some((code, text)) => Status::new(code, text),
            None => {
                tracing::error!(%error, "the store is broken");
                Status::unknown(error.to_string())
            }
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::invalid_argument(match refusal {
            Refusal::EmptyKey => "etcdserver: key is not provided",
            Refusal::EmptyOperation => "etcdserver: key not found",
            Refusal::ValueProvided => "etcdserver: value is provided",
            Refusal::LeaseProvided => "etcdserver: lease is provided",
            Refusal::TooManyOps => "etcdserver: too many operations in txn request",
            Refusal::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Refusal::InvalidSortOption => "etcdserver: invalid sort option",
        })
    }
}

/// Refused because this member is a learner.
pub fn not_for_learner() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

/// What etcd has and this rusd not yet.
pub fn not_yet(what: &'static str) -> Status {
    Status::unimplemented(format!("{what} is not implemented yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: Error) -> (Code, String) {
        let status = Status::from(error);
        (status.code(), status.message().to_string())
    }

    #[test]
    fn quirks_reach_the_wire_as_unknown() {
        assert_eq!(of(Error::TooManyRequests), (Code::Unknown, "etcdserver: too many requests".into()));
        let text = "etcdserver: re-configuration failed due to not enough started members";
        assert_eq!(of(Error::NotEnoughStarted), (Code::Unknown, text.into()));
        assert_eq!(of(Error::DeadlineExceeded), (Code::DeadlineExceeded, "context deadline exceeded".into()));
        let text = "etcdserver: request timed out, leader transfer took too long";
        assert_eq!(of(Error::TimeoutLeaderTransfer), (Code::Unknown, text.into()));
    }

    #[test]
    fn rejections_carry_etcds_words() {
        // Each text is "etcdserver: " (and "mvcc: " where the store speaks) before the rejection's own words.
        use Rejection::*;
        for rejection in [
            KeyNotFound,
            LeaseNotFound,
            LeaseExists,
            LeaseTtlTooLarge,
            Corrupt,
            MemberExists,
            PeerUrlExists,
            MemberNotFound,
            MemberNotLearner,
            OtherDataDir,
            TooManyLearners,
            Auth(AuthRejection::PermissionDenied),
            Auth(AuthRejection::UserEmpty),
        ] {
            assert_eq!(of(rejection.clone().into()).1, format!("etcdserver: {rejection}"));
        }
        for rejection in [Compacted, FutureRevision, NoSpace] {
            assert_eq!(of(rejection.clone().into()).1, format!("etcdserver: mvcc: {rejection}"));
        }
        assert_eq!(of(Compacted.into()).0, Code::OutOfRange);
        assert_eq!(of(NoSpace.into()).0, Code::ResourceExhausted);
        assert_eq!(of(Corrupt.into()).0, Code::DataLoss);
    }
}
