//! What entries do, told as stories (contract b.1, b.3, b.4, b.5, b.7, b.10, b.12).

mod common;

use common::{Member, bytes, put};
use rusd_storage::command::compare::{Result as Is, Target};
use rusd_storage::command::operation::Operation as Op;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;
use rusd_storage::{LogPosition, Rejection};

fn op(operation: Op) -> Operation {
    Operation { operation: Some(operation) }
}
fn do_put(key: &str, value: &str) -> Operation {
    op(Op::Put(put(key, value, 0)))
}
fn get(key: &str, revision: i64) -> Operation {
    op(Op::Range(Range { key: bytes(key), revision, ..Range::default() }))
}
fn delete(key: &str, end: &str) -> DeleteRange {
    DeleteRange { key: bytes(key), range_end: bytes(end), prev_kv: false }
}
fn version_is(key: &str, version: i64) -> Compare {
    Compare { result: Is::Equal as i32, key: bytes(key), target: Some(Target::Version(version)), ..Compare::default() }
}
fn txn(compare: Vec<Compare>, success: Vec<Operation>, failure: Vec<Operation>) -> Kind {
    Kind::Txn(Txn { compare, success, failure })
}

async fn member() -> (tempfile::TempDir, Member) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let member = Member::open(directory.path());
    (directory, member)
}

#[tokio::test]
async fn revisions_count_changes_and_nothing_else() {
    let (_directory, mut member) = member().await;
    assert_eq!(member.revision(), 1);
    assert_eq!(member.put("a", "1").await, Ok(Response::Put { revision: 2, prev_kv: None }));
    let nothing = Kind::DeleteRange(delete("x", ""));
    assert_eq!(member.apply(nothing).await, Ok(Response::DeleteRange { revision: 2, deleted: 0, prev_kvs: vec![] }));
    assert_eq!(member.put("a", "1").await, Ok(Response::Put { revision: 3, prev_kv: None }), "the same value is a change");
    let all = Kind::DeleteRange(DeleteRange { prev_kv: true, ..delete("a", "b") });
    let Ok(Response::DeleteRange { revision: 4, deleted: 1, prev_kvs }) = member.apply(all).await else { panic!("one key goes") };
    assert_eq!((prev_kvs[0].create_revision, prev_kvs[0].version), (2, 2));
    assert_eq!(*member.opened.state.revision().borrow(), 4);
    assert_eq!(member.opened.state.applied(), Some(LogPosition { term: 1, index: 5 }));
    assert_eq!(member.answers.advanced.lock().len(), 4);
}

#[tokio::test]
async fn a_txn_sees_its_own_changes_and_decides_on_the_state_before() {
    let (_directory, mut member) = member().await;
    member.put("a", "1").await.expect("a put");
    // The nested compare asks for the state before, though `b` is put first.
    let nested =
        op(Op::Txn(Txn { compare: vec![version_is("b", 0)], success: vec![do_put("c", "yes")], failure: vec![do_put("c", "no")] }));
    let command = txn(vec![version_is("a", 1)], vec![get("b", 0), do_put("b", "2"), get("b", 0), nested], vec![]);
    let Ok(Response::Txn { revision: 3, succeeded: true, responses }) = member.apply(command).await else { panic!("it succeeds") };
    let Response::Range(before) = &responses[0] else { panic!("a range") };
    assert_eq!((before.revision, before.kvs.len()), (2, 0));
    assert_eq!(responses[1], Response::Put { revision: 3, prev_kv: None });
    let Response::Range(after) = &responses[2] else { panic!("a range") };
    assert_eq!((after.revision, after.kvs.len()), (3, 1));
    assert!(matches!(responses[3], Response::Txn { succeeded: true, .. }));
    assert_eq!(member.value("c").as_deref(), Some("yes"));
    assert_eq!(member.range(&Range { key: bytes("b"), ..Range::default() })[0].mod_revision, 3, "one revision for all");
}

#[tokio::test]
async fn what_a_txn_may_be_refused_for_is_found_before_it_writes() {
    let (_directory, mut member) = member().await;
    member.put("a", "1").await.expect("a put");
    member.put("a", "2").await.expect("a put");
    member.apply(Kind::Compact(Compact { revision: 3 })).await.expect("compacts");
    let keep = |key: &str| op(Op::Put(Put { ignore_value: true, ..put(key, "", 0) }));
    let all_from = |key: &str| op(Op::DeleteRange(DeleteRange { key: bytes(key), range_end: bytes("\0"), prev_kv: false }));
    for (last, refusal) in [
        (get("a", 2), Rejection::Compacted),
        (get("a", 4), Rejection::FutureRevision),
        (op(Op::Put(put("c", "", 9))), Rejection::LeaseNotFound),
        (op(Op::Put(Put { ignore_value: true, ..put("c", "", 9) })), Rejection::LeaseNotFound),
        (keep("c"), Rejection::KeyNotFound),
    ] {
        assert_eq!(member.apply(txn(vec![], vec![do_put("b", "1"), last], vec![])).await, Err(refusal));
    }
    // Legal for etcd's validation, since an open end collides with nothing; the key is gone when the put runs.
    assert_eq!(member.apply(txn(vec![], vec![all_from("a"), keep("a")], vec![])).await, Err(Rejection::KeyNotFound));
    assert_eq!((member.revision(), member.value("a").as_deref(), member.value("b")), (3, Some("2"), None), "nothing was written");
    let untaken = txn(vec![version_is("a", 7)], vec![get("a", 99)], vec![]);
    assert!(matches!(member.apply(untaken).await, Ok(Response::Txn { succeeded: false, .. })), "the branch not taken is not checked");
}

#[tokio::test]
async fn a_txn_may_delete_and_put_one_key() {
    let (_directory, mut member) = member().await;
    member.put("k", "old").await.expect("a put");
    let command = txn(vec![], vec![op(Op::DeleteRange(delete("k", "\0"))), do_put("k", "new")], vec![]);
    member.apply(command).await.expect("a txn");
    let kv = &member.range(&Range { key: bytes("k"), ..Range::default() })[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (3, 3, 1));
    let (records, _) = member.opened.state.store().history(3, 3, 1 << 20).expect("history");
    assert_eq!(records.iter().map(|record| (record.revision.sub, record.tombstone)).collect::<Vec<_>>(), [(0, true), (1, false)]);
}

#[tokio::test]
async fn a_key_follows_its_lease() {
    let (_directory, mut member) = member().await;
    let keys = |member: &Member, id| member.opened.state.lease(id, true).map(|(_, keys)| keys);
    assert_eq!(member.apply(Kind::Put(put("a", "", 7))).await, Err(Rejection::LeaseNotFound));
    for id in [7, 8] {
        let granted = member.apply(Kind::LeaseGrant(LeaseGrant { id, ttl_secs: 60 })).await;
        assert_eq!(granted, Ok(Response::LeaseGrant { revision: 1, id, ttl_secs: 60 }));
    }
    assert_eq!(member.apply(Kind::LeaseGrant(LeaseGrant { id: 7, ttl_secs: 1 })).await, Err(Rejection::LeaseExists));
    for key in ["c", "a", "b", "d", "e"] {
        member.apply(Kind::Put(put(key, "", 7))).await.expect("a put");
    }
    member.apply(Kind::Put(put("b", "", 8))).await.expect("moves to the other lease");
    member.apply(Kind::Put(Put { ignore_lease: true, ..put("c", "x", 0) })).await.expect("stays");
    member.put("d", "").await.expect("is free");
    member.apply(Kind::DeleteRange(delete("e", ""))).await.expect("is gone");
    assert_eq!(keys(&member, 7), Some(vec![bytes("a"), bytes("c")]));
    assert_eq!(keys(&member, 8), Some(vec![bytes("b")]));

    let before = member.revision();
    assert_eq!(member.apply(Kind::LeaseRevoke(LeaseRevoke { id: 7 })).await, Ok(Response::Empty { revision: before + 1 }));
    let (records, _) = member.opened.state.store().history(before + 1, before + 1, 1 << 20).expect("history");
    let gone: Vec<_> = records.iter().map(|record| (record.kv.key.clone(), record.revision.sub, record.tombstone)).collect();
    assert_eq!(gone, [(bytes("a"), 0, true), (bytes("c"), 1, true)], "in key order, in one revision");
    assert_eq!(member.apply(Kind::LeaseRevoke(LeaseRevoke { id: 7 })).await, Err(Rejection::LeaseNotFound));
}

#[tokio::test]
async fn alarms_refuse_what_etcd_refuses() {
    let (_directory, mut member) = member().await;
    member.put("a", "1").await.expect("a put");
    let alarm = |action: alarm::Action, kind: AlarmType| Kind::Alarm(Alarm { action: action as i32, member_id: 5, r#type: kind as i32 });
    let touched = |result: ApplyResult| match result {
        Ok(Response::Alarms { alarms, .. }) => alarms.len(),
        other => panic!("{other:?}"),
    };
    use alarm::Action::{Activate, Deactivate};
    assert_eq!(touched(member.apply(alarm(Deactivate, AlarmType::Nospace)).await), 0);
    assert_eq!(touched(member.apply(alarm(Activate, AlarmType::NoAlarm)).await), 0);
    assert_eq!(touched(member.apply(alarm(Activate, AlarmType::Nospace)).await), 1);
    assert_eq!(touched(member.apply(alarm(Activate, AlarmType::Nospace)).await), 1, "answered again");

    assert_eq!(member.put("b", "").await, Err(Rejection::NoSpace));
    assert_eq!(member.apply(Kind::LeaseGrant(LeaseGrant { id: 1, ttl_secs: 1 })).await, Err(Rejection::NoSpace));
    assert_eq!(member.apply(txn(vec![], vec![], vec![do_put("b", "")])).await, Err(Rejection::NoSpace), "in whatever branch");
    member.apply(txn(vec![], vec![op(Op::DeleteRange(delete("x", "")))], vec![])).await.expect("deletes are fine");
    member.apply(Kind::DeleteRange(delete("a", ""))).await.expect("deletes are fine");

    assert_eq!(touched(member.apply(alarm(Activate, AlarmType::Corrupt)).await), 1);
    assert_eq!(member.put("b", "").await, Err(Rejection::Corrupt), "corruption is told first");
    assert_eq!(member.apply(Kind::Compact(Compact { revision: 2 })).await, Err(Rejection::Corrupt));
    assert_eq!(touched(member.apply(alarm(Deactivate, AlarmType::Corrupt)).await), 1);
    assert_eq!(touched(member.apply(alarm(Deactivate, AlarmType::Nospace)).await), 1);
    member.put("b", "").await.expect("space again");
}

mod members {
    use super::*;
    use rusd_storage::raft::types::{Membership, Node};
    use std::collections::{BTreeMap, BTreeSet};

    fn url(id: u64) -> String {
        format!("http://127.0.0.1:{id}")
    }
    fn membership(voters: &[u64], nodes: &[u64]) -> Membership {
        let nodes: BTreeMap<u64, Node> = nodes.iter().map(|id| (*id, Node { peer_urls: vec![url(*id)] })).collect();
        Membership::new(vec![voters.iter().copied().collect::<BTreeSet<u64>>()], nodes).expect("every voter has a node")
    }
    fn record(id: u64) -> MemberRecord {
        MemberRecord { id, peer_urls: vec![url(id)], is_learner: true, pending_voter: true, ..MemberRecord::default() }
    }
    fn change(change: change_member::Change) -> Kind {
        Kind::ChangeMember(ChangeMember { change: Some(change) })
    }
    use change_member::Change;

    #[tokio::test]
    async fn a_member_and_its_record_come_and_go_in_one_entry() {
        let (directory, mut member) = member().await;
        let changed = member.opened.state.members_changed();
        let founding = rusd_storage::raft::types::Payload { command: None, membership: Some(membership(&[1], &[1])) };
        member.apply_payload(founding).await.expect("the node is well");
        assert_eq!(member.opened.state.members(), [MemberRecord { id: 1, peer_urls: vec![url(1)], ..MemberRecord::default() }]);
        assert!(changed.has_changed().expect("the state lives"));

        let added = member.apply_with(change(Change::Add(record(2))), membership(&[1], &[1, 2])).await;
        let Ok(Response::Members { members, .. }) = added else { panic!("{added:?}") };
        assert_eq!(members[1], record(2), "the record proposed, not one made up from the membership");
        let again = member.apply_with(change(Change::Add(record(2))), membership(&[1], &[1, 2])).await;
        assert_eq!(again, Err(Rejection::MemberExists));

        member.apply_with(change(Change::Promote(2)), membership(&[1, 2], &[1, 2])).await.expect("a learner");
        assert!(!member.opened.state.members()[1].is_learner);
        let name = PublishMember { id: 2, name: "two".into(), ..PublishMember::default() };
        member.apply(Kind::PublishMember(name)).await.expect("a member");
        member.apply(Kind::SetClusterVersion(SetClusterVersion { version: "3.7.0".into() })).await.expect("a version");
        member.apply_with(change(Change::Remove(1)), membership(&[2], &[2])).await.expect("a member");
        assert_eq!(member.apply_with(change(Change::Add(record(1))), membership(&[2], &[2])).await, Err(Rejection::MemberExists));

        let last = LogPosition { term: 1, index: member.next - 1 };
        assert_eq!(member.opened.state.membership_position(), Some(last));
        let told = |member: &Member| {
            let state = &member.opened.state;
            (state.members().iter().map(|one| (one.id, one.name.clone())).collect::<Vec<_>>(), state.cluster_version(), state.is_removed(1))
        };
        for settled in [false, true] {
            if settled {
                member.settle().await;
            }
            member = member.restart(directory.path()).await;
            let last_position = member.opened.state.membership_position();
            assert_eq!(told(&member).1, "3.7.0", "from the log, then from frames");
            assert!(told(&member).2 && last_position == Some(last));
            assert!(told(&member).0.contains(&(2, "two".into())));
        }
    }
}

#[tokio::test]
async fn a_command_of_a_newer_version_stops_the_member() {
    use rusd_storage::raft::types::{Command, Payload};
    let (_directory, mut member) = member().await;
    for unknown in [common::proposal(2, Kind::AuthEnable(AuthEnable {})), Command(bytes("\u{1}garbage")), Command(bytes(""))] {
        let payload = Payload { command: Some(unknown), membership: None };
        let error = member.apply_payload(payload).await.expect_err("skipping it would diverge").to_string();
        assert!(error.contains("unknown to this version"), "{error}");
        let directory = tempfile::tempdir().expect("a temporary directory");
        member = Member::open(directory.path());
    }
}
