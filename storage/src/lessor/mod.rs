//! Leases and the keys attached to them, never time: who expires what is decided by the leader and arrives as a revoke.
//!
//! Attachments are not stored: they are rebuilt from the `lease` of every live key.

use crate::command::state::Lease;
use crate::error::Rejection;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Largest TTL a grant may ask for, seconds (etcd's `MaxLeaseTTL`).
pub const TTL_SECS_MAX: i64 = 9_000_000_000;

#[derive(Debug, Default)]
struct Held {
    lease: Lease,
    keys: BTreeSet<Bytes>,
}

/// All leases of the cluster.
#[derive(Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Held>,
}

impl Lessor {
    /// A new lease; the id and the TTL's lower bound were chosen by the proposer.
    pub fn grant(&mut self, id: i64, ttl_secs: i64) -> Result<Lease, Rejection> {
        if ttl_secs > TTL_SECS_MAX {
            return Err(Rejection::LeaseTtlTooLarge);
        }
        if id == 0 {
            return Err(Rejection::LeaseNotFound);
        }
        if self.leases.contains_key(&id) {
            return Err(Rejection::LeaseExists);
        }
        let lease = Lease { id, ttl_secs, remaining_ttl_secs: 0 };
        self.upsert(lease);
        Ok(lease)
    }

    /// Restores a lease, keeping its keys.
    pub fn upsert(&mut self, lease: Lease) {
        self.leases.entry(lease.id).or_default().lease = lease;
    }

    /// Forgets a lease; returns its keys in order, `None` if it did not exist.
    pub fn revoke(&mut self, id: i64) -> Option<BTreeSet<Bytes>> {
        self.leases.remove(&id).map(|held| held.keys)
    }

    /// Remembers the rest of a lease's time, 0 to clear it. An unknown lease is ignored, as in etcd.
    pub fn checkpoint(&mut self, id: i64, remaining_ttl_secs: i64) -> Option<Lease> {
        let held = self.leases.get_mut(&id)?;
        held.lease.remaining_ttl_secs = remaining_ttl_secs;
        Some(held.lease)
    }

    /// Whether the lease exists.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Attaches a key; 0 and unknown leases are ignored.
    pub fn attach(&mut self, id: i64, key: Bytes) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.keys.insert(key);
        }
    }

    /// Detaches a key; 0 and unknown leases are ignored.
    pub fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.keys.remove(key);
        }
    }

    /// Keys of a lease, in order.
    pub fn keys(&self, id: i64) -> Option<&BTreeSet<Bytes>> {
        self.leases.get(&id).map(|held| &held.keys)
    }

    /// One lease.
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id).map(|held| &held.lease)
    }

    /// All leases by id.
    pub fn all(&self) -> Vec<Lease> {
        self.leases.values().map(|held| held.lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_once_and_gives_keys_in_order() {
        let mut lessor = Lessor::default();
        assert_eq!(lessor.grant(7, TTL_SECS_MAX + 1), Err(Rejection::LeaseTtlTooLarge));
        lessor.grant(7, 60).expect("a new id");
        assert_eq!(lessor.grant(7, 60), Err(Rejection::LeaseExists));
        for key in ["b", "a", "c"] {
            lessor.attach(7, Bytes::from(key));
        }
        lessor.detach(7, b"c");
        assert_eq!(lessor.revoke(7).map(|keys| keys.into_iter().collect::<Vec<_>>()), Some(vec![Bytes::from("a"), Bytes::from("b")]));
        assert_eq!(lessor.revoke(7), None);
    }
}
