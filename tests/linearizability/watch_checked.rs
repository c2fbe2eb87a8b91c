//! The judge of watchers is judged: each guarantee has a history that breaks it.

use crate::history::{Change, Log, Version};
use crate::watch_checker::{Facts, check, merge, until};
use crate::watchers::{Heard, Moment};
use crate::wire::Range;

fn version(revision: i64, number: i64) -> Version {
    Version { value: format!("v{revision}"), create_revision: revision + 1 - number, mod_revision: revision, version: number }
}

fn put(key: &str, revision: i64, number: i64) -> Change {
    Change { key: key.into(), now: Some(version(revision, number)) }
}

/// 2: a, 3: a and b, 4: a.
fn log() -> Log {
    let revisions = vec![vec![put("a", 2, 1)], vec![put("a", 3, 2), put("b", 3, 1)], vec![put("a", 4, 3)]];
    Log { first: 2, revisions }
}

fn heard(revision: i64, place: usize) -> Heard {
    let change = log().at(revision)[place].clone();
    let previous = (change.key == "a" && revision > 2).then(|| version(revision - 1, revision - 2));
    Heard { revision, change: correct(change), previous: previous.map(|version| Version { create_revision: 2, ..version }) }
}

/// All versions of `a` are of the same life.
fn correct(change: Change) -> Change {
    let create_revision = if change.key == "a" { 2 } else { 3 };
    Change { now: change.now.map(|now| Version { create_revision, ..now }), ..change }
}

fn events(header: i64, events: &[Heard]) -> Moment {
    Moment::Events { header, events: events.to_vec(), fragment: false }
}

fn asked(start: i64) -> Moment {
    Moment::Asked { member: 0, start }
}

fn judge(moments: &[Moment]) -> Vec<String> {
    let mut log = log();
    log.revisions.iter_mut().flatten().for_each(|change| *change = correct(change.clone()));
    let moments: Vec<(u64, Moment)> = moments.iter().map(|moment| (100, moment.clone())).collect();
    let facts = Facts { log: &log, starts: [(4, 90)].into(), compacted: 0 };
    check(0, &Range::everything(), true, &moments, &facts).into_iter().map(|violation| violation.0).collect()
}

fn caught(moments: &[Moment], what: &str) {
    let violations = judge(moments);
    assert!(violations.iter().any(|violation| violation.contains(what)), "expected \"{what}\", got {violations:?}");
}

fn two() -> [Heard; 2] {
    [heard(3, 0), heard(3, 1)]
}

#[test]
fn honest_watchers_pass() {
    let none: Vec<String> = vec![];
    assert_eq!(judge(&[asked(2), events(2, &[heard(2, 0)]), events(3, &two()), events(4, &[heard(4, 0)])]), none);
    let created = Moment::Created { header: 3 };
    assert_eq!(judge(&[asked(0), created, events(4, &[heard(4, 0)])]), none, "from now on");
    let progress = Moment::Progress { header: 3 };
    assert_eq!(
        judge(&[asked(2), events(3, &[heard(2, 0), heard(3, 0), heard(3, 1)]), progress, asked(4), events(4, &[heard(4, 0)])]),
        none
    );
    let cut = Moment::Events { header: 4, events: vec![heard(2, 0), heard(3, 0)], fragment: true };
    assert_eq!(judge(&[asked(2), cut, asked(3), events(4, &two()), events(4, &[heard(4, 0)])]), none, "a cut revision is asked for again");
    assert_eq!(judge(&[asked(2), Moment::Compacted { revision: 4 }, asked(4), events(4, &[heard(4, 0)])]), none);
}

#[test]
fn disorder_is_caught() {
    caught(&[asked(2), events(2, &[heard(2, 0)]), events(3, &[heard(3, 1), heard(3, 0)])], "was due");
    caught(&[asked(3), events(4, &[heard(4, 0)]), events(3, &two())], "was due");
}

#[test]
fn a_repeated_event_is_caught() {
    caught(&[asked(2), events(2, &[heard(2, 0)]), events(3, &[heard(2, 0)])], "was due");
    let all = [asked(4), events(4, &[heard(4, 0)]), asked(5), events(4, &[heard(4, 0)])];
    caught(&all, "not to be told (again)");
}

#[test]
fn a_missing_event_is_caught() {
    caught(&[asked(2), events(2, &[heard(2, 0)]), events(4, &[heard(4, 0)])], "was due");
    caught(&[asked(2), events(2, &[heard(2, 0)]), events(3, &two())], "never heard of");
    caught(&[asked(2), events(2, &[heard(2, 0)]), asked(4)], "was never told");
}

#[test]
fn a_split_revision_is_caught() {
    caught(&[asked(3), events(3, &[heard(3, 0)]), events(3, &[heard(3, 1)])], "split");
}

#[test]
fn progress_that_overtakes_is_caught() {
    caught(&[asked(3), Moment::Progress { header: 3 }], "progress, but");
}

#[test]
fn wrong_contents_are_caught() {
    let wrong = Heard { previous: None, ..heard(4, 0) };
    caught(&[asked(4), events(4, &[wrong])], "was due");
    caught(&[asked(4), events(3, &[heard(4, 0)])], "under a header of 3");
}

#[test]
fn an_event_from_the_future_is_caught() {
    let mut log = log();
    log.revisions.iter_mut().flatten().for_each(|change| *change = correct(change.clone()));
    let facts = Facts { log: &log, starts: [(4, 90)].into(), compacted: 0 };
    let moments = [(10, asked(4)), (80, events(4, &[heard(4, 0)]))];
    let violations = check(0, &Range::everything(), true, &moments, &facts);
    assert!(violations.iter().any(|violation| violation.0.contains("before it was asked for")), "{violations:?}");
}

#[test]
fn watchers_that_contradict_each_other_are_caught() {
    let mut violations = Vec::new();
    let moments = |events: &[Heard]| vec![(0, asked(2)), (1, Moment::Events { header: 4, events: events.to_vec(), fragment: false })];
    let merged = merge(&[moments(&[heard(2, 0)]), moments(&[heard(2, 0), heard(3, 0)])], &mut violations);
    assert_eq!((merged.last(), violations.len()), (3, 0));
    let other = Heard { change: put("a", 2, 7), ..heard(2, 0) };
    merge(&[moments(&[heard(2, 0)]), moments(&[other])], &mut violations);
    assert_eq!(violations.len(), 1);
}

/// Revision 5 lands after the members have come to rest at 4; only one of two watchers still hears of it.
#[test]
fn what_lands_after_the_end_is_nobodys_fault() {
    let late = Heard { revision: 5, change: put("a", 5, 4), previous: None };
    let heard = [events(4, &[heard(2, 0)]), events(4, &two()), events(4, &[heard(4, 0)])];
    let moments = |more: &[Moment]| [&[asked(2)], &heard[..], more].concat().into_iter().map(|moment| (100, moment)).collect::<Vec<_>>();
    let both = [moments(&[events(5, &[late])]), moments(&[Moment::Progress { header: 4 }])];
    assert_eq!(merge(&both, &mut Vec::new()).last(), 5);
    let both = both.map(|moments| until(4, moments));
    let log = merge(&both, &mut Vec::new());
    let facts = Facts { log: &log, starts: Default::default(), compacted: 0 };
    for moments in &both {
        assert_eq!(check(0, &Range::everything(), true, moments, &facts).len(), 0);
    }
}
