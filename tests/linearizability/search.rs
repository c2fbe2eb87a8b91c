//! Wing-Gong/Lowe search over the register of one key, blind to revisions: a second opinion that does not believe the headers. Keys are
//! independent registers (no operation here spans keys), so checking each alone is sound (Herlihy and Wing's locality).

use std::collections::HashSet;

/// An operation on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Register {
    /// Sets it (`None` deletes).
    Write(Option<u32>),
    /// Saw this.
    Read(Option<u32>),
}

/// One operation with its interval; an unknown outcome has `end == u64::MAX` and may also never happen.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What it did.
    pub operation: Register,
}

/// Whether some order of the events, respecting real time, is a legal history of a register that starts empty.
/// Depth-first with memory of visited (done set, value) pairs; gives up (`None`) after `steps_max` steps.
pub fn linearizable(events: &[Event], steps_max: usize) -> Option<bool> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|at| events[*at].start);
    let events: Vec<&Event> = order.into_iter().map(|at| &events[at]).collect();
    let mut visited: HashSet<(usize, Vec<u32>, Option<u32>)> = HashSet::new();
    // (all before `low` are done, done ones beyond it, value)
    let mut stack: Vec<(usize, Vec<u32>, Option<u32>)> = vec![(0, Vec::new(), None)];
    for _ in 0..steps_max {
        let Some((low, done, value)) = stack.pop() else { return Some(false) };
        // Only what began before the first end among the open ones may come next.
        let mut first_end = u64::MAX;
        let mut candidates = Vec::new();
        for at in (low..events.len()).filter(|at| done.binary_search(&(*at as u32)).is_err()) {
            if events[at].start > first_end {
                break;
            }
            first_end = first_end.min(events[at].end);
            candidates.push(at);
        }
        if first_end == u64::MAX {
            return Some(true);
        }
        for at in candidates.into_iter().filter(|at| events[*at].start <= first_end) {
            let after = match &events[at].operation {
                Register::Read(seen) if *seen == value => value,
                Register::Read(_) => continue,
                Register::Write(new) => *new,
            };
            let next = advance(low, &done, at, events.len());
            let key = (next.0, next.1, after);
            if visited.insert(key.clone()) {
                stack.push(key);
            }
        }
    }
    None
}

fn advance(mut low: usize, done: &[u32], at: usize, len: usize) -> (usize, Vec<u32>) {
    let mut done = done.to_vec();
    let place = done.partition_point(|other| (*other as usize) < at);
    done.insert(place, at as u32);
    let mut passed = 0;
    while low < len && done.get(passed).is_some_and(|first| *first as usize == low) {
        low += 1;
        passed += 1;
    }
    done.drain(..passed);
    (low, done)
}
