//! What a correct store does: the whole specification that histories are judged by, one page long.

use crate::history::{Change, Compare, Done, Op, Version};
use std::collections::BTreeMap;

/// Keys and versions as of one revision.
pub type State = BTreeMap<String, Version>;

/// What a txn does to a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether its compares held.
    pub succeeded: bool,
    /// Of each operation of the chosen branch.
    pub done: Vec<Done>,
    /// In their order.
    pub changes: Vec<Change>,
}

/// Whether a condition holds.
pub fn holds(state: &State, compare: &Compare) -> bool {
    match compare {
        Compare::ModRevision { key, revision, .. } => state.get(key).map_or(0, |version| version.mod_revision) == *revision,
        Compare::Value { key, value } => state.get(key).is_some_and(|version| version.value == *value),
        Compare::Exists { key, exists } => state.contains_key(key) == *exists,
    }
}

/// The keys a delete names.
pub fn within<'a>(state: &'a State, from: &'a str, to: Option<&'a str>) -> impl Iterator<Item = (&'a String, &'a Version)> {
    state.iter().filter(move |(key, _)| to.map_or(key.as_str() == from, |to| (from..to).contains(&key.as_str())))
}

/// Runs a txn that, if it changes anything, makes `revision`.
pub fn run(state: &State, revision: i64, compares: &[Compare], success: &[Op], failure: &[Op]) -> Outcome {
    let succeeded = compares.iter().all(|compare| holds(state, compare));
    let mut now = state.clone();
    let (mut done, mut changes) = (Vec::new(), Vec::new());
    for op in if succeeded { success } else { failure } {
        done.push(match op {
            Op::Put { key, value } => {
                let before = now.get(key).cloned();
                let version = put(before.as_ref(), value, revision);
                changes.push(Change { key: key.clone(), now: Some(version.clone()) });
                now.insert(key.clone(), version);
                Done::Put(before)
            }
            Op::Delete { from, to } => {
                let gone: Vec<(String, Version)> =
                    within(&now, from, to.as_deref()).map(|(key, version)| (key.clone(), version.clone())).collect();
                for (key, _) in &gone {
                    now.remove(key);
                    changes.push(Change { key: key.clone(), now: None });
                }
                Done::Deleted(gone)
            }
            Op::Get { key } => Done::Got(now.get(key).cloned()),
        });
    }
    Outcome { succeeded, done, changes }
}

fn put(before: Option<&Version>, value: &str, revision: i64) -> Version {
    Version {
        value: value.to_string(),
        create_revision: before.map_or(revision, |before| before.create_revision),
        mod_revision: revision,
        version: before.map_or(0, |before| before.version) + 1,
    }
}

/// What a range answers: keys up to the limit (0 = all), how many there are, whether some were left out.
pub fn range(state: &State, from: &str, to: &str, limit: i64) -> (Vec<(String, Version)>, i64, bool) {
    let all: Vec<(String, Version)> = within(state, from, Some(to)).map(|(key, version)| (key.clone(), version.clone())).collect();
    let count = all.len();
    let limit = if limit > 0 { usize::try_from(limit).unwrap_or(usize::MAX) } else { usize::MAX };
    let kvs: Vec<_> = all.into_iter().take(limit).collect();
    let more = kvs.len() < count;
    (kvs, i64::try_from(count).expect("few keys"), more)
}

/// Moves a state on by the changes of one revision.
pub fn advance(state: &mut State, changes: &[Change]) {
    for change in changes {
        match &change.now {
            Some(version) => state.insert(change.key.clone(), version.clone()),
            None => state.remove(&change.key),
        };
    }
}
