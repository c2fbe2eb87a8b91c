//! A state moves to another member, and survives there.

mod common;

use bytes::Bytes;
use common::{Member, bytes, put};
use openraft::storage::RaftStateMachine;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;
use rusd_storage::raft::types::{SnapshotMeta, TypeConfig};
use rusd_storage::snapshot::{Outgoing, Receiver, SnapshotData};
use rusd_storage::{LogPosition, Record};

/// The largest message two members exchange has room for this.
const CHUNK_BYTES_MAX: usize = 600 << 10;

async fn outgoing(member: &mut Member) -> (SnapshotMeta, Outgoing) {
    let snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData> =
        member.opened.state_machine.get_current_snapshot().await.expect("no error").expect("something was applied");
    let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else { panic!("something to send") };
    (snapshot.meta, outgoing)
}

fn chunks(outgoing: &mut Outgoing) -> Vec<Bytes> {
    std::iter::from_fn(|| outgoing.next_chunk().expect("history is there")).collect()
}

async fn install(member: &mut Member, meta: &SnapshotMeta, chunks: Vec<Bytes>) {
    let mut receiver = Receiver::begin(member.opened.engine.clone()).expect("a partial store");
    for chunk in chunks {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "{} bytes in a chunk", chunk.len());
        receiver.chunk(chunk).expect("a good chunk");
    }
    let data = receiver.finish().expect("all of it");
    member.opened.state_machine.install_snapshot(meta, data).await.expect("a switch");
    member.next = member.opened.state.applied().expect("applied").index + 1;
}

/// All that readers can tell apart: keys, history, leases, alarms, the hash members compare, and how far it goes.
type Told = (Vec<rusd_storage::KeyValue>, Vec<Record>, Vec<(i64, Vec<Bytes>)>, usize, (u32, i64, i64), Option<LogPosition>);

fn told(member: &Member) -> Told {
    let state = &member.opened.state;
    let store = state.store();
    let from = store.compact_revision().max(0);
    let history = store.history(from + 1, store.revision(), usize::MAX).expect("history").0;
    let leases = state.leases().iter().map(|lease| (lease.id, state.lease(lease.id, true).expect("listed").1)).collect();
    (member.all(), history, leases, state.alarms().len(), store.hash_kv(0).expect("a hash"), state.applied())
}

fn directories() -> (tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"))
}

async fn delete(member: &mut Member, key: &str, end: &str) {
    let command = Kind::DeleteRange(DeleteRange { key: bytes(key), range_end: bytes(end), prev_kv: false });
    member.apply(command).await.expect("a delete");
}

#[tokio::test]
async fn all_rooms_move_and_stay_after_a_restart() {
    let (from, to) = directories();
    let mut sender = Member::open(from.path());
    sender.apply(Kind::LeaseGrant(LeaseGrant { id: 7, ttl_secs: 60 })).await.expect("a lease");
    for round in 0..40 {
        for key in 0..20 {
            let lease = if key % 5 == 0 { 7 } else { 0 };
            let value = format!("{round} {}", "x".repeat(200));
            sender.apply(Kind::Put(put(&format!("key{key}"), &value, lease))).await.expect("a put");
        }
    }
    delete(&mut sender, "key1", "key12").await;
    sender.apply(Kind::Compact(Compact { revision: 700 })).await.expect("compacts");
    let alarm = Alarm { action: alarm::Action::Activate as i32, member_id: 3, r#type: AlarmType::Corrupt as i32 };
    sender.apply(Kind::Alarm(alarm)).await.expect("an alarm");

    let mut receiver = Member::open(to.path());
    receiver.put("of the past", "gone").await.expect("a put");
    let (meta, mut outgoing) = outgoing(&mut sender).await;
    let revision = receiver.opened.state.revision();
    install(&mut receiver, &meta, chunks(&mut outgoing)).await;
    assert_eq!(told(&receiver), told(&sender));
    assert_eq!(*revision.borrow(), sender.revision(), "the watch survives the switch");
    let receiver = receiver.restart(to.path()).await;
    assert_eq!(told(&receiver), told(&sender));
}

#[tokio::test]
async fn what_is_applied_meanwhile_is_no_part_of_it() {
    let (from, to) = directories();
    let mut sender = Member::open(from.path());
    for key in 0..3000 {
        sender.put(&format!("key{key}"), &"x".repeat(300)).await.expect("a put");
    }
    let before = told(&sender);
    let (meta, mut outgoing) = outgoing(&mut sender).await;
    let mut sent = vec![outgoing.next_chunk().expect("a head").expect("a head")];
    delete(&mut sender, "key", "kez").await;
    sender.apply(Kind::Compact(Compact { revision: 3002 })).await.expect("compacts");
    let store = sender.opened.state.store();
    while store.compact_step().expect("a step") {}
    sent.extend(chunks(&mut outgoing));
    let mut receiver = Member::open(to.path());
    install(&mut receiver, &meta, sent).await;
    assert_eq!(told(&receiver), before);
    drop(outgoing);
    while store.compact_step().expect("a step") {}
    assert_eq!(sender.opened.state.store().key_count(), 0);
}

#[tokio::test]
async fn a_transfer_that_is_repeated_gets_the_same_point() {
    let (from, _to) = directories();
    let mut sender = Member::open(from.path());
    sender.put("a", "1").await.expect("a put");
    let (first_meta, mut first) = outgoing(&mut sender).await;
    sender.put("a", "2").await.expect("a put");
    let (second_meta, mut second) = outgoing(&mut sender).await;
    assert_eq!(first_meta, second_meta);
    assert_eq!(chunks(&mut first), chunks(&mut second));
    drop((first, second));
    let (third_meta, _third) = outgoing(&mut sender).await;
    assert!(third_meta.last_log_id > first_meta.last_log_id);
}

/// One revision exceeds a message, and the last frame of records holds the last revision only.
#[tokio::test]
async fn frames_of_any_size_keep_their_place() {
    let (from, to) = directories();
    let mut sender = Member::open(from.path());
    let operations = (0..20_000)
        .map(|key| Operation { operation: Some(operation::Operation::Put(put(&format!("key{key:05}"), &"x".repeat(60), 0))) })
        .collect();
    sender.apply(Kind::Txn(Txn { success: operations, ..Txn::default() })).await.expect("a large txn");
    sender.put("last", &"y".repeat(100_000)).await.expect("a put");
    let mut receiver = Member::open_with(to.path(), 0);
    let (meta, mut outgoing) = outgoing(&mut sender).await;
    install(&mut receiver, &meta, chunks(&mut outgoing)).await;
    assert_eq!(told(&receiver), told(&sender), "nothing is resident at the receiver: all of it is found in frames");
    let mut receiver = receiver.restart(to.path()).await;
    for member in [&mut sender, &mut receiver] {
        member.put("last", "z").await.expect("a put");
    }
    assert_eq!(told(&receiver), told(&sender));
}

#[tokio::test]
async fn the_replaced_state_writes_nothing_into_the_new_one() {
    let (from, to) = directories();
    let mut sender = Member::open(from.path());
    let mut receiver = Member::open(to.path());
    for key in 0..2000 {
        receiver.put(&format!("old{}", key % 7), &"x".repeat(100)).await.expect("a put");
    }
    receiver.apply(Kind::Compact(Compact { revision: 1990 })).await.expect("compacts");
    let old = receiver.opened.state.store();
    while sender.next < receiver.next + 1 {
        sender.put("new", "1").await.expect("a put");
    }
    let (meta, mut outgoing) = outgoing(&mut sender).await;
    install(&mut receiver, &meta, chunks(&mut outgoing)).await;
    // Its compaction may still be running somewhere.
    while old.compact_step().expect("a step") {}
    drop(old);
    assert_eq!(told(&receiver), told(&sender));
    let receiver = receiver.restart(to.path()).await;
    assert_eq!(told(&receiver), told(&sender));
}
