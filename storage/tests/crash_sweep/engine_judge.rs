//! Opens an image and says whether it holds what it must.

use crate::engine_model::{Log, States, Step, entry, frame, states_after, states_on_the_way};
use crate::engine_trace::{ACKNOWLEDGED, Trace, options};
use crate::record::Op;
use rusd_storage::LogPosition;
use rusd_storage::engine::{Completion, Engine, Shown, StateFrame};
use std::path::Path;
use std::sync::mpsc::channel;

/// How far the trace was when the power went.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Steps begun.
    begun: usize,
    /// Step is acknowledged, by itself or by a later one.
    acknowledged: Vec<bool>,
}

impl Progress {
    /// Learns of one more operation.
    pub fn see(&mut self, op: &Op, trace: &Trace) {
        let Op::Mark(mark) = op else { return };
        let step = (mark / 2) as usize;
        if mark % 2 != ACKNOWLEDGED {
            self.begun = step + 1;
            self.acknowledged.resize(self.begun, false);
            return;
        }
        self.acknowledged[step] = true;
        // What these wait for is everything before them.
        if matches!(trace.steps[step], Step::Sync | Step::Purge(_) | Step::Install(_)) {
            self.acknowledged[..step].fill(true);
        }
    }
}

/// What an image holds.
struct Found {
    log: Log,
    states: States,
    committed: Option<LogPosition>,
}

fn open(directory: &Path) -> Result<(Engine, Found), String> {
    let mut frames: Vec<StateFrame> = Vec::new();
    let opened = Engine::open(directory, options(), &mut |shown| {
        match shown {
            Shown::Frame(_, frame) => frames.push(frame),
            Shown::Anew => frames.clear(),
        }
        Ok(())
    });
    let (engine, recovered) = opened.map_err(|error| format!("it does not open: {error}"))?;
    let mut log = Log { floor: recovered.purged, ..Log::default() };
    log.vote = recovered.vote.map_or(0, |vote| vote[..].try_into().map_or(u64::MAX, u64::from_le_bytes));
    for found in engine.read_log(0, u64::MAX, usize::MAX).map_err(|error| format!("its log can't be read: {error}"))? {
        if found != entry(found.position) {
            return Err(format!("entry {:?} holds something else", found.position));
        }
        log.terms.insert(found.position.index, found.position.term);
    }
    let mut states = States::new();
    for found in frames {
        if found.body != frame(found.span).body {
            return Err(format!("state frame {:?} holds something else", found.span));
        }
        if states.insert(found.span.first.index, found.span).is_some() {
            return Err(format!("two state frames at {:?}", found.span));
        }
    }
    if recovered.last != log.last() {
        return Err(format!("it says that it reaches {:?}, its log reaches {:?}", recovered.last, log.last()));
    }
    Ok((engine, Found { log, states, committed: recovered.committed }))
}

/// Judges an image, goes on with it, and judges it again.
pub fn judge(directory: &Path, trace: &Trace, progress: &Progress, deep: bool) -> Result<(), String> {
    let (engine, found) = open(directory)?;
    check(&found, trace, progress)?;
    if deep {
        go_on(engine, directory, &found)?;
    }
    Ok(())
}

fn check(found: &Found, trace: &Trace, progress: &Progress) -> Result<(), String> {
    let applied = found.states.last_key_value().map(|(_, span)| span.last);
    let last = found.log.last();
    if applied.map(|at| at.index) > last.map(|at| at.index) {
        return Err(format!("state {applied:?} ahead of log {last:?}"));
    }
    if found.committed.map(|at| at.index) > last.map(|at| at.index) {
        return Err(format!("commit {:?} beyond {last:?}", found.committed));
    }
    // Which prefixes of the steps explain the log, and which the state; a snapshot is in both or in neither.
    let logs = explained(trace, progress, |step| !matches!(step, Step::State(_) | Step::Replace(..)), |log: &Log, step| log.after(step))
        .filter(|(_, log, next)| *log == found.log || next.is_some_and(|next| log.on_the_way(next, &found.log)));
    let states = explained(trace, progress, |step| matches!(step, Step::State(_) | Step::Replace(..) | Step::Install(_)), states_after)
        .filter(|(_, states, next)| *states == found.states || next.is_some_and(|next| states_on_the_way(states, next, &found.states)));
    let (logs, states): (Vec<usize>, Vec<usize>) = (logs.map(|found| found.0).collect(), states.map(|found| found.0).collect());
    if logs.is_empty() {
        return Err(format!("its log is none of what was told: floor {:?}, last {last:?}, vote {}", found.log.floor, found.log.vote));
    }
    if states.is_empty() {
        return Err(format!("its state is none of what was told: {:?}", found.states));
    }
    if !logs.iter().any(|log| states.contains(log)) {
        return Err(format!("its log is of {logs:?} snapshots, its state of {states:?}"));
    }
    Ok(())
}

/// All that a prefix of the steps gives that has everything acknowledged: snapshots installed so far, value, and the step after it.
fn explained<'t, T: Clone + Default + 't>(
    trace: &'t Trace,
    progress: &'t Progress,
    concerns: impl Fn(&Step) -> bool + 't,
    after: impl Fn(&T, &Step) -> T + 't,
) -> impl Iterator<Item = (usize, T, Option<&'t Step>)> + 't {
    let steps: Vec<(usize, &Step)> = trace.steps[..progress.begun].iter().enumerate().filter(|(_, step)| concerns(step)).collect();
    let must = steps.iter().rposition(|(number, _)| progress.acknowledged[*number]).map_or(0, |last| last + 1);
    let (mut value, mut installs) = (T::default(), 0);
    (0..=steps.len()).filter_map(move |count| {
        if let Some((_, step)) = count.checked_sub(1).map(|last| steps[last]) {
            value = after(&value, step);
            installs += usize::from(matches!(step, Step::Install(_)));
        }
        // A step that is half done is no snapshot: that is one rename.
        let next = steps.get(count).map(|(_, step)| *step).filter(|step| !matches!(step, Step::Install(_)));
        (count >= must).then(|| (installs, value.clone(), next))
    })
}

/// The store works, and holds at the next opening what it held, and one entry more.
fn go_on(engine: Engine, directory: &Path, found: &Found) -> Result<(), String> {
    let index = found.log.last().map_or(0, |last| last.index + 1);
    let position = LogPosition { term: 1 << 20, index };
    let (sender, receiver) = channel();
    let done: Completion = Box::new(move |result| drop(sender.send(result)));
    engine.append(vec![entry(position)], done);
    receiver.recv().map_err(|error| error.to_string())?.map_err(|error| format!("it takes no entry: {error}"))?;
    drop(engine);
    let (_engine, again) = open(directory).map_err(|reason| format!("opened again, {reason}"))?;
    let mut expected = found.log.clone();
    expected.terms.insert(index, position.term);
    if again.log != expected || again.states != found.states {
        return Err(format!("opened again, it holds something else: {:?} and {:?}", again.log.last(), again.states));
    }
    Ok(())
}
