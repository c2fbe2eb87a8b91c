//! A leader whose process has ended is replaced at once, not after an election timeout.
//!
//! A killed process leaves traces that a slow, paused or cut-off one doesn't: its append stream ends, its peer port refuses connections,
//! and a ping over the connection that is there fails at once. Who sees all of them gives the leader's lease up (for the rest of the term:
//! openraft knows no way back) and campaigns by pre-vote. That is as safe as any election: a vote is granted as always to who has the log,
//! and a pre-vote is refused by everybody who still hears the leader. Members take turns, so that they don't split the vote, and look for
//! the traces again before each try. Where a host refuses nothing (a firewall that drops, one dead address of several) the election timeout
//! decides, as ever.

use super::consensus::Consensus;
use rusd_network::{Presence, port_is_closed};
use std::sync::Arc;
use std::time::Duration;

/// When in its turn a member asks for pre-votes: who still trusts the leader refuses one, so the others must have found out, too.
const TRIES: [Duration; 3] = [Duration::from_millis(15), Duration::from_millis(30), Duration::from_millis(45)];
/// A member's turn, with its tries before; the election takes three fdatasyncs.
const TURN: Duration = Duration::from_millis(200);

/// A process that ends closes its connections one after the other: the port may be open a moment longer than a stream.
const LOOKS: [Duration; 4] = [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(10), Duration::from_millis(30)];

/// Watches the append streams of peers, and their pings, until the member stops.
pub async fn watch(consensus: Arc<Consensus>, presence: Arc<Presence>) {
    let mut ended = consensus.links().appends_ended.subscribe();
    let mut seen = presence.watch();
    let stop = consensus.stopping().clone();
    let work = async {
        loop {
            let told = tokio::select! {
                told = ended.changed() => told,
                told = seen.changed() => told,
            };
            if told.is_err() {
                return;
            }
            replace(&consensus, &presence).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Replaces the leader, if it is dead; else does nothing.
async fn replace(consensus: &Consensus, presence: &Presence) {
    let dead = consensus.believed_leader();
    if dead == 0 || dead == consensus.member_id() || !turns_out_dead(consensus, presence, dead).await {
        return;
    }
    let mut term = consensus.voted_term();
    let mut voters: Vec<u64> = consensus.voters().into_iter().filter(|id| *id != dead).collect();
    voters.sort_unstable();
    if !consensus.give_up_lease_of(dead).await {
        return;
    }
    let Some(turn) = voters.iter().position(|id| *id == consensus.member_id()) else { return };
    tracing::warn!(leader = format!("{dead:x}"), "the leader's process has ended: its peer port is closed; campaigning without waiting");
    let mut leader = consensus.watch_leader();
    let replaced = async {
        let _ = leader.wait_for(|now| *now != dead && *now != 0).await;
    };
    let count = u32::try_from(voters.len()).unwrap_or(u32::MAX);
    let work = async {
        tokio::time::sleep(TURN * u32::try_from(turn).unwrap_or(u32::MAX)).await;
        while take_turn(consensus, presence, dead, term).await {
            let voted = consensus.voted_term();
            tokio::time::sleep(TURN * count).await;
            // That candidate has had its time; votes that were split must not end the turns.
            if consensus.voted_term() == voted {
                term = voted;
            }
        }
    };
    tokio::select! {
        () = replaced => {}
        () = work => {}
        // The usual timers go on.
        () = tokio::time::sleep(consensus.lease()) => {}
    }
}

/// False once the leader isn't certainly dead any more.
async fn take_turn(consensus: &Consensus, presence: &Presence, dead: u64, term: u64) -> bool {
    for pause in TRIES {
        tokio::time::sleep(pause).await;
        if look(consensus, presence, dead).await != Sign::Dead {
            return false;
        }
        // Who has voted since gives the candidate its time.
        if consensus.voted_term() == term {
            consensus.campaign().await;
        }
    }
    true
}

async fn turns_out_dead(consensus: &Consensus, presence: &Presence, id: u64) -> bool {
    for pause in LOOKS {
        tokio::time::sleep(pause).await;
        if consensus.believed_leader() != id {
            return false;
        }
        match look(consensus, presence, id).await {
            Sign::Alive => return false,
            Sign::Dead => return true,
            Sign::Unclear => {}
        }
    }
    false
}

/// What a look at a member tells.
#[derive(PartialEq, Eq)]
enum Sign {
    Alive,
    Dead,
    Unclear,
}

/// A ping over the connection that is there settles almost every case. No answer in time is no proof: a dead process's kernel refuses at once.
async fn look(consensus: &Consensus, presence: &Presence, id: u64) -> Sign {
    match tokio::time::timeout(TURN / 2, presence.answers(id)).await {
        Ok(true) => Sign::Alive,
        Ok(false) if port_is_closed(&consensus.links().table.to_dial(id), TURN / 2).await => Sign::Dead,
        _ => Sign::Unclear,
    }
}
