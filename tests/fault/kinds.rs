//! The kinds of faults, each with its beginning and its end. What each family does is in its file: `processes`, `partitions`, `disks`.

use crate::fault::world::World;
use crate::fault::{disks, partitions, processes};
use rand::RngExt;
use rand::rngs::StdRng;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process ends, stops, or starts.
    Process(processes::Kind),
    /// Packets don't arrive, or late.
    Network(partitions::Kind),
    /// A disk is sick, or a clock wrong.
    Disk(disks::Kind),
}

/// One that is going on.
pub enum Fault {
    /// See [`processes`].
    Process(processes::Fault),
    /// See [`partitions`].
    Network(partitions::Fault),
    /// See [`disks`].
    Disk(disks::Fault),
}

impl Fault {
    /// Begins one; `None` if it isn't possible now (nobody leads, for example).
    pub async fn begin(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<Self> {
        Some(match kind {
            Kind::Process(kind) => Self::Process(processes::begin(kind, world, random).await?),
            Kind::Network(kind) => Self::Network(partitions::begin(kind, world, random).await?),
            Kind::Disk(kind) => Self::Disk(disks::begin(kind, world, random).await?),
        })
    }

    /// Ends it: processes that it ended are left to be started again.
    pub async fn end(self, world: &mut World, random: &mut StdRng) {
        match self {
            Self::Process(fault) => processes::end(fault, world),
            Self::Network(_) => partitions::end(world),
            Self::Disk(fault) => disks::end(fault, world, random).await,
        }
    }

    /// For the tally.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Process(fault) => fault.name,
            Self::Network(fault) => fault.name,
            Self::Disk(fault) => fault.name,
        }
    }
}

/// All kinds that a world allows, each as often as it is to be drawn.
pub fn possible(world: &World) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = processes::KINDS.iter().copied().map(Kind::Process).collect();
    if world.network.is_some() {
        kinds.extend(partitions::KINDS.iter().copied().map(Kind::Network));
    }
    if !world.shims.is_empty() {
        kinds.extend(disks::SHIM_KINDS.iter().copied().map(Kind::Disk));
    }
    if !world.disks.is_empty() {
        kinds.extend(disks::POWER_KINDS.iter().copied().map(Kind::Disk));
    }
    kinds
}

/// A member drawn: half of the time the leader, if there is one.
pub async fn victim(world: &World, random: &mut StdRng) -> (usize, bool) {
    let anyone = random.random_range(0..world.len());
    let wanted = random.random_bool(0.5);
    match world.leader().await.filter(|_| wanted) {
        Some(leader) => (leader, true),
        None => (anyone, false),
    }
}

/// Members in random order.
pub fn shuffled(world: &World, random: &mut StdRng) -> Vec<usize> {
    let mut members: Vec<usize> = (0..world.len()).collect();
    for at in (1..members.len()).rev() {
        members.swap(at, random.random_range(0..=at));
    }
    members
}
