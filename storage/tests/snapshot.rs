//! A state moves to another member, and survives there.

mod common;

use common::moving::{chunks, directories, install, outgoing, told};
use common::{Member, put};
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;

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
    sender.delete("key1", "key12").await;
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
    sender.delete("key", "kez").await;
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
    let hold = first.hold();
    drop((first, second));
    let (held_meta, _) = outgoing(&mut sender).await;
    assert_eq!(held_meta, first_meta, "a transfer that broke holds it, too");
    drop(hold);
    let (third_meta, third) = outgoing(&mut sender).await;
    assert!(third_meta.last_log_id > first_meta.last_log_id);
    // Whoever got it would next need log that is gone.
    sender.put("a", "3").await.expect("a put");
    sender.settle().await;
    sender.opened.engine.purge(sender.opened.state.applied().expect("applied"), Box::new(|result| result.expect("purged")));
    let (fourth_meta, _fourth) = outgoing(&mut sender).await;
    assert!(fourth_meta.last_log_id > third_meta.last_log_id);
    drop(third);
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
