//! The log's language: proposals (prost, `proto/rusd/command.proto`), and what applying one answers.

use crate::error::Rejection;
use crate::mvcc::RangeResult;
use crate::types::KeyValue;

/// The generated messages.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/rusd.command.rs"));
}
pub use generated::*;

/// The state ring's messages beside key-value records.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod state {
    include!(concat!(env!("OUT_DIR"), "/rusd.state.rs"));
}

/// What an applied command answers. `revision` is what the response header says.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// Nothing beyond the header.
    Empty {
        /// Store revision after the command.
        revision: i64,
    },
    /// A put.
    Put {
        /// Revision of the put.
        revision: i64,
        /// The value before, if asked for and there was one.
        prev_kv: Option<KeyValue>,
    },
    /// A delete.
    DeleteRange {
        /// Revision of the delete, or the current one if nothing was deleted.
        revision: i64,
        /// How many keys went.
        deleted: i64,
        /// What they were, if asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// A range inside a txn.
    Range(RangeResult),
    /// A txn.
    Txn {
        /// Revision after the txn.
        revision: i64,
        /// Which branch ran.
        succeeded: bool,
        /// One response per operation of it.
        responses: Vec<Response>,
    },
    /// A granted lease.
    LeaseGrant {
        /// Store revision.
        revision: i64,
        /// Lease id.
        id: i64,
        /// Granted TTL.
        ttl_secs: i64,
    },
    /// Alarms touched.
    Alarms {
        /// Store revision.
        revision: i64,
        /// The alarms raised or disarmed; empty when nothing changed.
        alarms: Vec<state::AlarmMember>,
    },
    /// Members after a membership change.
    Members {
        /// Store revision.
        revision: i64,
        /// All members, sorted by id.
        members: Vec<MemberRecord>,
    },
}

/// Result of one log entry, the same on every member.
pub type ApplyResult = Result<Response, Rejection>;
