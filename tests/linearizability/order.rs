//! Real time: where an operation stands in the order of revisions must agree with when it ran.

use crate::checker::Violation;
use crate::history::{Answer, Call, Log, Operation};
use std::collections::BTreeMap;

/// Who ended before another one began comes first; nobody sees what is asked for later; no member goes back.
pub fn check(operations: &[Operation], log: &Log, owners: &[Option<usize>], violations: &mut Vec<Violation>) {
    check_freshness(operations, log, owners, violations);
    check_no_future(operations, log, owners, violations);
    check_members(operations, violations);
}

/// A sweep over time: (moment, revision seen or allowed, operation).
type Moments = Vec<(u64, i64, usize)>;

/// The newest revision that an operation may have been preceded by. Serializable reads need not be fresh.
fn limit(operation: &Operation) -> Option<i64> {
    match (&operation.answer, &operation.call) {
        (_, Call::Range { serializable: true, .. }) => None,
        (answer, _) if answer.changed() => answer.header().map(|revision| revision - 1),
        (answer, _) => answer.header(),
    }
}

fn check_freshness(operations: &[Operation], log: &Log, owners: &[Option<usize>], violations: &mut Vec<Violation>) {
    let numbered = || operations.iter().enumerate();
    let ends: Moments = numbered().filter_map(|(at, operation)| Some((operation.end, operation.answer.header()?, at))).collect();
    let mut starts: Moments = numbered().filter_map(|(at, operation)| Some((operation.start, limit(operation)?, at))).collect();
    for (revision, at) in (log.first..).zip(owners).filter_map(|(revision, owner)| owner.map(|at| (revision, at))) {
        if operations[at].answer == Answer::Unknown {
            starts.push((operations[at].start, revision - 1, at));
        }
    }
    for (at, newest, before) in overtaken(ends, starts) {
        violations.push(Violation(format!("stale: {:?} began after {:?} had seen {newest}", operations[at], operations[before])));
    }
}

/// For each start whose limit is below what had ended before: who, the revision, and who had seen it.
fn overtaken(mut ends: Moments, mut starts: Moments) -> Vec<(usize, i64, usize)> {
    ends.sort_unstable();
    starts.sort_unstable();
    let mut newest = (i64::MIN, usize::MAX);
    let mut ended = ends.into_iter().peekable();
    let mut found = Vec::new();
    for (start, limit, at) in starts {
        while let Some((_, revision, by)) = ended.next_if(|end| end.0 < start) {
            newest = newest.max((revision, by));
        }
        if newest.0 > limit {
            found.push((at, newest.0, newest.1));
        }
    }
    found
}

fn check_no_future(operations: &[Operation], log: &Log, owners: &[Option<usize>], violations: &mut Vec<Violation>) {
    // latest_start[i]: the latest start among those who made the first i revisions.
    let mut latest_start = vec![0u64];
    for owner in owners {
        let before = *latest_start.last().expect("starts with one element");
        latest_start.push(owner.map_or(before, |at| before.max(operations[at].start)));
    }
    for operation in operations {
        let Some(revision) = operation.answer.header() else { continue };
        let upto = usize::try_from(revision - log.first + 1).unwrap_or(0).min(owners.len());
        if operation.end < latest_start[upto] {
            violations.push(Violation(format!("saw a write that began after it ended: {operation:?}")));
        }
    }
}

/// One member never answers from an older revision than it did before, not even to serializable reads, not even after a restart.
fn check_members(operations: &[Operation], violations: &mut Vec<Violation>) {
    let mut moments: BTreeMap<usize, (Moments, Moments)> = BTreeMap::new();
    for (at, operation) in operations.iter().enumerate() {
        if let Some(header) = operation.answer.header() {
            let (ends, starts) = moments.entry(operation.member).or_default();
            ends.push((operation.end, header, at));
            starts.push((operation.start, header, at));
        }
    }
    for (member, (ends, starts)) in moments {
        for (at, newest, before) in overtaken(ends, starts) {
            let (this, that) = (&operations[at], &operations[before]);
            violations.push(Violation(format!("member {member} went back from revision {newest}: {this:?} after {that:?}")));
        }
    }
}
