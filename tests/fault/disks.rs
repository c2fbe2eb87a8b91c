//! Disks that are slow, hang, fail, fill up or lose power; and clocks that are wrong.

use crate::fault::kinds::victim;
use crate::fault::shim::DieAt;
use crate::fault::world::World;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// What happens to a member's disk or clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every sync takes long.
    Slow,
    /// Syncs and writes hang.
    Stall,
    /// Every sync fails: the member must leave service, for it doesn't know what is on the disk.
    SyncError,
    /// Every write fails for want of space: likewise.
    NoSpace,
    /// The process ends at some call of its file system.
    DieAtCall,
    /// The wall clock jumps.
    Clock,
    /// The power of one member's disk is cut.
    PowerCut,
    /// Of all at once.
    PowerCutAll,
    /// The disk fills up for real.
    Full,
}

/// By a library between server and libc.
pub const SHIM_KINDS: &[Kind] =
    &[Kind::Slow, Kind::Slow, Kind::Stall, Kind::SyncError, Kind::NoSpace, Kind::DieAtCall, Kind::DieAtCall, Kind::Clock];

/// By disks of their own.
pub const POWER_KINDS: &[Kind] = &[Kind::PowerCut, Kind::PowerCut, Kind::PowerCut, Kind::PowerCutAll, Kind::Full];

/// One going on.
pub struct Fault {
    /// For the tally.
    pub name: &'static str,
    kind: Kind,
    members: Vec<usize>,
}

/// Begins one.
pub async fn begin(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<Fault> {
    let (one, leads) = victim(world, random).await;
    let mut members = vec![one];
    let name = match kind {
        Kind::Slow => {
            world.shims[one].slow(Duration::from_millis(random.random_range(5..300)));
            if leads { "slow disk of the leader" } else { "slow disk" }
        }
        Kind::Stall => {
            world.shims[one].stall();
            if leads { "hanging disk of the leader" } else { "hanging disk" }
        }
        Kind::SyncError => {
            world.shims[one].fail_syncs(libc::EIO);
            "fdatasync fails"
        }
        Kind::NoSpace => {
            world.shims[one].fail_writes(libc::ENOSPC);
            "writes find no space"
        }
        Kind::DieAtCall => {
            let calls = [DieAt::Sync, DieAt::Write, DieAt::Rename, DieAt::Unlink];
            world.shims[one].die_at(calls[random.random_range(0..calls.len())], random.random_range(0..20));
            "end at a call of the file system"
        }
        Kind::Clock => {
            world.shims[one].set_clock(random.random_range(-100_000..100_000));
            "clock jump"
        }
        Kind::PowerCut => {
            cut(world, one);
            if leads { "power cut of the leader" } else { "power cut" }
        }
        Kind::PowerCutAll => {
            members = world.members();
            members.iter().for_each(|member| cut(world, *member));
            "power cut of all"
        }
        Kind::Full => {
            world.disks[one].fill();
            "full disk"
        }
    };
    Some(Fault { name, kind, members })
}

/// The disk dies first, the process a moment later: it may notice.
fn cut(world: &mut World, member: usize) {
    world.disks[member].cut();
    world.cluster.kill(member);
    world.disks[member].repower();
}

/// Ends it. A member that had to leave service, or may have, is left to be started again.
pub fn end(fault: Fault, world: &mut World) {
    for member in fault.members {
        match fault.kind {
            Kind::PowerCut | Kind::PowerCutAll | Kind::Clock => {}
            Kind::Full => {
                world.disks[member].make_room();
                forget(world, member);
            }
            Kind::Slow | Kind::Stall => world.shims[member].heal(),
            Kind::SyncError | Kind::NoSpace | Kind::DieAtCall => {
                world.shims[member].heal();
                forget(world, member);
            }
        }
    }
}

/// If its process has ended, or is about to, that was to be expected.
fn forget(world: &mut World, member: usize) {
    world.cluster.kill(member);
}
