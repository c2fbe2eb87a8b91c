//! The checkers are checked: each kind of lie must be caught, and honest histories must pass.

use crate::checker::check;
use crate::history::{Answer, Call, Change, Compare, Done, Log, Op, Operation, Version};
use crate::search::{self, Act, Condition, Event, linearizable};

const K: &str = "lin/0/0";

fn version(value: &str, create_revision: i64, mod_revision: i64, version: i64) -> Version {
    Version { value: value.into(), create_revision, mod_revision, version }
}

fn put_op(value: &str) -> Op {
    Op::Put { key: K.into(), value: value.into() }
}

fn operation(client: usize, start: u64, end: u64, call: Call, answer: Answer) -> Operation {
    Operation { client, member: client, start, end, call, answer }
}

fn write(op: Op) -> Call {
    Call::Write { plain: true, compares: vec![], success: vec![op], failure: vec![] }
}

fn put(client: usize, start: u64, end: u64, value: &str, answer: Answer) -> Operation {
    operation(client, start, end, write(put_op(value)), answer)
}

fn wrote(revision: i64, before: Option<Version>) -> Answer {
    Answer::Wrote { revision, succeeded: true, done: vec![Done::Put(before)] }
}

fn delete(client: usize, start: u64, end: u64, answer: Answer) -> Operation {
    operation(client, start, end, write(Op::Delete { from: K.into(), to: None }), answer)
}

fn read_at(client: usize, start: u64, end: u64, revision: i64, serializable: bool, header: i64, seen: Option<Version>) -> Operation {
    let kvs: Vec<(String, Version)> = seen.into_iter().map(|version| (K.to_string(), version)).collect();
    let count = i64::try_from(kvs.len()).expect("one at most");
    let call = Call::Range { from: "lin/".into(), to: "lin0".into(), revision, serializable, limit: 0 };
    operation(client, start, end, call, Answer::Read { header, kvs, count, more: false })
}

fn read(client: usize, start: u64, end: u64, header: i64, seen: Option<Version>) -> Operation {
    read_at(client, start, end, 0, false, header, seen)
}

fn set(value: Version) -> Vec<Change> {
    vec![Change { key: K.into(), now: Some(value) }]
}

fn gone() -> Vec<Change> {
    vec![Change { key: K.into(), now: None }]
}

fn log(revisions: &[Vec<Change>]) -> Log {
    Log { first: 2, revisions: revisions.to_vec() }
}

fn a() -> Version {
    version("a", 2, 2, 1)
}

fn b() -> Version {
    version("b", 2, 3, 2)
}

fn caught(operations: &[Operation], log: &Log, what: &str) {
    let violations = check(operations, log);
    assert!(violations.iter().any(|violation| violation.0.contains(what)), "expected \"{what}\", got {violations:?}");
}

#[test]
fn an_honest_history_passes() {
    let operations = [
        put(0, 0, 10, "a", wrote(2, None)),
        put(1, 5, 20, "b", wrote(3, Some(a()))),
        read(2, 12, 18, 2, Some(a())),
        read(2, 21, 25, 3, Some(b())),
        put(3, 22, u64::MAX, "c", Answer::Unknown),
        read(2, 30, 35, 4, Some(version("c", 2, 4, 3))),
        delete(3, 36, u64::MAX, Answer::Unknown),
        read_at(1, 37, 38, 2, false, 4, Some(a())),
        read_at(4, 37, 39, 0, true, 3, Some(b())),
        read(2, 40, 45, 5, None),
        put(3, 50, u64::MAX, "never", Answer::Unknown),
        put(3, 51, 60, "no", Answer::Refused),
    ];
    assert_eq!(check(&operations, &log(&[set(a()), set(b()), set(version("c", 2, 4, 3)), gone()])), []);
}

#[test]
fn a_stale_read_is_caught() {
    let operations = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a()))), read(1, 21, 30, 2, Some(a()))];
    caught(&operations, &log(&[set(a()), set(b())]), "stale");
    let mut serializable = operations.clone();
    serializable[2] = read_at(1, 21, 30, 0, true, 2, Some(a()));
    assert_eq!(check(&serializable, &log(&[set(a()), set(b())])), [], "a serializable read may be stale");
}

#[test]
fn a_read_of_something_else_is_caught() {
    let other = version("z", 2, 2, 1);
    caught(&[put(0, 0, 10, "a", wrote(2, None)), read(1, 21, 30, 2, Some(other))], &log(&[set(a())]), "should be");
    let old = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a()))), read_at(1, 21, 30, 2, true, 3, Some(b()))];
    caught(&old, &log(&[set(a()), set(b())]), "read at 2 should be");
}

#[test]
fn a_lost_write_is_caught() {
    let operations = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a())))];
    caught(&operations, &log(&[set(a())]), "beyond the log");
    caught(&operations, &log(&[set(version("b", 2, 2, 1))]), "took effect at 2, but was answered otherwise");
    caught(&operations, &log(&[set(a()), gone()]), "acknowledged, but the log holds");
}

#[test]
fn a_doubled_write_is_caught() {
    let operations = [put(0, 0, u64::MAX, "a", Answer::Unknown)];
    caught(&operations, &log(&[set(a()), set(version("a", 2, 3, 2))]), "took effect twice");
    let twice = [put(0, 0, 10, "a", wrote(2, None)), put(1, 0, 10, "b", wrote(2, None))];
    caught(&twice, &log(&[set(a()), set(b())]), "acknowledged twice");
    let deletes = [put(0, 0, 5, "a", wrote(2, None)), delete(1, 6, u64::MAX, Answer::Unknown), put(0, 7, 9, "b", wrote(4, None))];
    caught(&deletes, &log(&[set(a()), gone(), set(version("b", 4, 4, 1)), gone()]), "nobody deleted");
}

#[test]
fn unknown_deletions_are_told_apart() {
    let operations = [
        put(0, 0, 5, "a", wrote(2, None)),
        delete(1, 6, u64::MAX, Answer::Unknown),
        put(0, 7, 9, "b", wrote(4, None)),
        operation(2, 6, u64::MAX, write(Op::Delete { from: "lin/".into(), to: Some("lin0".into()) }), Answer::Unknown),
    ];
    let log = log(&[set(a()), gone(), set(version("b", 4, 4, 1)), gone()]);
    assert_eq!(check(&operations, &log), []);
    // The other way round in time: the later one can't have made the earlier revision.
    let mut later = operations;
    later[1].start = 10;
    later[3].start = 6;
    assert_eq!(check(&later, &log), []);
    later[3].start = 10;
    assert!(!check(&later, &log).is_empty(), "nobody can have made the first");
}

#[test]
fn an_unknown_txn_that_put_did_not_also_delete() {
    let txn = Call::Write {
        plain: false,
        compares: vec![Compare::Exists { key: K.into(), exists: false }],
        success: vec![put_op("a")],
        failure: vec![Op::Delete { from: K.into(), to: None }],
    };
    let operations = [operation(0, 0, u64::MAX, txn, Answer::Unknown), delete(1, 6, u64::MAX, Answer::Unknown)];
    assert_eq!(check(&operations, &log(&[set(a()), gone()])), []);
    caught(&operations[..1], &log(&[set(a()), gone()]), "nobody deleted");
}

#[test]
fn a_revision_that_goes_back_is_caught() {
    let late = |member| Operation { member, ..read_at(1, 40, 50, 0, true, 2, Some(a())) };
    let mut operations =
        vec![put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a()))), read(1, 21, 30, 3, Some(b())), late(1)];
    caught(&operations, &log(&[set(a()), set(b())]), "member 1 went back from revision 3");
    operations[3] = late(2);
    assert_eq!(check(&operations, &log(&[set(a()), set(b())])), [], "another member may be behind");
}

#[test]
fn writes_in_the_wrong_order_are_caught() {
    let operations = [put(0, 0, 10, "b", wrote(3, Some(a()))), put(1, 11, 20, "a", wrote(2, None))];
    caught(&operations, &log(&[set(a()), set(b())]), "stale");
    let unknown = [read(0, 0, 10, 3, Some(b())), put(1, 0, 5, "b", wrote(3, Some(a()))), put(2, 11, u64::MAX, "a", Answer::Unknown)];
    caught(&unknown, &log(&[set(a()), set(b())]), "stale");
}

#[test]
fn a_write_seen_before_it_was_asked_for_is_caught() {
    let operations = [read(1, 0, 5, 2, Some(a())), put(0, 10, 20, "a", wrote(2, None))];
    caught(&operations, &log(&[set(a())]), "began after it ended");
}

#[test]
fn a_refused_write_that_happened_is_caught() {
    caught(&[put(0, 0, 10, "a", Answer::Refused)], &log(&[set(a())]), "answered otherwise");
}

#[test]
fn a_phantom_write_is_caught() {
    let ghost = version("ghost", 2, 2, 1);
    caught(&[], &log(&[set(ghost)]), "nobody wrote \"ghost\"");
    caught(&[put(0, 0, 10, "a", wrote(2, None))], &log(&[set(a()), gone()]), "nobody deleted");
}

#[test]
fn an_impossible_log_is_caught() {
    caught(&[], &log(&[set(a()), vec![], set(b())]), "nothing is known");
    caught(&[], &log(&[set(a()), set(version("b", 2, 3, 1))]), "expected create 2, mod 3, version 2");
    caught(&[], &log(&[gone()]), "a deletion of nothing");
}

fn swap(compare: Compare, answer: Answer) -> Operation {
    let call = Call::Write { plain: false, compares: vec![compare], success: vec![put_op("b")], failure: vec![Op::Get { key: K.into() }] };
    operation(1, 11, 20, call, answer)
}

#[test]
fn a_wrong_compare_is_caught() {
    let first = put(0, 0, 10, "a", wrote(2, None));
    let compare = |revision| Compare::ModRevision { key: K.into(), revision, believed: None };
    let failed = Answer::Wrote { revision: 2, succeeded: false, done: vec![Done::Got(Some(a()))] };
    let both = log(&[set(a()), set(b())]);
    caught(&[first.clone(), swap(compare(7), wrote(3, Some(a())))], &both, "should not have held");
    caught(&[first.clone(), swap(compare(2), failed.clone())], &log(&[set(a())]), "should have held");
    assert_eq!(check(&[first.clone(), swap(compare(2), wrote(3, Some(a())))], &both), []);
    assert_eq!(check(&[first, swap(compare(7), failed)], &log(&[set(a())])), []);
}

#[test]
fn half_a_txn_is_caught() {
    let other = |value: &str| Change { key: "lin/0/1".into(), now: Some(version(value, 2, 2, 1)) };
    let success = vec![put_op("a"), Op::Put { key: "lin/0/1".into(), value: "b".into() }];
    let call = Call::Write { plain: false, compares: vec![], success, failure: vec![] };
    let unknown = [operation(0, 0, u64::MAX, call, Answer::Unknown)];
    let whole = vec![set(a()).remove(0), other("b")];
    assert_eq!(check(&unknown, &log(&[whole])), []);
    caught(&unknown, &log(&[set(a())]), "not [");
}

#[test]
fn compactions_are_held_to_their_word() {
    let compact = |start, end, answer| operation(3, start, end, Call::Compact { revision: 3, physical: false }, answer);
    let write = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a())))];
    let old = |start, answer| Operation { answer, ..read_at(1, start, start + 5, 2, false, 3, Some(a())) };
    let done = Answer::CompactedTo { header: 3 };
    let with = |more: &[Operation]| [&write, more].concat();
    let log = log(&[set(a()), set(b())]);
    assert_eq!(check(&with(&[compact(21, 30, done.clone()), old(31, Answer::Compacted)]), &log), []);
    let answered = old(31, Answer::Read { header: 3, kvs: vec![(K.into(), a())], count: 1, more: false });
    caught(&with(&[compact(21, 30, done), answered]), &log, "had been compacted before");
    caught(&with(&[old(31, Answer::Compacted)]), &log, "nothing was compacted");
    caught(&with(&[old(15, Answer::Compacted), compact(40, u64::MAX, Answer::Unknown)]), &log, "nothing was compacted");
}

fn event(start: u64, end: u64, act: Act, seen: Option<u32>) -> Event {
    let answer = (end != u64::MAX).then(|| (true, vec![seen]));
    Event { start, end, conditions: vec![], success: vec![act], failure: vec![], answer }
}

#[test]
fn the_search_tells_linearizable_groups_from_others() {
    let set = |start, end, value, seen| event(start, end, Act::Set(0, value), seen);
    let get = |start, end, seen| event(start, end, Act::Get(0), seen);
    let judge = |events: &[Event]| linearizable(events, 10_000);
    assert_eq!(judge(&[set(0, 10, 1, Some(2)), set(5, 15, 2, None), get(16, 20, Some(1))]), Some(true), "the first may take effect last");
    assert_eq!(judge(&[set(0, 10, 1, None), set(11, 15, 2, Some(1)), get(16, 20, Some(1))]), Some(false), "stale");
    assert_eq!(judge(&[set(0, u64::MAX, 1, None), get(5, 8, Some(1)), get(9, 12, None)]), Some(false), "seen, then unseen");
    assert_eq!(judge(&[set(0, u64::MAX, 1, None), get(5, 8, None), get(9, 12, None)]), Some(true), "an unknown write may never happen");
    assert_eq!(judge(&[set(0, u64::MAX, 1, None), get(5, 8, None), get(90, 120, Some(1))]), Some(true), "or late");
}

#[test]
fn the_search_runs_txns_of_a_group_as_one() {
    let both = Event {
        start: 0,
        end: 10,
        conditions: vec![Condition::Exists(1, false)],
        success: vec![Act::Set(0, 1), Act::Set(1, 2)],
        failure: vec![],
        answer: Some((true, vec![None, None])),
    };
    let look = |seen: [Option<u32>; 3]| Event {
        success: (0..3).map(Act::Get).collect(),
        conditions: vec![],
        answer: Some((true, seen.to_vec())),
        ..both.clone()
    };
    for (seen, legal) in [([None; 3], true), ([Some(1), Some(2), None], true), ([Some(1), None, None], false)] {
        assert_eq!(linearizable(&[both.clone(), look(seen)], 1000), Some(legal), "{seen:?}");
    }
    let again = Event { start: 11, end: 20, ..both.clone() };
    assert_eq!(linearizable(&[both.clone(), again], 1000), Some(false), "its condition no longer holds");
    let clear = Event { start: 11, end: 20, conditions: vec![], success: vec![Act::Delete(0, 3)], ..both.clone() };
    let cleared = Event { answer: Some((true, vec![Some(1), Some(2), None])), ..clear };
    assert_eq!(linearizable(&[both, cleared], 1000), Some(true));
}

#[test]
fn the_search_reads_histories_without_revisions() {
    let judge = |operations: &[Operation], log: &Log, owners: &[Option<usize>]| search::judge(operations, log, owners, 1).illegal;
    let both = log(&[set(a()), set(b())]);
    let honest = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, u64::MAX, "b", Answer::Unknown), read(1, 21, 30, 3, Some(b()))];
    assert_eq!(judge(&honest, &both, &[Some(0), Some(1)]), Vec::<usize>::new());
    let stale = [put(0, 0, 10, "a", wrote(2, None)), put(0, 11, 20, "b", wrote(3, Some(a()))), read(1, 21, 30, 9, Some(a()))];
    assert_eq!(judge(&stale, &both, &[Some(0), Some(1)]), [0], "whatever the header says");
}
