//! Members: what openraft's membership and the member records say, changed by one entry.

use super::{Rooms, empty};
use crate::cluster::Changed;
use crate::command::state::{self, delta};
use crate::command::{ApplyResult, ChangeMember, PublishMember, Response};
use crate::types::LogPosition;

/// openraft's membership changed at `position`. Founding members get their records here.
pub fn membership(rooms: &Rooms, position: LogPosition, membership: state::Membership) {
    let voters: Vec<u64> = membership.configs.iter().flat_map(|config| config.ids.iter().copied()).collect();
    for node in &membership.nodes {
        let found = rooms.cluster.write().found(node.id, &node.peer_urls, !voters.contains(&node.id));
        if let Some(record) = found {
            rooms.delta(delta::Delta::Member(record));
        }
    }
    let at = state::LogPosition { term: position.term, index: position.index };
    let stored = state::StoredMembership { log_position: Some(at), membership: Some(membership) };
    rooms.delta(delta::Delta::Membership(stored.clone()));
    *rooms.membership.write() = stored;
}

/// A member record changes, together with the membership of the same entry.
pub fn change(rooms: &Rooms, change: &ChangeMember) -> ApplyResult {
    let changes = rooms.cluster.write().change(change)?;
    for changed in changes {
        rooms.delta(match changed {
            Changed::Member(record) => delta::Delta::Member(record),
            Changed::Removed(id) => delta::Delta::RemovedMember(id),
        });
    }
    Ok(Response::Members { revision: rooms.store.revision(), members: rooms.cluster.read().members() })
}

/// A member says its name and client URLs.
pub fn publish(rooms: &Rooms, publish: &PublishMember) -> ApplyResult {
    let record = rooms.cluster.write().publish(publish)?;
    rooms.delta(delta::Delta::Member(record));
    Ok(empty(rooms))
}

/// The cluster version.
pub fn set_version(rooms: &Rooms, version: &str) -> ApplyResult {
    rooms.cluster.write().set_version(version.to_string());
    rooms.delta(delta::Delta::ClusterVersion(version.to_string()));
    Ok(empty(rooms))
}
