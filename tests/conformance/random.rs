//! Random requests, one after the other, and what watchers see of them.

use crate::build::range;
use crate::call::{Call, Outcome};
use crate::generate::Generator;
use crate::harness::PATIENCE;
use crate::pair::Pair;
use crate::watching::{Stream, Streams};
use rusd::pb::etcdserverpb::HashKvRequest;
use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::mvccpb::Event;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::Code;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    let seed = number("CONFORM_SEED", rand::random::<u32>().into());
    eprintln!("CONFORM_SEED={seed}");
    seed
}

/// The header's revision.
fn revision(outcome: &Outcome) -> Option<i64> {
    let Outcome::Answer(text) = outcome else { return None };
    text.split_once("revision: ")?.1.split(',').next()?.parse().ok()
}

/// Sends one random call to both; a difference is told with what came before. False if it has killed etcd: some nested txns make its apply
/// loop panic where rusd refuses.
async fn step(pair: &Pair, generator: &mut Generator, told: &mut Vec<Call>, call: Call) -> bool {
    let [etcd, rusd] = pair.send(&call).await;
    let broken = matches!(&etcd, Outcome::Refusal(Code::Unknown | Code::Unavailable, text) if text.contains("transport error"));
    if broken && matches!(call, Call::Txn(_)) && has_panicked(pair).await {
        eprintln!("after {} calls etcd has died of a txn", told.len());
        return false;
    }
    if etcd != rusd {
        let before = &told[told.len().saturating_sub(12)..];
        panic!("after {} calls, the last of them {before:#?}\n{call:#?}\n  etcd: {etcd:?}\n  rusd: {rusd:?}", told.len());
    }
    generator.revision = generator.revision.max(revision(&rusd).unwrap_or(0));
    told.push(call);
    true
}

/// Its connections end a little before its last words.
async fn has_panicked(pair: &Pair) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if pair.etcd.log(0).contains("\"job\":\"server_applyAll\",\"panic\"") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
async fn any_request_after_any_other() {
    let mut generator = Generator::new(seed());
    let pair = Pair::start(&[]).await;
    let mut told = Vec::new();
    for _ in 0..number("CONFORM_STEPS", 3000) {
        let call = generator.call();
        if !step(&pair, &mut generator, &mut told, call).await {
            return;
        }
    }
    pair.same(range("\0", "\0")).await;
    pair.same(HashKvRequest { revision: 0 }).await;
}

/// Watches that begin anywhere, while nothing is compacted: every watch of both sees the same events in the same order.
#[tokio::test]
async fn what_watchers_see() {
    let mut generator = Generator::new(seed());
    let pair = Pair::start(&[]).await;
    let mut told = Vec::new();
    let mut streams = Streams::open(&pair);
    let mut watches = 0;
    let mut seen = [Seen::default(), Seen::default()];
    let steps = number("CONFORM_STEPS", 1500);
    for at in 0..steps {
        // None at the end: one that begins in the future keeps progress back until it has come.
        if at % 25 == 0 && at < steps - 100 {
            let create = generator.watch(1);
            streams.ask(RequestUnion::CreateRequest(create)).await;
            watches += 1;
            // Created before anything else happens: "now" is the same for both.
            for (stream, seen) in streams.0.iter_mut().zip(&mut seen) {
                while seen.created < watches {
                    seen.take(stream).await;
                }
            }
        }
        let call = generator.call();
        if !matches!(call, Call::Compact(_)) && !step(&pair, &mut generator, &mut told, call).await {
            return;
        }
    }
    for (stream, seen) in streams.0.iter_mut().zip(&mut seen) {
        seen.catch_up(stream, generator.revision).await;
    }
    let [etcd, rusd] = seen;
    for (id, events) in &etcd.events {
        let ours = rusd.events.get(id).map_or(&[][..], Vec::as_slice);
        let at = events.iter().zip(ours).position(|(a, b)| a != b);
        assert!(at.is_none() && events.len() == ours.len(), "watch {id}: {} and {} events, different at {at:?}", events.len(), ours.len());
    }
    assert_eq!(etcd.events.len(), rusd.events.len());
    assert!(etcd.events.values().map(Vec::len).sum::<usize>() > 100, "something was seen");
}

/// What one stream has told.
#[derive(Default)]
struct Seen {
    created: u64,
    events: BTreeMap<i64, Vec<Event>>,
    progress: i64,
}

impl Seen {
    /// Takes one answer, and checks what holds for each of them by itself.
    async fn take(&mut self, stream: &mut Stream) {
        let answer = stream.answer().await;
        self.created += u64::from(answer.created);
        let header = answer.header.expect("always there").revision;
        let events = self.events.entry(answer.watch_id).or_default();
        if let (Some(before), Some(first)) = (events.last(), answer.events.first()) {
            assert!(revision_of(before) < revision_of(first), "a revision is never split, and never told twice");
        }
        if let Some(last) = answer.events.last() {
            assert!(header >= revision_of(last), "the header is not older than the events");
            assert!(revision_of(last) > self.progress || answer.watch_id != -1, "progress was told before these events");
        } else if answer.watch_id == -1 && !answer.canceled {
            self.progress = header;
        }
        events.extend(answer.events);
    }

    /// Until all up to `revision` has been told; a server that is behind doesn't answer, hence asked again.
    async fn catch_up(&mut self, stream: &mut Stream, revision: i64) {
        let deadline = Instant::now() + PATIENCE;
        while self.progress < revision {
            stream.ask(RequestUnion::ProgressRequest(Default::default())).await;
            while let Ok(()) = tokio::time::timeout(std::time::Duration::from_millis(50), self.take(stream)).await {}
            assert!(Instant::now() < deadline, "progress stops at {} of {revision}", self.progress);
        }
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
