//! Alarms that are on, per member. The replicated fact; who raises them and why is the proposer's policy.

use crate::command::AlarmType;
use crate::command::state::AlarmMember;
use std::collections::BTreeSet;

/// All alarms, ordered by type and member.
#[derive(Debug, Default)]
pub struct Alarms {
    on: BTreeSet<(i32, u64)>,
}

impl Alarms {
    /// Raises; false if it was on or names no alarm.
    pub fn raise(&mut self, member_id: u64, kind: i32) -> bool {
        kind != AlarmType::NoAlarm as i32 && self.on.insert((kind, member_id))
    }
    /// Disarms; false if it was off.
    pub fn disarm(&mut self, member_id: u64, kind: i32) -> bool {
        self.on.remove(&(kind, member_id))
    }
    /// Whether any member has this alarm.
    pub fn is_on(&self, kind: AlarmType) -> bool {
        self.on.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }
    /// Whether this member has it.
    pub fn is_raised(&self, member_id: u64, kind: AlarmType) -> bool {
        self.on.contains(&(kind as i32, member_id))
    }
    /// All of them.
    pub fn all(&self) -> Vec<AlarmMember> {
        self.on.iter().map(|&(kind, member_id)| AlarmMember { member_id, r#type: kind }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_once_and_disarms_once() {
        let mut alarms = Alarms::default();
        assert!(!alarms.raise(1, AlarmType::NoAlarm as i32));
        assert!(alarms.raise(1, AlarmType::Nospace as i32));
        assert!(!alarms.raise(1, AlarmType::Nospace as i32));
        assert!(alarms.is_on(AlarmType::Nospace) && !alarms.is_on(AlarmType::Corrupt));
        assert!(alarms.disarm(1, AlarmType::Nospace as i32));
        assert!(!alarms.disarm(1, AlarmType::Nospace as i32));
    }
}
