//! The kinds of faults, each with its beginning and its end. What each family does is in its file.

use crate::fault::world::World;
use crate::fault::{disks, membership, partitions, processes};
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
    /// Members come and go.
    Membership(membership::Kind),
}

/// One that is going on.
pub enum Fault {
    /// See [`processes`].
    Process(processes::Fault),
    /// See [`partitions`].
    Network(partitions::Fault),
    /// See [`disks`].
    Disk(disks::Fault),
    /// See [`membership`]. Nothing is to be healed.
    Membership(&'static str),
}

impl Fault {
    /// Begins one; `None` if it isn't possible now (nobody leads, for example).
    pub async fn begin(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<Self> {
        Some(match kind {
            Kind::Process(kind) => Self::Process(processes::begin(kind, world, random).await?),
            Kind::Network(kind) => Self::Network(partitions::begin(kind, world, random).await?),
            Kind::Disk(kind) => Self::Disk(disks::begin(kind, world, random).await?),
            Kind::Membership(kind) => Self::Membership(membership::change(kind, world, random).await?),
        })
    }

    /// Ends it: processes that it ended are left to be started again.
    pub fn end(self, world: &mut World) {
        match self {
            Self::Process(fault) => processes::end(fault, world),
            Self::Network(_) => partitions::end(world),
            Self::Disk(fault) => disks::end(fault, world),
            Self::Membership(_) => {}
        }
    }

    /// For the tally.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Process(fault) => fault.name,
            Self::Network(fault) => fault.name,
            Self::Disk(fault) => fault.name,
            Self::Membership(name) => name,
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
    if world.spec.spare > 0 {
        kinds.extend(membership::KINDS.iter().copied().map(Kind::Membership));
    }
    kinds
}

/// A member drawn: half of the time the leader, if there is one.
pub async fn victim(world: &World, random: &mut StdRng) -> (usize, bool) {
    let members = world.members();
    let anyone = members[random.random_range(0..members.len())];
    let wanted = random.random_bool(0.5);
    match world.leader().await.filter(|_| wanted) {
        Some(leader) => (leader, true),
        None => (anyone, false),
    }
}

/// Members in random order.
pub fn shuffled(world: &World, random: &mut StdRng) -> Vec<usize> {
    let mut members = world.members();
    for at in (1..members.len()).rev() {
        members.swap(at, random.random_range(0..=at));
    }
    members
}
