//! Applies one command after the other to all rooms. STUB with the agreed face.

pub mod compare;

use crate::command::{MemberRecord, state};
use crate::mvcc::Store;
use crate::types::LogPosition;
use std::sync::Arc;

/// The replicated state. Replaced as a whole by a snapshot install, so hold `store()` no longer than one request.
pub struct State {}

#[allow(unused_variables)]
impl State {
    /// The key-value store.
    pub fn store(&self) -> Arc<Store> {
        todo!()
    }
    /// Applied position.
    pub fn applied(&self) -> Option<LogPosition> {
        todo!()
    }
    /// Published revision as a watch that survives a snapshot install.
    pub fn revision(&self) -> tokio::sync::watch::Receiver<i64> {
        todo!()
    }
    /// Members sorted by id.
    pub fn members(&self) -> Vec<MemberRecord> {
        todo!()
    }
    /// Whether the id was removed for ever.
    pub fn is_removed(&self, id: u64) -> bool {
        todo!()
    }
    /// Cluster version, empty before it is decided.
    pub fn cluster_version(&self) -> String {
        todo!()
    }
    /// Changes whenever members, removed ids or peer URLs change.
    pub fn members_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    /// openraft's applied membership position (for judging strangers).
    pub fn membership_position(&self) -> Option<LogPosition> {
        todo!()
    }
    /// Alarms on.
    pub fn alarms(&self) -> Vec<state::AlarmMember> {
        todo!()
    }
    /// A lease, with its keys if asked.
    pub fn lease(&self, id: i64, keys: bool) -> Option<(state::Lease, Vec<bytes::Bytes>)> {
        todo!()
    }
    /// All leases.
    pub fn leases(&self) -> Vec<state::Lease> {
        todo!()
    }
}
