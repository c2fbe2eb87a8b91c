//! Random requests over a handful of keys, so that they meet.

use crate::build::{Op, compare, delete, get, grant, put, range, txn};
use crate::call::Call;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rusd::pb::etcdserverpb::compare::{CompareResult, TargetUnion};
use rusd::pb::etcdserverpb::*;

const KEYS: &[&str] = &["a", "a\0", "aa", "b", "ba", "c", "k/1", "k/2", "k/3", "z"];
const ENDS: &[&str] = &["", "", "\0", "a", "b", "c", "k0", "k/2", "~"];
const VALUES: &[&str] = &["", "1", "2", "some longer value", "\0\0"];
const LEASES: &[i64] = &[0, 0, 0, 1, 2, 3, 99];

/// Makes requests from a seed.
pub struct Generator {
    rng: StdRng,
    /// The newest revision seen in an answer.
    pub revision: i64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), revision: 1 }
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of.choose(&mut self.rng).expect("not empty")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn lease(&mut self) -> i64 {
        *LEASES.choose(&mut self.rng).expect("not empty")
    }

    /// Mostly none, mostly one that can be read.
    fn some_revision(&mut self) -> i64 {
        match self.rng.random_range(0..10) {
            0..6 => 0,
            6..9 => self.rng.random_range((self.revision - 20).max(0)..=self.revision),
            _ => self.rng.random_range(-2..=self.revision + 3),
        }
    }

    fn filter(&mut self) -> i64 {
        if self.chance(90) { 0 } else { self.rng.random_range(-1..=self.revision + 1) }
    }

    /// A range, now and then with options of every kind.
    pub fn range(&mut self) -> RangeRequest {
        let base = if self.chance(40) { get(self.one(KEYS)) } else { range(self.one(KEYS), self.one(ENDS)) };
        RangeRequest {
            revision: self.some_revision(),
            limit: if self.chance(60) { 0 } else { self.rng.random_range(-1..6) },
            sort_order: if self.chance(60) { 0 } else { self.rng.random_range(0..3) },
            sort_target: if self.chance(60) { 0 } else { self.rng.random_range(0..5) },
            serializable: self.chance(30),
            keys_only: self.chance(15),
            count_only: self.chance(10),
            min_mod_revision: self.filter(),
            max_mod_revision: self.filter(),
            min_create_revision: self.filter(),
            max_create_revision: self.filter(),
            ..base
        }
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            lease: self.lease(),
            prev_kv: self.chance(30),
            ignore_value: self.chance(7),
            ignore_lease: self.chance(7),
            ..put(self.one(KEYS), self.one(VALUES))
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let end = if self.chance(60) { "" } else { self.one(ENDS) };
        DeleteRangeRequest { prev_kv: self.chance(30), ..delete(self.one(KEYS), end) }
    }

    fn compare(&mut self) -> Compare {
        let number = self.rng.random_range(-1..=self.revision + 1);
        let union = match self.rng.random_range(0..5) {
            0 => TargetUnion::Version(number % 4),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Lease(self.lease()),
            _ => TargetUnion::Value(self.one(VALUES).to_string().into()),
        };
        let range_end = if self.chance(70) { "" } else { self.one(ENDS) };
        let exact = compare(self.one(KEYS), CompareResult::Equal, union);
        Compare { result: self.rng.random_range(0..4), range_end: range_end.to_string().into(), ..exact }
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        match self.rng.random_range(0..10) {
            0..3 => self.range().op(),
            3..7 => self.put().op(),
            7..9 => self.delete().op(),
            _ if depth > 0 => self.txn(depth - 1).op(),
            _ => self.range().op(),
        }
    }

    /// A txn, nested up to `depth`.
    pub fn txn(&mut self, depth: u32) -> TxnRequest {
        let mut count = |most| self.rng.random_range(0..=most);
        let (compares, success, failure) = (count(2), count(3), count(3));
        let compares = (0..compares).map(|_| self.compare()).collect();
        let success = (0..success).map(|_| self.op(depth)).collect();
        let failure = (0..failure).map(|_| self.op(depth)).collect();
        txn(compares, success, failure)
    }

    /// Any request.
    pub fn call(&mut self) -> Call {
        match self.rng.random_range(0..1000) {
            0..300 => self.put().into(),
            300..400 => self.delete().into(),
            400..550 => self.range().into(),
            550..600 => Call::RangeStream(RangeRequest { sort_order: 0, sort_target: 0, ..self.range() }),
            600..900 => self.txn(2).into(),
            900..930 => HashKvRequest { revision: self.some_revision() }.into(),
            930..945 => CompactionRequest { revision: self.revision - self.rng.random_range(-1..12), physical: true }.into(),
            945..970 => grant(self.lease().max(1), 600).into(),
            970..980 => LeaseRevokeRequest { id: self.lease() }.into(),
            980..995 => LeaseTimeToLiveRequest { id: self.lease(), keys: true }.into(),
            _ => Call::KeepAlive(self.lease()),
        }
    }

    /// A watch that begins now or at a revision that nothing will compact.
    pub fn watch(&mut self, from: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.one(KEYS).to_string().into(),
            range_end: if self.chance(30) { "" } else { self.one(ENDS) }.to_string().into(),
            start_revision: if self.chance(50) { 0 } else { self.rng.random_range(from..=self.revision + 10) },
            filters: if self.chance(70) { vec![] } else { vec![self.rng.random_range(0..2)] },
            prev_kv: self.chance(50),
            ..Default::default()
        }
    }
}
