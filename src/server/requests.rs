//! How long requests take on this member, by etcd's names for them.

use crate::server::Error;
use rusd_storage::command::proposal::Command;
use rusd_storage::measure::{Counter, Histogram, Inflight, KINDS, Measures, Outcomes, Stopwatch, kind_of};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Requests {
    /// Proposals, from being handed over to their result here, by [`KINDS`].
    pub proposals: [Outcomes; KINDS.len()],
    /// Ranges with their wait for an index.
    pub range: Outcomes,
    /// The same without it.
    pub reading: Outcomes,
    /// Txns that only read, without that wait.
    pub read_only_txn: Outcomes,
    /// Defragmentations: compactions that a client waits for.
    pub defragment: Histogram,
    /// Those under way.
    pub defragmenting: Inflight,
    /// Proposals under way.
    pub pending: Inflight,
    /// Proposals without an answer.
    pub failed: Counter,
    measures: Arc<Measures>,
    /// What takes longer to be read is counted and logged.
    slow: Duration,
}

impl Requests {
    /// At zero.
    pub fn new(measures: Arc<Measures>, slow: Duration) -> Self {
        let answers = || Outcomes::seconds(0.001, 14);
        Self {
            proposals: std::array::from_fn(|_| answers()),
            range: answers(),
            reading: Outcomes::seconds(0.0001, 20),
            read_only_txn: answers(),
            defragment: Histogram::seconds(0.1, 13),
            defragmenting: Inflight::default(),
            pending: Inflight::default(),
            failed: Counter::default(),
            measures,
            slow,
        }
    }

    /// A proposal is handed over.
    pub fn propose(&self, command: Option<&Command>) -> Proposing<'_> {
        let kind = command.and_then(kind_of).map(|kind| &self.proposals[kind]);
        Proposing { requests: self, kind, _pending: self.pending.begin(), watch: Stopwatch::start(), success: false }
    }

    /// A range of a client begins.
    pub fn range(&self) -> Reading<'_> {
        self.read(&self.range, Some("Range"))
    }
    /// A range has its index.
    pub fn reading(&self) -> Reading<'_> {
        self.read(&self.reading, None)
    }
    /// A txn that only reads has its index.
    pub fn read_only_txn(&self) -> Reading<'_> {
        self.read(&self.read_only_txn, Some("ReadonlyTxn"))
    }

    fn read<'a>(&'a self, outcomes: &'a Outcomes, name: Option<&'static str>) -> Reading<'a> {
        Reading { requests: self, outcomes, name, watch: Stopwatch::start(), success: false }
    }
}

/// A proposal under way; one whose client goes away counts as failed.
pub struct Proposing<'a> {
    requests: &'a Requests,
    kind: Option<&'a Outcomes>,
    _pending: rusd_storage::measure::Begun<'a>,
    watch: Stopwatch,
    success: bool,
}

impl Proposing<'_> {
    /// It has an answer; that the state rejects it is one.
    pub fn ended<T>(mut self, answer: Result<T, Error>) -> Result<T, Error> {
        self.success = matches!(answer, Ok(_) | Err(Error::Rejected(_)));
        answer
    }
}

impl Drop for Proposing<'_> {
    fn drop(&mut self) {
        if !self.success {
            self.requests.failed.inc();
        }
        if let Some(kind) = self.kind {
            kind.took(self.success, self.watch.elapsed());
        }
    }
}

/// A read under way.
pub struct Reading<'a> {
    requests: &'a Requests,
    outcomes: &'a Outcomes,
    /// Set if it is told of when it is slow.
    name: Option<&'static str>,
    watch: Stopwatch,
    success: bool,
}

impl Reading<'_> {
    /// It has an answer.
    pub fn ended<T, E>(mut self, answer: Result<T, E>) -> Result<T, E> {
        self.success = answer.is_ok();
        answer
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let took = self.watch.elapsed();
        self.outcomes.took(self.success, took);
        if let Some(kind) = self.name.filter(|_| took > self.requests.slow) {
            self.requests.measures.slow.inc();
            tracing::warn!(kind, ?took, expected = ?self.requests.slow, "apply request took too long");
        }
    }
}
