//! What the child does for ever, and what must hold of the store it leaves behind.
//!
//! Every body follows from its position (entries) or its span (state frames), so that a store can be judged without a model.

use bytes::Bytes;
use rusd_storage::LogPosition;
use rusd_storage::engine::{Completion, Engine, Faults, FrameId, LogEntry, Options, Shown, Span, StateFrame};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};

/// xorshift: the child and the test need nothing better.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..5 {
            rng.next();
        }
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn body(seed: u64) -> Bytes {
    let mut rng = Rng::new(seed);
    let len = match rng.below(100) {
        0 => 100_000 + rng.below(300_000),
        1..=5 => 5_000 + rng.below(60_000),
        6..=8 => 0,
        _ => rng.below(1200),
    };
    let first = rng.next();
    (0..len).map(|at| (first.rotate_left(at as u32 % 61) ^ at) as u8).collect::<Vec<u8>>().into()
}

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { position: LogPosition { term, index }, body: body(term << 40 | index) }
}

fn frame(first: LogPosition, last: LogPosition) -> StateFrame {
    let mut bytes = vec![0; (last.index - first.index + 1) as usize * 300 % 150_000];
    bytes.fill((first.index ^ last.index ^ last.term) as u8);
    StateFrame { span: Span { first, last, first_revision: 0, last_revision: 0 }, body: bytes.into() }
}

fn wait(start: impl FnOnce(Completion)) {
    let (sender, receiver) = mpsc::channel();
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("a completion is always called").expect("a healthy disk, until it is gone");
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test listens");
}

#[derive(Debug)]
struct DieAt(String);

impl Faults for DieAt {
    #[allow(unsafe_code)]
    fn at(&self, step: &'static str) -> std::io::Result<()> {
        if step == self.0 {
            // SAFETY: a signal to this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        Ok(())
    }
}

struct Worker {
    engine: Engine,
    rng: Rng,
    /// Terms of the entries in the log.
    terms: BTreeMap<u64, u64>,
    term: u64,
    next: u64,
    floor: u64,
    vote: u64,
    states: VecDeque<(FrameId, Span)>,
}

/// Never returns; the test ends it.
pub fn work(directory: &Path, seed: u64, die_at: &str) {
    say("opening");
    // A small tail, so that frames are read too.
    let options = Options { tail_bytes_max: 50_000, faults: Some(Arc::new(DieAt(die_at.into()))), ..Options::default() };
    let mut states = Vec::new();
    let (engine, recovered) = Engine::open(directory, options, &mut |shown| {
        match shown {
            Shown::Frame(id, frame) => states.push((id, frame.span)),
            Shown::Anew => states.clear(),
        }
        Ok(())
    })
    .expect("the store opens");
    say("opened");
    states.sort_by_key(|(_, span)| span.first.index);
    let log = engine.read_log(0, u64::MAX, usize::MAX).expect("a readable log");
    let vote = recovered.vote.map_or(0, |vote| u64::from_le_bytes(vote[..].try_into().expect("eight bytes")));
    let mut worker = Worker {
        engine,
        rng: Rng::new(seed),
        terms: log.iter().map(|entry| (entry.position.index, entry.position.term)).collect(),
        term: recovered.last.map_or(1, |last| last.term) + 1,
        next: recovered.last.map_or(0, |last| last.index + 1),
        floor: recovered.purged.map_or(0, |floor| floor.index),
        vote,
        states: states.into(),
    };
    worker.terms.extend(recovered.purged.map(|floor| (floor.index, floor.term)));
    let install_often = !die_at.is_empty();
    loop {
        match worker.rng.below(100) {
            0..5 => worker.truncate(),
            5..10 => worker.vote(),
            10..15 => worker.purge(),
            15..22 => worker.replace(),
            22 => worker.install(),
            23..30 if install_often => worker.install(),
            30..45 => worker.apply(),
            _ => worker.append(),
        }
    }
}

impl Worker {
    fn applied(&self) -> Option<u64> {
        self.states.back().map(|(_, span)| span.last.index)
    }

    fn position(&self, index: u64) -> LogPosition {
        LogPosition { term: self.terms[&index], index }
    }

    fn append(&mut self) {
        let most = [4, 64][self.rng.below(2) as usize];
        let count = 1 + self.rng.below(most);
        let entries: Vec<LogEntry> = (self.next..self.next + count).map(|index| entry(self.term, index)).collect();
        self.terms.extend(entries.iter().map(|entry| (entry.position.index, self.term)));
        let first = self.next;
        self.next += count;
        if let Some(applied) = self.applied() {
            self.engine.save_committed(self.position(applied));
        }
        wait(|done| self.engine.append(entries, done));
        say(&format!("A {} {first} {}", self.term, self.next - 1));
    }

    fn truncate(&mut self) {
        let first = self.applied().map_or(0, |applied| applied + 1);
        if first >= self.next {
            return;
        }
        let from = first + self.rng.below(self.next - first);
        say(&format!("T {from}"));
        let (sender, done) = mpsc::channel();
        self.engine.truncate(from, Box::new(move |result| drop(sender.send(result))));
        self.terms.split_off(&from);
        self.next = from;
        self.term += 1;
        // At once, as a follower does.
        self.append();
        done.recv().expect("called").expect("truncated");
    }

    fn vote(&mut self) {
        self.vote += 1;
        let bytes = Bytes::copy_from_slice(&self.vote.to_le_bytes());
        wait(|done| self.engine.save_vote(bytes, done));
        say(&format!("V {}", self.vote));
    }

    fn apply(&mut self) {
        let first = self.applied().map_or(0, |applied| applied + 1);
        if first >= self.next {
            return;
        }
        let last = first + self.rng.below(self.next - first);
        let frame = frame(self.position(first), self.position(last));
        let id = self.engine.put_state(frame.clone());
        let found = self.engine.read_state(id).expect("readable").expect("there");
        assert_eq!(found, frame.body, "state frame {first}..={last}");
        self.states.push_back((id, frame.span));
    }

    fn replace(&mut self) {
        let count = (1 + self.rng.below(4)) as usize;
        if self.states.len() <= count {
            return;
        }
        let old: Vec<(FrameId, Span)> = self.states.drain(..count).collect();
        let ids = old.iter().map(|(id, _)| *id).collect();
        if self.rng.below(4) == 0 {
            self.engine.replace_state(None, ids);
            return;
        }
        let merged = frame(old[0].1.first, old[count - 1].1.last);
        let id = self.engine.replace_state(Some(merged.clone()), ids).expect("a new frame");
        self.states.push_front((id, merged.span));
    }

    fn purge(&mut self) {
        let Some(applied) = self.applied() else { return };
        let upto = applied.saturating_sub(self.rng.below(300)).max(self.floor);
        if upto == self.floor || !self.terms.contains_key(&upto) {
            return;
        }
        say(&format!("P {upto}"));
        wait(|done| self.engine.purge(self.position(upto), done));
        self.floor = upto;
        self.terms = self.terms.split_off(&upto);
    }

    /// A snapshot up to the last entry but a few arrives.
    fn install(&mut self) {
        let Some(last) = self.next.checked_sub(1 + self.rng.below(20)) else { return };
        if last <= self.floor || self.applied().is_some_and(|applied| applied >= last) {
            return;
        }
        let at = self.position(last);
        let mut incoming = self.engine.begin_install().expect("a partial store");
        let installed = frame(at, at);
        let id = incoming.put_state(installed.clone()).expect("written");
        incoming.finish().expect("durable");
        say(&format!("P {last}"));
        wait(|done| self.engine.switch(incoming, at, done));
        say("S");
        self.states = [(id, installed.span)].into();
        self.floor = last;
        self.terms = self.terms.split_off(&last);
    }
}

/// What a store holds.
pub struct Survivors {
    pub terms: BTreeMap<u64, u64>,
    pub first: u64,
    pub vote: u64,
    /// The state is one frame about one entry: a snapshot was installed.
    pub installed: bool,
}

/// Opens the store, checks that it is whole, closes it.
pub fn survivors(directory: &Path) -> Survivors {
    let mut states: Vec<StateFrame> = Vec::new();
    let opened = Engine::open(directory, Options::default(), &mut |shown| {
        match shown {
            Shown::Frame(_, frame) => states.push(frame),
            Shown::Anew => states.clear(),
        }
        Ok(())
    });
    let (engine, recovered) = opened.unwrap_or_else(|error| panic!("the store must open: {error}"));
    let log = engine.read_log(0, u64::MAX, usize::MAX).expect("a readable log");
    let first = recovered.purged.map_or(0, |floor| floor.index + 1);
    for (found, index) in log.iter().zip(first..) {
        assert_eq!(found.position.index, index, "gap");
        assert!(*found == entry(found.position.term, index), "contents of entry {index}");
    }
    let last = recovered.last.map(|last| last.index);
    assert_eq!(last, log.last().map(|entry| entry.position.index).or(recovered.purged.map(|floor| floor.index)));
    assert!(recovered.committed.map(|at| at.index) <= last, "committed {:?} beyond {last:?}", recovered.committed);
    let terms: BTreeMap<u64, u64> = log.iter().map(|entry| (entry.position.index, entry.position.term)).collect();
    check_state(&mut states, &terms, last, recovered.purged);
    let vote = recovered.vote.map_or(0, |vote| u64::from_le_bytes(vote[..].try_into().expect("eight bytes")));
    let installed = states.len() == 1 && states[0].span.first.index == states[0].span.last.index && states[0].span.first.index > 0;
    Survivors { terms, first, vote, installed }
}

fn check_state(states: &mut [StateFrame], terms: &BTreeMap<u64, u64>, last: Option<u64>, floor: Option<LogPosition>) {
    states.sort_by_key(|frame| frame.span.first.index);
    for pair in states.windows(2) {
        assert_eq!(pair[0].span.last.index + 1, pair[1].span.first.index, "gap or overlap in the state");
    }
    for found in states.iter() {
        assert!(found.body == frame(found.span.first, found.span.last).body, "contents of state frame {:?}", found.span);
        let term = terms.get(&found.span.last.index);
        assert!(term.is_none_or(|term| *term == found.span.last.term), "state and log disagree at {:?}", found.span.last);
    }
    let applied = states.last().map(|frame| frame.span.last);
    assert!(applied.map(|at| at.index) <= last, "state {applied:?} ahead of log {last:?}");
    assert!(floor.map(|at| at.index) <= applied.map(|at| at.index), "purged {floor:?} beyond the state {applied:?}");
}

/// Number of Db directories.
pub fn databases(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).expect("the member directory");
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("db-")).count()
}
