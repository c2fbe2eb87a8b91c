//! Figures of the writer: fdatasyncs and how long they took, in etcd's buckets (1 ms doubling, 14 of them); and whether the disk is sick.
//!
//! The clock here only measures; it never reaches the state.
#![allow(clippy::disallowed_methods)]

use crate::measure::{Counter, Histogram};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Cumulative since start.
#[derive(Debug)]
pub struct EngineMetrics {
    /// Frames of the log put into sled for one sync, seconds.
    pub log_writes: Histogram,
    /// Bytes of these frames.
    pub log_bytes: Counter,
    /// fdatasyncs, seconds.
    pub syncs: Histogram,
    /// All that one sync makes durable, log and state, written and synced, seconds.
    pub commits: Histogram,
    recent: Mutex<Recent>,
}

/// So many syncs in a row make a habit.
const HABIT: usize = 3;

/// The last syncs and the running one.
#[derive(Debug, Default)]
struct Recent {
    running: Option<Instant>,
    /// When each began, and how long it took; the oldest first.
    last: std::collections::VecDeque<(Instant, Duration)>,
}

impl Recent {
    fn is_sick(&self, now: Instant, slow: Duration, long: Duration) -> bool {
        if self.running.is_some_and(|began| now - began >= long) {
            return true;
        }
        let habit = self.last.len() == HABIT && self.last.iter().all(|(_, took)| *took >= slow);
        // What was slow long ago and hasn't been tried since proves nothing.
        let fresh = self.last.back().is_some_and(|(began, took)| now - (*began + *took) < long);
        habit && fresh
    }
}

impl EngineMetrics {
    /// An fdatasync begins.
    pub fn syncing(&self) {
        self.recent.lock().running = Some(Instant::now());
    }

    /// Whether the disk is sick: the last three syncs took `slow` or more each, the newest of them less than `long` ago, or one has been
    /// running for `long`.
    pub fn is_sick(&self, slow: Duration, long: Duration) -> bool {
        self.recent.lock().is_sick(Instant::now(), slow, long)
    }

    /// One fdatasync took this long.
    pub fn synced(&self, took: Duration) {
        let mut recent = self.recent.lock();
        if let Some(began) = recent.running.take() {
            recent.last.push_back((began, took));
            if recent.last.len() > HABIT {
                recent.last.pop_front();
            }
        }
        drop(recent);
        self.syncs.took(took);
    }
}

impl Default for EngineMetrics {
    fn default() -> Self {
        let disk = || Histogram::seconds(0.001, 14);
        Self { log_writes: disk(), log_bytes: Counter::default(), syncs: disk(), commits: disk(), recent: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_sick_by_habit_or_when_it_hangs() {
        let (slow, long) = (Duration::from_secs(1), Duration::from_secs(5));
        let begin = Instant::now();
        let at = |secs: u64| begin + Duration::from_secs(secs);
        let took = |last: &[(u64, u64)], running: Option<u64>| Recent {
            running: running.map(at),
            last: last.iter().map(|(began, took)| (at(*began), Duration::from_secs(*took))).collect(),
        };
        assert!(!took(&[], None).is_sick(at(9), slow, long));
        assert!(!took(&[(0, 2), (2, 2)], None).is_sick(at(4), slow, long), "twice is no habit");
        assert!(took(&[(0, 2), (2, 2), (4, 2)], None).is_sick(at(6), slow, long));
        assert!(!took(&[(0, 2), (2, 0), (4, 2)], None).is_sick(at(6), slow, long), "one was quick");
        assert!(!took(&[(0, 2), (2, 2), (4, 2)], None).is_sick(at(60), slow, long), "long ago");
        assert!(!took(&[], Some(0)).is_sick(at(4), slow, long));
        assert!(took(&[], Some(0)).is_sick(at(5), slow, long));
    }
}
