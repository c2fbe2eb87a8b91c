//! Applies one entry after the other to all rooms, and shows the result to readers.
//!
//! One entry is one unit of the state log: `begin`, changes of every room, `publish`, `end`.

mod alarm;
mod cluster;
mod compare;
mod kv;
mod lease;
mod recover;
mod txn;

pub use compare::holds;
pub(crate) use recover::Recovering;

use crate::alarm::Alarms;
use crate::cluster::Cluster;
use crate::command::proposal::Command;
use crate::command::state::{self, Delta, delta};
use crate::command::{AlarmType, ApplyResult, ChangeMember, MemberRecord, Proposal, Response};
use crate::error::{Rejection, StorageError};
use crate::lessor::Lessor;
use crate::measure::{KINDS, Stopwatch, kind_of};
use crate::mvcc::Store;
use crate::statelog::StateLog;
use crate::types::LogPosition;
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// An image of the small rooms is written after so many deltas, so that a restart replays few and old ones can leave the disk.
const DELTAS_PER_IMAGE: usize = 10_000;

/// The rooms of one state; a snapshot install makes new ones.
pub(crate) struct Rooms {
    pub store: Arc<Store>,
    pub log: Arc<StateLog>,
    pub lessor: RwLock<Lessor>,
    pub alarms: RwLock<Alarms>,
    pub cluster: RwLock<Cluster>,
    pub membership: RwLock<state::StoredMembership>,
    pub deltas: AtomicUsize,
}

impl Rooms {
    fn delta(&self, change: delta::Delta) {
        self.deltas.fetch_add(1, Ordering::Relaxed);
        self.log.delta(&Delta { delta: Some(change) });
    }

    /// Everything but the key-value records.
    pub fn image(&self) -> state::Image {
        let cluster = self.cluster.read();
        state::Image {
            membership: Some(self.membership.read().clone()),
            members: cluster.members(),
            removed_members: cluster.removed(),
            cluster_version: cluster.version().to_string(),
            leases: self.lessor.read().all(),
            alarms: self.alarms.read().all(),
            compact_revision: self.store.compact_revision(),
            ..state::Image::default()
        }
    }
}

/// The replicated state. Replaced as a whole by a snapshot install, so hold `store()` no longer than one request.
pub struct State {
    rooms: RwLock<Arc<Rooms>>,
    revision: watch::Sender<i64>,
    members: watch::Sender<u64>,
    /// Who takes longer to be applied is told of.
    slow: Option<Duration>,
}

impl State {
    pub(crate) fn new(rooms: Rooms, slow: Option<Duration>) -> Self {
        let revision = watch::channel(rooms.store.revision()).0;
        Self { rooms: RwLock::new(Arc::new(rooms)), revision, members: watch::channel(0).0, slow }
    }

    pub(crate) fn rooms(&self) -> Arc<Rooms> {
        Arc::clone(&self.rooms.read())
    }

    /// A snapshot was installed.
    pub(crate) fn replace(&self, rooms: Rooms) {
        let revision = rooms.store.revision();
        *self.rooms.write() = Arc::new(rooms);
        self.revision.send_replace(revision);
        self.members.send_modify(|count| *count += 1);
    }

    /// The key-value store.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.rooms.read().store)
    }
    /// Applied position.
    pub fn applied(&self) -> Option<LogPosition> {
        self.rooms.read().log.applied()
    }
    /// Published revision as a watch that survives a snapshot install.
    pub fn revision(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }
    /// Members sorted by id.
    pub fn members(&self) -> Vec<MemberRecord> {
        self.rooms().cluster.read().members()
    }
    /// Whether the id was removed for ever.
    pub fn is_removed(&self, id: u64) -> bool {
        self.rooms().cluster.read().is_removed(id)
    }
    /// Whether a membership change would be accepted by the records as they are now.
    ///
    /// # Errors
    /// It would be rejected.
    pub fn would_change(&self, change: &ChangeMember) -> Result<(), Rejection> {
        self.rooms().cluster.read().clone().change(change).map(drop)
    }
    /// Cluster version, empty before it is decided.
    pub fn cluster_version(&self) -> String {
        self.rooms().cluster.read().version().to_string()
    }
    /// Changes whenever members, removed ids or peer URLs change.
    pub fn members_changed(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }
    /// openraft's applied membership position (for judging strangers).
    pub fn membership_position(&self) -> Option<LogPosition> {
        let position = self.rooms().membership.read().log_position;
        position.map(|at| LogPosition { term: at.term, index: at.index })
    }
    /// Alarms on.
    pub fn alarms(&self) -> Vec<state::AlarmMember> {
        self.rooms().alarms.read().all()
    }
    /// Whether a member has an alarm.
    pub fn is_alarmed(&self, member_id: u64, kind: AlarmType) -> bool {
        self.rooms.read().alarms.read().is_raised(member_id, kind)
    }
    /// A lease, with its keys if asked.
    pub fn lease(&self, id: i64, keys: bool) -> Option<(state::Lease, Vec<Bytes>)> {
        let rooms = self.rooms();
        let lessor = rooms.lessor.read();
        let attached = if keys { lessor.keys(id).into_iter().flatten().cloned().collect() } else { Vec::new() };
        lessor.get(id).map(|lease| (*lease, attached))
    }
    /// All leases.
    pub fn leases(&self) -> Vec<state::Lease> {
        self.rooms().lessor.read().all()
    }

    /// Hands what is not framed yet to the engine, at exit: the next start replays less. The log covers it anyway.
    pub fn hand_over(&self) {
        self.rooms().log.hand_over();
    }

    /// Applies one entry. Apply thread only.
    ///
    /// # Errors
    /// The node is broken, or the command is unknown to this version.
    pub(crate) fn apply(
        &self,
        position: LogPosition,
        proposal: Option<&Proposal>,
        membership: Option<state::Membership>,
    ) -> Result<Option<ApplyResult>, StorageError> {
        let rooms = self.rooms();
        rooms.log.begin(position);
        // The state before this entry; what the entry changes follows it.
        if rooms.deltas.load(Ordering::Relaxed) > DELTAS_PER_IMAGE {
            rooms.log.delta(&Delta { delta: Some(delta::Delta::Image(rooms.image())) });
            rooms.deltas.store(0, Ordering::Relaxed);
        }
        let members = membership.is_some();
        let mut membership = membership;
        let mut set_membership = || membership.take().into_iter().for_each(|membership| cluster::membership(&rooms, position, membership));
        // A member's own change writes its record; only who has none after it is a founder. Other commands may publish, which ends the unit.
        if !matches!(proposal.and_then(|proposal| proposal.command.as_ref()), Some(Command::ChangeMember(_))) {
            set_membership();
        }
        let result = proposal.map(|proposal| self.measured(&rooms, position, proposal)).transpose()?;
        set_membership();
        // Ended already if the entry published changes of keys: history must hold them before anyone is told.
        rooms.log.end();
        let revision = rooms.store.revision();
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        if members
            || matches!(proposal.and_then(|proposal| proposal.command.as_ref()), Some(Command::PublishMember(_) | Command::ChangeMember(_)))
        {
            self.members.send_modify(|count| *count += 1);
        }
        Ok(result)
    }

    /// Applies a command, and how long it takes is counted; accepted is what etcd counts as a success.
    fn measured(&self, rooms: &Rooms, position: LogPosition, proposal: &Proposal) -> Result<ApplyResult, StorageError> {
        let watch = Stopwatch::start();
        let result = command(rooms, position, proposal)?;
        let Some(kind) = proposal.command.as_ref().and_then(kind_of) else { return Ok(result) };
        let (took, measures) = (watch.elapsed(), rooms.log.measures());
        measures.applies[kind].took(matches!(result, Ok(_) | Err(Rejection::Compacted)), took);
        if let Some(expected) = self.slow.filter(|slow| took > *slow) {
            measures.slow.inc();
            tracing::warn!(kind = KINDS[kind], index = position.index, ?took, ?expected, "apply request took too long");
        }
        Ok(result)
    }
}

fn command(rooms: &Rooms, position: LogPosition, proposal: &Proposal) -> Result<ApplyResult, StorageError> {
    let Some(command) = &proposal.command else {
        return Err(StorageError::UnknownCommand { index: position.index, detail: "a proposal without a known command".into() });
    };
    if let Err(rejection) = guard(rooms, command) {
        return Ok(Err(rejection));
    }
    match command {
        Command::Put(put) => kv::put(rooms, put),
        Command::DeleteRange(delete) => kv::delete_range(rooms, delete),
        Command::Txn(txn) => txn::txn(rooms, txn),
        Command::Compact(compact) => Ok(kv::compact(rooms, compact.revision)),
        Command::LeaseGrant(grant) => Ok(lease::grant(rooms, grant)),
        Command::LeaseRevoke(revoke) => lease::revoke(rooms, revoke.id),
        Command::LeaseCheckpoint(checkpoint) => Ok(lease::checkpoint(rooms, checkpoint)),
        Command::Alarm(change) => Ok(alarm::alarm(rooms, change)),
        Command::PublishMember(publish) => Ok(cluster::publish(rooms, publish)),
        Command::SetClusterVersion(set) => Ok(cluster::set_version(rooms, &set.version)),
        Command::ChangeMember(change) if change.change.is_some() => Ok(cluster::change(rooms, change)),
        other => Err(StorageError::UnknownCommand { index: position.index, detail: format!("{other:?}").chars().take(40).collect() }),
    }
}

/// What alarms forbid (contract b.10).
fn guard(rooms: &Rooms, command: &Command) -> Result<(), Rejection> {
    let alarms = rooms.alarms.read();
    let puts = matches!(command, Command::Put(_) | Command::LeaseGrant(_)) || matches!(command, Command::Txn(txn) if txn::has_put(txn));
    let changes = puts || matches!(command, Command::DeleteRange(_) | Command::Txn(_) | Command::Compact(_) | Command::LeaseRevoke(_));
    if changes && alarms.is_on(AlarmType::Corrupt) {
        return Err(Rejection::Corrupt);
    }
    if puts && alarms.is_on(AlarmType::Nospace) {
        return Err(Rejection::NoSpace);
    }
    Ok(())
}

fn empty(rooms: &Rooms) -> Response {
    Response::Empty { revision: rooms.store.revision() }
}
