//! Networks that are cut, one way or both, or that lose, delay, double and reorder packets.

use crate::fault::kinds::{shuffled, victim};
use crate::fault::network::{Link, Network};
use crate::fault::world::World;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// What happens to packets between members. Clients reach everybody, so that a cut-off member can lie to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One member is cut off.
    Isolate,
    /// One hears nothing, but is heard.
    Deaf,
    /// One isn't heard, but hears.
    Mute,
    /// Two don't hear each other; all others hear both (openraft's #2080).
    Pair,
    /// Every member hears its neighbours only.
    Ring,
    /// Two halves; the majority goes on.
    Split,
    /// Two halves that share one member.
    Bridge,
    /// Nobody hears anybody.
    Scatter,
    /// Packets are lost.
    Lossy,
    /// Packets take long, and overtake each other.
    Slow,
    /// Packets come twice, and overtake each other.
    Doubled,
}

/// Drawn from as often as they are here.
pub const KINDS: &[Kind] = &[
    Kind::Isolate,
    Kind::Isolate,
    Kind::Isolate,
    Kind::Deaf,
    Kind::Mute,
    Kind::Pair,
    Kind::Pair,
    Kind::Ring,
    Kind::Split,
    Kind::Bridge,
    Kind::Scatter,
    Kind::Lossy,
    Kind::Slow,
    Kind::Doubled,
];

/// One going on.
pub struct Fault {
    /// For the tally.
    pub name: &'static str,
}

/// Nothing gets through.
pub const CUT: Link = Link { cut: true, lost_permille: 0, doubled_permille: 0, delay: Duration::ZERO, jitter: Duration::ZERO };

/// Begins one.
pub async fn begin(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<Fault> {
    let (one, leads) = victim(world, random).await;
    let network = world.network.as_ref()?;
    let order = shuffled(world, random);
    let name = match kind {
        Kind::Isolate => {
            isolate(network, one, &order);
            if leads { "leader cut off" } else { "member cut off" }
        }
        Kind::Deaf => {
            others(one, &order).for_each(|other| network.set(other, one, CUT));
            if leads { "leader deaf" } else { "member deaf" }
        }
        Kind::Mute => {
            others(one, &order).for_each(|other| network.set(one, other, CUT));
            if leads { "leader mute" } else { "member mute" }
        }
        Kind::Pair => {
            network.set_both(one, others(one, &order).next()?, CUT);
            if leads { "leader and another cut from each other" } else { "two cut from each other" }
        }
        Kind::Ring => {
            let apart = |one: usize, other: usize| one.abs_diff(other) != 1 && one.abs_diff(other) != order.len() - 1;
            cut_where(network, &order, apart);
            "ring"
        }
        Kind::Split => {
            let side = random.random_range(1..order.len().max(2));
            cut_where(network, &order, |one, other| (one < side) != (other < side));
            "split"
        }
        Kind::Bridge => {
            let half = order.len() / 2;
            cut_where(network, &order, |one, other| one != half && other != half && (one < half) != (other < half));
            "halves that share one member"
        }
        Kind::Scatter => {
            cut_where(network, &order, |_, _| true);
            "all cut from each other"
        }
        Kind::Lossy => {
            let lost_permille = random.random_range(10..300);
            everywhere(network, &order, Link { lost_permille, ..Link::default() });
            "packets lost"
        }
        Kind::Slow => {
            let delay = Duration::from_millis(random.random_range(1..120));
            let jitter = delay.mul_f64(random.random_range(0.0..2.0));
            everywhere(network, &order, Link { delay, jitter, ..Link::default() });
            "packets delayed and reordered"
        }
        Kind::Doubled => {
            let jitter = Duration::from_millis(random.random_range(1..30));
            everywhere(network, &order, Link { doubled_permille: 300, jitter, ..Link::default() });
            "packets doubled and reordered"
        }
    };
    Some(Fault { name })
}

/// Everything gets through again.
pub fn end(world: &World) {
    if let Some(network) = &world.network {
        network.heal();
    }
}

/// Cuts one off from all other members.
pub fn isolate(network: &Network, one: usize, members: &[usize]) {
    others(one, members).for_each(|other| network.set_both(one, other, CUT));
}

fn others(one: usize, members: &[usize]) -> impl Iterator<Item = usize> {
    members.iter().copied().filter(move |other| *other != one)
}

/// Cuts pairs, chosen by their places in `order`.
fn cut_where(network: &Network, order: &[usize], apart: impl Fn(usize, usize) -> bool) {
    for one in 0..order.len() {
        for other in (one + 1..order.len()).filter(|other| apart(one, *other)) {
            network.set_both(order[one], order[other], CUT);
        }
    }
}

fn everywhere(network: &Network, members: &[usize], link: Link) {
    for one in members {
        others(*one, members).for_each(|other| network.set(*one, other, link));
    }
}
