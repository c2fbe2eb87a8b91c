//! A store whose file has grown too large is rewritten at a start, and says the same afterwards.

mod common;

use common::moving::{Told, told};
use common::{Answers, Member, copies, put};
use rusd_storage::command::LeaseGrant;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::engine::{self, Faults};
use rusd_storage::raft::{Options, open};
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Closes a member, and opens it as one that may defragment.
async fn restart(member: Member, directory: &Path, threshold: u64) -> Member {
    member.opened.engine.close().expect("closes");
    drop(member);
    let answers = Arc::new(Answers::default());
    let options = Options { memory_bytes: MIB, defragment_from_bytes: Some(threshold), ..Options::default() };
    let opened = open(directory, options, answers.clone()).expect("the store opens");
    let next = opened.state.applied().expect("something was applied").index + 1;
    Member { opened, answers, next }.replayed().await.expect("the log applies")
}

/// 40 MB of values, most of them overwritten and compacted; then some entries that only the log has.
async fn grown(directory: &Path) -> (Member, Told) {
    let mut member = Member::open(directory);
    member.apply(Kind::LeaseGrant(LeaseGrant { id: 7, ttl_secs: 60 })).await.expect("a lease");
    for round in 0..20 {
        for key in 0..40 {
            let lease = if key % 7 == 0 { 7 } else { 0 };
            let value = format!("{round} {}", "x".repeat(50_000));
            member.apply(Kind::Put(put(&format!("key{key:02}"), &value, lease))).await.expect("a put");
        }
        member.settle().await;
    }
    member.delete("key10", "key20").await;
    member.compact(member.revision() - 1).await;
    member.sweep();
    member.settle().await;
    for number in 0..30 {
        member.put(&format!("late{number}"), "v").await.expect("a put");
    }
    let told = told(&member);
    (member, told)
}

fn file_bytes(member: &Member) -> u64 {
    member.opened.engine.usage().file_bytes
}

#[tokio::test]
async fn a_file_that_is_mostly_unused_is_rewritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let (member, expected) = grown(directory.path()).await;
    let before = file_bytes(&member);
    let unchanged = restart(member, directory.path(), 1 << 40).await;
    assert!(told(&unchanged) == expected && file_bytes(&unchanged) >= before, "below the threshold nothing is done");
    let vote = unchanged.opened.has_vote;
    let member = restart(unchanged, directory.path(), 10 * MIB).await;
    let after = file_bytes(&member);
    println!("{before} bytes, then {after}");
    assert!(after < before / 2, "{before} bytes, then {after}");
    assert!(told(&member) == expected && member.opened.has_vote == vote);
    let mut member = restart(member, directory.path(), 40 * MIB).await;
    assert!(told(&member) == expected, "nothing more to gain");
    member.put("after", "1").await.expect("a put");
    member.settle().await;
    let member = member.restart(directory.path()).await;
    assert_eq!(member.value("after").as_deref(), Some("1"));
    let directories = std::fs::read_dir(directory.path()).expect("a directory");
    let names = directories.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name.starts_with("db-")).count(), 1);
}

/// The process ends at this step of the switch.
#[derive(Debug)]
struct EndAt(&'static str);

impl Faults for EndAt {
    fn at(&self, step: &'static str) -> std::io::Result<()> {
        if step == self.0 { Err(std::io::Error::other("the end")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn who_is_interrupted_has_the_old_store_or_the_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (member, expected) = grown(directory.path()).await;
    member.opened.engine.close().expect("closes");
    drop(member);
    for step in ["keys copied", "log copied", "synced", "pointed", "done"] {
        let copy = copies::copy(directory.path()).expect("it can be copied");
        let step = format!("switch: {step}").leak();
        let engine = engine::Options { faults: Some(Arc::new(EndAt(step))), ..engine::Options::default() };
        let options = Options { engine, defragment_from_bytes: Some(10 * MIB), ..Options::default() };
        assert!(open(copy.path(), options, Arc::new(Answers::default())).is_err(), "{step}");
        let member = Member::open(copy.path()).replayed().await.expect("the log applies");
        assert!(told(&member) == expected, "{step}");
    }
}

#[tokio::test]
async fn a_new_store_has_nothing_to_give_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options { defragment_from_bytes: Some(1), ..Options::default() };
    let opened = open(directory.path(), options(), Arc::new(Answers::default())).expect("a new store");
    opened.engine.close().expect("closes");
    drop(opened);
    let opened = open(directory.path(), options(), Arc::new(Answers::default())).expect("the store opens");
    assert_eq!(opened.state.applied(), None);
}
