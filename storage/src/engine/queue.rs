//! The writer's queue: bounded in bytes, drained as a whole. The clock only paces the drain.
#![allow(clippy::disallowed_methods)]

use super::{Completion, FrameId, Incoming, LogEntry, StateFrame};
use crate::error::StorageError;
use crate::types::LogPosition;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Instant;

/// State frames wait for room while more than this is queued. Log entries are bounded by openraft.
const STATE_BYTES_MAX: usize = 16 << 20;

/// Work for the writer thread.
pub enum Job {
    /// Log entries, and the job number that lets them leave the tail.
    Append(Vec<LogEntry>, u64, Completion),
    /// Drop entries from this index on.
    Truncate(u64, Completion),
    /// Raise the floor.
    Purge(LogPosition, Completion),
    /// Save the vote.
    Vote(Bytes, Completion),
    /// A state frame.
    State(FrameId, StateFrame),
    /// A copy of what lives in others, or nothing, in place of them.
    Replace(Option<(FrameId, StateFrame)>, Vec<FrameId>),
    /// Everything before is durable.
    Sync(Completion),
    /// An installed snapshot becomes current.
    Switch(Box<Incoming>, LogPosition, Completion),
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    entries: usize,
    state_bytes: usize,
    /// The consumer waits for company: wake it at this many entries, or for a job that cannot wait.
    wanted: Option<usize>,
    closed: bool,
}

/// Many producers, one consumer.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
}

/// What a drain took.
pub struct Drain {
    /// In order.
    pub jobs: VecDeque<Job>,
    /// Log entries among them.
    pub entries: usize,
}

impl Queue {
    /// Adds a job; false (and the job back) once closed.
    pub fn push(&self, job: Job) -> Result<(), Job> {
        let (entries, bytes) = match &job {
            Job::Append(entries, ..) => (entries.len(), 0),
            Job::State(_, frame) | Job::Replace(Some((_, frame)), _) => (0, frame.body.len()),
            _ => (0, 0),
        };
        let mut inner = self.inner.lock();
        while bytes > 0 && inner.state_bytes > STATE_BYTES_MAX && !inner.closed {
            self.room.wait(&mut inner);
        }
        if inner.closed {
            return Err(job);
        }
        inner.entries += entries;
        inner.state_bytes += bytes;
        let wake = match inner.wanted {
            Some(wanted) => !job.is_patient() || inner.entries >= wanted,
            None => inner.jobs.is_empty(),
        };
        if wake {
            inner.wanted = None;
        }
        inner.jobs.push_back(job);
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits for work and takes all of it. With `company`, waits until that time, or until `enough` entries are there, for more to come.
    /// `None` when closed and empty.
    pub fn drain(&self, company: Option<(Instant, usize)>) -> Option<Drain> {
        let mut inner = self.inner.lock();
        while inner.jobs.is_empty() {
            if inner.closed {
                return None;
            }
            self.work.wait(&mut inner);
        }
        if let Some((until, enough)) = company
            && inner.entries < enough
            && inner.jobs.iter().all(Job::is_patient)
        {
            inner.wanted = Some(enough);
            while inner.wanted.is_some() && !inner.closed && !self.work.wait_until(&mut inner, until).timed_out() {}
            inner.wanted = None;
        }
        let drain = Drain { jobs: std::mem::take(&mut inner.jobs), entries: inner.entries };
        inner.entries = 0;
        inner.state_bytes = 0;
        self.room.notify_all();
        Some(drain)
    }

    /// No more jobs; the consumer ends after what is queued.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }
}

impl Job {
    /// Whether it may wait for entries to share its sync with.
    fn is_patient(&self) -> bool {
        matches!(self, Self::Append(..) | Self::State(..) | Self::Replace(..))
    }

    /// Tells whoever waits that it failed.
    pub fn fail(self, error: &StorageError) {
        match self {
            Self::Append(_, _, done)
            | Self::Truncate(_, done)
            | Self::Purge(_, done)
            | Self::Vote(_, done)
            | Self::Sync(done)
            | Self::Switch(_, _, done) => {
                done(Err(error.clone()));
            }
            Self::State(..) | Self::Replace(..) => {}
        }
    }
}
