//! Rooms from frames: at start, and from a received snapshot.

use super::Rooms;
use crate::alarm::Alarms;
use crate::cluster::Cluster;
use crate::command::state::{self, Delta, delta};
use crate::error::StorageError;
use crate::lessor::Lessor;
use crate::mvcc::Builder;
use crate::statelog::StateLog;
use crate::types::{LogPosition, Record};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Takes records and deltas, gives rooms.
pub(crate) struct Recovering {
    builder: Builder,
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
        Self { builder: Builder::new(memory_bytes) }
    }

    /// A record, in any order.
    pub fn record(&mut self, record: Record) {
        self.builder.add(record);
    }

    /// Deltas in log order, then the rooms.
    pub fn finish(self, log: StateLog, deltas: Vec<(LogPosition, Delta)>) -> Result<Rooms, StorageError> {
        let count = deltas.len();
        let mut small = Small::default();
        deltas.into_iter().try_for_each(|(at, delta)| small.apply(at, delta))?;
        let log = Arc::new(log);
        let store = Arc::new(self.builder.finish(Arc::clone(&log), small.compact_revision.unwrap_or(-1)));
        store.leased(&mut |key, lease| small.lessor.attach(lease, Bytes::copy_from_slice(key)));
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

impl Small {
    fn apply(&mut self, at: LogPosition, delta: Delta) -> Result<(), StorageError> {
        match delta.delta {
            Some(delta::Delta::Image(image)) => self.restore(image),
            Some(delta::Delta::Membership(membership)) => self.membership = membership,
            Some(delta::Delta::Member(record)) => self.cluster.upsert(record),
            Some(delta::Delta::RemovedMember(id)) => self.cluster.remove(id),
            Some(delta::Delta::ClusterVersion(version)) => self.cluster.set_version(version),
            Some(delta::Delta::Lease(lease)) => self.lessor.upsert(lease),
            Some(delta::Delta::RevokedLease(id)) => {
                self.lessor.revoke(id);
            }
            Some(delta::Delta::AlarmOn(alarm)) => {
                self.alarms.raise(alarm.member_id, alarm.r#type);
            }
            Some(delta::Delta::AlarmOff(alarm)) => {
                self.alarms.disarm(alarm.member_id, alarm.r#type);
            }
            Some(delta::Delta::CompactRevision(revision)) => self.compact_revision = Some(revision),
            // Auth is not built: this version writes none of these. Passing over them would diverge.
            other => {
                let detail =
                    format!("a state change unknown to this version: {}", format!("{other:?}").chars().take(40).collect::<String>());
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
        for alarm in image.alarms {
            self.alarms.raise(alarm.member_id, alarm.r#type);
        }
        self.compact_revision = Some(image.compact_revision);
    }
}
