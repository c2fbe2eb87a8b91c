//! An event, shared by all who receive it.

use super::history::History;
use rusd_storage::{KeyValue, Record};
use std::sync::{Arc, OnceLock};

/// Events of one delivery, in revision order; shared by all watchers of a group.
pub type Events = Arc<[Arc<Event>]>;

/// One change of one key. What is costly to find out is found out once for all watchers.
#[derive(Debug)]
pub struct Event {
    /// The change.
    pub record: Record,
    previous: OnceLock<Option<KeyValue>>,
}

impl Event {
    /// Wraps a record of history.
    pub fn new(record: Record) -> Self {
        Self { record, previous: OnceLock::new() }
    }

    /// Main revision of the change.
    pub fn revision(&self) -> i64 {
        self.record.revision.main
    }

    /// The value one revision before the event's: none for a creation, or when it has been compacted. Looked up by the first who asks.
    pub fn previous(&self, history: &dyn History) -> Option<&KeyValue> {
        let kv = &self.record.kv;
        if !self.record.tombstone && kv.create_revision == kv.mod_revision {
            return None;
        }
        self.previous.get_or_init(|| history.value_at(&kv.key, self.revision() - 1)).as_ref()
    }

    /// Bytes of key and value with an allowance for the rest, for accounting and for fragments.
    pub fn weight(&self) -> usize {
        self.record.kv.key.len() + self.record.kv.value.len() + 96
    }
}
