//! Clients that don't read, don't write, or say nothing at all; thousands of them.

use crate::harness::client::{Client, channel};
use crate::harness::{PATIENCE, eventually, skipped};
use crate::victim::Victim;
use crate::wire::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, Wire, call, frame};
use prost::Message;
use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use std::time::Duration;

/// Ten thousand, on both ports, in all states a connection can be idle in.
const IDLE: usize = 10_000;

/// Raises the limit of open files of this process; whether it suffices for `count` more.
fn room_for(count: usize) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to an rlimit of ours and keep nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) >= count + 500
}

/// Ends without TIME_WAIT: others on this machine need the ports.
fn hang_up(wires: Vec<Wire>) {
    for wire in wires {
        let _ = socket2::SockRef::from(&wire.0).set_linger(Some(Duration::ZERO));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_leave_room_for_others() {
    if !room_for(IDLE) {
        return skipped("ten thousand idle connections", "the hard limit of open files is too low");
    }
    let mut victim = Victim::new(&[]).await;
    // 50 KiB each.
    victim.settle(500);
    let before = victim.cluster.members[0].process().open_files();
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let waiting = [&begun[..], &frame(HEADERS, END_HEADERS, 1, &call("/etcdserverpb.Watch/Watch"))].concat();
    let states: [&[u8]; 5] = [b"", &PREFACE[..10], &begun, &waiting, b"GET /health HTTP/1.1\r\nHost"];
    let mut wires = Vec::new();
    for number in 0..IDLE {
        let mut wire = Wire::connect(victim.both_ports()[number % 2]).await;
        wire.send(states[number / 2 % states.len()]).await;
        wires.push(wire);
    }
    victim.check("ten thousand idle connections").await;
    hang_up(wires);
    let process = &mut victim.cluster.members[0];
    eventually("all of them closed", || {
        let closed = process.process().open_files() <= before + 50;
        async move { closed.then_some(()) }
    })
    .await;
    victim.check("their end").await;
}

/// A server without files left could neither take a snapshot nor talk to its peers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_never_take_the_last_files() {
    let mut victim = Victim::new(&[]).await;
    let member = &mut victim.cluster.members[0];
    member.prefix = ["sh", "-c", "ulimit -n 400; exec \"$@\"", "sh"].map(Into::into).to_vec();
    member.process().kill();
    victim.cluster.start(0);
    victim.cluster.wait_ready(0).await;
    let early = Client::patient(&victim.url());
    early.put("early", "1").await.expect("a put before the crowd");
    let mut crowd = Vec::new();
    for _ in 0..600 {
        crowd.push(Wire::connect(victim.client_port()).await);
    }
    for number in 0..20 {
        early.put("early", number.to_string()).await.expect("a put in the crowd");
    }
    let process = victim.cluster.members[0].process();
    assert!(process.open_files() < 400 - 50, "{} of 400 files are open", process.open_files());
    assert_eq!(process.ended(), None);
    hang_up(crowd);
    victim.check("a crowd").await;
}

/// Fills the store with so many values of half a megabyte.
async fn fill(victim: &Victim, values: usize) {
    let client = Client::patient(&victim.url());
    for number in 0..values {
        client.put(format!("big/{number:04}"), vec![b'v'; 512 << 10]).await.expect("a put");
    }
}

/// Asks for all of them at once, and never reads a byte of it.
fn all() -> Vec<u8> {
    let range = RangeRequest { key: "big/".into(), range_end: "big0".into(), serializable: true, ..Default::default() }.encode_to_vec();
    let mut message = vec![0];
    message.extend(u32::try_from(range.len()).expect("short").to_be_bytes());
    message.extend(range);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_stay_bounded() {
    let mut victim = Victim::new(&[]).await;
    fill(&victim, 64).await;
    // All of them are 1,280 MiB.
    victim.settle(400);
    let mut wires = Vec::new();
    for _ in 0..40 {
        let mut wire = Wire::http2(victim.client_port()).await;
        wire.send(&[frame(HEADERS, END_HEADERS, 1, &call("/etcdserverpb.KV/Range")), frame(DATA, END_STREAM, 1, &all())].concat()).await;
        wires.push(wire);
    }
    victim.check("forty answers of 32 MiB that nobody reads").await;
    // Whoever reads gets the whole of it, though the others still hold what they never take.
    let client = Client::patient(&victim.url());
    let range = RangeRequest { key: "big/".into(), range_end: "big0".into(), ..Default::default() };
    let whole = eventually("an answer for whoever reads", || async { client.kv.clone().range(range.clone()).await.ok() }).await;
    assert_eq!(whole.into_inner().kvs.len(), 64);
    victim.check("one that is read").await;
    hang_up(wires);
    victim.check("their end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_nobody_reads_cost_no_more_than_their_window() {
    let mut victim = Victim::new(&[]).await;
    // All events for all watches are 5,000 MiB.
    victim.settle(700);
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest { key: "w".into(), prev_kv: true, ..Default::default() })),
    };
    // Held, never polled: its window fills and stays full.
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut client = Client::over(channel(&victim.url(), PATIENCE));
        let requests = tokio_stream::iter([request.clone()]);
        let requests = futures::StreamExt::chain(requests, futures::stream::pending());
        held.push(client.watch.watch(requests).await.expect("a stream").into_inner());
    }
    let client = Client::patient(&victim.url());
    // Always the same key, compacted now and then: what grows is what watches hold.
    for _ in 0..400 {
        client.put("w", vec![b'v'; 256 << 10]).await.expect("a put while nobody reads");
    }
    victim.check("a hundred megabytes of events that fifty watches don't read").await;
    // Whoever reads at last gets all of them.
    let mut seen = 0;
    while seen < 400 {
        let response = tokio::time::timeout(PATIENCE, held[0].message()).await.expect("in time").expect("well").expect("goes on");
        seen += response.events.len();
    }
    assert_eq!(seen, 400);
    drop(held);
    victim.check("their end").await;
}

/// A connection that sends half of something is let go; one that was asked nothing of and waits for a peer isn't touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_beginning_is_let_go_in_time() {
    let mut victim = Victim::new(&[]).await;
    let mut wires = Vec::new();
    for port in victim.both_ports() {
        for half in [&b""[..], &PREFACE[..10], b"GET /health HTTP/1.1\r\nHost"] {
            let mut wire = Wire::connect(port).await;
            wire.send(half).await;
            wires.push((port, half, wire));
        }
    }
    for (port, half, wire) in &mut wires {
        assert!(wire.rest(PATIENCE).await.is_some(), "{:?} on {port} is kept", String::from_utf8_lossy(half));
    }
    victim.check("half beginnings").await;
}

/// A client whose machine went away without a word is noticed by the system: keep-alive probes run on every accepted connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_probed_for_life() {
    let victim = Victim::new(&[]).await;
    for port in victim.both_ports() {
        let wire = Wire::http2(port).await;
        let local = wire.0.local_addr().expect("connected").port();
        let probed = || async {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("it reads");
            // The server's side: its port is local, ours remote. Timer 02 is the keep-alive's.
            let of_server = table.lines().find(|line| line.contains(&format!(":{port:04X} 0100007F:{local:04X} ")))?;
            of_server.split_whitespace().nth(5).filter(|timer| timer.starts_with("02:")).map(drop)
        };
        eventually("the keep-alive timer", probed).await;
    }
}
