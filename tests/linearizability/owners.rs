//! Who made each change of the log. Values are unique, so a put tells; a deletion is told by the acknowledged revision, and what remains may
//! only be a deletion of unknown outcome, each of which happens at most once.

use crate::checker::{PREFIX, Violation};
use crate::history::{Answer, Call, Change, Log, Op, Operation};
use crate::model::{self, State};
use std::collections::{HashMap, HashSet};

/// For each revision of the log the operation that made it; `None` for what is not ours.
pub fn find(operations: &[Operation], log: &Log, violations: &mut Vec<Violation>) -> Vec<Option<usize>> {
    let writers = writers(operations);
    let acknowledged = acknowledged(operations, violations);
    let mut owners: Vec<Option<usize>> = vec![None; log.revisions.len()];
    let mut orphans = Vec::new();
    for (place, (revision, changes)) in (log.first..).zip(&log.revisions).enumerate() {
        if !changes.iter().any(|change| change.key.starts_with(PREFIX)) {
            continue;
        }
        match owner_of(changes, revision, &writers, &acknowledged) {
            Owner::One(at) => owners[place] = Some(at),
            Owner::Deletion => orphans.push(place),
            Owner::Nobody(what) => violations.push(Violation(format!("nobody wrote {what} at {revision}: {changes:?}"))),
        }
    }
    match_deletions(operations, log, &orphans, &mut owners, violations);
    check_once(operations, log, &owners, violations);
    check_whole(operations, log, &owners, violations);
    owners
}

enum Owner {
    One(usize),
    /// No put tells, and nobody was told.
    Deletion,
    Nobody(String),
}

/// Value put -> operation.
fn writers(operations: &[Operation]) -> HashMap<&str, usize> {
    let mut writers = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let Call::Write { success, failure, .. } = &operation.call else { continue };
        for op in success.iter().chain(failure) {
            if let Op::Put { value, .. } = op {
                let other = writers.insert(value.as_str(), at);
                assert!(other.is_none_or(|other| other == at), "the workload put {value} twice");
            }
        }
    }
    writers
}

/// Acknowledged revision -> operation.
fn acknowledged(operations: &[Operation], violations: &mut Vec<Violation>) -> HashMap<i64, usize> {
    let mut acknowledged: HashMap<i64, usize> = HashMap::new();
    for (at, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.answer.changed()) {
        let Some(revision) = operation.answer.header() else { continue };
        if let Some(other) = acknowledged.insert(revision, at) {
            violations.push(Violation(format!("revision {revision} acknowledged twice: {:?} and {operation:?}", operations[other])));
        }
    }
    acknowledged
}

fn owner_of(changes: &[Change], revision: i64, writers: &HashMap<&str, usize>, acknowledged: &HashMap<i64, usize>) -> Owner {
    let put = changes.iter().find_map(|change| change.now.as_ref());
    match put {
        Some(version) => match writers.get(version.value.as_str()) {
            Some(at) => Owner::One(*at),
            None => Owner::Nobody(format!("{:?}", version.value)),
        },
        None => acknowledged.get(&revision).map_or(Owner::Deletion, |at| Owner::One(*at)),
    }
}

/// Finds a distinct deletion of unknown outcome for each deletion nobody was told of (augmenting paths: few of either). One that began when
/// somebody had already stood at the revision can't have made it.
fn match_deletions(operations: &[Operation], log: &Log, orphans: &[usize], owners: &mut [Option<usize>], violations: &mut Vec<Violation>) {
    let told: HashSet<usize> = owners.iter().flatten().copied().collect();
    let unknown = (0..operations.len()).filter(|at| operations[*at].answer == Answer::Unknown && !told.contains(at));
    let unknown: Vec<usize> = unknown.collect();
    let seen_before = seen_before(operations, &unknown);
    let candidates: Vec<Vec<usize>> = with_states(log, orphans, |place, revision, state| {
        let fits = |at: &usize| {
            seen_before[at] < revision
                && changes_of(&operations[*at], state, revision).is_some_and(|changes| changes == log.revisions[place])
        };
        unknown.iter().copied().filter(fits).collect()
    });
    let mut taken: HashMap<usize, usize> = HashMap::new();
    for (number, orphan) in orphans.iter().enumerate() {
        if !place(number, &candidates, &mut taken, &mut Vec::new()) {
            let revision = log.first + i64::try_from(*orphan).expect("a run is short");
            violations.push(Violation(format!("nobody deleted {:?} at {revision}", log.revisions[*orphan])));
        }
    }
    for (at, number) in taken {
        owners[orphans[number]] = Some(at);
    }
}

/// The newest revision that somebody had seen when each of these began.
fn seen_before(operations: &[Operation], of: &[usize]) -> HashMap<usize, i64> {
    let mut ends: Vec<(u64, i64)> = operations.iter().filter_map(|operation| Some((operation.end, operation.answer.header()?))).collect();
    ends.sort_unstable();
    let mut newest = 0;
    for end in &mut ends {
        newest = newest.max(end.1);
        end.1 = newest;
    }
    let before = |start: u64| ends.partition_point(|end| end.0 < start).checked_sub(1).map_or(0, |last| ends[last].1);
    of.iter().map(|at| (*at, before(operations[*at].start))).collect()
}

fn place(number: usize, candidates: &[Vec<usize>], taken: &mut HashMap<usize, usize>, tried: &mut Vec<usize>) -> bool {
    for at in &candidates[number] {
        if tried.contains(at) {
            continue;
        }
        tried.push(*at);
        let free = match taken.get(at).copied() {
            None => true,
            Some(other) => place(other, candidates, taken, tried),
        };
        if free {
            taken.insert(*at, number);
            return true;
        }
    }
    false
}

/// Shows for each of these (ascending) places its revision and the state before it.
fn with_states<T>(log: &Log, places: &[usize], mut see: impl FnMut(usize, i64, &State) -> T) -> Vec<T> {
    let mut state = State::new();
    let mut applied = 0;
    places
        .iter()
        .map(|place| {
            log.revisions[applied..*place].iter().for_each(|changes| model::advance(&mut state, changes));
            applied = *place;
            see(*place, log.first + i64::try_from(*place).expect("a run is short"), &state)
        })
        .collect()
}

fn changes_of(operation: &Operation, state: &State, revision: i64) -> Option<Vec<Change>> {
    let Call::Write { compares, success, failure, .. } = &operation.call else { return None };
    Some(model::run(state, revision, compares, success, failure).changes)
}

/// An operation changes the store once, at the revision it was told, and not at all if it was told so.
fn check_once(operations: &[Operation], log: &Log, owners: &[Option<usize>], violations: &mut Vec<Violation>) {
    let mut seen: HashMap<usize, i64> = HashMap::new();
    for (revision, at) in (log.first..).zip(owners).filter_map(|(revision, owner)| owner.map(|at| (revision, at))) {
        let operation = &operations[at];
        if let Some(earlier) = seen.insert(at, revision) {
            violations.push(Violation(format!("took effect twice, at {earlier} and {revision}: {operation:?}")));
        }
        let told = match &operation.answer {
            Answer::Unknown => true,
            answer => answer.changed() && answer.header() == Some(revision),
        };
        if !told {
            violations.push(Violation(format!("took effect at {revision}, but was answered otherwise: {operation:?}")));
        }
    }
}

/// What took effect did so as a whole.
fn check_whole(operations: &[Operation], log: &Log, owners: &[Option<usize>], violations: &mut Vec<Violation>) {
    let places: Vec<usize> = (0..owners.len()).filter(|place| owners[*place].is_some()).collect();
    let bad = with_states(log, &places, |place, revision, state| {
        let operation = &operations[owners[place]?];
        let expected = changes_of(operation, state, revision).unwrap_or_default();
        (expected != log.revisions[place])
            .then(|| Violation(format!("changed {:?} at {revision}, not {expected:?}: {operation:?}", log.revisions[place])))
    });
    violations.extend(bad.into_iter().flatten());
}
