//! Whole-store revision check. etcd's headers say where in the total order of writes an operation stands, so linearizability can be decided
//! without search: the complete log (one change per revision, read back at the end) must explain every answer, and no answer may contradict
//! real time.

use crate::history::{Answer, Call, Change, Operation, Version};
use std::collections::{BTreeMap, HashMap};

/// Something no linearizable store could have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The state after each revision, and who wrote it.
struct Log<'a> {
    changes: &'a [Change],
    /// Value written -> index of the operation that wrote it.
    writer: HashMap<&'a str, usize>,
}

/// Checks a history against the final log, whose first change has revision `first` (2 on an empty store). Returns all violations found.
pub fn check(operations: &[Operation], changes: &[Change], first: i64) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_log_is_gapless(changes, first, &mut violations);
    let log = Log { changes, writer: writers(operations) };
    let owners = check_every_change_has_an_owner(operations, &log, &mut violations);
    check_answers(operations, &log, first, &mut violations);
    check_real_time(operations, &owners, first, &mut violations);
    check_sessions(operations, &mut violations);
    violations
}

fn check_log_is_gapless(changes: &[Change], first: i64, violations: &mut Vec<Violation>) {
    for (expected, change) in (first..).zip(changes) {
        if change.revision != expected {
            violations.push(Violation(format!("log: expected revision {expected}, found {}", change.revision)));
            return;
        }
    }
}

fn writers(operations: &[Operation]) -> HashMap<&str, usize> {
    operations
        .iter()
        .enumerate()
        .filter_map(|(at, operation)| match &operation.call {
            Call::Put { value, .. } | Call::CompareAndSwap { value, .. } => Some((value.as_str(), at)),
            _ => None,
        })
        .collect()
}

/// For each change the operation that made it: by its unique value, or, for deletions, by the acknowledged revision; what remains may only be
/// a deletion of unknown outcome.
fn check_every_change_has_an_owner(operations: &[Operation], log: &Log<'_>, violations: &mut Vec<Violation>) -> Vec<Option<usize>> {
    let mut acknowledged: HashMap<i64, usize> = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        if let Answer::Written { revision, .. } = operation.answer
            && let Some(other) = acknowledged.insert(revision, at)
        {
            violations.push(Violation(format!("revision {revision} acknowledged twice: {:?} and {:?}", operations[other], operation)));
        }
    }
    let mut seen: HashMap<usize, i64> = HashMap::new();
    let mut unknown_deletes: HashMap<&str, usize> = HashMap::new();
    for operation in operations {
        if let (Call::Delete { key }, Answer::Unknown) = (&operation.call, &operation.answer) {
            *unknown_deletes.entry(key.as_str()).or_default() += 1;
        }
    }
    let mut owners = Vec::with_capacity(log.changes.len());
    for change in log.changes {
        let owner = match &change.value {
            Some(value) => log.writer.get(value.as_str()).copied(),
            None => acknowledged.get(&change.revision).copied(),
        };
        match owner {
            Some(at) => {
                if let Some(earlier) = seen.insert(at, change.revision) {
                    violations.push(Violation(format!("written twice, at {earlier} and {}: {:?}", change.revision, operations[at])));
                }
                if matches!(operations[at].answer, Answer::Refused | Answer::NotWritten { .. }) {
                    violations
                        .push(Violation(format!("took effect at {} though answered otherwise: {:?}", change.revision, operations[at])));
                }
            }
            None if change.value.is_none() => match unknown_deletes.get_mut(change.key.as_str()) {
                Some(left) if *left > 0 => *left -= 1,
                _ => violations.push(Violation(format!("nobody deleted {} at {}", change.key, change.revision))),
            },
            None => violations.push(Violation(format!("nobody wrote {:?} at {}", change.value, change.revision))),
        }
        owners.push(owner);
    }
    owners
}

/// Each answer must be what the log says about its revision.
fn check_answers(operations: &[Operation], log: &Log<'_>, first: i64, violations: &mut Vec<Violation>) {
    // A write's compare and previous value are judged on the state before it, so it comes before the reads of its revision.
    let judged_at = |operation: &Operation| {
        let writes = matches!(operation.answer, Answer::Written { .. });
        revision_of(operation).map(|revision| if writes { revision - 1 } else { revision })
    };
    let mut order: Vec<(i64, usize)> =
        operations.iter().enumerate().filter_map(|(at, operation)| judged_at(operation).map(|revision| (revision, at))).collect();
    order.sort_unstable();
    let mut state: BTreeMap<String, Version> = BTreeMap::new();
    let mut applied = first - 1;
    for (upto, at) in order {
        let operation = &operations[at];
        let revision = revision_of(operation).unwrap_or(upto);
        while applied < upto {
            applied += 1;
            let Some(change) = usize::try_from(applied - first).ok().and_then(|index| log.changes.get(index)) else {
                violations.push(Violation(format!("revision {revision} lies beyond the log: {operation:?}")));
                return;
            };
            match &change.value {
                Some(value) => state.insert(change.key.clone(), Version { value: value.clone(), mod_revision: applied }),
                None => state.remove(&change.key),
            };
        }
        check_answer(operation, revision, &state, log, first, violations);
    }
}

fn revision_of(operation: &Operation) -> Option<i64> {
    match (&operation.answer, &operation.call) {
        (Answer::Written { revision, .. } | Answer::NotWritten { revision }, _) => Some(*revision),
        (Answer::Read { .. }, Call::Range { revision, .. }) if *revision > 0 => Some(*revision),
        (Answer::Read { header, .. }, _) => Some(*header),
        _ => None,
    }
}

fn check_answer(
    operation: &Operation,
    revision: i64,
    state: &BTreeMap<String, Version>,
    log: &Log<'_>,
    first: i64,
    violations: &mut Vec<Violation>,
) {
    let mut bad = |what: String| violations.push(Violation(format!("{what}: {operation:?}")));
    match (&operation.call, &operation.answer) {
        (Call::Range { .. }, Answer::Read { contents, .. }) if contents != state => bad(format!("read at {revision} should be {state:?}")),
        (Call::Put { key, value }, Answer::Written { previous, .. }) => {
            expect_change(log, first, revision, key, Some(value), &mut bad);
            if previous.as_ref() != state.get(key) {
                bad(format!("previous should be {:?}", state.get(key)));
            }
        }
        (Call::Delete { key }, Answer::Written { previous, .. }) => {
            expect_change(log, first, revision, key, None, &mut bad);
            if previous.is_none() || previous.as_ref() != state.get(key) {
                bad(format!("previous should be {:?}", state.get(key)));
            }
        }
        (Call::Delete { key }, Answer::NotWritten { .. }) if state.contains_key(key) => bad(format!("the key existed at {revision}")),
        (Call::CompareAndSwap { key, expected, value }, Answer::Written { .. }) => {
            expect_change(log, first, revision, key, Some(value), &mut bad);
            if state.get(key).map_or(0, |version| version.mod_revision) != *expected {
                bad(format!("the compare should have failed on {:?}", state.get(key)));
            }
        }
        (Call::CompareAndSwap { key, expected, .. }, Answer::NotWritten { .. })
            if state.get(key).map_or(0, |version| version.mod_revision) == *expected =>
        {
            bad(format!("the compare should have held at {revision}"));
        }
        _ => {}
    }
}

fn expect_change(log: &Log<'_>, first: i64, revision: i64, key: &str, value: Option<&String>, bad: &mut impl FnMut(String)) {
    let change = usize::try_from(revision - first).ok().and_then(|index| log.changes.get(index));
    if !change.is_some_and(|change| change.key == key && change.value.as_ref() == value) {
        bad(format!("acknowledged at {revision}, but the log holds {change:?} there"));
    }
}

/// If one operation ended before another began, its place in the order must come first. Serializable reads and reads at an old revision need
/// not be fresh, but may not come from the future.
fn check_real_time(operations: &[Operation], owners: &[Option<usize>], first: i64, violations: &mut Vec<Violation>) {
    let mut ends: Vec<(u64, i64, usize)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        let revision = match (&operation.answer, &operation.call) {
            (Answer::Read { header, .. }, _) => Some(*header),
            _ => revision_of(operation),
        };
        if let Some(revision) = revision {
            ends.push((operation.end, revision, at));
        }
    }
    ends.sort_unstable();
    let mut starts: Vec<(u64, usize, i64)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        match (&operation.answer, &operation.call) {
            (Answer::Read { .. }, Call::Range { serializable: true, .. }) => {}
            (Answer::Read { header, .. }, _) => starts.push((operation.start, at, *header)),
            (Answer::Written { revision, .. }, _) => starts.push((operation.start, at, revision - 1)),
            (Answer::NotWritten { revision }, _) => starts.push((operation.start, at, *revision)),
            _ => {}
        }
    }
    for (at, revision) in owners.iter().zip(first..).filter_map(|(owner, revision)| owner.map(|at| (at, revision))) {
        if matches!(operations[at].answer, Answer::Unknown) {
            starts.push((operations[at].start, at, revision - 1));
        }
    }
    starts.sort_unstable();
    let mut newest = (first - 1, usize::MAX);
    let mut next = 0;
    for (start, at, at_most) in starts {
        while next < ends.len() && ends[next].0 < start {
            if ends[next].1 > newest.0 {
                newest = (ends[next].1, ends[next].2);
            }
            next += 1;
        }
        if newest.0 > at_most {
            violations.push(Violation(format!("stale: {:?} began after {:?} had ended", operations[at], operations[newest.1])));
        }
    }
    check_nothing_from_the_future(operations, owners, first, violations);
}

fn check_nothing_from_the_future(operations: &[Operation], owners: &[Option<usize>], first: i64, violations: &mut Vec<Violation>) {
    // latest_start[i]: the latest start among the writers of the first i changes.
    let mut latest_start = vec![0u64];
    for owner in owners {
        let before = *latest_start.last().expect("starts with one element");
        latest_start.push(owner.map_or(before, |at| before.max(operations[at].start)));
    }
    for operation in operations {
        let Some(revision) = revision_of(operation) else { continue };
        let upto = usize::try_from(revision - first + 1).unwrap_or(0).min(owners.len());
        if operation.end < latest_start[upto] {
            violations.push(Violation(format!("saw a write that began after it ended: {operation:?}")));
        }
    }
}

/// One client asking one member never sees the revision go back, not even by serializable reads.
fn check_sessions(operations: &[Operation], violations: &mut Vec<Violation>) {
    let mut sorted: Vec<&Operation> = operations.iter().collect();
    sorted.sort_by_key(|operation| operation.start);
    let mut newest: HashMap<(usize, usize), (i64, &Operation)> = HashMap::new();
    for operation in sorted {
        let header = match &operation.answer {
            Answer::Read { header, .. } => *header,
            Answer::Written { revision, .. } | Answer::NotWritten { revision } => *revision,
            _ => continue,
        };
        let entry = newest.entry((operation.client, operation.member)).or_insert((header, operation));
        if header < entry.0 {
            violations.push(Violation(format!("revision went back on one member: {:?} after {:?}", operation, entry.1)));
        } else {
            *entry = (header, operation);
        }
    }
}
