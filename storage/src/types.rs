//! The words every room speaks. No arrows lead out of here.

use bytes::Bytes;

/// etcd's revision: `main` counts entries that changed a key, `sub` the changes inside one entry, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// One per changing log entry; an empty store is at 1, its first write gets 2.
    pub main: i64,
    /// Position of the change inside its entry.
    pub sub: i64,
}

impl Revision {
    /// The revision `main`.`sub`.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

/// A place in the Raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: u64,
    /// Index of the entry; openraft counts from 0.
    pub index: u64,
}

/// A key with its value and metadata, as etcd's `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Main revision of the put that created this generation of the key.
    pub create_revision: i64,
    /// Main revision of the last change.
    pub mod_revision: i64,
    /// Number of puts since creation, from 1.
    pub version: i64,
    /// Attached lease, 0 = none.
    pub lease: i64,
}

/// One change of one key, as the history keeps it. A tombstone's `kv` holds only `key` and `mod_revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub revision: Revision,
    /// Whether the key was deleted.
    pub tombstone: bool,
    /// The key after the change.
    pub kv: KeyValue,
}
