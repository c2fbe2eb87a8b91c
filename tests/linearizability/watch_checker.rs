//! etcd's watch guarantees, checked over what watchers wrote down.
//!
//! | guarantee | here |
//! |---|---|
//! | ordered | events come by revision, within one in the order of its changes |
//! | unique | none comes twice, not even over reconnects |
//! | reliable | none is missing between two that came |
//! | atomic | a revision is not split over responses, but for fragments |
//! | resumable | going on after the last event heard, at another member, gives the next one |
//! | bookmarkable | progress at R: everything up to R has been told |
//!
//! All follow from one rule: what a watcher hears is the log, change by change, as far as its range goes.

use crate::checker::Violation;
use crate::history::{Call, Change, Log, Operation};
use crate::model::{self, State};
use crate::watchers::{Heard, Moment};
use crate::wire::Range;
use std::collections::{BTreeMap, HashMap};

/// Puts the log together from watchers of everything; contradictions between them are violations.
pub fn merge(watchers: &[Vec<(u64, Moment)>], violations: &mut Vec<Violation>) -> Log {
    let mut revisions: BTreeMap<i64, (usize, Vec<Change>)> = BTreeMap::new();
    for (who, moments) in watchers.iter().enumerate() {
        let mut heard: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
        for (_, moment) in moments {
            match moment {
                Moment::Events { events, .. } => {
                    for event in events {
                        heard.entry(event.revision).or_default().push(event.change.clone());
                    }
                }
                // After a fragment that cut a revision, it comes again from its beginning.
                Moment::Asked { start, .. } => drop(heard.split_off(start)),
                _ => {}
            }
        }
        for (revision, changes) in heard {
            let (first, known) = revisions.entry(revision).or_insert_with(|| (who, changes.clone()));
            if *known != changes {
                violations.push(Violation(format!("watcher {who} heard {changes:?} at revision {revision}, watcher {first} {known:?}")));
            }
        }
    }
    let first = revisions.keys().next().copied().unwrap_or(2);
    let last = revisions.keys().next_back().copied().unwrap_or(1);
    let revisions = (first..=last).map(|revision| revisions.remove(&revision).map_or_else(Vec::new, |(_, changes)| changes)).collect();
    Log { first, revisions }
}

/// What was heard up to the revision at which a run is judged. A write whose client gave up may still wait in a buffer of the network, which
/// tries again ever more seldom, and land after the members have come to rest.
pub fn until(newest: i64, mut moments: Vec<(u64, Moment)>) -> Vec<(u64, Moment)> {
    for (_, moment) in &mut moments {
        if let Moment::Events { events, .. } = moment {
            events.retain(|event| event.revision <= newest);
        }
    }
    moments
}

/// What is known of a run when its watchers are judged.
pub struct Facts<'a> {
    /// All that happened.
    pub log: &'a Log,
    /// When the operation that made each revision began.
    pub starts: HashMap<i64, u64>,
    /// The newest revision anybody asked to compact to: older previous values may be gone.
    pub compacted: i64,
}

impl<'a> Facts<'a> {
    /// From a history.
    pub fn new(operations: &[Operation], log: &'a Log, owners: &[Option<usize>]) -> Self {
        let starts = (log.first..).zip(owners).filter_map(|(revision, owner)| owner.map(|at| (revision, operations[at].start)));
        let compacted = operations.iter().filter_map(|operation| match operation.call {
            Call::Compact { revision, .. } => Some(revision),
            _ => None,
        });
        Self { log, starts: starts.collect(), compacted: compacted.max().unwrap_or(0) }
    }

    /// All that a watcher of a range has to hear.
    fn expected(&self, range: &Range) -> Vec<Heard> {
        let mut state = State::new();
        let mut expected = Vec::new();
        for (revision, changes) in (self.log.first..).zip(&self.log.revisions) {
            let matching = changes.iter().filter(|change| range.contains(&change.key));
            expected.extend(matching.map(|change| Heard { revision, change: change.clone(), previous: state.get(&change.key).cloned() }));
            model::advance(&mut state, changes);
        }
        expected
    }
}

/// Judges one watcher after the end: everything must have been told.
pub fn check(who: usize, range: &Range, prev_kv: bool, moments: &[(u64, Moment)], facts: &Facts<'_>) -> Vec<Violation> {
    let expected = facts.expected(range);
    let mut cursor = Cursor { expected: &expected, next: 0, begun: false, prev_kv, compacted: facts.compacted };
    for (time, moment) in moments {
        if let Err(what) = cursor.take(moment) {
            return vec![Violation(format!("watcher {who} of {range:?}: {what}, at {time}: {moment:?}"))];
        }
        if let Moment::Events { events, .. } = moment
            && let Some(event) = events.iter().find(|event| facts.starts.get(&event.revision).is_some_and(|start| start > time))
        {
            return vec![Violation(format!("watcher {who} heard of {event:?} at {time}, before it was asked for"))];
        }
    }
    let missed = expected.get(cursor.next).filter(|_| cursor.begun);
    missed.map(|missed| Violation(format!("watcher {who} of {range:?} never heard of {missed:?}"))).into_iter().collect()
}

/// Everything before `next` has been told.
struct Cursor<'a> {
    expected: &'a [Heard],
    next: usize,
    begun: bool,
    prev_kv: bool,
    compacted: i64,
}

impl Cursor<'_> {
    fn first_from(&self, revision: i64) -> usize {
        self.expected.partition_point(|event| event.revision < revision)
    }

    fn take(&mut self, moment: &Moment) -> Result<(), String> {
        match moment {
            // It asks for what follows the last event it heard (or again for a revision that a fragment cut).
            Moment::Asked { start, .. } if *start > 0 => {
                let resumed = self.first_from(*start);
                if self.begun && resumed > self.next {
                    return Err(format!("{:?} was never told", self.expected[self.next]));
                }
                (self.next, self.begun) = (resumed, true);
            }
            Moment::Created { header } if !self.begun => (self.next, self.begun) = (self.first_from(header + 1), true),
            Moment::Events { header, events, fragment } => self.events(*header, events, *fragment)?,
            Moment::Progress { header } => {
                if let Some(missed) = self.expected.get(self.next).filter(|event| event.revision <= *header) {
                    return Err(format!("progress, but {missed:?} was not told"));
                }
            }
            Moment::Compacted { revision } => self.next = self.next.max(self.first_from(*revision)),
            Moment::Asked { .. } | Moment::Created { .. } => {}
        }
        Ok(())
    }

    fn events(&mut self, header: i64, events: &[Heard], fragment: bool) -> Result<(), String> {
        for event in events {
            let Some(expected) = self.expected.get(self.next) else { return Err(format!("{event:?} is not to be told (again)")) };
            let gone = event.previous.is_none() && event.revision - 1 < self.compacted;
            let previous = if self.prev_kv { gone || event.previous == expected.previous } else { event.previous.is_none() };
            if (event.revision, &event.change) != (expected.revision, &expected.change) || !previous {
                return Err(format!("{event:?} where {expected:?} was due"));
            }
            if event.revision > header {
                return Err(format!("{event:?} under a header of {header}"));
            }
            self.next += 1;
        }
        let split = |last: &Heard| self.expected.get(self.next).is_some_and(|next| next.revision == last.revision);
        if !fragment && events.last().is_some_and(split) {
            return Err("a revision split over two responses".into());
        }
        Ok(())
    }
}
