//! What a member counts of its state, for whoever scrapes it. Counting is a relaxed add; what is read together belongs together only
//! roughly. All of it begins at zero with the process and outlives an installed snapshot.
//!
//! The clock here only measures; it never reaches the state.
#![allow(clippy::disallowed_methods)]

use crate::command::proposal::Command;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Grows only.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }
    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many are under way.
#[derive(Debug, Default)]
pub struct Inflight(AtomicU64);

/// One that is under way.
pub struct Begun<'a>(&'a Inflight);

impl Inflight {
    /// One more, until it is dropped.
    pub fn begin(&self) -> Begun<'_> {
        self.0.fetch_add(1, Relaxed);
        Begun(self)
    }
    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Whole numbers by size, in buckets whose bounds double, as etcd's.
#[derive(Debug)]
pub struct Histogram {
    bounds: Box<[f64]>,
    /// One for each bound, and one for what lies beyond.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// What is observed counts so many of these for 1 of the bounds.
    scale: f64,
}

/// What a histogram holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Upper bound, and how many are not above it.
    pub buckets: Vec<(f64, u64)>,
    /// All.
    pub count: u64,
    /// Of all, in units of the bounds.
    pub sum: f64,
}

impl Histogram {
    /// `buckets` bounds from `first` on, for numbers as they are.
    pub fn numbers(first: f64, buckets: i32) -> Self {
        let bounds: Box<[f64]> = (0..buckets).map(|power| first * 2f64.powi(power)).collect();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0), scale: 1.0 }
    }

    /// The same for durations, with bounds in seconds.
    pub fn seconds(first: f64, buckets: i32) -> Self {
        Self { scale: 1e6, ..Self::numbers(first, buckets) }
    }

    /// Takes in a number.
    pub fn observe(&self, number: u64) {
        let value = number as f64 / self.scale;
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(number, Relaxed);
    }

    /// Takes in a duration, for one made by [`Self::seconds`].
    pub fn took(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// All that was observed.
    pub fn observed(&self) -> Observed {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let mut count = 0;
        let buckets = self
            .bounds
            .iter()
            .zip(&counts)
            .map(|(bound, within)| {
                count += within;
                (*bound, count)
            })
            .collect();
        let beyond = counts.last().copied().unwrap_or(0);
        Observed { buckets, count: count + beyond, sum: self.sum.load(Relaxed) as f64 / self.scale }
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    pub fn start() -> Self {
        Self(Instant::now())
    }
    /// Since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
    /// The same in whole milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Operations on keys of one request, told when it is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Ranges, compares among them.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletes, however many keys each finds.
    pub deletes: u64,
    /// Keys and values put, bytes.
    pub put_bytes: u64,
}

/// Operations on keys.
#[derive(Debug, Default)]
pub struct Keys {
    /// Ranges.
    pub ranges: Counter,
    /// Puts.
    pub puts: Counter,
    /// Deletes.
    pub deletes: Counter,
    /// Requests of more than one operation, as etcd counts them.
    pub txns: Counter,
    /// Keys and values put, bytes.
    pub put_bytes: Counter,
}

impl Keys {
    /// Takes in a request that is over.
    pub fn add(&self, tally: Tally) {
        for (counter, more) in [(&self.ranges, tally.ranges), (&self.puts, tally.puts), (&self.deletes, tally.deletes)] {
            if more > 0 {
                counter.add(more);
            }
        }
        if tally.put_bytes > 0 {
            self.put_bytes.add(tally.put_bytes);
        }
        if tally.ranges + tally.puts + tally.deletes > 1 {
            self.txns.inc();
        }
    }
}

/// Leases, as they are applied.
#[derive(Debug)]
pub struct Leases {
    /// Granted.
    pub granted: Counter,
    /// Revoked, by clients or because they were over.
    pub revoked: Counter,
    /// Seconds that each was granted for.
    pub ttl: Histogram,
}

/// Compactions on disk, and hashes on demand.
#[derive(Debug)]
pub struct Compactions {
    /// Revisions removed.
    pub keys: Counter,
    /// When the last one was done.
    last: Mutex<Option<Stopwatch>>,
    /// Whole ones, ms.
    pub total: Histogram,
    /// Steps over the frames, ms.
    pub step: Histogram,
    /// Steps over the index, ms.
    pub index_step: Histogram,
    /// Hashes of everything.
    pub hash: Histogram,
    /// Hashes at a revision.
    pub hash_revision: Histogram,
}

impl Compactions {
    /// One is done.
    pub fn done(&self, took: Stopwatch) {
        self.total.observe(took.millis());
        *self.last.lock() = Some(Stopwatch::start());
    }
    /// How long ago the last one was done; none since the start.
    pub fn since_last(&self) -> Option<Duration> {
        self.last.lock().map(Stopwatch::elapsed)
    }
}

/// Snapshots, of which "made" means that the state is durable and the log may go.
#[derive(Debug)]
pub struct Snapshots {
    /// Made: what was open put into frames.
    pub framed: Histogram,
    /// Made: synced.
    pub synced: Histogram,
    /// Made, both.
    pub made: Histogram,
    /// Sent whole, from first to last chunk.
    pub sent: Histogram,
    /// Received: synced.
    pub received_synced: Histogram,
    /// Received and synced, from first to last chunk.
    pub received: Histogram,
}

impl Default for Snapshots {
    fn default() -> Self {
        let disk = || Histogram::seconds(0.001, 14);
        let (sent, received) = (Histogram::seconds(0.01, 17), Histogram::seconds(0.1, 10));
        Self { framed: disk(), synced: disk(), made: disk(), sent, received_synced: disk(), received }
    }
}

/// How long things of one kind take, by how they end.
#[derive(Debug)]
pub struct Outcomes {
    /// Those that end well.
    pub success: Histogram,
    /// The others.
    pub failure: Histogram,
}

impl Outcomes {
    /// See [`Histogram::seconds`].
    pub fn seconds(first: f64, buckets: i32) -> Self {
        Self { success: Histogram::seconds(first, buckets), failure: Histogram::seconds(first, buckets) }
    }
    /// One took so long.
    pub fn took(&self, success: bool, duration: Duration) {
        if success { &self.success } else { &self.failure }.took(duration);
    }
}

/// Kinds of commands as etcd calls them; the index is that of [`kind_of`].
pub const KINDS: [&str; 10] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
];

/// Which of [`KINDS`] a command is; none for one that etcd doesn't apply as a request, or that is unknown.
pub fn kind_of(command: &Command) -> Option<usize> {
    Some(match command {
        Command::Put(_) => 0,
        Command::DeleteRange(_) => 1,
        Command::Txn(_) => 2,
        Command::Compact(_) => 3,
        Command::LeaseGrant(_) => 4,
        Command::LeaseRevoke(_) => 5,
        Command::LeaseCheckpoint(_) => 6,
        Command::Alarm(_) => 7,
        Command::PublishMember(_) => 8,
        Command::SetClusterVersion(_) => 9,
        _ => return None,
    })
}

/// All of it.
#[derive(Debug)]
pub struct Measures {
    /// Operations on keys.
    pub keys: Keys,
    /// Leases.
    pub leases: Leases,
    /// Compactions.
    pub compactions: Compactions,
    /// Entries applied, by [`KINDS`].
    pub applies: [Outcomes; KINDS.len()],
    /// What took longer to apply or to read than an operator is to hear of.
    pub slow: Counter,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// Snapshots that are being put in the place of the state.
    pub installing: Inflight,
}

impl Default for Measures {
    fn default() -> Self {
        let millis = |first, buckets| Histogram::numbers(first, buckets);
        Self {
            keys: Keys::default(),
            leases: Leases { granted: Counter::default(), revoked: Counter::default(), ttl: Histogram::numbers(1.0, 24) },
            compactions: Compactions {
                keys: Counter::default(),
                last: Mutex::default(),
                total: millis(100.0, 14),
                step: millis(1.0, 13),
                index_step: millis(0.5, 14),
                hash: Histogram::seconds(0.01, 15),
                hash_revision: Histogram::seconds(0.01, 15),
            },
            applies: std::array::from_fn(|_| Outcomes::seconds(0.0001, 20)),
            slow: Counter::default(),
            snapshots: Snapshots::default(),
            installing: Inflight::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_on_a_bound_counts_below_it() {
        let histogram = Histogram::seconds(0.001, 3);
        for micros in [0, 1000, 1001, 4000, 4001] {
            histogram.observe(micros);
        }
        let observed = histogram.observed();
        assert_eq!(observed.buckets, [(0.001, 2), (0.002, 3), (0.004, 4)]);
        assert_eq!((observed.count, observed.sum), (5, 0.010002));
    }

    #[test]
    fn only_several_operations_make_a_txn() {
        let keys = Keys::default();
        keys.add(Tally { puts: 1, put_bytes: 7, ..Tally::default() });
        keys.add(Tally { puts: 1, ranges: 2, ..Tally::default() });
        keys.add(Tally::default());
        assert_eq!((keys.puts.get(), keys.ranges.get(), keys.txns.get(), keys.put_bytes.get()), (2, 2, 1, 7));
    }
}
