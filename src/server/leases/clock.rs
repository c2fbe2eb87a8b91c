//! Deadlines, their order, and what is due.

use super::{CHECKPOINT_INTERVAL, Checkpoint, Clock, Deadline, LeaseState, Renewal, secs};
use rusd_storage::command::{lease_checkpoint, state};
use std::cmp::Reverse;
use std::time::Duration;
use tokio::time::Instant;

/// Revokes decided per tick: 1000 a second.
const REVOKES_PER_TICK: usize = 500;
/// A revoke of unknown fate is proposed again after this.
const REVOKE_RETRY: Duration = Duration::from_secs(7);
/// Leases in one checkpoint entry.
const CHECKPOINT_BATCH: usize = 1000;
/// From so many leases on, a new leader spreads their ends over time.
const SPREAD_FROM: usize = 1000;
/// To at most so many in a second.
const SPREAD_PER_SECOND: u32 = 750;

impl Clock {
    pub(super) fn start(&mut self, id: i64, ttl_secs: i64, at: Instant, checkpoint: Checkpoint) {
        self.leases.insert(id, Deadline { ttl_secs, at, revoking: None, checkpoint, checkpoint_due: None });
        self.ends.push(Reverse((at, id)));
        self.schedule_checkpoint(id, Instant::now());
    }

    /// The deadline of a lease that exists, started now if it was granted unannounced.
    pub(super) fn know(&mut self, lease: &state::Lease, now: Instant) -> &mut Deadline {
        if !self.leases.contains_key(&lease.id) {
            let checkpoint = if lease.remaining_ttl_secs > 0 { Checkpoint::Set } else { Checkpoint::None };
            self.start(lease.id, lease.ttl_secs, now + secs(lease.ttl_secs), checkpoint);
        }
        self.leases.get_mut(&lease.id).expect("just started")
    }

    pub(super) fn schedule_checkpoint(&mut self, id: i64, now: Instant) {
        let Some(deadline) = self.leases.get_mut(&id) else { return };
        let long = deadline.at.saturating_duration_since(now) > CHECKPOINT_INTERVAL;
        if long && deadline.checkpoint_due.is_none() {
            let due = now + CHECKPOINT_INTERVAL;
            deadline.checkpoint_due = Some(due);
            self.checkpoints.push(Reverse((due, id)));
        }
    }

    /// Sets the clock of a new leader: whole TTLs (or checkpointed rests) plus `extension`, and no more than 750 ends in a second.
    pub(super) fn promote(&mut self, leases: Vec<state::Lease>, extension: Duration) {
        let now = Instant::now();
        let mut ends: Vec<(Duration, &state::Lease)> = leases
            .iter()
            .map(|lease| {
                let left = if lease.remaining_ttl_secs > 0 { lease.remaining_ttl_secs } else { lease.ttl_secs };
                (secs(left) + extension, lease)
            })
            .collect();
        ends.sort_unstable_by_key(|(left, lease)| (*left, lease.id));
        let spread = ends.len() >= SPREAD_FROM;
        // The earliest moment the next end may have, so that ends keep a distance of 1/750 s.
        let mut free = Duration::ZERO;
        for (left, lease) in ends {
            let left = if spread { left.max(free) } else { left };
            free = left + Duration::from_secs(1) / SPREAD_PER_SECOND;
            let checkpoint = if lease.remaining_ttl_secs > 0 { Checkpoint::Set } else { Checkpoint::None };
            self.start(lease.id, lease.ttl_secs, now + left, checkpoint);
        }
    }

    /// Decides the end of those whose time is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < REVOKES_PER_TICK {
            let Some(Reverse((at, id))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= now) else { break };
            self.ends.pop();
            let Some(deadline) = self.leases.get_mut(&id) else { continue };
            if deadline.revoking.unwrap_or(deadline.at) != at {
                continue;
            }
            let retry = now + REVOKE_RETRY;
            deadline.revoking = Some(retry);
            self.ends.push(Reverse((retry, id)));
            expired.push(id);
        }
        expired
    }

    /// The remaining times that are due to be written down.
    pub(super) fn take_checkpoint(&mut self, now: Instant) -> Vec<lease_checkpoint::Item> {
        let mut items = Vec::new();
        while items.len() < CHECKPOINT_BATCH {
            let Some(Reverse((due, id))) = self.checkpoints.peek().copied().filter(|Reverse((due, _))| *due <= now) else { break };
            self.checkpoints.pop();
            let Some(deadline) = self.leases.get_mut(&id).filter(|deadline| deadline.checkpoint_due == Some(due)) else { continue };
            deadline.checkpoint_due = None;
            let left = deadline.at.saturating_duration_since(now);
            if deadline.revoking.is_none() && !left.is_zero() && deadline.checkpoint != Checkpoint::Proposing {
                deadline.checkpoint = Checkpoint::Proposing;
                let remaining_ttl_secs = (left.as_secs() + u64::from(left.subsec_nanos() > 0)) as i64;
                items.push(lease_checkpoint::Item { id, remaining_ttl_secs });
            }
            self.schedule_checkpoint(id, now);
        }
        items
    }

    pub(super) fn renew(&mut self, id: i64, now: Instant, state: &dyn LeaseState, cleared: bool) -> Renewal {
        let Some((lease, _)) = state.lease(id, false) else {
            self.leases.remove(&id);
            return Renewal::Gone;
        };
        let deadline = self.know(&lease, now);
        // Late, though no tick has decided so yet: etcd, too, lets such a one wait for its revoke.
        if deadline.revoking.is_some() || deadline.at <= now || deadline.checkpoint == Checkpoint::Proposing {
            return Renewal::Wait;
        }
        if deadline.checkpoint == Checkpoint::Set && !cleared {
            return Renewal::Clear;
        }
        deadline.at = now + secs(deadline.ttl_secs);
        let (at, ttl_secs) = (deadline.at, deadline.ttl_secs);
        self.ends.push(Reverse((at, id)));
        self.shrink();
        self.schedule_checkpoint(id, now);
        Renewal::Renewed(ttl_secs)
    }

    /// Keep-alives leave stale ends behind: rebuilds the heap when most of it is stale, so that it is bounded by the leases.
    pub(super) fn shrink(&mut self) {
        if self.ends.len() > 64 + 4 * self.leases.len() {
            self.ends = self.leases.iter().map(|(id, deadline)| Reverse((deadline.revoking.unwrap_or(deadline.at), *id))).collect();
        }
        if self.checkpoints.len() > 64 + 4 * self.leases.len() {
            let due = |(id, deadline): (&i64, &Deadline)| deadline.checkpoint_due.map(|due| Reverse((due, *id)));
            self.checkpoints = self.leases.iter().filter_map(due).collect();
        }
    }
}
