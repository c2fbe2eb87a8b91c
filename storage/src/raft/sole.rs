//! Whether one member is the whole cluster: then what it has applied is all that anybody was ever told, and a read needs no round.
//!
//! ```text
//! append of a membership, before anybody is sent it       -> not known to be alone
//! that entry and all before it applied and published      -> the only member, if the applied membership has no other
//! ```
//!
//! So while a member is alone by this, every membership of its log is applied and none names another member, learners included. Whoever
//! is added later is sent nothing before its entry is appended here; whoever was removed acknowledged only what lies before the entry
//! that removed it, which is applied. Openraft's own view of the membership is no proof: it is published after the entries were sent.

use super::types::Membership;
use crate::types::LogPosition;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct SoleMember {
    /// The only member, 0 if there are others or that isn't known.
    id: AtomicU64,
    /// Whether a membership may be in the log that isn't applied.
    open: AtomicBool,
    /// Up to which index.
    until: Mutex<u64>,
    /// Term of the last applied entry.
    term: AtomicU64,
}

impl SoleMember {
    /// Of a log that ends at `last`: there may be a membership in what isn't applied.
    pub(super) fn new(last: Option<LogPosition>) -> Self {
        Self { open: AtomicBool::new(true), until: Mutex::new(last.map_or(0, |last| last.index)), ..Self::default() }
    }

    /// The term that the only member has applied an entry of last; `None` unless that is `id`. Without a lock.
    pub fn applied_term(&self, id: u64) -> Option<u64> {
        (self.id.load(Ordering::Acquire) == id).then(|| self.term.load(Ordering::Acquire))
    }

    /// A membership is about to be appended at `index`.
    pub(super) fn changing(&self, index: u64) {
        let mut until = self.until.lock();
        self.id.store(0, Ordering::Release);
        self.open.store(true, Ordering::Release);
        *until = (*until).max(index);
    }

    /// All up to `at` is applied and published; `membership` tells the applied one.
    pub(super) fn applied(&self, at: LogPosition, membership: impl FnOnce() -> Membership) {
        self.term.store(at.term, Ordering::Release);
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let until = self.until.lock();
        if at.index < *until {
            return;
        }
        let membership = membership();
        let mut members = membership.nodes().map(|(id, _)| *id);
        let sole = members.next().filter(|_| members.next().is_none()).unwrap_or(0);
        self.open.store(false, Ordering::Release);
        self.id.store(sole, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Node;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 3, index }
    }

    fn members(ids: &[u64]) -> Membership {
        let nodes: BTreeMap<u64, Node> = ids.iter().map(|id| (*id, Node { peer_urls: Vec::new() })).collect();
        Membership::new(vec![BTreeSet::from([ids[0]])], nodes).expect("the voter has a node")
    }

    #[test]
    fn alone_only_while_every_membership_of_the_log_is_applied() {
        let sole = SoleMember::new(Some(at(9)));
        assert_eq!(sole.applied_term(7), None);
        sole.applied(at(8), || members(&[7]));
        assert_eq!(sole.applied_term(7), None, "entry 9 may be a membership");
        sole.applied(at(9), || members(&[7]));
        assert_eq!((sole.applied_term(7), sole.applied_term(8)), (Some(3), None));
        sole.applied(LogPosition { term: 4, index: 10 }, || unreachable!("nothing is open"));
        assert_eq!(sole.applied_term(7), Some(4));
        sole.changing(12);
        assert_eq!(sole.applied_term(7), None, "at once");
        sole.applied(at(11), || members(&[7]));
        assert_eq!(sole.applied_term(7), None);
        sole.applied(at(12), || members(&[7, 8]));
        assert_eq!(sole.applied_term(7), None, "a learner is a member, too");
        sole.changing(15);
        sole.applied(at(20), || members(&[7]));
        assert_eq!(sole.applied_term(7), Some(3));
    }

    #[test]
    fn nobody_is_alone_in_an_empty_membership() {
        let sole = SoleMember::new(None);
        sole.applied(at(0), Membership::default);
        assert_eq!(sole.applied_term(7), None);
    }
}
