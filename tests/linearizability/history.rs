//! What clients did and saw: one record per operation, with the real-time interval it may have taken effect in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A key with what etcd says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The value.
    pub value: String,
    /// Main revision of its last change.
    pub mod_revision: i64,
}

/// What a client asked for. Values written are unique in a run, so that every revision can be traced to its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Put a unique value.
    Put { key: String, value: String },
    /// Delete one key.
    Delete { key: String },
    /// Txn: if `mod_revision(key) == expected` put `value`.
    CompareAndSwap { key: String, expected: i64, value: String },
    /// Read all keys; at `revision` if not 0. `serializable` reads may be stale.
    Range { revision: i64, serializable: bool },
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write at `revision`, with the value it replaced.
    Written { revision: i64, previous: Option<Version> },
    /// A delete of nothing, or a compare that failed, seen at `revision`.
    NotWritten { revision: i64 },
    /// All keys as of `revision` (the header's, or the one asked for).
    Read { header: i64, contents: BTreeMap<String, Version> },
    /// Refused before it was tried (no effect).
    Refused,
    /// Timed out or the connection broke: it may take effect at any later time, once, or never.
    Unknown,
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

/// One change of the final, complete log: what is at each revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Main revision.
    pub revision: i64,
    /// The key changed.
    pub key: String,
    /// The new value; `None` for a deletion.
    pub value: Option<String>,
}

/// Renders a history one operation a line, for the file kept on failure.
pub fn render(operations: &[Operation], log: &[Change]) -> String {
    let mut text = String::new();
    for operation in operations {
        let _ = writeln!(
            text,
            "{:>10}..{:<10} client {} member {} {:?} -> {:?}",
            operation.start, operation.end, operation.client, operation.member, operation.call, operation.answer
        );
    }
    for change in log {
        let _ = writeln!(text, "log {} {} = {:?}", change.revision, change.key, change.value);
    }
    text
}
