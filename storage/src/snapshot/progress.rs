//! How much of a snapshot a receiver has, and which snapshots may go on from there.
//!
//! What is sent is decided by the log alone, not by what a sender has erased already: of the records up to the snapshot's revision, in order,
//! those that its compact revision leaves. So the first part of a snapshot, up to some revision k, is the same from any member that has
//! applied as much, as long as the compact revision is the same. With a newer compact revision it may still be continued if that lies at
//! or below k: then every change that killed a record of the part is in the part itself or is still to be sent, and the receiver's own
//! compaction finds what is dead, as after any start. Beyond k it may not: a key of the part may have been deleted, and the tombstone
//! erased, without a trace, so the key would rise again.

use crate::mvcc::Pin;
use crate::types::LogPosition;
use std::sync::Arc;

/// What a receiver has taken in, up to a revision that it has whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Applied position of the newest snapshot that a part came from.
    pub position: LogPosition,
    /// Compact revision of the first one.
    pub compact_revision: i64,
    /// The last revision taken in; 0 before the first.
    pub revision: i64,
    /// Revisions taken in.
    pub units: u64,
    /// Frames taken in.
    pub frames: u64,
    /// Records taken in.
    pub records: u64,
}

impl Progress {
    /// Whether the snapshot at `position` may go on from here. See the module.
    pub fn precedes(&self, position: LogPosition, compact_revision: i64) -> bool {
        let covered = self.compact_revision < compact_revision && compact_revision <= self.revision;
        self.revision > 0 && self.position <= position && (self.compact_revision == compact_revision || covered)
    }

    /// Whether these numbers, which another member said, can be true: they are counted on from.
    pub(super) fn is_plausible(&self) -> bool {
        let ascending = self.frames <= self.units && self.units <= self.records;
        ascending && self.units <= self.position.index && self.records < 1 << 62
    }
}

/// While it lives, the state machine hands out the same snapshot again, whatever is compacted meanwhile.
pub struct Hold {
    pub(super) _pin: Arc<Pin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_continued_only_where_nothing_can_have_vanished() {
        let at = |index| LogPosition { term: 2, index };
        let part = Progress { position: at(100), compact_revision: 20, revision: 50, units: 40, frames: 2, records: 60 };
        assert!(part.precedes(at(100), 20) && part.precedes(at(200), 20));
        assert!(part.precedes(LogPosition { term: 3, index: 101 }, 50), "what it compacts is all here");
        assert!(!part.precedes(at(200), 51), "revision 51 may have deleted something, and be gone");
        assert!(!part.precedes(at(200), 19) && !part.precedes(at(99), 20), "an older state");
        assert!(!Progress { revision: 0, ..part }.precedes(at(100), 20), "nothing");
        assert!(part.is_plausible());
        assert!(!Progress { units: u64::MAX, ..part }.is_plausible() && !Progress { records: u64::MAX, ..part }.is_plausible());
    }
}
