//! A few hundred operations on one engine, recorded: appends, big runs, truncations, purges, votes, state frames, frame compaction, and
//! snapshots that are received and switched to.

use crate::engine_model::{Log, States, Step, entry, frame, installed, states_after};
use crate::record::{self, Op};
use crate::rng::Rng;
use rusd_storage::LogPosition;
use rusd_storage::engine::{Completion, Engine, FrameId, Options, Shown, Span};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A mark says that step `mark / 2` was begun (even) or acknowledged (odd).
pub const ACKNOWLEDGED: u64 = 1;

/// What was told, and what the disk was asked for.
pub struct Trace {
    pub steps: Vec<Step>,
    pub ops: Vec<Op>,
}

/// What kind of trace.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub steps: usize,
    /// Snapshots arrive, each in a Db of its own.
    pub installs: bool,
    /// Much is written, and purged again.
    pub bulk: bool,
}

struct Tracer {
    shape: Shape,
    /// None only between two openings.
    engine: Option<Engine>,
    rng: Rng,
    steps: Vec<Step>,
    log: Log,
    states: States,
    ids: BTreeMap<u64, FrameId>,
    term: u64,
    waiting: Vec<Receiver<()>>,
    /// Terms of applied entries, purged ones too.
    known: BTreeMap<u64, u64>,
}

/// Options that leave little in memory and lose no time.
pub fn options() -> Options {
    Options { cache_bytes: 16 << 20, tail_bytes_max: 50_000, coalesce: Duration::ZERO, ..Options::default() }
}

/// Runs and records.
pub fn trace(directory: &Path, seed: u64, shape: Shape) -> Trace {
    let steps = shape.steps;
    record::start(directory);
    let (engine, _) = Engine::open(directory, options(), &mut |_| Ok(())).expect("a new store");
    let (log, states, ids) = (Log::default(), States::new(), BTreeMap::new());
    let known = BTreeMap::new();
    let mut tracer = Tracer {
        shape,
        engine: Some(engine),
        rng: Rng::new(seed),
        steps: Vec::new(),
        log,
        states,
        ids,
        term: 1,
        waiting: Vec::new(),
        known,
    };
    while tracer.steps.len() < steps {
        tracer.step();
        // Now and then all is waited for; else operations share a drain.
        if tracer.rng.below(3) == 0 {
            tracer.wait();
        }
        if tracer.rng.below(steps as u64) < 3 {
            tracer.reopen(directory);
        }
    }
    tracer.sync();
    tracer.engine().close().expect("a healthy disk");
    let steps = std::mem::take(&mut tracer.steps);
    drop(tracer);
    Trace { steps, ops: record::stop() }
}

impl Tracer {
    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open")
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..34 => self.append(),
            34..40 => self.truncate(),
            40..45 => self.vote(),
            45..53 => self.purge(),
            53..72 => self.apply(),
            72..93 => self.replace(),
            93..96 if self.shape.installs => self.install(),
            _ => self.sync(),
        }
    }

    /// Begins a step. What it gives acknowledges the step.
    fn begin(&mut self, step: Step) -> Completion {
        let number = self.steps.len() as u64;
        self.log = self.log.after(&step);
        self.states = states_after(&self.states, &step);
        self.steps.push(step);
        record::mark(number * 2);
        let (sender, receiver) = channel();
        self.waiting.push(receiver);
        Box::new(move |result| {
            result.expect("a healthy disk");
            record::mark(number * 2 + ACKNOWLEDGED);
            let _ = sender.send(());
        })
    }

    /// Begins a step that nothing acknowledges but a later one.
    fn begin_silent(&mut self, step: Step) {
        drop(self.begin(step));
        self.waiting.pop();
    }

    fn wait(&mut self) {
        self.waiting.drain(..).for_each(|done| done.recv().expect("called"));
    }

    fn applied(&self) -> Option<LogPosition> {
        self.states.last_key_value().map(|(_, span)| span.last)
    }

    fn next(&self) -> u64 {
        self.log.last().map_or(0, |last| last.index + 1)
    }

    fn position(&self, index: u64) -> LogPosition {
        LogPosition { term: self.known[&index], index }
    }

    fn append(&mut self) {
        let most = if self.shape.bulk { 60 } else { [3, 3, 40][self.rng.below(3) as usize] };
        let count = 1 + self.rng.below(most);
        let first = self.next();
        let positions: Vec<LogPosition> = (first..first + count).map(|index| LogPosition { term: self.term, index }).collect();
        self.known.extend(positions.iter().map(|at| (at.index, at.term)));
        if let Some(applied) = self.applied() {
            self.engine().save_committed(applied);
        }
        let entries = positions.iter().map(|at| entry(*at)).collect();
        let done = self.begin(Step::Append(positions));
        self.engine().append(entries, done);
    }

    /// Only what is not applied; others follow at once, as at a follower.
    fn truncate(&mut self) {
        let first = self.applied().map_or(0, |applied| applied.index + 1).max(self.log.floor.map_or(0, |floor| floor.index + 1));
        if first >= self.next() {
            return;
        }
        let from = first + self.rng.below(self.next() - first);
        let done = self.begin(Step::Truncate(from));
        self.engine().truncate(from, done);
        self.known.split_off(&from);
        self.term += 1;
        self.append();
    }

    fn vote(&mut self) {
        let vote = self.log.vote + 1;
        let done = self.begin(Step::Vote(vote));
        self.engine().save_vote(vote.to_le_bytes().to_vec().into(), done);
    }

    fn purge(&mut self) {
        let Some(applied) = self.applied() else { return };
        let upto = applied.index.saturating_sub(self.rng.below(60));
        if self.log.floor.is_some_and(|floor| floor.index >= upto) || !self.known.contains_key(&upto) {
            return;
        }
        let upto = self.position(upto);
        let done = self.begin(Step::Purge(upto));
        self.engine().purge(upto, done);
    }

    fn apply(&mut self) {
        let first = self.applied().map_or(0, |applied| applied.index + 1);
        if first >= self.next() {
            return;
        }
        let last = (first + self.rng.below(12)).min(self.next() - 1);
        let span = Span { first: self.position(first), last: self.position(last), ..Span::default() };
        self.begin_silent(Step::State(span));
        let id = self.engine().put_state(frame(span));
        self.ids.insert(first, id);
    }

    /// Neighbours become one, or, as fully dead ones, nothing. Never the last.
    fn replace(&mut self) {
        let count = 1 + self.rng.below(6) as usize;
        if self.states.len() <= count {
            return;
        }
        let start = self.rng.below((self.states.len() - count) as u64) as usize;
        let old: Vec<Span> = self.states.values().skip(start).take(count).copied().collect();
        let ids: Vec<FrameId> = old.iter().map(|span| self.ids.remove(&span.first.index).expect("it has an id")).collect();
        let new = (self.rng.below(5) > 0).then(|| Span { first: old[0].first, last: old[count - 1].last, ..Span::default() });
        self.begin_silent(Step::Replace(new, old));
        let id = self.engine().replace_state(new.map(frame), ids);
        self.ids.extend(new.zip(id).map(|(span, id)| (span.first.index, id)));
    }

    fn install(&mut self) {
        let first = self.applied().map_or(0, |applied| applied.index + 1);
        let Some(last) = self.next().checked_sub(1 + self.rng.below(8)).filter(|last| *last >= first) else { return };
        let at = self.position(last);
        let mut incoming = self.engine().begin_install().expect("a partial store");
        let id = incoming.put_state(frame(installed(at))).expect("written");
        incoming.finish().expect("durable");
        let done = self.begin(Step::Install(at));
        self.ids = BTreeMap::from([(last, id)]);
        self.engine().switch(incoming, at, done);
    }

    fn sync(&mut self) {
        let done = self.begin(Step::Sync);
        self.engine().sync(done);
        self.wait();
    }

    fn reopen(&mut self, directory: &Path) {
        self.sync();
        self.engine().close().expect("a healthy disk");
        let mut ids = BTreeMap::new();
        // It must be gone first: it holds the lock.
        self.engine = None;
        let opened = Engine::open(directory, options(), &mut |shown| {
            match shown {
                Shown::Frame(id, frame) => drop(ids.insert(frame.span.first.index, id)),
                Shown::Anew => ids.clear(),
            }
            Ok(())
        });
        self.engine = Some(opened.expect("a whole store").0);
        self.ids = ids;
    }
}
