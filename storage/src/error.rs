//! Errors by consequence: a `StorageError` breaks this node, a `Rejection` is the same "no" on every member.

use std::path::PathBuf;

/// This node is broken: openraft is told, the process leaves service.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system or the disk failed.
    #[error("{action} {}: {detail}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The store holds something it was never given, or lacks something it was.
    #[error("{} is damaged: {what}: {detail}. Remove this member and add it again with an empty data dir, or restore from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which frame, key or field.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The store was written by a version that this one does not know.
    #[error("{} has storage format {found}, this rusd knows {known}. Start it with the version of rusd that wrote it", path.display())]
    UnknownFormat {
        /// The format file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What would have been understood.
        known: u32,
    },
    /// Another process holds the data dir.
    #[error("data dir {} is in use by another process. Stop it first, or choose another --data-dir", .0.display())]
    Locked(PathBuf),
    /// The writer thread is gone, because of an earlier error or at exit.
    #[error("storage is closed: {0}")]
    Closed(String),
    /// The log holds a command this version does not know; skipping it would diverge.
    #[error("log entry {index} holds a command unknown to this version: {detail}")]
    UnknownCommand {
        /// Log index.
        index: u64,
        /// What was found.
        detail: String,
    },
}

/// What an operator can do about a failure of the system, to be put behind its sentence; empty where only he knows.
pub fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ". Make room on that disk, nothing is lost",
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ". Let the server write there",
        std::io::ErrorKind::NotADirectory => ". Move the file away that stands where a directory must be, or choose another --data-dir",
        _ => "",
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}

/// The answer is no, the same on every member; travels as the entry's result. Texts and codes are etcd's and live in `grpc::status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The revision lies below the compact revision.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision lies above the current one.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// `ignore_value`/`ignore_lease` on a missing key.
    #[error("key not found")]
    KeyNotFound,
    /// Unknown lease id.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Grant with an id in use.
    #[error("lease already exists")]
    LeaseExists,
    /// The TTL is above 9,000,000,000 s.
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// A NOSPACE alarm is on.
    #[error("database space exceeded")]
    NoSpace,
    /// A CORRUPT alarm is on.
    #[error("corrupt cluster")]
    Corrupt,
    /// Member id in use or removed for ever.
    #[error("member ID already exist")]
    MemberExists,
    /// A peer URL belongs to another member.
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    /// No such member.
    #[error("member not found")]
    MemberNotFound,
    /// A member publishes another data dir than before: it was wiped.
    #[error("the data dir is not the one this member joined with")]
    OtherDataDir,
    /// Promotion of a voter.
    #[error("can only promote a learner member")]
    MemberNotLearner,
    /// `--max-learners` reached.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Auth: see contract a.4 27-43.
    #[error("{0}")]
    Auth(#[from] AuthRejection),
}

/// Refusals of the auth room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthRejection {
    #[error("root user does not exist")]
    RootUserNotExist,
    #[error("root user does not have root role")]
    RootRoleNotExist,
    #[error("user name already exists")]
    UserAlreadyExist,
    #[error("user name is empty")]
    UserEmpty,
    #[error("user name not found")]
    UserNotFound,
    #[error("role name already exists")]
    RoleAlreadyExist,
    #[error("role name not found")]
    RoleNotFound,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("permission not given")]
    PermissionNotGiven,
    #[error("permission denied")]
    PermissionDenied,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    #[error("invalid auth management")]
    InvalidAuthManagement,
    #[error("revision of auth store is old")]
    AuthOldRevision,
}
