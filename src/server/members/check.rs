//! What `--strict-reconfig-check` forbids: changes after which the cluster could lose its quorum (contract b.12).
//!
//! A member that waits to become a voter counts as one here, as it does for an operator: the answers are etcd's. What etcd's rules can't
//! foresee (a new member that never comes up) costs nothing here, since it doesn't vote before it has caught up.

use crate::server::Error;
use rusd_storage::command::MemberRecord;

/// The members, and whom the judging member is connected to.
pub struct View<'a> {
    /// All members.
    pub members: &'a [MemberRecord],
    /// Whether the link to a member has been up long enough; of the judging member itself, true.
    pub connected: &'a dyn Fn(u64) -> bool,
    /// Whether there is a link to a member at all.
    pub linked: &'a dyn Fn(u64) -> bool,
}

/// A voter in an operator's eyes.
pub fn is_voter(record: &MemberRecord) -> bool {
    !record.is_learner || record.pending_voter
}

/// It has been up once: it has said its name.
pub fn is_started(record: &MemberRecord) -> bool {
    !record.name.is_empty()
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl View<'_> {
    fn voters(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.iter().filter(|record| is_voter(record))
    }

    fn connected_voters(&self) -> usize {
        self.voters().filter(|record| (self.connected)(record.id)).count()
    }

    /// A voter or a learner comes.
    pub fn may_add(&self, learner: bool) -> Result<(), Error> {
        let (voters, started) = (self.voters().count(), self.voters().filter(|record| is_started(record)).count());
        let grows_from_one = voters == 1 && started == 1;
        if !learner && !grows_from_one && started < quorum(voters + 1) {
            return Err(Error::NotEnoughStarted);
        }
        if voters != 1 && self.connected_voters() < quorum(voters + 1) {
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    /// A member goes.
    pub fn may_remove(&self, id: u64, me: u64) -> Result<(), Error> {
        let Some(leaving) = self.members.iter().find(|record| record.id == id) else {
            return self.others_keep_a_quorum(id);
        };
        if !is_voter(leaving) {
            return Ok(());
        }
        self.others_keep_a_quorum(id)?;
        if id != me && !(self.linked)(id) {
            return Ok(());
        }
        let voters = self.voters().count();
        if self.connected_voters().saturating_sub(1) < quorum(voters - 1) { Err(Error::Unhealthy) } else { Ok(()) }
    }

    fn others_keep_a_quorum(&self, id: u64) -> Result<(), Error> {
        let others = || self.voters().filter(|record| record.id != id);
        let started = others().filter(|record| is_started(record)).count();
        if started < quorum(others().count()) { Err(Error::NotEnoughStarted) } else { Ok(()) }
    }

    /// A learner becomes a voter; it counts as started.
    pub fn may_promote(&self) -> Result<(), Error> {
        let started = self.voters().filter(|record| is_started(record)).count();
        if started + 1 < quorum(self.voters().count() + 1) { Err(Error::NotEnoughStarted) } else { Ok(()) }
    }

    /// A quorum with one more voter could be reached without any other member than those we have a link to.
    pub fn survives_promotion(&self) -> bool {
        let voters = self.members.iter().filter(|record| !record.is_learner);
        let linked = voters.clone().filter(|record| (self.linked)(record.id)).count();
        linked + 1 >= quorum(voters.count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> MemberRecord {
        MemberRecord { id, name: name.into(), ..MemberRecord::default() }
    }
    fn learner(id: u64) -> MemberRecord {
        MemberRecord { is_learner: true, ..member(id, "l") }
    }
    fn pending(id: u64, name: &str) -> MemberRecord {
        MemberRecord { is_learner: true, pending_voter: true, ..member(id, name) }
    }

    /// Judged by member 1, connected to itself and `up`.
    fn judge<T>(members: &[MemberRecord], up: &[u64], ask: impl Fn(View<'_>) -> T) -> T {
        let connected = |id| id == 1 || up.contains(&id);
        ask(View { members, connected: &connected, linked: &connected })
    }
    fn add(members: &[MemberRecord], up: &[u64], learner: bool) -> String {
        judge(members, up, |view| view.may_add(learner)).map_or_else(|error| error.to_string(), |()| "ok".into())
    }
    fn remove(members: &[MemberRecord], up: &[u64], id: u64) -> String {
        judge(members, up, |view| view.may_remove(id, 1)).map_or_else(|error| error.to_string(), |()| "ok".into())
    }
    const UNHEALTHY: &str = "unhealthy cluster";
    const NOT_STARTED: &str = "re-configuration failed due to not enough started members";

    #[test]
    fn adding() {
        let one = [member(1, "a")];
        assert_eq!(add(&one, &[], false), "ok");
        // 1 -> 2 -> 3 with the second never started.
        for second in [member(2, ""), pending(2, "")] {
            assert_eq!(add(&[member(1, "a"), second.clone()], &[], false), NOT_STARTED);
            assert_eq!(add(&[member(1, "a"), second], &[], true), UNHEALTHY);
        }
        let three = [member(1, "a"), member(2, "b"), member(3, "c")];
        assert_eq!(add(&three, &[2, 3], false), "ok");
        assert_eq!(add(&three, &[2], false), UNHEALTHY, "three of four are needed");
        assert_eq!(add(&three, &[2], true), UNHEALTHY);
        assert_eq!(add(&[member(1, "a"), learner(9)], &[], false), "ok", "learners don't count");
    }

    #[test]
    fn removing() {
        let three = [member(1, "a"), member(2, "b"), member(3, "c")];
        assert_eq!(remove(&three, &[2, 3], 3), "ok");
        assert_eq!(remove(&three, &[2], 3), "ok", "a dead one may go");
        assert_eq!(remove(&three, &[2], 2), UNHEALTHY, "not the one that keeps the quorum");
        assert_eq!(remove(&three, &[2], 1), UNHEALTHY);
        assert_eq!(remove(&[member(1, "a")], &[], 1), NOT_STARTED);
        assert_eq!(remove(&[member(1, "a"), pending(2, "")], &[], 2), "ok");
        assert_eq!(remove(&[member(1, "a"), pending(2, "")], &[], 1), NOT_STARTED);
        assert_eq!(remove(&[member(1, "a"), learner(2)], &[], 2), "ok");
    }

    #[test]
    fn promoting() {
        let may = |members: &[MemberRecord]| judge(members, &[], |view| view.may_promote()).is_ok();
        assert!(may(&[member(1, "a"), learner(2)]));
        assert!(!may(&[member(1, "a"), member(2, ""), member(3, ""), learner(4)]));
        let survives = |members: &[MemberRecord], up: &[u64]| judge(members, up, |view| view.survives_promotion());
        assert!(survives(&[member(1, "a"), pending(2, "b")], &[2]));
        let three = [member(1, "a"), member(2, "b"), member(3, "c"), pending(4, "d")];
        assert!(survives(&three, &[2, 4]));
        assert!(!survives(&three, &[4]), "two of four are no quorum");
    }
}
