//! Stands in for the crate of this name, of which openraft makes its statistics: the original fills tables for sixteen precisions when the
//! first histogram is made, 26 MB that stay in memory, and openraft uses the third only. This has what openraft 0.10 calls, computes
//! where the original looks up, and has no tables. rusd itself reads none of these statistics.

use std::fmt;
use std::marker::PhantomData;

/// Values below it have a bucket each; above it every power of two has this many.
const SUB_BUCKETS: u64 = 4;

/// Enough for every value of 64 bits: the small ones, then four for each higher bit.
const BUCKETS: usize = 252;

/// How often values of about the same size were seen; off by a quarter at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Made by the first record.
    buckets: Vec<u64>,
    samples: u64,
    periods: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bits below the highest ones that tell buckets apart.
fn shift(value: u64) -> u32 {
    (u64::BITS - value.leading_zeros()).saturating_sub(3)
}

fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS {
        return value as usize;
    }
    let shift = shift(value);
    (SUB_BUCKETS * u64::from(shift) + (value >> shift)) as usize
}

/// The least value of a bucket.
fn least(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB_BUCKETS {
        return bucket;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    (bucket - SUB_BUCKETS * shift) << shift
}

impl<T> Histogram<T> {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self { buckets: Vec::new(), samples: 0, periods: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        self.buckets[bucket(value)] += count;
        self.samples += count;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.samples
    }

    /// The least value of the bucket in which this part (0 to 1) of all values is reached; 0 if there are none.
    pub fn percentile(&self, part: f64) -> u64 {
        let mut left = (self.samples as f64 * part).ceil().max(1.0) as u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            if *count >= left {
                return least(bucket);
            }
            left -= count;
        }
        0
    }

    /// The percentiles openraft shows.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.samples,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it: p99_9 is the value that 99.9 % don't exceed")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} samples, median {}, 90 % {}, 99 % {}, 99.9 % {}", self.samples, self.p50, self.p90, self.p99, self.p99_9)
    }
}

/// Named histograms side by side. openraft draws them with its feature `runtime-stats` only, which rusd doesn't have.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_begins_below_it() {
        let around = |bit: u32| [1u64 << bit, (1 << bit) + (1 << bit) / 3, u64::MAX >> (63 - bit)];
        for value in (0..64).flat_map(around).chain(0..5000) {
            let bucket = bucket(value);
            assert!(bucket < BUCKETS && least(bucket) <= value && value - least(bucket) <= least(bucket) / 4, "{value}: {bucket}");
            assert!(bucket + 1 == BUCKETS || least(bucket + 1) > value, "{value}: {bucket}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (0..100).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p99), (100, 0, 48, 96));
    }
}
