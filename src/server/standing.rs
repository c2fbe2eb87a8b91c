//! What clients may take this member for: a learner, or a voter.
//!
//! | | told by openraft | told by the member's record |
//! |---|---|---|
//! | before the record is known here | counts | |
//! | a learner | learner | learner |
//! | a voter that was added and waits for its vote | learner | voter, as with etcd |
//! | a voter | voter | voter |
//!
//! So the record counts as soon as there is one.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct Standing {
    told: Mutex<Told>,
    /// What follows from both, for every request to read without a lock.
    learner: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    by_raft: bool,
    by_record: Option<bool>,
}

impl Standing {
    /// openraft takes this member for a learner, or no longer.
    pub fn by_raft(&self, learner: bool) {
        self.note(|told| told.by_raft = learner);
    }

    /// So does its record; `None` = there is none.
    pub fn by_record(&self, learner: Option<bool>) {
        self.note(|told| told.by_record = learner);
    }

    /// Whether this member serves as a learner.
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Acquire)
    }

    /// Stored under the lock, so that of two who tell something at once the later one sees both.
    fn note(&self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock();
        change(&mut told);
        self.learner.store(told.by_record.unwrap_or(told.by_raft), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_counts_once_there_is_one() {
        let standing = Standing::default();
        standing.by_raft(true);
        assert!(standing.is_learner(), "nothing else is known yet");
        standing.by_record(Some(false));
        assert!(!standing.is_learner(), "a voter that waits for its vote");
        standing.by_raft(true);
        assert!(!standing.is_learner(), "openraft hasn't given it its vote");
        standing.by_raft(false);
        standing.by_record(Some(true));
        assert!(standing.is_learner());
        standing.by_record(None);
        assert!(!standing.is_learner());
    }
}
