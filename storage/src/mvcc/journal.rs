//! Births and deaths of keys, newest last: what makes counts at older revisions cheap. A LIST in pages asks for the keys that were left in
//! its range at the revision of its first page; that is the count now, less births, plus deaths since.
//!
//! Turns gather in an open block. A full one is sorted by key with sums of births and deaths, so that a range of keys takes two searches.
//! The oldest blocks go when there are too many bytes; the revisions before them can't be counted so any more.

use super::in_range;
use std::collections::VecDeque;

/// Bytes remembered, about.
const BYTES_MAX: usize = 16 << 20;
/// Turns of a block.
const BLOCK_TURNS: usize = 1024;
/// Bytes of a turn beside its key.
const TURN_BYTES: usize = size_of::<Turn>();

/// A key began or ceased to be.
#[derive(Clone, Copy, Debug)]
struct Turn {
    main: i64,
    /// Where its key lies in the block's keys.
    begin: u32,
    end: u32,
    /// What it added to the number of keys; in a sorted block all before it too.
    sum: i32,
}

#[derive(Debug, Default)]
struct Block {
    keys: Vec<u8>,
    turns: Vec<Turn>,
    first: i64,
    last: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    sorted: VecDeque<Block>,
    open: Block,
    bytes: usize,
    /// It knows every turn above this main revision.
    floor: i64,
}

impl Block {
    fn key(&self, turn: &Turn) -> &[u8] {
        &self.keys[turn.begin as usize..turn.end as usize]
    }

    fn push(&mut self, main: i64, key: &[u8], birth: bool) {
        let place = |length: usize| u32::try_from(length).expect("a block of keys is far below 4 GiB");
        let begin = place(self.keys.len());
        self.keys.extend_from_slice(key);
        self.turns.push(Turn { main, begin, end: place(self.keys.len()), sum: if birth { 1 } else { -1 } });
        if self.turns.len() == 1 {
            self.first = main;
        }
        self.last = main;
    }

    fn bytes(&self) -> usize {
        self.keys.len() + self.turns.len() * TURN_BYTES
    }

    /// What turns in [`start`, `end`) added, those above `at` only. Whatever order they are in, while none has a sum.
    fn scan(&self, start: &[u8], end: &[u8], at: i64, mut added: impl FnMut(usize) -> i64) -> i64 {
        let turns = self.turns.iter().enumerate().filter(|(_, turn)| turn.main > at && in_range(self.key(turn), start, end));
        turns.map(|(place, _)| added(place)).sum()
    }

    /// Sorts, and sums up.
    fn sort(&mut self) {
        let mut turns = std::mem::take(&mut self.turns);
        turns.sort_by(|a, b| self.key(a).cmp(self.key(b)));
        let mut sum = 0;
        for turn in &mut turns {
            sum += turn.sum;
            turn.sum = sum;
        }
        turns.shrink_to_fit();
        self.turns = turns;
        self.keys.shrink_to_fit();
    }

    /// What all turns before the first one at or above `key` added; of a sorted block.
    fn sum_below(&self, key: &[u8]) -> i64 {
        let upto = self.turns.partition_point(|turn| self.key(turn) < key);
        upto.checked_sub(1).map_or(0, |last| i64::from(self.turns[last].sum))
    }

    /// What a turn added; of a sorted block.
    fn added(&self, place: usize) -> i64 {
        let before = place.checked_sub(1).map_or(0, |before| self.turns[before].sum);
        i64::from(self.turns[place].sum - before)
    }

    /// What turns in [`start`, `end`) above `at` added; of a sorted block.
    fn since(&self, start: &[u8], end: &[u8], at: i64) -> i64 {
        if self.first <= at {
            return self.scan(start, end, at, |place| self.added(place));
        }
        let upto = if end == [0] { self.turns.last().map_or(0, |last| i64::from(last.sum)) } else { self.sum_below(end) };
        upto - self.sum_below(start)
    }
}

impl Journal {
    /// Knows what comes after `revision`.
    pub fn new(revision: i64) -> Self {
        Self { sorted: VecDeque::new(), open: Block::default(), bytes: 0, floor: revision }
    }

    /// A key began (`birth`) or ceased to be.
    pub fn turn(&mut self, main: i64, key: &[u8], birth: bool) {
        self.open.push(main, key, birth);
        if self.open.turns.len() < BLOCK_TURNS {
            return;
        }
        let mut full = std::mem::take(&mut self.open);
        full.sort();
        self.bytes += full.bytes();
        self.sorted.push_back(full);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.sorted.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.floor = oldest.last;
        }
    }

    /// By how many keys a range with `start` < `end` has grown since revision `at`; `None` if that is too long ago.
    pub fn since(&self, start: &[u8], end: &[u8], at: i64) -> Option<i64> {
        if at < self.floor {
            return None;
        }
        let open = self.open.scan(start, end, at, |place| i64::from(self.open.turns[place].sum));
        let from = self.sorted.partition_point(|block| block.last <= at);
        Some(self.sorted.range(from..).fold(open, |grown, block| grown + block.since(start, end, at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_like_a_list_of_turns() {
        let (mut journal, mut all, mut seed) = (Journal::new(5), Vec::new(), 1u64);
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for round in 0..5000 {
            let (main, key, birth) = (6 + round / 3, format!("k{:03}", next(700)), next(2) == 0);
            journal.turn(main, key.as_bytes(), birth);
            all.push((main, key, birth));
        }
        for _ in 0..300 {
            let (start, end, at) = (format!("k{:03}", next(700)), format!("k{:03}", next(720)), 5 + next(1700) as i64);
            let end: &[u8] = if next(8) == 0 { &[0] } else { end.as_bytes() };
            if end != [0] && end <= start.as_bytes() {
                continue;
            }
            let later = all.iter().filter(|(main, key, _)| *main > at && in_range(key.as_bytes(), start.as_bytes(), end));
            let expected: i64 = later.map(|(_, _, birth)| if *birth { 1 } else { -1 }).sum();
            assert_eq!(journal.since(start.as_bytes(), end, at), Some(expected), "[{start}, {end:?}) since {at}");
        }
        assert_eq!(journal.since(b"a", b"z", 4), None);
    }

    #[test]
    fn what_is_too_long_ago_is_said_so() {
        let mut journal = Journal::new(0);
        let long = "k".repeat(10_000);
        for main in 1..=5000 {
            journal.turn(main, long.as_bytes(), main % 2 == 1);
        }
        assert!(journal.bytes <= BYTES_MAX);
        assert_eq!(journal.since(b"a", b"z", 0), None);
        assert_eq!(journal.since(b"a", b"z", journal.floor - 1), None);
        let even = journal.floor + journal.floor % 2;
        assert_eq!((journal.since(b"a", b"z", even), journal.since(b"a", b"z", even + 1)), (Some(0), Some(-1)));
    }
}
