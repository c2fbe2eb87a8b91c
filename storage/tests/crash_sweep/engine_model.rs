//! What the engine was told, and what it may hold after a cut: a prefix of that, for the log and for the state, with everything that was
//! acknowledged.
//!
//! Every body follows from its position (entries) or its span (state frames), so that contents are judged without being remembered.

use crate::rng::Rng;
use bytes::Bytes;
use rusd_storage::LogPosition;
use rusd_storage::engine::{LogEntry, Span, StateFrame};
use std::collections::BTreeMap;

/// One thing the engine was told.
#[derive(Clone, Debug)]
pub enum Step {
    Append(Vec<LogPosition>),
    Truncate(u64),
    Purge(LogPosition),
    Vote(u64),
    State(Span),
    /// The new frame, if any, and those it takes the place of.
    Replace(Option<Span>, Vec<Span>),
    /// A snapshot up to this position, as one frame.
    Install(LogPosition),
    /// All before is durable.
    Sync,
}

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub floor: Option<LogPosition>,
    /// Index to term.
    pub terms: BTreeMap<u64, u64>,
    pub vote: u64,
}

/// State frames by their first index.
pub type States = BTreeMap<u64, Span>;

impl Log {
    /// The last entry, or the floor.
    pub fn last(&self) -> Option<LogPosition> {
        self.terms.last_key_value().map(|(index, term)| LogPosition { term: *term, index: *index }).or(self.floor)
    }

    fn purge(&mut self, upto: LogPosition) {
        self.terms = self.terms.split_off(&(upto.index + 1));
        self.floor = Some(upto);
    }

    /// After one more step.
    pub fn after(&self, step: &Step) -> Self {
        let mut log = self.clone();
        match step {
            Step::Append(positions) => log.terms.extend(positions.iter().map(|at| (at.index, at.term))),
            Step::Truncate(from) => drop(log.terms.split_off(from)),
            Step::Purge(upto) | Step::Install(upto) => log.purge(*upto),
            Step::Vote(vote) => log.vote = *vote,
            Step::State(_) | Step::Replace(..) | Step::Sync => {}
        }
        log
    }

    /// Whether `found` lies between this and what `step` makes of it.
    pub fn on_the_way(&self, step: &Step, found: &Self) -> bool {
        let after = self.after(step);
        if *found == after {
            return true;
        }
        if (found.floor, found.vote) != (self.floor, self.vote) {
            return false;
        }
        let between = |less: &BTreeMap<u64, u64>, more: &BTreeMap<u64, u64>| {
            less.len() <= found.terms.len() && found.terms.len() <= more.len() && more.iter().zip(&found.terms).all(|(a, b)| a == b)
        };
        match step {
            Step::Append(_) => between(&self.terms, &after.terms),
            Step::Truncate(_) => between(&after.terms, &self.terms),
            _ => false,
        }
    }
}

/// The state after one more step.
pub fn states_after(states: &States, step: &Step) -> States {
    let mut states = states.clone();
    match step {
        Step::State(span) => drop(states.insert(span.first.index, *span)),
        Step::Replace(new, old) => {
            states.retain(|_, span| !old.contains(span));
            states.extend(new.iter().map(|span| (span.first.index, *span)));
        }
        Step::Install(at) => states = States::from([(at.index, installed(*at))]),
        _ => {}
    }
    states
}

/// Whether `found` lies between `states` and what `step` makes of it: frames are freed one after the other.
pub fn states_on_the_way(states: &States, step: &Step, found: &States) -> bool {
    if *found == states_after(states, step) {
        return true;
    }
    let Step::Replace(None, old) = step else { return false };
    let mut states = states.clone();
    old.iter().any(|span| {
        states.remove(&span.first.index);
        states == *found
    })
}

/// The span of an installed snapshot.
pub fn installed(at: LogPosition) -> Span {
    Span { first: at, last: at, ..Span::default() }
}

fn fill(seed: u64, len: u64) -> Bytes {
    let first = Rng::new(seed).next();
    (0..len).map(|at| (first.rotate_left((at % 61) as u32) ^ at) as u8).collect::<Vec<u8>>().into()
}

/// The entry at a position: small, sometimes a frame of its own, seldom a run.
pub fn entry(position: LogPosition) -> LogEntry {
    let seed = position.term << 32 | position.index;
    let mut rng = Rng::new(seed);
    let len = match rng.below(60) {
        0 => 100_000 + rng.below(120_000),
        1..4 => 5_000 + rng.below(60_000),
        4 => 0,
        _ => rng.below(800),
    };
    LogEntry { position, body: fill(seed, len) }
}

/// The state frame of a span: mostly part of a frame, seldom a run.
pub fn frame(span: Span) -> StateFrame {
    let seed = span.first.index << 40 ^ span.last.index << 8 ^ span.last.term;
    let mut rng = Rng::new(seed);
    let len = match rng.below(12) {
        // Of a snapshot: more than is synced at once.
        _ if span.first == span.last && span.last.index.is_multiple_of(5) => 1_800_000,
        0 => 100_000 + rng.below(60_000),
        1..4 => 30_000 + rng.below(30_000),
        _ => rng.below(9_000),
    };
    StateFrame { span, body: fill(seed, len) }
}
