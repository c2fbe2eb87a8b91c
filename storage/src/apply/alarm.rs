//! Alarms: activate and disarm.

use super::Rooms;
use crate::command::state::{AlarmMember, delta};
use crate::command::{Alarm, AlarmType, ApplyResult, Response, alarm::Action};

/// Raises or disarms one alarm and answers it, also one that was on already; answers nothing for no alarm, or one that was off.
pub fn alarm(rooms: &Rooms, change: &Alarm) -> ApplyResult {
    let member = AlarmMember { member_id: change.member_id, r#type: change.r#type };
    let mut alarms = rooms.alarms.write();
    let raise = change.action == Action::Activate as i32;
    let changed = if raise { alarms.raise(change.member_id, change.r#type) } else { alarms.disarm(change.member_id, change.r#type) };
    drop(alarms);
    if changed {
        rooms.delta(if raise { delta::Delta::AlarmOn(member) } else { delta::Delta::AlarmOff(member) });
    }
    let touched = changed || (raise && change.r#type != AlarmType::NoAlarm as i32);
    Ok(Response::Alarms { revision: rooms.store.revision(), alarms: if touched { vec![member] } else { Vec::new() } })
}
