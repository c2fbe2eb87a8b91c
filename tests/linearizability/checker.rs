//! Whole-store revision check. etcd's headers say where in the total order of writes an operation stands, so linearizability can be decided
//! without search: the complete log must explain every answer, and no answer may contradict real time.
//!
//! ```text
//! owners     every change of the log was asked for, once, and happened whole          (owners)
//! answers    every answer is what the log says about its revision                     here
//! real time  who began after another one had ended stands after it; nobody saw the future, no member went back   (order)
//! compaction what is refused as compacted was compacted, and stays so                  here
//! ```

use crate::history::{Answer, Call, Log, Operation};
use crate::model::{self, State};
use crate::{order, owners};

/// Something no linearizable store could have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// All changes of client operations are below this; what else changes has other judges.
pub const PREFIX: &str = "lin/";

/// Checks a history against the complete log. Returns all violations found.
pub fn check(operations: &[Operation], log: &Log) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_log(log, &mut violations);
    if violations.is_empty() {
        let owners = owners::find(operations, log, &mut violations);
        check_answers(operations, log, &mut violations);
        order::check(operations, log, &owners, &mut violations);
        check_compactions(operations, &mut violations);
    }
    violations
}

/// The log must be possible in itself: revisions without a gap, versions that count, no deletion of nothing.
fn check_log(log: &Log, violations: &mut Vec<Violation>) {
    let mut state = State::new();
    for (revision, changes) in (log.first..).zip(&log.revisions) {
        let mut bad = |what: &str| violations.push(Violation(format!("log: {what} at revision {revision}: {changes:?}")));
        if changes.is_empty() {
            bad("nothing is known");
        }
        for change in changes {
            let before = state.get(&change.key);
            match (&change.now, before) {
                (None, None) => bad("a deletion of nothing"),
                (None, Some(_)) => {}
                (Some(now), before) => {
                    let create_revision = before.map_or(revision, |before| before.create_revision);
                    let version = before.map_or(0, |before| before.version) + 1;
                    if (now.create_revision, now.mod_revision, now.version) != (create_revision, revision, version) {
                        bad(&format!("expected create {create_revision}, mod {revision}, version {version}"));
                    }
                }
            }
        }
        model::advance(&mut state, changes);
    }
}

/// The revision whose state explains an answer: for a change the one before it.
fn judged_at(operation: &Operation) -> Option<i64> {
    match (&operation.answer, &operation.call) {
        (Answer::Wrote { revision, .. }, _) => Some(revision - i64::from(operation.answer.changed())),
        (Answer::Read { .. }, Call::Range { revision, .. }) if *revision > 0 => Some(*revision),
        (Answer::Read { header, .. }, _) => Some(*header),
        _ => None,
    }
}

/// Each answer must be what the log says about its revision.
fn check_answers(operations: &[Operation], log: &Log, violations: &mut Vec<Violation>) {
    let mut order: Vec<(i64, usize)> =
        operations.iter().enumerate().filter_map(|(at, operation)| judged_at(operation).map(|revision| (revision, at))).collect();
    order.sort_unstable();
    let mut state = State::new();
    let mut applied = log.first - 1;
    for (upto, at) in order {
        let operation = &operations[at];
        if operation.answer.header().is_some_and(|header| header > log.last()) {
            violations.push(Violation(format!("its revision lies beyond the log, which ends at {}: {operation:?}", log.last())));
            continue;
        }
        while applied < upto {
            applied += 1;
            model::advance(&mut state, log.at(applied));
        }
        check_answer(operation, &state, upto, log, violations);
    }
}

fn check_answer(operation: &Operation, state: &State, revision: i64, log: &Log, violations: &mut Vec<Violation>) {
    let mut bad = |what: String| violations.push(Violation(format!("{what}: {operation:?}")));
    match (&operation.call, &operation.answer) {
        (Call::Range { from, to, limit, .. }, Answer::Read { kvs, count, more, .. }) => {
            let expected = model::range(state, from, to, *limit);
            if (kvs, *count, *more) != (&expected.0, expected.1, expected.2) {
                bad(format!("read at {revision} should be {expected:?}"));
            }
        }
        (Call::Write { compares, success, failure, .. }, Answer::Wrote { revision, succeeded, done }) => {
            let expected = model::run(state, *revision, compares, success, failure);
            if expected.succeeded != *succeeded {
                bad(format!("its compares should{} have held on {state:?}", if expected.succeeded { "" } else { " not" }));
            } else if expected.done != *done {
                bad(format!("should have answered {:?}", expected.done));
            } else if !expected.changes.is_empty() && expected.changes != log.at(*revision) {
                bad(format!("acknowledged, but the log holds {:?} there", log.at(*revision)));
            }
        }
        _ => {}
    }
}

/// "Compacted" is an answer only to who asks below a compaction that somebody asked for; and once one is acknowledged, there is no other
/// answer to a linearizable read.
fn check_compactions(operations: &[Operation], violations: &mut Vec<Violation>) {
    let compactions = || {
        operations.iter().filter_map(|operation| match (&operation.call, &operation.answer) {
            (Call::Compact { revision, .. }, Answer::CompactedTo { .. } | Answer::Unknown) => Some((*revision, operation)),
            _ => None,
        })
    };
    for operation in operations {
        let (asked, compacts) = match &operation.call {
            Call::Range { revision, .. } if *revision > 0 => (*revision, false),
            Call::Compact { revision, .. } => (*revision, true),
            _ => continue,
        };
        // Reading at the very revision is allowed, compacting to it again is not.
        let reaches = |revision: i64| revision > asked || (compacts && revision == asked);
        if operation.answer == Answer::Compacted && !compactions().any(|(revision, by)| reaches(revision) && by.start < operation.end) {
            violations.push(Violation(format!("nothing was compacted so far yet: {operation:?}")));
        }
        let fresh = !matches!(operation.call, Call::Range { serializable: true, .. });
        let answered = matches!(operation.answer, Answer::Read { .. } | Answer::CompactedTo { .. });
        let earlier = |by: &Operation| matches!(by.answer, Answer::CompactedTo { .. }) && by.end < operation.start;
        if fresh && answered && compactions().any(|(revision, by)| reaches(revision) && earlier(by)) {
            violations.push(Violation(format!("its revision had been compacted before: {operation:?}")));
        }
    }
}
