//! Leases: grant, revoke (deletes the keys as one revision), checkpoint.

use super::{Rooms, empty};
use crate::command::state::delta;
use crate::command::{ApplyResult, LeaseCheckpoint, LeaseGrant, Response};
use crate::error::{Rejection, StorageError};

/// A new lease.
pub fn grant(rooms: &Rooms, grant: &LeaseGrant) -> ApplyResult {
    let lease = rooms.lessor.write().grant(grant.id, grant.ttl_secs)?;
    let leases = &rooms.log.measures().leases;
    leases.granted.inc();
    leases.ttl.observe(u64::try_from(lease.ttl_secs).unwrap_or(0));
    rooms.delta(delta::Delta::Lease(lease));
    Ok(Response::LeaseGrant { revision: rooms.store.revision(), id: lease.id, ttl_secs: lease.ttl_secs })
}

/// Ends a lease; its keys go, in order, as one revision.
pub fn revoke(rooms: &Rooms, id: i64) -> Result<ApplyResult, StorageError> {
    let Some(keys) = rooms.lessor.write().revoke(id) else { return Ok(Err(Rejection::LeaseNotFound)) };
    rooms.log.measures().leases.revoked.inc();
    rooms.delta(delta::Delta::RevokedLease(id));
    let mut write = rooms.store.write();
    write.delete_keys(keys.iter().map(|key| &key[..]))?;
    Ok(Ok(Response::Empty { revision: write.publish() }))
}

/// Remembers remaining times.
pub fn checkpoint(rooms: &Rooms, checkpoint: &LeaseCheckpoint) -> ApplyResult {
    for item in &checkpoint.items {
        let changed = rooms.lessor.write().checkpoint(item.id, item.remaining_ttl_secs);
        if let Some(lease) = changed {
            rooms.delta(delta::Delta::Lease(lease));
        }
    }
    Ok(empty(rooms))
}
