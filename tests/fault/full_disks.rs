//! A disk without room for the snapshot that its member needs: the member says so, keeps what it has, and catches up once there is room.

use crate::fault::world::{Spec, World, with_world};
use crate::harness::client::Client;
use crate::harness::eventually;
use rusd::pb::etcdserverpb::HashKvRequest;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const DISK_MIB: u32 = 384;
/// So small that whoever was away needs a snapshot.
const SNAPSHOTS: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=5"];
const KEYS: usize = 120;
const VALUE_BYTES: usize = 300_000;
/// A transfer has begun in earnest.
const PART_BYTES: u64 = 4 << 20;
const SHORT: Duration = Duration::from_secs(4);

/// Overwrites many large values through one member.
async fn write(world: &World, member: usize, letter: u8) {
    let writer = world.client(member, SHORT);
    for number in 0..KEYS {
        let put = || async { writer.put(format!("other/{number:04}"), vec![letter; VALUE_BYTES]).await.ok() };
        eventually("a write", put).await;
    }
}

/// Whether the member knows of that generation, by its own state.
async fn holds(client: &Client, letter: u8) -> Option<()> {
    let value = client.read(format!("other/{:04}", KEYS - 1), true).await.ok()??;
    (value.first() == Some(&letter)).then_some(())
}

async fn hash(client: &Client, revision: i64) -> Option<u32> {
    let answer = client.maintenance.clone().hash_kv(HashKvRequest { revision }).await;
    answer.ok().map(|response| response.into_inner().hash)
}

/// All members hold the same.
async fn agree(world: &World, leader: usize, letter: u8) {
    let revision = world.wait_revision(leader).await;
    let mut hashes = Vec::new();
    for member in world.members() {
        let client = world.client(member, Duration::from_secs(20));
        eventually("the newest values", || holds(&client, letter)).await;
        hashes.push(eventually("a hash", || hash(&client, revision)).await);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// The member's stores, each with its size in bytes: the current one, and one that a snapshot fills.
fn stores(directory: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    let size = |path: &Path| std::fs::metadata(path.join("db")).map_or(0, |file| file.blocks() * 512);
    named.filter(|(name, _)| name.starts_with("db-")).map(|(name, path)| (name, size(&path))).collect()
}

fn spec(seed: u64) -> Spec {
    Spec::new(3, seed).flags(&SNAPSHOTS).shim().disks(DISK_MIB)
}

fn possible(world: &World) -> bool {
    !world.disks.is_empty() && !world.shims.is_empty()
}

/// Too little room from the beginning: nothing is received, and the old state is served meanwhile.
#[test]
fn a_snapshot_that_has_no_room_is_refused_and_taken_in_once_there_is() {
    with_world(spec(21), |mut world| async move {
        if !possible(&world) {
            return;
        }
        let leader = world.wait_leader().await;
        let follower = world.other(leader, 0);
        write(&world, leader, b'a').await;
        let client = world.client(follower, SHORT);
        eventually("the first values", || holds(&client, b'a')).await;
        // It isn't killed: a member that has just been started serves nobody before it has caught up.
        world.cluster.stop(follower);
        write(&world, leader, b'b').await;
        world.disks[follower].fill_but(16);
        world.cluster.resume(follower);
        eventually("a refusal", || async { world.cluster.log(follower).contains("a snapshot was refused: the state takes").then_some(()) })
            .await;
        eventually("the old values", || holds(&client, b'a')).await;
        let ended = world.cluster.members[follower].process().ended();
        assert!(ended.is_none(), "{ended:?}");
        world.disks[follower].make_room();
        agree(&world, leader, b'b').await;
        assert!(world.cluster.log(follower).contains("snapshot installed"), "it caught up in another way");
    });
}

/// The room goes while the snapshot is being received. The member may have to leave service, for its log has no room either.
#[test]
fn a_disk_that_fills_up_while_a_snapshot_is_received_costs_nothing() {
    with_world(spec(22), |mut world| async move {
        if !possible(&world) {
            return;
        }
        let leader = world.wait_leader().await;
        let follower = world.other(leader, 0);
        write(&world, leader, b'a').await;
        world.cluster.kill(follower);
        write(&world, leader, b'b').await;
        let directory = world.cluster.members[follower].data_dir.join("member");
        let before = stores(&directory);
        assert_eq!(before.len(), 1, "{before:?}");
        world.shims[follower].slow(Duration::from_millis(200));
        world.cluster.start(follower);
        let begun = || stores(&directory).into_iter().any(|(name, bytes)| name != before[0].0 && bytes > PART_BYTES);
        eventually("part of a snapshot", || async { begun().then_some(()) }).await;
        world.disks[follower].fill();
        let log = || world.cluster.log(follower);
        eventually("a complaint", || async { log().to_lowercase().contains("no space left on device").then_some(()) }).await;
        assert!(!log().contains("snapshot installed"), "it was too late");
        world.shims[follower].heal();
        world.disks[follower].make_room();
        if world.cluster.members[follower].process().ended().is_some() {
            world.cluster.start(follower);
        }
        agree(&world, leader, b'b').await;
        assert!(world.cluster.log(follower).contains("snapshot installed"), "it caught up in another way");
        let after = stores(&directory);
        assert_eq!(after.len(), 1, "what was received in part is left behind: {after:?}");
    });
}
