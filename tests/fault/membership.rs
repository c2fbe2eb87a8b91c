//! Members that are removed, added, promoted and replaced while everything else goes wrong.

use crate::fault::kinds::shuffled;
use crate::fault::world::{World, in_time};
use crate::harness::{PATIENCE, eventually};
use rand::RngExt;
use rand::rngs::StdRng;
use rusd::pb::etcdserverpb::{Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What happens to the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One is removed, perhaps the leader; not below three: then one joins instead.
    Remove,
    /// One joins, as a voter.
    Add,
    /// One joins, as a learner.
    AddLearner,
    /// A learner becomes a voter, if it is ready.
    Promote,
    /// One dies with all its data, is removed, and another one joins in its place, at its address.
    Replace,
}

/// Drawn from as often as they are here.
pub const KINDS: &[Kind] =
    &[Kind::Remove, Kind::Remove, Kind::Remove, Kind::Add, Kind::Add, Kind::AddLearner, Kind::Promote, Kind::Replace];

/// As long as etcd's own limit, and a bit.
const LIMIT: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
const EXISTING: &str = "--initial-cluster-state=existing";

/// Changes it; `None` if nothing came of it.
pub async fn change(kind: Kind, world: &mut World, random: &mut StdRng) -> Option<&'static str> {
    match kind {
        Kind::Remove => remove(world, random).await,
        Kind::Add => add(world, random, false).await,
        Kind::AddLearner => add(world, random, true).await,
        Kind::Promote => promote(world, random).await,
        Kind::Replace => replace(world, random).await,
    }
}

/// What the cluster says of itself, by one that answers.
async fn list(world: &World) -> Option<Vec<Member>> {
    for member in world.members() {
        let (mut client, request) = (world.client(member, LIMIT).cluster, MemberListRequest { linearizable: true });
        if let Some(response) = in_time(Duration::from_secs(2), client.member_list(request)).await {
            return Some(response.into_inner().members);
        }
    }
    None
}

/// The record of a seat's member, found by its peer URL.
fn record<'a>(world: &World, members: &'a [Member], seat: usize) -> Option<&'a Member> {
    let url = world.cluster.members[seat].peer_url();
    members.iter().find(|member| member.peer_ur_ls.contains(&url))
}

async fn remove(world: &mut World, random: &mut StdRng) -> Option<&'static str> {
    let members = list(world).await?;
    let voters = members.iter().filter(|member| !member.is_learner).count();
    let seats = shuffled(world, random);
    let victim = seats[0];
    let it = record(world, &members, victim)?;
    if !it.is_learner && voters <= 3 {
        return add(world, random, false).await;
    }
    let (id, was_learner) = (it.id, it.is_learner);
    let leads = world.leader().await == Some(victim);
    let asked = seats[random.random_range(0..seats.len())];
    if !dismiss(world, asked, victim, id).await {
        return None;
    }
    world.joined.remove(&victim);
    world.leaving.insert(victim);
    Some(match (was_learner, leads) {
        (true, _) => "learner removed",
        (_, true) => "leader removed",
        _ => "member removed",
    })
}

/// Asks for a member's removal; whether it is gone. If that isn't known, [`resolve`] will.
async fn dismiss(world: &mut World, asked: usize, victim: usize, id: u64) -> bool {
    let answer = in_time(LIMIT, world.client(asked, LIMIT).cluster.member_remove(MemberRemoveRequest { id })).await;
    // It may have happened all the same.
    let gone = answer.is_some() || list(world).await.is_some_and(|members| members.iter().all(|member| member.id != id));
    if gone {
        world.doubted.remove(&victim);
    } else {
        world.doubted.insert(victim, id);
    }
    gone
}

async fn replace(world: &mut World, random: &mut StdRng) -> Option<&'static str> {
    let members = list(world).await?;
    let victim = *shuffled(world, random).first().filter(|_| world.len() >= 3)?;
    let it = record(world, &members, victim)?;
    let (id, is_learner) = (it.id, it.is_learner);
    let leads = world.leader().await == Some(victim);
    world.cluster.kill(victim);
    let asked = shuffled(world, random).into_iter().find(|seat| *seat != victim)?;
    if !dismiss(world, asked, victim, id).await {
        return None;
    }
    world.joined.remove(&victim);
    add_at(world, random, victim, is_learner).await?;
    Some(if leads { "leader replaced" } else { "member replaced" })
}

/// Once everything is healed: finds out which changes that nobody answered have happened. A write after them tells, for the log keeps order.
pub async fn resolve(world: &mut World) {
    while let Some((seat, id)) = world.doubted.pop_first() {
        write(world).await;
        let members = eventually("the list of members", || list(world)).await;
        if members.iter().all(|member| member.id != id) && world.joined.remove(&seat) {
            world.leaving.insert(seat);
        }
    }
    if !world.late.is_empty() {
        write(world).await;
        let members = eventually("the list of members", || list(world)).await;
        for seat in std::mem::take(&mut world.late) {
            if record(world, &members, seat).is_some() {
                start(world, seat, &members);
            }
        }
    }
}

/// Through whoever takes it: a learner doesn't, nor one that was removed.
async fn write(world: &World) {
    eventually("a write through any member", || async {
        for member in world.members() {
            if in_time(SHORT, world.client(member, SHORT).put("other/alive", "yes")).await.is_some() {
                return Some(());
            }
        }
        None
    })
    .await;
}

async fn add(world: &mut World, random: &mut StdRng, is_learner: bool) -> Option<&'static str> {
    let free = |seat: &usize| !world.joined.contains(seat) && !world.leaving.contains(seat);
    let seat = (0..world.cluster.len()).find(free)?;
    add_at(world, random, seat, is_learner).await?;
    Some(if is_learner { "learner added" } else { "member added" })
}

async fn add_at(world: &mut World, random: &mut StdRng, seat: usize, is_learner: bool) -> Option<()> {
    let url = world.cluster.members[seat].peer_url();
    let asked = shuffled(world, random)[0];
    let request = MemberAddRequest { peer_ur_ls: vec![url], is_learner };
    let _ = in_time(LIMIT, world.client(asked, LIMIT).cluster.member_add(request)).await;
    // Whatever was answered: the list tells, now or in [`resolve`].
    world.late.insert(seat);
    let members = list(world).await?;
    record(world, &members, seat)?;
    start(world, seat, &members);
    Some(())
}

/// Starts a new member, with the flags that `etcdctl member add` would print.
fn start(world: &mut World, seat: usize, members: &[Member]) {
    let own = world.cluster.members[seat].peer_url();
    let name = world.cluster.members[seat].name.clone();
    let named = |member: &Member, url: &String| if *url == own { format!("{name}={url}") } else { format!("{}={url}", member.name) };
    let cluster: Vec<String> = members.iter().flat_map(|member| member.peer_ur_ls.iter().map(|url| named(member, url))).collect();
    world.cluster.initial_cluster = cluster.join(",");
    world.given.insert(seat, urls(members));
    let flags = &mut world.cluster.members[seat].flags;
    if !flags.iter().any(|flag| flag == EXISTING) {
        flags.push(EXISTING.into());
    }
    let _ = std::fs::remove_dir_all(&world.cluster.members[seat].data_dir);
    world.cluster.start(seat);
    world.joined.insert(seat);
    world.late.remove(&seat);
}

fn urls(members: &[Member]) -> BTreeSet<String> {
    members.iter().flat_map(|member| member.peer_ur_ls.clone()).collect()
}

/// Whether a member was turned away, as etcd's is, because the cluster has changed since it was told whom to join.
pub async fn outgrown(world: &World, seat: usize) -> bool {
    let turned_away = world.cluster.log(seat).contains("member count is unequal");
    let Some(given) = world.given.get(&seat).filter(|_| turned_away) else { return false };
    list(world).await.is_some_and(|members| *given != urls(&members))
}

/// Tells it of the cluster as it is now, once everything is healed.
pub async fn start_again(world: &mut World, seat: usize) {
    let members = eventually("the list of members", || list(world)).await;
    if record(world, &members, seat).is_some() {
        start(world, seat, &members);
    }
}

async fn promote(world: &mut World, random: &mut StdRng) -> Option<&'static str> {
    let members = list(world).await?;
    let id = members.iter().find(|member| member.is_learner)?.id;
    let asked = shuffled(world, random)[0];
    in_time(LIMIT, world.client(asked, LIMIT).cluster.member_promote(MemberPromoteRequest { id })).await?;
    Some("learner promoted")
}

/// Waits until those that were removed have ended by themselves, as they must once a peer can tell them; then their seats are free.
pub async fn farewell(world: &mut World) -> Vec<String> {
    let mut violations = Vec::new();
    for seat in std::mem::take(&mut world.leaving) {
        let deadline = Instant::now() + PATIENCE;
        // Who was down when it was removed learns of it when it is back.
        if world.cluster.members[seat].process.is_none() {
            world.cluster.start(seat);
        }
        while world.cluster.members[seat].process().ended().is_none() {
            if Instant::now() > deadline {
                violations.push(format!("member {seat} was removed and goes on"));
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        world.cluster.kill(seat);
    }
    violations
}

/// Makes every learner a voter, so that all can be asked to the end.
pub async fn settle(world: &mut World) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let members = list(world).await;
        let learner = members.as_ref().map(|members| members.iter().find(|member| member.is_learner).cloned());
        let id = match learner {
            Some(None) => return Vec::new(),
            Some(Some(learner)) => learner.id,
            None => 0,
        };
        for asked in world.members() {
            if id != 0 && world.client(asked, LIMIT).cluster.member_promote(MemberPromoteRequest { id }).await.is_ok() {
                break;
            }
        }
        if Instant::now() > deadline {
            return vec![format!("a learner can't be promoted within {PATIENCE:?}: {members:?}")];
        }
        tokio::time::sleep(POLL).await;
    }
}
