//! The engine under SIGKILL and power cuts: a child process works and reports what was acknowledged, the test ends it at any moment, opens
//! the store and compares.
//!
//! The child is this very binary, running the ignored test `child`. More rounds: `RUSD_ROUNDS=200`; another run: `RUSD_SEED=7`.

mod power;
mod workload;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use workload::{Rng, Survivors};

/// What the child has said so far.
#[derive(Default)]
pub struct Said {
    /// Acknowledged entries: index to term.
    acked: BTreeMap<u64, u64>,
    vote: u64,
    /// The floor that was asked for last.
    floor: u64,
    acks: u64,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match (words[0], words.len()) {
            ("A", 4) => self.acked.extend((number(2)..=number(3)).map(|index| (index, number(1)))),
            ("T", 2) => drop(self.acked.split_off(&number(1))),
            ("V", 2) => self.vote = number(1),
            ("P", 2) => self.floor = self.floor.max(number(1)),
            _ => return,
        }
        self.acks += 1;
    }

    /// Nothing acknowledged is missing. What survives is the truth from now on.
    fn compare(&mut self, survivors: &Survivors, round: u64) {
        let from = survivors.first;
        assert!(from <= self.floor + 1, "round {round}: purged before {from}, asked for {}", self.floor);
        for (index, term) in self.acked.range(from..) {
            assert_eq!(survivors.terms.get(index), Some(term), "round {round}: acknowledged entry {index} of term {term}");
        }
        assert!(survivors.vote >= self.vote, "round {round}: vote {} was acknowledged, {} is there", self.vote, survivors.vote);
        self.acked = survivors.terms.clone();
        self.vote = survivors.vote;
        self.floor = self.floor.max(from.saturating_sub(1));
    }
}

/// A working child and its lines.
pub struct Work {
    child: Child,
    lines: Receiver<String>,
}

impl Work {
    fn start(directory: &Path, seed: u64, die_at: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env("RUSD_CHILD_DIRECTORY", directory)
            .env("RUSD_CHILD_SEED", seed.to_string())
            .env("RUSD_CHILD_DIE_AT", die_at)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a child");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let work = Self { child, lines };
        while work.lines.recv().is_ok_and(|line| !line.ends_with("opening")) {}
        work
    }

    /// Listens for so many lines, so long, or until the child is gone.
    #[allow(clippy::disallowed_methods)] // The clock only chooses when to strike.
    fn hear(&self, said: &mut Said, lines: u64, time: Duration) {
        let end = Instant::now() + time;
        for _ in 0..lines {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => said.hear(&line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Kills the child and hears its last words. It must not have failed by itself.
    fn kill(mut self, said: &mut Said, quiet: bool) {
        let _ = self.child.kill();
        let output = self.child.wait_with_output().expect("the child's end");
        self.lines.iter().for_each(|line| said.hear(&line));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(quiet || !words.contains("panicked"), "the child failed:\n{words}");
    }
}

/// One test at a time: a child being forked by one would hold the locks of another for a moment.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    let seed = number("RUSD_SEED", u64::from(std::process::id()));
    println!("RUSD_SEED={seed}");
    seed
}

/// When to strike: mostly at work, often while the store is being opened.
fn moment(rng: &mut Rng) -> (u64, Duration) {
    if rng.below(3) == 0 { (u64::MAX, Duration::from_micros(rng.below(30_000))) } else { (rng.below(150), Duration::from_secs(5)) }
}

#[test]
fn a_killed_member_keeps_what_it_acknowledged() {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("member");
    let mut rng = Rng::new(seed());
    let mut said = Said::default();
    for round in 0..number("RUSD_ROUNDS", 8) {
        let work = Work::start(&path, rng.next(), "");
        let (lines, time) = moment(&mut rng);
        work.hear(&mut said, lines, time);
        work.kill(&mut said, false);
        said.compare(&workload::survivors(&path), round);
    }
    println!("{} acknowledged steps, all there", said.acks);
    assert!(said.acks > 0, "the child did nothing");
}

#[test]
fn a_kill_at_any_step_of_an_install_leaves_the_old_or_the_new_store() {
    let _alone = ALONE.lock();
    for step in ["keys copied", "log copied", "synced", "pointed", "done"] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("member");
        let mut said = Said::default();
        let work = Work::start(&path, 11, &format!("switch: {step}"));
        work.hear(&mut said, u64::MAX, Duration::from_secs(60));
        work.kill(&mut said, false);
        let survivors = workload::survivors(&path);
        said.compare(&survivors, 0);
        assert_eq!(survivors.installed, ["pointed", "done"].contains(&step), "killed after {step:?}");
        assert_eq!(workload::databases(&path), 1, "the other one is removed");
    }
}

/// Not a test: what the children run.
#[test]
#[ignore = "run by the other tests"]
fn child() {
    let Some(directory) = std::env::var_os("RUSD_CHILD_DIRECTORY") else { return };
    workload::work(Path::new(&directory), number("RUSD_CHILD_SEED", 1), &std::env::var("RUSD_CHILD_DIE_AT").unwrap_or_default());
}
