//! Rooms from frames: at start, and from a received snapshot.

use super::Rooms;
use crate::alarm::Alarms;
use crate::cluster::Cluster;
use crate::command::Range;
use crate::command::state::{self, Delta, delta};
use crate::error::StorageError;
use crate::lessor::Lessor;
use crate::mvcc::{Builder, Store};
use crate::statelog::StateLog;
use crate::types::{LogPosition, Record};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Takes records and deltas, gives rooms.
pub(crate) struct Recovering {
    builder: Builder,
    /// Newest record with a lease, by key: a candidate for an attachment.
    leased: BTreeMap<Bytes, (i64, i64)>,
}

#[derive(Default)]
struct Small {
    lessor: Lessor,
    alarms: Alarms,
    cluster: Cluster,
    membership: state::StoredMembership,
    compact_revision: Option<i64>,
}

impl Recovering {
    pub fn new(memory_bytes: u64) -> Self {
        Self { builder: Builder::new(memory_bytes), leased: BTreeMap::new() }
    }

    /// A record, in any order.
    pub fn record(&mut self, record: Record) {
        if record.kv.lease != 0 {
            let newest = self.leased.entry(record.kv.key.clone()).or_default();
            *newest = (*newest).max((record.revision.main, record.kv.lease));
        }
        self.builder.add(record);
    }

    /// Deltas in log order, then the rooms.
    pub fn finish(self, log: StateLog, deltas: Vec<(LogPosition, Delta)>) -> Result<Rooms, StorageError> {
        let count = deltas.len();
        let mut small = Small::default();
        deltas.into_iter().try_for_each(|(at, delta)| small.apply(at, delta))?;
        let log = Arc::new(log);
        let store = Arc::new(self.builder.finish(Arc::clone(&log), small.compact_revision.unwrap_or(-1)));
        attach(&store, &mut small.lessor, self.leased)?;
        Ok(Rooms {
            store,
            log,
            lessor: RwLock::new(small.lessor),
            alarms: RwLock::new(small.alarms),
            cluster: RwLock::new(small.cluster),
            membership: RwLock::new(small.membership),
            deltas: AtomicUsize::new(count),
        })
    }
}

/// A key belongs to the lease of its current record.
fn attach(store: &Store, lessor: &mut Lessor, leased: BTreeMap<Bytes, (i64, i64)>) -> Result<(), StorageError> {
    for (key, (main, lease)) in leased {
        let range = Range { key: key.clone(), keys_only: true, ..Range::default() };
        let found = store.range(&range).map_err(|error| StorageError::Closed(error.to_string()))?;
        if found.kvs.first().is_some_and(|kv| kv.mod_revision == main) {
            lessor.attach(lease, Bytes::copy_from_slice(&key));
        }
    }
    Ok(())
}

impl Small {
    fn apply(&mut self, at: LogPosition, delta: Delta) -> Result<(), StorageError> {
        match delta.delta {
            Some(delta::Delta::Image(image)) => self.restore(image),
            Some(delta::Delta::Membership(membership)) => self.membership = membership,
            Some(delta::Delta::Member(record)) => self.cluster.upsert(record),
            Some(delta::Delta::RemovedMember(id)) => self.cluster.remove(id),
            Some(delta::Delta::ClusterVersion(version)) => self.cluster.set_version(version),
            Some(delta::Delta::Lease(lease)) => self.lessor.upsert(lease),
            Some(delta::Delta::RevokedLease(id)) => drop(self.lessor.revoke(id)),
            Some(delta::Delta::AlarmOn(alarm)) => drop(self.alarms.raise(alarm.member_id, alarm.r#type)),
            Some(delta::Delta::AlarmOff(alarm)) => drop(self.alarms.disarm(alarm.member_id, alarm.r#type)),
            Some(delta::Delta::CompactRevision(revision)) => self.compact_revision = Some(revision),
            // Auth is not built: this version writes none of these. Passing over them would diverge.
            other => {
                let detail = format!("a state change unknown to this version: {}", format!("{other:?}").chars().take(40).collect::<String>());
                return Err(StorageError::UnknownCommand { index: at.index, detail });
            }
        }
        Ok(())
    }

    fn restore(&mut self, image: state::Image) {
        *self = Self { membership: image.membership.unwrap_or_default(), ..Self::default() };
        image.members.into_iter().for_each(|record| self.cluster.upsert(record));
        image.removed_members.into_iter().for_each(|id| self.cluster.remove(id));
        self.cluster.set_version(image.cluster_version);
        image.leases.into_iter().for_each(|lease| self.lessor.upsert(lease));
        image.alarms.into_iter().for_each(|alarm| drop(self.alarms.raise(alarm.member_id, alarm.r#type)));
        self.compact_revision = Some(image.compact_revision);
    }
}
