//! A member at work, recorded: puts, deletes, leases, compaction with its frames, purges, and snapshots from another member.
//!
//! What the state must be after each entry is noted while it is applied, so that an image can be judged by the last entry it has.

use crate::common::moving::{chunks, feed, install, outgoing, switch};
use crate::common::{Member, put};
use crate::record::{self, Op};
use crate::rng::Rng;
use openraft::storage::RaftLogStorage;
use rusd_storage::apply::State;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;
use rusd_storage::raft::types::log_id;
use rusd_storage::snapshot::Receiver;
use rusd_storage::{KeyValue, LogPosition};
use std::collections::BTreeMap;
use std::path::Path;

/// What was done, and what it came to.
pub struct Trace {
    /// What the disk was asked for; a mark is the index of an entry that was acknowledged.
    pub ops: Vec<Op>,
    /// What the state is after each entry.
    pub told: BTreeMap<u64, Told>,
    pub compactions: u64,
    pub installs: u64,
    /// Of these.
    pub resumed: u64,
}

/// All that readers can tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    revision: i64,
    compact_revision: i64,
    hash: u32,
    /// Keys now, and at the compact revision.
    keys: [Vec<KeyValue>; 2],
    history: u32,
    leases: Vec<(i64, Vec<bytes::Bytes>)>,
    alarms: usize,
}

impl Told {
    /// Of a member.
    pub fn of(state: &State) -> Result<Self, String> {
        let store = state.store();
        let (revision, compact_revision) = (store.revision(), store.compact_revision());
        let all = |revision| Range { key: b"\0".as_slice().into(), range_end: b"\0".as_slice().into(), revision, ..Range::default() };
        let keys = |revision| store.range(&all(revision)).map(|result| result.kvs).map_err(|error| error.to_string());
        let from = compact_revision.max(0) + 1;
        let history = store.history(from, revision, usize::MAX).map_err(|error| error.to_string())?.0;
        let old = if compact_revision > 0 { keys(compact_revision)? } else { Vec::new() };
        Ok(Self {
            revision,
            compact_revision,
            hash: store.hash_kv(0).map_err(|error| error.to_string())?.0,
            keys: [keys(0)?, old],
            history: crc32c::crc32c(format!("{history:?}").as_bytes()),
            leases: state.leases().iter().map(|lease| (lease.id, state.lease(lease.id, true).expect("listed").1)).collect(),
            alarms: state.alarms().len(),
        })
    }

    /// Where two differ, in short.
    pub fn difference(&self, other: &Self) -> String {
        let short = |told: &Self| {
            let keys: Vec<String> = told.keys[0].iter().map(|kv| format!("{:?}@{}", kv.key, kv.mod_revision)).collect();
            format!(
                "revision {}, compacted {}, hash {:08x}, history {:08x}, leases {:?}, old keys {}, keys {}",
                told.revision,
                told.compact_revision,
                told.hash,
                told.history,
                told.leases,
                told.keys[1].len(),
                keys.join(" ")
            )
        };
        format!("expected {}\nfound    {}", short(self), short(other))
    }
}

struct Tracer {
    member: Member,
    rng: Rng,
    told: BTreeMap<u64, Told>,
    compactions: u64,
    installs: u64,
    resumed: u64,
}

/// Runs and records.
pub async fn trace(directory: &Path, seed: u64, entries: u64) -> Trace {
    let source = tempfile::tempdir().expect("a directory");
    record::start(directory);
    let member = Member::open_with(directory, 20_000);
    let mut tracer = Tracer { member, rng: Rng::new(seed), told: BTreeMap::new(), compactions: 0, installs: 0, resumed: 0 };
    while tracer.member.next < entries {
        tracer.work().await;
        if tracer.rng.below(entries / 3) == 0 {
            tracer.install(source.path()).await;
        }
        if tracer.rng.below(entries / 2) == 0 {
            tracer.synced().await;
            tracer.member = tracer.member.restart_with(directory, 20_000).await;
        }
    }
    tracer.synced().await;
    let Tracer { member, told, compactions, installs, resumed, .. } = tracer;
    member.opened.engine.close().expect("a healthy disk");
    drop(member);
    Trace { ops: record::stop(), told, compactions, installs, resumed }
}

/// A key; few of them, so that they are written over and over.
fn key(rng: &mut Rng) -> String {
    format!("key{:02}", rng.below(25))
}

impl Tracer {
    async fn work(&mut self) {
        match self.rng.below(100) {
            0..10 => self.delete().await,
            10..14 => self.lease().await,
            14..20 => self.compact().await,
            20..35 => {
                for _ in 0..1 + self.rng.below(6) {
                    self.member.opened.state.store().compact_step().expect("a step");
                }
            }
            35..38 => self.purge().await,
            38..42 => self.synced().await,
            42..46 => self.txn().await,
            _ => self.put().await,
        }
    }

    /// Applies a command, and marks when its entry is on disk.
    async fn apply(&mut self, command: Kind) {
        let index = self.member.next;
        let _ = self.member.apply_then(command, move || record::mark(index)).await;
        self.told.insert(index, Told::of(&self.member.opened.state).expect("readable"));
    }

    async fn put(&mut self) {
        let len = match self.rng.below(40) {
            0 => 90_000,
            1..20 => 4_000 + self.rng.below(8_000),
            _ => self.rng.below(200),
        };
        let lease = if self.rng.below(6) == 0 { 1 + self.rng.below(3) as i64 } else { 0 };
        let value = format!("{}{}", self.member.next, "v".repeat(len as usize));
        let key = key(&mut self.rng);
        self.apply(Kind::Put(put(&key, &value, lease))).await;
    }

    async fn delete(&mut self) {
        let (from, upto) = (key(&mut self.rng), key(&mut self.rng));
        let range_end = if self.rng.below(3) == 0 { upto } else { String::new() };
        self.apply(Kind::DeleteRange(DeleteRange { key: from.into(), range_end: range_end.into(), prev_kv: false })).await;
    }

    async fn txn(&mut self) {
        let operations = (0..3).map(|_| {
            let key = key(&mut self.rng);
            let operation = match self.rng.below(3) {
                0 => operation::Operation::DeleteRange(DeleteRange { key: key.into(), ..DeleteRange::default() }),
                _ => operation::Operation::Put(put(&key, "txn", 0)),
            };
            Operation { operation: Some(operation) }
        });
        let success = operations.collect();
        self.apply(Kind::Txn(Txn { success, ..Txn::default() })).await;
    }

    async fn lease(&mut self) {
        let id = 1 + self.rng.below(3) as i64;
        match self.rng.below(3) {
            0 => self.apply(Kind::LeaseRevoke(LeaseRevoke { id })).await,
            _ => self.apply(Kind::LeaseGrant(LeaseGrant { id, ttl_secs: 60 })).await,
        }
    }

    async fn compact(&mut self) {
        let revision = self.member.revision() - self.rng.below(12) as i64;
        self.compactions += 1;
        self.apply(Kind::Compact(Compact { revision })).await;
    }

    /// Everything is framed and on disk.
    async fn synced(&mut self) {
        self.member.settle().await;
    }

    async fn purge(&mut self) {
        self.synced().await;
        // A seed may draw this before anything else.
        let Some(applied) = self.member.opened.state.applied() else { return };
        let index = applied.index.saturating_sub(10);
        if self.member.opened.engine.log_bounds().0.is_some_and(|(first, _)| first < index) {
            self.member.opened.log_store.purge(log_id(LogPosition { term: 1, index })).await.expect("purged");
        }
    }

    /// What another member has made of this state and of some entries more comes back as a snapshot. The connection breaks somewhere, and
    /// a newer snapshot goes on from there if it can.
    async fn install(&mut self, place: &Path) {
        let directory = place.join(self.installs.to_string());
        let mut other = Member::open_with(&directory, 20_000);
        let (meta, mut whole) = outgoing(&mut self.member).await;
        install(&mut other, &meta, chunks(&mut whole)).await;
        self.ahead(&mut other).await;
        let (_, mut first) = outgoing(&mut other).await;
        let first = chunks(&mut first);
        let mut receiver = Receiver::begin(self.member.opened.engine.clone()).expect("a partial store");
        feed(&mut receiver, &first[..self.rng.below(first.len() as u64) as usize]);
        let left = receiver.interrupted();
        self.ahead(&mut other).await;
        let (meta, mut second) = outgoing(&mut other).await;
        let left = left.filter(|left| second.resume(&left.progress()));
        self.resumed += u64::from(left.is_some());
        let mut receiver = left.unwrap_or_else(|| Receiver::begin(self.member.opened.engine.clone()).expect("a partial store"));
        feed(&mut receiver, &chunks(&mut second));
        switch(&mut self.member, &meta, receiver).await;
        self.installs += 1;
        record::mark(self.member.next - 1);
    }

    /// Some entries that this member hasn't seen.
    async fn ahead(&mut self, other: &mut Member) {
        for _ in 0..1 + self.rng.below(20) {
            let key = key(&mut self.rng);
            let index = other.next;
            let _ = other.apply(Kind::Put(put(&key, "from the other", 0))).await;
            self.told.insert(index, Told::of(&other.opened.state).expect("readable"));
        }
    }
}

/// Opens an image, applies what its log has beyond its state, and compares; then goes on compacting, restarts and compares again.
pub async fn judge(directory: &Path, trace: &Trace, acknowledged: Option<u64>, deep: bool) -> Result<(), String> {
    let mut member = Member::try_open(directory, 20_000)?.replayed().await?;
    let last = compare(&member, trace, acknowledged)?;
    if deep {
        while member.opened.state.store().compact_step().map_err(|error| error.to_string())? {}
        compare(&member, trace, last).map_err(|reason| format!("compacted, {reason}"))?;
        member.settle().await;
        member.opened.engine.close().map_err(|error| error.to_string())?;
        drop(member);
        let member = Member::try_open(directory, 20_000)?.replayed().await?;
        compare(&member, trace, last).map_err(|reason| format!("opened again, {reason}"))?;
    }
    Ok(())
}

fn compare(member: &Member, trace: &Trace, acknowledged: Option<u64>) -> Result<Option<u64>, String> {
    let applied = member.opened.state.applied().map(|at| at.index);
    if applied < acknowledged {
        return Err(format!("it reaches entry {applied:?}, {acknowledged:?} was acknowledged"));
    }
    let Some(expected) = applied.and_then(|applied| trace.told.get(&applied)) else { return Ok(applied) };
    let found = Told::of(&member.opened.state)?;
    if found == *expected { Ok(applied) } else { Err(format!("at entry {applied:?}:\n{}", expected.difference(&found))) }
}
