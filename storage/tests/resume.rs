//! A snapshot transfer that broke is gone on with, by the same sender or another, or begins anew where that would be unsound.

mod common;

use bytes::Bytes;
use common::moving::{Told, chunks, feed, install, outgoing, switch, told};
use common::{Member, put};
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;
use rusd_storage::raft::types::SnapshotMeta;
use rusd_storage::snapshot::{Outgoing, Progress, Receiver};
use std::path::Path;
use tempfile::TempDir;

const LEASE: i64 = 7;

/// Revision 2 to about 330: keys put over and over, some with a lease, some deleted, and one revision that fills several chunks.
async fn past(member: &mut Member) {
    member.apply(Kind::LeaseGrant(LeaseGrant { id: LEASE, ttl_secs: 60 })).await.expect("a lease");
    for round in 0..6 {
        for key in 0..25 {
            let lease = if key % 5 == 0 { LEASE } else { 0 };
            member.apply(Kind::Put(put(&format!("key{key:02}"), &format!("{round} {}", "x".repeat(2000)), lease))).await.expect("a put");
        }
        member.delete("key03", "key05").await;
    }
    let operations = (0..600)
        .map(|key| Operation { operation: Some(operation::Operation::Put(put(&format!("many{key:05}"), &"y".repeat(2000), 0))) })
        .collect();
    member.apply(Kind::Txn(Txn { success: operations, ..Txn::default() })).await.expect("a large txn");
    for key in 0..150 {
        member.put(&format!("late{key:03}"), &"z".repeat(2000)).await.expect("a put");
    }
    member.delete("late100", "late110").await;
}

/// What happens after the first transfer broke.
async fn since(member: &mut Member) {
    // It may be there already.
    let _ = member.apply(Kind::LeaseGrant(LeaseGrant { id: LEASE + 1, ttl_secs: 60 })).await;
    member.apply(Kind::Put(put("key10", "another lease", LEASE + 1))).await.expect("a put");
    member.put("key05", "no lease").await.expect("a put");
    member.delete("key00", "key03").await;
    member.delete("late000", "late020").await;
    member.delete("many00000", "many00100").await;
    for key in 0..50 {
        member.put(&format!("new{key}"), &"w".repeat(2000)).await.expect("a put");
    }
    member.put("key01", "risen").await.expect("a put");
}

/// A member in a directory of its own.
struct Home {
    directory: TempDir,
    member: Member,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let member = Member::open(directory.path());
        Self { directory, member }
    }

    async fn restart(self) -> Self {
        let member = self.member.restart(self.directory.path()).await;
        Self { member, ..self }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// What remains at a receiver that got only these chunks.
fn broken(home: &Home, chunks: &[Bytes]) -> Option<Receiver> {
    let mut receiver = Receiver::begin(home.member.opened.engine.clone()).expect("a partial store");
    feed(&mut receiver, chunks);
    receiver.interrupted()
}

/// Goes on with what remains, or begins anew. Whether it went on, and how many chunks it took.
async fn complete(home: &mut Home, left: Option<Receiver>, meta: &SnapshotMeta, mut outgoing: Outgoing) -> (bool, usize) {
    let resumes = left.as_ref().is_some_and(|left| outgoing.resume(&left.progress()));
    let rest = chunks(&mut outgoing);
    if !resumes {
        drop(left);
        install(&mut home.member, meta, rest.clone()).await;
        return (false, rest.len());
    }
    let mut receiver = left.expect("something to go on with");
    feed(&mut receiver, &rest);
    switch(&mut home.member, meta, receiver).await;
    (true, rest.len())
}

/// Hashes at revisions that can be read.
fn hashes(member: &Member) -> Vec<(u32, i64, i64)> {
    let store = member.opened.state.store();
    // What a compaction has left at its own revision is another hash, and not everybody's.
    let from = store.compact_revision().max(0) + 1;
    (from..=store.revision()).step_by(37).map(|revision| store.hash_kv(revision).expect("a hash")).collect()
}

/// What differs, not all of it.
fn assert_same(member: &Member, expected: &(Told, Vec<(u32, i64, i64)>), when: &str) {
    let (found, wanted) = (told(member), &expected.0);
    assert_eq!(found.0.len(), wanted.0.len(), "keys, {when}");
    let differing = found.1.iter().zip(&wanted.1).find(|(found, wanted)| found != wanted).map(|(found, _)| found.revision);
    assert_eq!((found.1.len(), differing), (wanted.1.len(), None), "history, {when}");
    assert_eq!((&found.2, found.3, found.4, found.5), (&wanted.2, wanted.3, wanted.4, wanted.5), "leases, alarms, hash, position, {when}");
    assert!(found == *wanted, "keys, {when}");
    assert_eq!(hashes(member), expected.1, "hashes, {when}");
}

fn db_directories(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.path()).expect("a directory");
    entries.filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("db-")).count()
}

/// Breaks a transfer after every chunk, and goes on with a newer snapshot of `sender`. Returns the revisions it went on from.
async fn break_everywhere(first: &[Bytes], sender: &mut Member) -> Vec<i64> {
    let expected = (told(sender), hashes(sender));
    let (meta, held) = outgoing(sender).await;
    let whole = {
        let (_, mut outgoing) = outgoing(sender).await;
        chunks(&mut outgoing).len()
    };
    let (mut resumed, mut fresh) = (Vec::new(), 0);
    for length in 0..=first.len() {
        let mut home = Home::new();
        let left = broken(&home, &first[..length]);
        let from = left.as_ref().map_or(0, |left| left.progress().revision);
        let (went_on, sent) = complete(&mut home, left, &meta, outgoing(sender).await.1).await;
        if went_on {
            assert!(sent <= whole);
            resumed.push(from);
        }
        assert_same(&home.member, &expected, &format!("broken after chunk {length}"));
        assert_eq!(db_directories(&home), 1, "nothing is left over");
        home.member.sweep();
        let mut home = home.restart().await;
        assert_same(&home.member, &expected, &format!("broken after chunk {length}, opened again"));
        // Erases what is dead, and lives on.
        home.member.sweep();
        home.member.settle().await;
        assert_same(&home.member, &expected, &format!("broken after chunk {length}, swept"));
        let bytes = home.member.opened.engine.usage().frame_bytes;
        fresh = if length == 0 { bytes } else { fresh };
        assert!(bytes <= fresh + fresh / 4, "{bytes} bytes, {fresh} if never broken");
        home.member.put("after", "1").await.expect("a put");
        let home = home.restart().await;
        assert_eq!(home.member.all().len(), expected.0.0.len() + 1);
    }
    drop(held);
    resumed
}

async fn first_part(compact: Option<i64>) -> (Member, TempDir, Vec<Bytes>) {
    let Home { directory, mut member } = Home::new();
    past(&mut member).await;
    if let Some(revision) = compact {
        member.compact(revision).await;
    }
    let (_, mut outgoing) = outgoing(&mut member).await;
    let chunks = chunks(&mut outgoing);
    assert!(chunks.iter().filter(|chunk| chunk[0] == 4).count() >= 2, "a revision in parts");
    (member, directory, chunks)
}

#[tokio::test]
async fn a_newer_snapshot_goes_on_where_any_other_broke() {
    for compact in [None, Some(120)] {
        let (mut sender, _directory, first) = first_part(compact).await;
        since(&mut sender).await;
        // How much of it is erased makes no difference.
        sender.sweep();
        let resumed = break_everywhere(&first, &mut sender).await;
        let frames = first.iter().filter(|chunk| chunk[0] == 2).count();
        println!("{} chunks, {frames} frames, went on {} times", first.len(), resumed.len());
        assert!(resumed.len() > frames, "wherever there was something to go on from");
    }
}

/// A compaction came in between, and the sender has erased what it hides. Where it lies above what had arrived, a key may have been deleted
/// without a trace.
#[tokio::test]
async fn a_compaction_in_between_is_gone_on_from_only_above_it() {
    let (mut sender, _directory, first) = first_part(Some(60)).await;
    since(&mut sender).await;
    let compacted = 150;
    sender.compact(compacted).await;
    sender.sweep();
    let resumed = break_everywhere(&first, &mut sender).await;
    assert!(!resumed.is_empty() && resumed.iter().all(|revision| *revision >= compacted), "{resumed:?}");
    sender.compact(sender.revision()).await;
    sender.sweep();
    assert_eq!(break_everywhere(&first, &mut sender).await, []);
}

/// What is sent doesn't depend on who sends it, nor on how far it is with the work of compactions.
#[tokio::test]
async fn all_members_send_the_same() {
    let (mut one, mut two) = (Home::new(), Home::new());
    past(&mut one.member).await;
    past(&mut two.member).await;
    two.member.compact(90).await;
    two.member.sweep();
    one.member.compact(90).await;
    for home in [&mut one, &mut two] {
        since(&mut home.member).await;
        home.member.compact(170).await;
    }
    two.member.sweep();
    let mut sent = Vec::new();
    for home in [&mut one, &mut two] {
        let (_, mut outgoing) = outgoing(&mut home.member).await;
        sent.push(bodies(&chunks(&mut outgoing)));
    }
    assert!(sent[0] == sent[1], "{} and {} bytes", sent[0].len(), sent[1].len());
}

/// The bodies of frames, wherever one ends and the next begins.
fn bodies(chunks: &[Bytes]) -> Vec<u8> {
    let body = |chunk: &Bytes| match chunk[0] {
        2 => chunk.slice(53..),
        4 => chunk.slice(1..),
        _ => Bytes::new(),
    };
    chunks.iter().flat_map(body).collect()
}

/// Three senders in turn, with compactions at what had arrived.
#[tokio::test]
async fn a_transfer_may_break_again_and_again() {
    let (mut sender, _directory, first) = first_part(Some(60)).await;
    let mut home = Home::new();
    let mut left = broken(&home, &first[..first.len() - 2]).expect("nearly all of it");
    for round in 0..3 {
        since(&mut sender).await;
        if round == 1 {
            sender.compact(left.progress().revision).await;
            sender.sweep();
        }
        let (_, mut next) = outgoing(&mut sender).await;
        let before = left.progress();
        assert!(next.resume(&before), "round {round}");
        let rest = chunks(&mut next);
        feed(&mut left, &rest[..rest.len() - 1]);
        left = left.interrupted().expect("there is something");
        assert!(left.progress().revision > before.revision);
    }
    let (meta, outgoing) = outgoing(&mut sender).await;
    assert!(complete(&mut home, Some(left), &meta, outgoing).await.0);
    assert_same(&home.member, &(told(&sender), hashes(&sender)), "in the end");
    home.member.sweep();
    let home = home.restart().await;
    assert_same(&home.member, &(told(&sender), hashes(&sender)), "in the end");
}

#[tokio::test]
async fn what_does_not_fit_begins_anew() {
    let (mut old, _directory, _) = first_part(Some(60)).await;
    let Home { directory: _newer_directory, member: mut newer } = Home::new();
    past(&mut newer).await;
    since(&mut newer).await;
    newer.compact(120).await;
    let (_, mut sent) = outgoing(&mut newer).await;
    let sent = chunks(&mut sent);
    let home = Home::new();
    let left = broken(&home, &sent[..sent.len() - 1]).expect("nearly all of it");
    let held = left.progress();
    let (_, mut offered) = outgoing(&mut old).await;
    assert!(!offered.resume(&held), "an older state, with less compacted");
    let (_, mut offered) = outgoing(&mut newer).await;
    for other in [
        Progress { units: held.units + 1_000_000, ..held },
        Progress { records: u64::MAX, ..held },
        Progress { revision: held.revision + 1, ..held },
        Progress { revision: 0, ..held },
        Progress { compact_revision: 121, ..held },
    ] {
        assert!(!offered.resume(&other), "{other:?}");
    }
    assert!(offered.resume(&held));
    // A head that may not go on from it is refused by the receiver, too.
    let mut left = left;
    left.chunk(chunks(&mut outgoing(&mut old).await.1)[0].clone()).expect_err("an older snapshot");
    drop(left);
    assert_eq!(db_directories(&home), 1);
}
