//! Wing-Gong/Lowe search: a second opinion, from values alone, that does not believe the headers.
//!
//! Keys come in groups, and no write spans two of them, so each group is an object of its own and may be judged alone (Herlihy and Wing's
//! locality). A range over several groups is a read of each; that loses nothing but what the revision check sees.

use crate::checker::PREFIX;
use crate::history::{Answer, Call, Compare, Done, Log, Op, Operation};
use std::collections::{HashMap, HashSet};

/// Keys of a group.
pub const SLOTS: usize = 3;
/// After so many steps the search gives up, undecided.
const STEPS_MAX: usize = 400_000;

/// Values of a group's keys, by number.
pub type State = [Option<u32>; SLOTS];

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has this value, or is absent.
    Is(usize, Option<u32>),
    /// It is there, or isn't.
    Exists(usize, bool),
}

/// What happens to keys. Each answers with what was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sets it.
    Set(usize, u32),
    /// Deletes those from..to.
    Delete(usize, usize),
    /// Looks.
    Get(usize),
}

/// One operation on a group with its interval. Without an answer its outcome is unknown; with `end == u64::MAX` it may also never happen.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// All must hold for `success`, else `failure` happens.
    pub conditions: Vec<Condition>,
    /// If the conditions hold.
    pub success: Vec<Act>,
    /// If they don't.
    pub failure: Vec<Act>,
    /// Whether they held, and what was there before each act.
    pub answer: Option<(bool, Vec<Option<u32>>)>,
}

impl Event {
    fn run(&self, state: &State) -> (State, bool, Vec<Option<u32>>) {
        let holds = |condition: &Condition| match condition {
            Condition::Is(slot, value) => state[*slot] == *value,
            Condition::Exists(slot, exists) => state[*slot].is_some() == *exists,
        };
        let succeeded = self.conditions.iter().all(holds);
        let (mut now, mut seen) = (*state, Vec::new());
        for act in if succeeded { &self.success } else { &self.failure } {
            match act {
                Act::Set(slot, value) => seen.push(now[*slot].replace(*value)),
                Act::Delete(from, to) => seen.extend(now[*from..*to].iter_mut().map(Option::take)),
                Act::Get(slot) => seen.push(now[*slot]),
            }
        }
        (now, succeeded, seen)
    }

    /// The state after it, if it can have happened here.
    fn step(&self, state: &State) -> Option<State> {
        let (after, succeeded, seen) = self.run(state);
        self.answer.as_ref().is_none_or(|answer| answer.0 == succeeded && answer.1 == seen).then_some(after)
    }
}

/// Whether some order of the events, respecting real time, is a legal history of a group that starts empty.
/// Depth-first with memory of visited (done set, state) pairs; gives up (`None`) after `steps_max` steps.
pub fn linearizable(events: &[Event], steps_max: usize) -> Option<bool> {
    let mut order: Vec<&Event> = events.iter().collect();
    order.sort_by_key(|event| event.start);
    let mut visited: HashSet<(usize, Vec<u32>, State)> = HashSet::new();
    // (all before `low` are done, done ones beyond it, state)
    let mut stack: Vec<(usize, Vec<u32>, State)> = vec![(0, Vec::new(), State::default())];
    for _ in 0..steps_max {
        let Some((low, done, state)) = stack.pop() else { return Some(false) };
        // Only what began before the first end among the open ones may come next.
        let mut first_end = u64::MAX;
        let mut candidates = Vec::new();
        for at in (low..order.len()).filter(|at| done.binary_search(&number(*at)).is_err()) {
            if order[at].start > first_end {
                break;
            }
            first_end = first_end.min(order[at].end);
            candidates.push(at);
        }
        if first_end == u64::MAX {
            return Some(true);
        }
        // Pushed backwards: who ends first is tried first, which is mostly right.
        candidates.retain(|at| order[*at].start <= first_end);
        candidates.sort_by_key(|at| std::cmp::Reverse(order[*at].end));
        for at in candidates {
            let Some(after) = order[at].step(&state) else { continue };
            let next = advance(low, &done, at, order.len());
            let key = (next.0, next.1, after);
            if visited.insert(key.clone()) {
                stack.push(key);
            }
        }
    }
    None
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("a history is short")
}

fn advance(mut low: usize, done: &[u32], at: usize, len: usize) -> (usize, Vec<u32>) {
    let mut done = done.to_vec();
    let place = done.partition_point(|other| *other < number(at));
    done.insert(place, number(at));
    let mut passed = 0;
    while low < len && done.get(passed).is_some_and(|first| *first == number(low)) {
        low += 1;
        passed += 1;
    }
    done.drain(..passed);
    (low, done)
}

/// What the search found of a whole history.
#[derive(Debug, Default)]
pub struct Opinion {
    /// Groups without any legal order.
    pub illegal: Vec<usize>,
    /// Groups on which it gave up.
    pub undecided: usize,
}

/// Judges each group of a history. Of `owners` (who made each revision) it only takes which writes of unknown outcome never happened, and
/// until when the others must have: without that their number would make the search endless.
pub fn judge(operations: &[Operation], log: &Log, owners: &[Option<usize>], groups: usize) -> Opinion {
    let ends = ends(operations, log, owners);
    let mut opinion = Opinion::default();
    for group in 0..groups {
        let mut values = Values::default();
        let events: Vec<Event> = operations
            .iter()
            .zip(&ends)
            .filter_map(|(operation, end)| Some(Event { end: (*end)?, ..event(operation, group, &mut values)? }))
            .collect();
        match linearizable(&events, STEPS_MAX) {
            Some(true) => {}
            Some(false) => opinion.illegal.push(group),
            None => opinion.undecided += 1,
        }
    }
    opinion
}

/// When each operation ended; of unknown ones when somebody first stood at its revision, `None` if it never happened.
fn ends(operations: &[Operation], log: &Log, owners: &[Option<usize>]) -> Vec<Option<u64>> {
    let mut ends: Vec<Option<u64>> =
        operations.iter().map(|operation| (operation.answer != Answer::Unknown).then_some(operation.end)).collect();
    let mut seen: Vec<(i64, u64)> = operations.iter().filter_map(|operation| Some((operation.answer.header()?, operation.end))).collect();
    seen.sort_unstable();
    let mut earliest = u64::MAX;
    for (revision, owner) in (log.first..).zip(owners).collect::<Vec<_>>().into_iter().rev() {
        while let Some((_, end)) = seen.pop_if(|seen| seen.0 >= revision) {
            earliest = earliest.min(end);
        }
        if let Some(at) = *owner
            && operations[at].answer == Answer::Unknown
        {
            ends[at] = Some(earliest);
        }
    }
    ends
}

#[derive(Default)]
struct Values(HashMap<String, u32>);

impl Values {
    fn number(&mut self, value: &str) -> u32 {
        let next = number(self.0.len());
        *self.0.entry(value.to_string()).or_insert(next)
    }
}

/// The key's place in the group; `None` if it is another group's.
fn slot(key: &str, group: usize) -> Option<usize> {
    let (of, slot) = key.strip_prefix(PREFIX)?.split_once('/')?;
    (of.parse() == Ok(group)).then(|| slot.parse().ok())?
}

fn slots(from: &str, to: Option<&str>, group: usize) -> (usize, usize) {
    let inside = |slot: &usize| {
        let key = key(group, *slot);
        to.map_or(key == from, |to| (from..to).contains(&key.as_str()))
    };
    let first = (0..SLOTS).find(inside).unwrap_or(0);
    (first, (0..SLOTS).rfind(inside).map_or(first, |last| last + 1))
}

/// Name of a key.
pub fn key(group: usize, slot: usize) -> String {
    format!("{PREFIX}{group}/{slot}")
}

/// What an operation is to a group; `None` if nothing. Its end is to be filled in.
fn event(operation: &Operation, group: usize, values: &mut Values) -> Option<Event> {
    let event = Event { start: operation.start, end: 0, conditions: vec![], success: vec![], failure: vec![], answer: None };
    match (&operation.call, &operation.answer) {
        (Call::Range { from, to, revision: 0, serializable: false, .. }, Answer::Read { kvs, more, .. }) => {
            let (first, mut end) = slots(from, Some(to), group);
            if *more {
                // What the limit cut off is not known.
                let last = kvs.iter().filter_map(|(key, _)| slot(key, group)).next_back();
                end = last.map_or(first, |last| last + 1);
            }
            let seen = (first..end).map(|slot| {
                let key = key(group, slot);
                kvs.iter().find(|(of, _)| *of == key).map(|(_, version)| values.number(&version.value))
            });
            let answer = Some((true, seen.collect()));
            (first < end).then(|| Event { success: (first..end).map(Act::Get).collect(), answer, ..event })
        }
        (Call::Write { compares, success, failure, .. }, Answer::Wrote { .. } | Answer::Unknown) => {
            slot(first_key(compares, success, failure)?, group)?;
            let conditions = compares.iter().map(|compare| condition(compare, group, values)).collect::<Option<Vec<_>>>()?;
            let acts = |ops: &[Op], values: &mut Values| ops.iter().map(|op| act(op, group, values)).collect::<Option<Vec<_>>>();
            let (success, failure) = (acts(success, values)?, acts(failure, values)?);
            let answer = match &operation.answer {
                Answer::Wrote { succeeded, done, .. } => {
                    let branch = if *succeeded { &success } else { &failure };
                    Some((*succeeded, done.iter().zip(branch).flat_map(|(done, act)| seen(done, act, group, values)).collect()))
                }
                _ => None,
            };
            Some(Event { conditions, success, failure, answer, ..event })
        }
        _ => None,
    }
}

fn first_key<'a>(compares: &'a [Compare], success: &'a [Op], failure: &'a [Op]) -> Option<&'a str> {
    let compared = compares.first().map(|compare| match compare {
        Compare::ModRevision { key, .. } | Compare::Value { key, .. } | Compare::Exists { key, .. } => key.as_str(),
    });
    let changed = || success.iter().chain(failure).next();
    compared.or_else(|| {
        changed().map(|op| match op {
            Op::Put { key, .. } | Op::Get { key } | Op::Delete { from: key, .. } => key.as_str(),
        })
    })
}

fn condition(compare: &Compare, group: usize, values: &mut Values) -> Option<Condition> {
    Some(match compare {
        // A value is put once, so that its revision and itself say the same.
        Compare::ModRevision { key, believed, .. } => Condition::Is(slot(key, group)?, believed.as_ref().map(|value| values.number(value))),
        Compare::Value { key, value } => Condition::Is(slot(key, group)?, Some(values.number(value))),
        Compare::Exists { key, exists } => Condition::Exists(slot(key, group)?, *exists),
    })
}

fn act(op: &Op, group: usize, values: &mut Values) -> Option<Act> {
    Some(match op {
        Op::Put { key, value } => Act::Set(slot(key, group)?, values.number(value)),
        Op::Get { key } => Act::Get(slot(key, group)?),
        Op::Delete { from, to } => {
            let (first, end) = slots(from, to.as_deref(), group);
            Act::Delete(first, end)
        }
    })
}

fn seen(done: &Done, act: &Act, group: usize, values: &mut Values) -> Vec<Option<u32>> {
    match (done, act) {
        (Done::Put(before) | Done::Got(before), _) => vec![before.as_ref().map(|version| values.number(&version.value))],
        (Done::Deleted(keys), Act::Delete(from, to)) => (*from..*to)
            .map(|slot| {
                let key = key(group, slot);
                keys.iter().find(|(of, _)| *of == key).map(|(_, version)| values.number(&version.value))
            })
            .collect(),
        (Done::Deleted(_), _) => vec![],
    }
}
