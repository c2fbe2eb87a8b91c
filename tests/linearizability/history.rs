//! What clients asked and saw: one record per operation, with the real-time interval it may have taken effect in; and the log, which is what
//! the store says became of it all.

use std::fmt::Write as _;

/// A key's value with what etcd says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The value.
    pub value: String,
    /// Main revision of the put that made the key.
    pub create_revision: i64,
    /// Main revision of its last change.
    pub mod_revision: i64,
    /// Puts since it was made.
    pub version: i64,
}

/// A condition of a txn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key's last change is this revision, at which the client believes it got this value (0 and `None`: there is no such key).
    ModRevision { key: String, revision: i64, believed: Option<String> },
    /// The key has this value.
    Value { key: String, value: String },
    /// Whether there is such a key.
    Exists { key: String, exists: bool },
}

/// One operation of a txn, or a plain write. Values put are unique in a run, so that a change can be traced to its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Put a unique value.
    Put { key: String, value: String },
    /// Delete `from`, or all of `from..to`.
    Delete { from: String, to: Option<String> },
    /// Read one key.
    Get { key: String },
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A txn, or, without compares and with one operation, perhaps a `plain` put or delete.
    Write { plain: bool, compares: Vec<Compare>, success: Vec<Op>, failure: Vec<Op> },
    /// Read `from..to`, at `revision` if it isn't 0. `serializable` reads may be stale.
    Range { from: String, to: String, revision: i64, serializable: bool, limit: i64 },
    /// Forget history before `revision`.
    Compact { revision: i64, physical: bool },
}

/// What came of one operation of a txn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The value replaced.
    Put(Option<Version>),
    /// The keys deleted.
    Deleted(Vec<(String, Version)>),
    /// What was there.
    Got(Option<Version>),
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A txn or write was applied; `revision` is the header's.
    Wrote { revision: i64, succeeded: bool, done: Vec<Done> },
    /// Keys as of the revision asked for, or the header's.
    Read { header: i64, kvs: Vec<(String, Version)>, count: i64, more: bool },
    /// A compaction was applied.
    CompactedTo { header: i64 },
    /// The revision asked for (of a read, or to compact to) is compacted.
    Compacted,
    /// Refused before it was tried (no effect), or a read that failed.
    Refused,
    /// Timed out, or the connection broke: it may take effect at any later time, once, or never.
    Unknown,
}

impl Answer {
    /// Revision of the header: where the member stood.
    pub fn header(&self) -> Option<i64> {
        match self {
            Self::Wrote { revision: header, .. } | Self::Read { header, .. } | Self::CompactedTo { header } => Some(*header),
            Self::Compacted | Self::Refused | Self::Unknown => None,
        }
    }

    /// Whether it says that something was changed.
    pub fn changed(&self) -> bool {
        let changes = |done: &Done| match done {
            Done::Put(_) => true,
            Done::Deleted(keys) => !keys.is_empty(),
            Done::Got(_) => false,
        };
        matches!(self, Self::Wrote { done, .. } if done.iter().any(changes))
    }
}

/// One operation. Times are microseconds of one monotonic clock.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Client number; a client runs one operation at a time.
    pub client: usize,
    /// Member that was asked.
    pub member: usize,
    /// When the request was sent.
    pub start: u64,
    /// When the answer came; `u64::MAX` for `Unknown`.
    pub end: u64,
    /// The request.
    pub call: Call,
    /// The answer.
    pub answer: Answer,
}

/// One change: a key's new version, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// `None` for a deletion.
    pub now: Option<Version>,
}

/// The complete log: the changes of each revision, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Revision of `revisions[0]`.
    pub first: i64,
    /// Changes by revision; none is empty.
    pub revisions: Vec<Vec<Change>>,
}

impl Log {
    /// The changes of a revision; empty outside of the log.
    pub fn at(&self, revision: i64) -> &[Change] {
        let place = usize::try_from(revision - self.first).ok().and_then(|at| self.revisions.get(at));
        place.map_or(&[], Vec::as_slice)
    }

    /// The last revision.
    pub fn last(&self) -> i64 {
        self.first + i64::try_from(self.revisions.len()).expect("a run is short") - 1
    }
}

/// Renders a history one operation a line, for the file kept on failure.
pub fn render(operations: &[Operation], log: &Log) -> String {
    let mut text = String::new();
    for operation in operations {
        let end = if operation.end == u64::MAX { "never".into() } else { operation.end.to_string() };
        let _ = writeln!(
            text,
            "{:>10}..{end:<10} client {} member {} {:?} -> {:?}",
            operation.start, operation.client, operation.member, operation.call, operation.answer
        );
    }
    for (revision, changes) in (log.first..).zip(&log.revisions) {
        let _ = writeln!(text, "log {revision} {changes:?}");
    }
    text
}
