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
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Records handed over at once: so many, or so many bytes of keys and values. A record keeps the whole frame that it came from, of up to
/// 64 KiB, so that few wait even if each frame holds but one small record.
const BATCH_RECORDS: usize = 64;
const BATCH_BYTES: usize = 128 << 10;
/// Batches that wait for the index.
const BATCHES: usize = 8;

/// Takes records and deltas, gives rooms. The index is built by a thread of its own while the next frames are read: of a million keys that
/// is more than half of the work.
pub(crate) struct Recovering {
    batch: Vec<Record>,
    bytes: usize,
    sender: SyncSender<Vec<Record>>,
    builder: JoinHandle<Builder>,
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
    /// Starts the thread; it ends with this, or when `finish` has taken what it built.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn new(memory_bytes: u64) -> Result<Self, StorageError> {
        let (sender, batches) = sync_channel::<Vec<Record>>(BATCHES);
        let build = move || {
            let mut builder = Builder::new(memory_bytes);
            batches.into_iter().flatten().for_each(|record| builder.add(&record));
            builder
        };
        let builder = std::thread::Builder::new().name("rusd-index".into()).spawn(build);
        let builder = builder.map_err(|error| StorageError::Closed(format!("no thread for the index: {error}")))?;
        Ok(Self { batch: Vec::new(), bytes: 0, sender, builder })
    }

    /// A record, in any order.
    pub fn record(&mut self, record: Record) {
        self.bytes += record.kv.key.len() + record.kv.value.len();
        self.batch.push(record);
        if self.batch.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        // It fails only if the thread has panicked, and then `finish` does.
        let _ = self.sender.send(std::mem::take(&mut self.batch));
    }

    /// Deltas in log order, then the rooms.
    pub fn finish(mut self, log: StateLog, deltas: Vec<(LogPosition, Delta)>) -> Result<Rooms, StorageError> {
        let count = deltas.len();
        let mut small = Small::default();
        deltas.into_iter().try_for_each(|(at, delta)| small.apply(at, delta))?;
        self.hand_over();
        drop(self.sender);
        let builder = self.builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (log, leased) = (Arc::new(log), builder.has_leases());
        let store = Arc::new(builder.finish(Arc::clone(&log), small.compact_revision.unwrap_or(-1)));
        if leased {
            store.leased(&mut |key, lease| small.lessor.attach(lease, Bytes::copy_from_slice(key)));
        }
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
