//! What a full store weighs and how long it makes a put wait. Prints; judges nothing.
//!
//! ```sh
//! cargo run --release -p rusd-storage --example weigh -- DIRECTORY [KEYS]
//! ```
//!
//! Fills a new store with keys of 50 and values of 512 bytes (1,000,000 of them), then runs whatever might make a put wait while puts go
//! on, and tells the longest time one took to be applied and to be on disk. At last it opens the store again.
#![allow(clippy::disallowed_methods)] // It measures time.

use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use prost::Message;
use rusd_storage::LogPosition;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::{ApplyResult, Compact, DeleteRange, LeaseGrant, Proposal, Put, Range};
use rusd_storage::raft::log_store::encode;
use rusd_storage::raft::types::{Command, Entry, Payload, log_id};
use rusd_storage::raft::{Opened, Options, ResultSink, open};
use rusd_storage::snapshot::SnapshotData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Nobody;

impl ResultSink for Nobody {
    fn applied(&self, _: u64, _: u64, _: LogPosition, _: ApplyResult) {}
    fn advanced(&self, _: LogPosition) {}
}

struct Member {
    opened: Opened,
    next: u64,
}

fn key(number: u64) -> Bytes {
    // Spread, so that neighbours in time are none in the index.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("/registry/pods/namespace-{:03}/pod-{mixed:020}", mixed % 1000).into()
}

fn put(number: u64, len: usize) -> Kind {
    let mut value = vec![0u8; len];
    value.iter_mut().zip(number.to_le_bytes().into_iter().cycle()).for_each(|(byte, part)| *byte = part);
    Kind::Put(Put { key: key(number), value: value.into(), ..Put::default() })
}

impl Member {
    fn open(directory: &Path) -> Result<Self, Failure> {
        let opened = open(directory, Options { memory_bytes: 2 << 30, ..Options::default() }, Arc::new(Nobody))?;
        let next = opened.engine.log_bounds().0.map_or(0, |(_, last)| last.index + 1);
        Ok(Self { opened, next })
    }

    fn entries(&mut self, commands: impl IntoIterator<Item = Kind>) -> Vec<Entry> {
        let entry = |command: Kind| {
            let proposal = Proposal { command: Some(command), ..Proposal::default() };
            let payload = Payload { command: Some(Command(proposal.encode_to_vec().into())), membership: None };
            let entry = Entry::new(log_id(LogPosition { term: 1, index: self.next }), payload);
            self.next += 1;
            entry
        };
        commands.into_iter().map(entry).collect()
    }

    /// Logs and applies; returns when it is applied, with the completion of its sync.
    async fn apply(&mut self, commands: impl IntoIterator<Item = Kind>) -> Result<tokio::sync::oneshot::Receiver<Instant>, Failure> {
        let entries = self.entries(commands);
        let (sender, durable) = tokio::sync::oneshot::channel();
        let done = move |_| {
            let _ = sender.send(Instant::now());
        };
        self.opened.engine.append(entries.iter().map(encode).collect(), Box::new(done));
        self.opened.state_machine.apply(futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await?;
        Ok(durable)
    }

    /// What the log need not keep goes.
    async fn purge(&mut self) -> Result<(), Failure> {
        self.opened.state_machine.get_snapshot_builder().await.build_snapshot().await?;
        if let Some(applied) = self.opened.state.applied().filter(|applied| applied.index > 5000) {
            self.opened.log_store.purge(log_id(LogPosition { term: 1, index: applied.index - 5000 })).await?;
        }
        Ok(())
    }
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<u64>().unwrap_or(0) >> 10
}

/// User and system time of this process so far, in ticks of 10 ms (`utime` and `stime` of proc(5)).
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn weight(member: &Member, when: &str) {
    let (usage, store) = (member.opened.engine.usage(), member.opened.state.store());
    println!(
        "{when}: RSS {} MiB (peak {}), resident values {} MiB, frames {} MiB, file {} MiB, {} keys",
        status("VmRSS"),
        status("VmHWM"),
        store.resident_bytes() >> 20,
        usage.frame_bytes >> 20,
        usage.file_bytes >> 20,
        store.key_count()
    );
}

async fn fill(member: &mut Member, keys: u64) -> Result<(), Failure> {
    let (begun, before) = (Instant::now(), cpu());
    for first in (0..keys).step_by(64) {
        drop(member.apply((first..(first + 64).min(keys)).map(|number| put(number, 512))).await?);
        if first % 9984 == 0 {
            member.purge().await?;
        }
    }
    member.purge().await?;
    let per_key = (cpu() - before).as_micros() as f64 / keys as f64;
    println!("filled in {:.1} s, {per_key:.1} us of CPU a key", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Puts one after the other until `stop`; the longest until applied, the longest until on disk, and how many.
async fn puts(member: &mut Member, keys: u64, stop: &AtomicBool) -> Result<(Duration, Duration, u64), Failure> {
    let (mut applied, mut durable, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) || count < 200 {
        let begun = Instant::now();
        let done = member.apply([put(count * 7919 % keys, 512)]).await?;
        applied = applied.max(begun.elapsed());
        durable = durable.max(done.await? - begun);
        count += 1;
    }
    Ok((applied, durable, count))
}

/// Runs `other` on a thread of its own while puts go on.
async fn beside(
    member: &mut Member,
    keys: u64,
    name: &str,
    other: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let (stop, millis) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (told, took) = (stop.clone(), millis.clone());
    let thread = std::thread::spawn(move || {
        let begun = Instant::now();
        let result = other();
        took.store(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        told.store(true, Ordering::Relaxed);
        result
    });
    let (applied, durable, count) = puts(member, keys, &stop).await?;
    thread.join().map_err(|_| "a thread failed")??;
    let took = millis.load(Ordering::Relaxed);
    println!(
        "{name}: {took} ms; of {count} puts beside it the longest took {:.1} ms to be applied, {:.1} ms to be on disk",
        applied.as_secs_f64() * 1e3,
        durable.as_secs_f64() * 1e3
    );
    Ok(())
}

fn a_second() -> Result<(), Failure> {
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

fn all() -> Range {
    Range { key: Bytes::from_static(b"/"), range_end: Bytes::from_static(b"\0"), ..Range::default() }
}

async fn stalls(member: &mut Member, keys: u64) -> Result<(), Failure> {
    let state = member.opened.state.clone();
    beside(member, keys, "nothing", a_second).await?;
    let of = state.clone();
    let list = move || {
        let store = of.store();
        let mut cursor = store.cursor(&all())?;
        let mut found = 0;
        while let Some(more) = Some(cursor.next(10_000)?.len()).filter(|more| *more > 0) {
            found += more;
        }
        assert_eq!(found as i64, cursor.count());
        Ok(())
    };
    beside(member, keys, "a LIST of everything", list).await?;
    let (of, revision) = (state.clone(), state.store().revision());
    let pages = move || {
        let mut range = Range { limit: 500, revision, ..all() };
        loop {
            let page = of.store().range(&range)?;
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(()) };
            range.key = [&last.key[..], b"\0"].concat().into();
        }
    };
    beside(member, keys, "a LIST in pages of 500", pages).await?;
    let of = state.clone();
    beside(member, keys, "HashKV", move || Ok(of.store().hash_kv(0).map(drop)?)).await?;
    let snapshot = member.opened.state_machine.get_current_snapshot().await?.ok_or("nothing was applied")?;
    let send = move || {
        if let SnapshotData::Outgoing(mut outgoing) = snapshot.snapshot {
            while outgoing.next_chunk()?.is_some() {}
        }
        Ok(())
    };
    beside(member, keys, "a snapshot", send).await?;
    for first in (0..keys / 2).step_by(64) {
        drop(member.apply((first..first + 64).map(|number| put(number * 2, 500))).await?);
        if first % 9984 == 0 {
            member.purge().await?;
        }
    }
    weight(member, "half of it written over");
    let revision = state.store().revision();
    drop(member.apply([Kind::Compact(Compact { revision })]).await?);
    let of = state.clone();
    let erase = move || {
        while of.store().compact_step()? {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    beside(member, keys, "physical compaction", erase).await?;
    member.purge().await?;
    weight(member, "compacted");
    for first in (1..=100_000).step_by(64) {
        drop(member.apply((first..first + 64).map(|id| Kind::LeaseGrant(LeaseGrant { id, ttl_secs: 60 }))).await?);
    }
    beside(member, keys, "100,000 leases", a_second).await?;
    let begun = Instant::now();
    drop(member.opened.state_machine.get_current_snapshot().await?);
    println!("a snapshot's handle with 100,000 leases: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

async fn delete(member: &mut Member) -> Result<(), Failure> {
    let begun = Instant::now();
    let Range { key, range_end, .. } = all();
    let durable = member.apply([Kind::DeleteRange(DeleteRange { key, range_end, prev_kv: false })]).await?;
    let applied = begun.elapsed();
    let durable = durable.await? - begun;
    println!(
        "a delete of everything: applied after {:.0} ms, on disk after {:.0} ms",
        applied.as_secs_f64() * 1e3,
        durable.as_secs_f64() * 1e3
    );
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: weigh DIRECTORY [KEYS]")?;
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let directory = Path::new(&directory);
    let mut member = Member::open(directory)?;
    if member.next == 0 {
        weight(&member, "empty");
        fill(&mut member, keys).await?;
        weight(&member, "filled");
        drop(member);
        println!("RSS after it is closed {} MiB", status("VmRSS"));
    } else {
        weight(&member, "opened");
        stalls(&mut member, keys).await?;
        delete(&mut member).await?;
        weight(&member, "all deleted");
        return Ok(());
    }
    let (begun, before) = (Instant::now(), cpu());
    let member = Member::open(directory)?;
    println!("opened again in {:.2} s, {:.2} s of CPU", begun.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    weight(&member, "opened again");
    Ok(())
}
