//! When old log may go.
//!
//! "Making a snapshot" writes no copy: it makes the state durable and purges the log before it, but for `--snapshot-catchup-entries`. So it
//! is cheap, except for a member that still needs that log: one that is behind, or is being sent the state, would have to be sent all of it
//! again, and under steady writes again and again. Therefore log that a reachable member needs is kept, while the disk allows. A transfer
//! that broke counts as being sent for a minute, so that what it is gone on with is still worth something.

use super::consensus::Consensus;
use rusd_network::Presence;
use rusd_storage::apply::State;
use rusd_storage::engine::Engine;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(200);
/// A snapshot is due after so much log, whatever `--snapshot-count` says.
const LOG_BYTES: u64 = 64 << 20;
/// Log is kept for others up to this size,
const KEPT_BYTES_MAX: u64 = 4 << 30;
/// and while so much of the disk is free.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Decides, on the runtime of consensus.
pub struct Snapshots {
    /// openraft.
    pub consensus: Arc<Consensus>,
    /// Who the members are.
    pub state: Arc<State>,
    /// Who can be reached.
    pub presence: Arc<Presence>,
    /// Sizes.
    pub engine: Engine,
    /// `--snapshot-count`.
    pub count: u64,
    /// `--snapshot-catchup-entries`.
    pub catchup: u64,
}

impl Snapshots {
    /// Until consensus ends.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.consensus.snapshot_index();
        let mut bytes = self.engine.usage().frame_bytes;
        while self.consensus.stopping().run_until_cancelled(tick.tick()).await.is_some() {
            let applied = self.consensus.applied_index();
            let entries = applied.saturating_sub(last);
            let now = self.engine.usage().frame_bytes;
            bytes = bytes.min(now);
            let due = entries >= self.count.max(1) || (entries > 0 && now - bytes >= LOG_BYTES);
            if !due || (self.is_needed(applied) && self.has_room()) {
                continue;
            }
            (last, bytes) = (applied, now);
            if self.consensus.make_snapshot().await.is_err() {
                return;
            }
        }
    }

    /// Whether a member that can be reached lacks entries that a snapshot now would purge.
    fn is_needed(&self, applied: u64) -> bool {
        if self.consensus.links().snapshots_in_flight.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let Some(progress) = self.consensus.progress() else { return false };
        let me = self.consensus.member_id();
        let oldest_kept = applied.saturating_sub(self.catchup);
        let others = self.state.members().into_iter().filter(|member| member.id != me && self.presence.seen(member.id).is_some());
        others.into_iter().any(|member| progress.matched.get(&member.id).copied().unwrap_or(0) < oldest_kept)
    }

    fn has_room(&self) -> bool {
        self.engine.log_bytes() < KEPT_BYTES_MAX && self.engine.free_bytes().is_none_or(|free| free > FREE_BYTES_MIN)
    }
}
