//! The last events the follower has handed out, so that who lags a little joins again without reading history.

use super::event::Event;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most bytes of events kept.
pub const RECENT_BYTES: usize = 1 << 20;
/// Most events kept.
pub const RECENT_EVENTS: usize = 4096;

/// All events from `from` up to the follower's position.
#[derive(Debug)]
pub struct Recent {
    from: i64,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl Recent {
    /// Knows nothing below `from`.
    pub fn new(from: i64) -> Self {
        Self { from, events: VecDeque::new(), bytes: 0 }
    }

    /// The lowest revision of which every event is here.
    pub fn from(&self) -> i64 {
        self.from
    }

    /// Appends newer events, dropping the oldest beyond the bounds.
    pub fn extend(&mut self, events: &[Arc<Event>]) {
        self.bytes += events.iter().map(|event| event.weight()).sum::<usize>();
        self.events.extend(events.iter().cloned());
        while self.bytes > RECENT_BYTES || self.events.len() > RECENT_EVENTS {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.from = self.from.max(oldest.revision() + 1);
        }
    }

    /// Forgets all: nothing below `from` was read.
    pub fn restart(&mut self, from: i64) {
        *self = Self::new(from);
    }

    /// Events from `cursor` on; right only for `cursor >= self.from()`.
    pub fn since(&self, cursor: i64) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.events.partition_point(|event| event.revision() < cursor);
        self.events.range(start..)
    }
}
