//! Processes that are killed, stopped and started again.

use crate::fault::kinds::{shuffled, victim};
use crate::fault::world::{World, in_time};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// What happens to processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9`.
    Kill,
    /// `kill -9`, and again while it starts, several times.
    KillWhileStarting,
    /// `kill -9` of more than half.
    KillMajority,
    /// `kill -9` of all at once.
    KillAll,
    /// SIGSTOP, then SIGCONT: long enough for a leader to be replaced.
    Stop,
    /// SIGSTOP of all at once: time passes for everybody.
    StopAll,
    /// SIGTERM.
    Terminate,
    /// Another one is asked to lead.
    MoveLeader,
}

/// Drawn from as often as they are here.
pub const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::Kill,
    Kind::Kill,
    Kind::KillWhileStarting,
    Kind::KillMajority,
    Kind::KillAll,
    Kind::Stop,
    Kind::Stop,
    Kind::Stop,
    Kind::StopAll,
    Kind::Terminate,
    Kind::MoveLeader,
];

const SHORT: Duration = Duration::from_secs(2);

/// One going on.
pub struct Fault {
    /// For the tally.
    pub name: &'static str,
    stopped: Vec<usize>,
}

/// Begins one.
pub async fn begin(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<Fault> {
    let (one, leads) = victim(world, random).await;
    let mut stopped = Vec::new();
    let name = match kind {
        Kind::Kill => {
            world.cluster.kill(one);
            if leads { "kill -9 of the leader" } else { "kill -9" }
        }
        Kind::KillWhileStarting => {
            for _ in 0..random.random_range(2..5) {
                world.cluster.kill(one);
                world.cluster.start(one);
                tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            }
            world.cluster.kill(one);
            "kill -9 while starting"
        }
        Kind::KillMajority => {
            let victims = shuffled(world, random);
            victims[..world.len() / 2 + 1].iter().for_each(|member| world.cluster.kill(*member));
            "kill -9 of a majority"
        }
        Kind::KillAll => {
            world.members().into_iter().for_each(|member| world.cluster.kill(member));
            "kill -9 of all"
        }
        Kind::Stop => {
            world.cluster.stop(one);
            stopped.push(one);
            if leads { "SIGSTOP of the leader" } else { "SIGSTOP" }
        }
        Kind::StopAll => {
            stopped = shuffled(world, random);
            stopped.iter().for_each(|member| world.cluster.stop(*member));
            "SIGSTOP of all"
        }
        Kind::Terminate => {
            world.cluster.members[one].process.as_ref()?;
            // Another fault may have stopped it, or its disk: it couldn't end.
            world.cluster.resume(one);
            if let Some(shim) = world.shims.get(one) {
                shim.resume();
            }
            world.cluster.terminate(one).await;
            if leads { "SIGTERM of the leader" } else { "SIGTERM" }
        }
        Kind::MoveLeader => {
            let leader = world.leader().await?;
            let to = shuffled(world, random).into_iter().find(|member| *member != leader)?;
            let target_id = in_time(SHORT, world.client(to, SHORT).status()).await?.header?.member_id;
            let request = rusd::pb::etcdserverpb::MoveLeaderRequest { target_id };
            in_time(SHORT, world.client(leader, SHORT).maintenance.move_leader(request)).await?;
            "leader moved"
        }
    };
    Some(Fault { name, stopped })
}

/// Lets go on what stopped. What ended is started by the caller, with all else that is down.
pub fn end(fault: Fault, world: &mut World) {
    fault.stopped.iter().for_each(|member| world.cluster.resume(*member));
}
