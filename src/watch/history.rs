//! Where events come from: the hub's view of the store, so that tests can tell their own history.

use bytes::Bytes;
use rusd_storage::apply::State;
use rusd_storage::command::Range;
use rusd_storage::mvcc::ReadError;
use rusd_storage::{KeyValue, Record};
use std::sync::Arc;
use tokio::sync::watch;

/// The store as a watcher sees it. Calls may read frames, hence block for a moment.
pub trait History: Send + Sync + 'static {
    /// The published revision.
    fn revision(&self) -> i64;
    /// The logical compact revision, -1 at first.
    fn compact_revision(&self) -> i64;
    /// Published revisions; may jump (snapshot install) and survives it.
    fn subscribe(&self) -> watch::Receiver<i64>;
    /// Records of `[from, to]` in revision order, whole revisions only, stopping after about `bytes_max`; and the next revision to ask for.
    /// Compacted if `from` is below the compact revision.
    fn read(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError>;
    /// As [`History::read`], for the follower, who is only ever a moment behind: should also give what a compaction has hidden since, as
    /// long as it is still there. Otherwise a compaction right after a write cancels watchers that had joined.
    fn read_new(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError> {
        self.read(from, to, bytes_max)
    }
    /// The key at a revision; none if it did not exist or is compacted.
    fn value_at(&self, key: &Bytes, revision: i64) -> Option<KeyValue>;
}

/// The replicated state's history. The store is fetched anew for each call: a snapshot install replaces it.
pub struct StateHistory(pub Arc<State>);

impl History for StateHistory {
    fn revision(&self) -> i64 {
        self.0.store().revision()
    }
    fn compact_revision(&self) -> i64 {
        self.0.store().compact_revision()
    }
    fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.revision()
    }
    fn read(&self, from: i64, to: i64, bytes_max: usize) -> Result<(Vec<Record>, i64), ReadError> {
        self.0.store().history(from, to, bytes_max)
    }
    fn value_at(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        let range = Range { key: key.to_vec().into(), revision, limit: 1, ..Range::default() };
        // A revision of 0 would mean "now".
        if revision <= 0 {
            return None;
        }
        self.0.store().range(&range).ok()?.kvs.into_iter().next()
    }
}
