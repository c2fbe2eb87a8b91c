//! The checker is checked: each kind of lie must be caught, and honest histories must pass.

use crate::checker::check;
use crate::history::{Answer, Call, Change, Operation, Version};
use crate::search::{Event, Register, linearizable};
use std::collections::BTreeMap;

fn put(client: usize, start: u64, end: u64, value: &str, answer: Answer) -> Operation {
    Operation { client, member: 0, start, end, call: Call::Put { key: "k".into(), value: value.into() }, answer }
}

fn written(revision: i64, previous: Option<(&str, i64)>) -> Answer {
    Answer::Written { revision, previous: previous.map(|(value, mod_revision)| Version { value: value.into(), mod_revision }) }
}

fn read(client: usize, start: u64, end: u64, header: i64, seen: Option<(&str, i64)>) -> Operation {
    let contents: BTreeMap<String, Version> =
        seen.into_iter().map(|(value, mod_revision)| ("k".to_string(), Version { value: value.into(), mod_revision })).collect();
    Operation {
        client,
        member: 1,
        start,
        end,
        call: Call::Range { revision: 0, serializable: false },
        answer: Answer::Read { header, contents },
    }
}

fn log(values: &[Option<&str>]) -> Vec<Change> {
    values.iter().zip(2..).map(|(value, revision)| Change { revision, key: "k".into(), value: value.map(String::from) }).collect()
}

fn caught(operations: &[Operation], changes: &[Change], what: &str) {
    let violations = check(operations, changes, 2);
    assert!(violations.iter().any(|violation| violation.0.contains(what)), "expected \"{what}\", got {violations:?}");
}

#[test]
fn an_honest_history_passes() {
    let operations = [
        put(0, 0, 10, "a", written(2, None)),
        put(1, 5, 20, "b", written(3, Some(("a", 2)))),
        read(2, 12, 18, 2, Some(("a", 2))),
        read(2, 21, 25, 3, Some(("b", 3))),
        put(3, 22, u64::MAX, "c", Answer::Unknown),
        read(2, 30, 35, 4, Some(("c", 4))),
    ];
    assert_eq!(check(&operations, &log(&[Some("a"), Some("b"), Some("c")]), 2), []);
}

#[test]
fn a_stale_read_is_caught() {
    let operations =
        [put(0, 0, 10, "a", written(2, None)), put(0, 11, 20, "b", written(3, Some(("a", 2)))), read(1, 21, 30, 2, Some(("a", 2)))];
    caught(&operations, &log(&[Some("a"), Some("b")]), "stale");
}

#[test]
fn a_read_of_something_else_is_caught() {
    let operations = [put(0, 0, 10, "a", written(2, None)), read(1, 21, 30, 2, Some(("z", 2)))];
    caught(&operations, &log(&[Some("a")]), "should be");
}

#[test]
fn a_lost_write_is_caught() {
    let operations = [put(0, 0, 10, "a", written(2, None)), put(0, 11, 20, "b", written(3, Some(("a", 2))))];
    caught(&operations, &log(&[Some("a")]), "the log holds None there");
    caught(&operations, &log(&[Some("b")]), "acknowledged at 2");
}

#[test]
fn a_doubled_write_is_caught() {
    let operations = [put(0, 0, u64::MAX, "a", Answer::Unknown)];
    caught(&operations, &log(&[Some("a"), Some("a")]), "written twice");
    let twice = [put(0, 0, 10, "a", written(2, None)), put(1, 0, 10, "b", written(2, None))];
    caught(&twice, &log(&[Some("a"), Some("b")]), "acknowledged twice");
}

#[test]
fn a_revision_that_goes_back_is_caught() {
    let mut late = read(1, 40, 50, 2, Some(("a", 2)));
    late.call = Call::Range { revision: 0, serializable: true };
    let operations =
        [put(0, 0, 10, "a", written(2, None)), put(0, 11, 20, "b", written(3, Some(("a", 2)))), read(1, 21, 30, 3, Some(("b", 3))), late];
    caught(&operations, &log(&[Some("a"), Some("b")]), "went back");
}

#[test]
fn a_write_seen_before_it_was_asked_for_is_caught() {
    let operations = [read(1, 0, 5, 2, Some(("a", 2))), put(0, 10, 20, "a", written(2, None))];
    caught(&operations, &log(&[Some("a")]), "began after it ended");
}

#[test]
fn a_refused_write_that_happened_is_caught() {
    let operations = [put(0, 0, 10, "a", Answer::Refused)];
    caught(&operations, &log(&[Some("a")]), "answered otherwise");
}

#[test]
fn a_change_nobody_made_is_caught() {
    caught(&[], &log(&[Some("ghost")]), "nobody wrote");
    caught(&[put(0, 0, 10, "a", written(2, None))], &log(&[Some("a"), None]), "nobody deleted");
}

#[test]
fn a_gap_in_the_log_is_caught() {
    let mut changes = log(&[Some("a"), Some("b")]);
    changes[1].revision = 9;
    caught(&[], &changes, "expected revision");
}

#[test]
fn a_wrong_compare_is_caught() {
    let swap = |answer| Operation {
        client: 1,
        member: 0,
        start: 11,
        end: 20,
        call: Call::CompareAndSwap { key: "k".into(), expected: 7, value: "b".into() },
        answer,
    };
    let first = put(0, 0, 10, "a", written(2, None));
    caught(&[first.clone(), swap(written(3, None))], &log(&[Some("a"), Some("b")]), "compare should have failed");
    let mut holds = swap(Answer::NotWritten { revision: 2 });
    holds.call = Call::CompareAndSwap { key: "k".into(), expected: 2, value: "b".into() };
    caught(&[first, holds], &log(&[Some("a")]), "compare should have held");
}

fn event(start: u64, end: u64, operation: Register) -> Event {
    Event { start, end, operation }
}

#[test]
fn the_search_tells_linearizable_registers_from_others() {
    let write = |value| Register::Write(Some(value));
    let read = |value| Register::Read(value);
    let concurrent = [event(0, 10, write(1)), event(5, 15, write(2)), event(16, 20, read(Some(1)))];
    assert_eq!(linearizable(&concurrent, 10_000), Some(true), "the first may take effect last");
    let stale = [event(0, 10, write(1)), event(11, 15, write(2)), event(16, 20, read(Some(1)))];
    assert_eq!(linearizable(&stale, 10_000), Some(false));
    let back = [event(0, u64::MAX, write(1)), event(5, 8, read(Some(1))), event(9, 12, read(None))];
    assert_eq!(linearizable(&back, 10_000), Some(false), "seen, then unseen");
    let never = [event(0, u64::MAX, write(1)), event(5, 8, read(None)), event(9, 12, read(None))];
    assert_eq!(linearizable(&never, 10_000), Some(true), "an unknown write may never happen");
    let late = [event(0, u64::MAX, write(1)), event(5, 8, read(None)), event(90, 120, read(Some(1)))];
    assert_eq!(linearizable(&late, 10_000), Some(true), "or late");
}
