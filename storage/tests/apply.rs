//! What entries do beside their answers; the answers are told in `storage/testscripts`.

mod common;

use common::{Member, bytes, put};
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;
use rusd_storage::{LogPosition, Rejection};

async fn member() -> (tempfile::TempDir, Member) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let member = Member::open(directory.path());
    (directory, member)
}

#[tokio::test]
async fn everybody_is_told_how_far_it_is() {
    let (_directory, mut member) = member().await;
    let published = member.opened.state.revision();
    member.put("a", "1").await.expect("a put");
    member.apply(Kind::LeaseGrant(LeaseGrant { id: 7, ttl_secs: 60 })).await.expect("a lease");
    assert_eq!(*published.borrow(), 2);
    assert_eq!(member.opened.state.applied(), Some(LogPosition { term: 1, index: 3 }));
    assert_eq!(*member.answers.advanced.lock(), [2, 3].map(|index| LogPosition { term: 1, index }));
}

/// 0 means the newest revision when a hash is asked for; a compaction at 0, which etcd accepts once, must not answer for it.
#[tokio::test]
async fn a_compaction_at_0_leaves_the_hash_alone() {
    let (_directory, mut member) = member().await;
    let hash = |member: &Member| member.opened.state.store().hash_kv(0).expect("a hash");
    member.put("a", "1").await.expect("a put");
    let before = hash(&member);
    member.apply(Kind::Compact(Compact { revision: 0 })).await.expect("nothing is compacted yet");
    while member.opened.state.store().compact_step().expect("a step") {}
    assert_eq!((hash(&member).0, hash(&member).2), (before.0, before.2));
    member.put("b", "2").await.expect("a put");
    assert_ne!(hash(&member).0, before.0);
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

/// Its proposer takes it for lost once a later term is applied, and makes it again; so it must not count then.
#[tokio::test]
async fn a_proposal_counts_in_the_term_it_was_made_for_and_in_no_other() {
    use prost::Message;
    use rusd_storage::raft::types::{Command, Payload};
    let (_directory, mut member) = member().await;
    for (term, value) in [(1, Some("1")), (2, Some("1")), (7, Some("1")), (0, Some("0"))] {
        let command = Some(Kind::Put(put("k", &term.to_string(), 0)));
        let proposal = Proposal { origin: 1, sequence: term, term, command, ..Proposal::default() };
        let payload = Payload { command: Some(Command(proposal.encode_to_vec().into())), membership: None };
        member.apply_payload(payload).await.expect("an entry of term 1");
        assert_eq!(member.value("k").as_deref(), value, "meant for term {term}");
    }
    let told: Vec<u64> = member.answers.results.lock().iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!((told, member.revision()), (vec![1, 0], 3), "nobody is told of what doesn't count");
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
