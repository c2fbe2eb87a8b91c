//! What clients do: each runs one operation after another against random members. All choices follow from its seed.

use crate::checker::PREFIX;
use crate::history::{Answer, Call, Compare, Done, Op, Version};
use crate::search::{SLOTS, key};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// Groups of keys that clients fight over.
pub const GROUPS: usize = 3;

/// What a client draws its operations from.
pub struct Chooser {
    random: StdRng,
    client: usize,
    sequence: u64,
    /// Values of up to so many bytes, now and then.
    value_bytes_max: usize,
    /// What the client believes to be there.
    known: BTreeMap<String, Version>,
}

impl Chooser {
    /// A client's.
    pub fn new(random: StdRng, client: usize, value_bytes_max: usize) -> Self {
        Self { random, client, sequence: 0, value_bytes_max, known: BTreeMap::new() }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    /// A unique value.
    fn value(&mut self) -> String {
        self.sequence += 1;
        let mut value = format!("{}-{}", self.client, self.sequence);
        if self.value_bytes_max > 0 && self.below(10) == 0 {
            let padding = self.below(self.value_bytes_max);
            value.push_str(&".".repeat(padding));
        }
        value
    }

    fn put(&mut self, key: String) -> Op {
        let value = self.value();
        Op::Put { key, value }
    }

    /// The next operation. `newest` is the newest revision anybody has seen, `compactable` the newest that may be compacted.
    pub fn choose(&mut self, newest: i64, compactable: i64) -> Call {
        let group = self.below(GROUPS);
        let slot = self.below(SLOTS);
        let one = key(group, slot);
        match self.below(1000) {
            0..250 => plain(self.put(one)),
            250..310 => plain(Op::Delete { from: one, to: None }),
            310..340 => plain(Op::Delete { from: key(group, slot), to: Some(key(group, SLOTS)) }),
            340..540 => self.txn(group, one),
            540..600 => self.get(&one),
            600..700 => self.range(group, 0, false),
            700..840 => self.whole(0, false),
            840..940 => self.range(group, 0, true),
            940..996 => {
                let revision = self.random.random_range((newest - 50).max(1)..=newest);
                let serializable = self.below(3) == 0;
                self.range(group, revision, serializable)
            }
            _ if compactable > 1 => {
                let revision = self.random.random_range((compactable - 20).max(1)..=compactable);
                Call::Compact { revision, physical: self.below(2) == 0 }
            }
            _ => self.whole(0, true),
        }
    }

    fn txn(&mut self, group: usize, one: String) -> Call {
        let mut compares = vec![self.compare(&one)];
        let mut success = vec![self.put(one.clone())];
        let mut failure = Vec::new();
        let other = key(group, self.below(SLOTS));
        if other != one {
            match self.below(6) {
                0 => success.push(self.put(other.clone())),
                1 => success.push(Op::Delete { from: other.clone(), to: None }),
                2 => success.insert(0, Op::Get { key: other.clone() }),
                3 => compares.push(self.compare(&other)),
                _ => {}
            }
        }
        match self.below(8) {
            0 => failure.push(self.put(other)),
            1 => failure.push(Op::Get { key: other }),
            2 => failure.push(Op::Delete { from: key(group, 0), to: Some(key(group, SLOTS)) }),
            3 => compares.clear(),
            _ => {}
        }
        Call::Write { plain: false, compares, success, failure }
    }

    fn compare(&mut self, key: &str) -> Compare {
        let key = key.to_string();
        let known = self.known.get(&key).cloned();
        match (self.below(3), known) {
            (0, Some(version)) => Compare::Value { key, value: version.value },
            (0, None) => Compare::Exists { key, exists: false },
            (1, known) if self.below(3) == 0 => Compare::Exists { key, exists: known.is_some() },
            (_, Some(version)) => Compare::ModRevision { key, revision: version.mod_revision, believed: Some(version.value) },
            (_, None) => Compare::ModRevision { key, revision: 0, believed: None },
        }
    }

    fn get(&mut self, key: &str) -> Call {
        Call::Range { from: key.to_string(), to: format!("{key}\0"), revision: 0, serializable: self.below(3) == 0, limit: 0 }
    }

    fn range(&mut self, group: usize, revision: i64, serializable: bool) -> Call {
        let from = key(group, self.below(SLOTS));
        let limit = i64::from(self.below(3) == 0);
        Call::Range { from, to: key(group, SLOTS), revision, serializable, limit }
    }

    fn whole(&mut self, revision: i64, serializable: bool) -> Call {
        Call::Range { from: PREFIX.into(), to: after_prefix(), revision, serializable, limit: 0 }
    }

    /// Takes in what an answer tells of the present.
    pub fn learn(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Range { from, to, revision: 0, .. }, Answer::Read { kvs, more: false, .. }) => {
                self.known.retain(|key, _| !(from..to).contains(&key));
                self.known.extend(kvs.iter().cloned());
            }
            (Call::Write { success, failure, .. }, Answer::Wrote { revision, succeeded, done }) => {
                for (op, done) in if *succeeded { success } else { failure }.iter().zip(done) {
                    self.learn_one(op, done, *revision);
                }
            }
            _ => {}
        }
    }

    fn learn_one(&mut self, op: &Op, done: &Done, revision: i64) {
        match (op, done) {
            (Op::Put { key, value }, Done::Put(before)) => {
                let create_revision = before.as_ref().map_or(revision, |before| before.create_revision);
                let version = before.as_ref().map_or(0, |before| before.version) + 1;
                let now = Version { value: value.clone(), create_revision, mod_revision: revision, version };
                self.known.insert(key.clone(), now);
            }
            (Op::Get { key }, Done::Got(Some(version))) => {
                self.known.insert(key.clone(), version.clone());
            }
            (Op::Get { key }, Done::Got(None)) => {
                self.known.remove(key);
            }
            (_, Done::Deleted(keys)) => keys.iter().for_each(|(key, _)| {
                self.known.remove(key);
            }),
            _ => {}
        }
    }
}

fn plain(op: Op) -> Call {
    Call::Write { plain: true, compares: vec![], success: vec![op], failure: vec![] }
}

/// The end of the range of all keys.
pub fn after_prefix() -> String {
    let mut end = PREFIX.trim_end_matches('/').to_string();
    end.push('0');
    end
}
