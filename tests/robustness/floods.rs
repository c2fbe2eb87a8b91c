//! More than anybody needs. Others are served while it comes in, and afterwards nothing of it is left.

use crate::victim::Victim;
use crate::wire::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Wire, block, call, frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RANGE: &str = "/etcdserverpb.KV/Range";

/// Sends piece after piece on one connection, until there are no more or the server has hung up. What it answers isn't read.
async fn pour(port: u16, pieces: impl Iterator<Item = Vec<u8>>) -> Wire {
    let mut wire = Wire::http2(port).await;
    for piece in pieces {
        if !wire.send(&piece).await {
            break;
        }
    }
    wire
}

/// Does `work` while somebody else puts and reads without a pause; all of that must succeed.
async fn beside_others(victim: &mut Victim, what: &str, work: impl Future<Output = ()>) {
    let client = crate::harness::client::Client::patient(&victim.url());
    let done = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let done = done.clone();
        async move {
            let mut rounds = 0u32;
            while !done.load(Ordering::SeqCst) {
                client.put("other", rounds.to_string()).await.expect("a put of somebody else");
                assert_eq!(client.get("other").await.expect("a read of somebody else"), Some(rounds.to_string().into_bytes()));
                rounds += 1;
            }
            rounds
        }
    });
    work.await;
    done.store(true, Ordering::SeqCst);
    let rounds = other.await.unwrap_or_else(|error| panic!("{what}: {error}"));
    println!("{what}: {rounds} puts and reads of somebody else meanwhile");
    victim.check(what).await;
}

/// Opened and reset at once, ten thousand times: the server may hang up, it may not work them off one by one in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_wear_nobody_out() {
    let mut victim = Victim::new(&[]).await;
    for port in victim.both_ports() {
        let pairs = (0..10_000u32).map(|number| {
            let id = 2 * number + 1;
            [frame(HEADERS, END_HEADERS, id, &call(RANGE)), frame(RST_STREAM, 0, id, &8u32.to_be_bytes())].concat()
        });
        beside_others(&mut victim, "rapid resets", async { drop(pour(port, pairs).await) }).await;
    }
}

/// Frames that each want an answer which is never read, and frames of nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_small_frames_are_endured() {
    let mut victim = Victim::new(&[]).await;
    let many = |piece: Vec<u8>| std::iter::repeat_n(piece.repeat(100), 1000);
    for port in victim.both_ports() {
        for (what, piece) in
            [("pings", frame(PING, 0, 0, &[0; 8])), ("settings", frame(SETTINGS, 0, 0, &[])), ("pongs", frame(PING, ACK, 0, &[0; 8]))]
        {
            beside_others(&mut victim, what, async { drop(pour(port, many(piece)).await) }).await;
        }
        let opened = std::iter::once(frame(HEADERS, END_HEADERS, 1, &call(RANGE)));
        let empty = opened.chain(many(frame(DATA, 0, 1, &[])));
        beside_others(&mut victim, "frames of nothing", async { drop(pour(port, empty).await) }).await;
    }
}

/// Header lists without end: one field of a megabyte, a block that is continued for ever, one entry of the table named again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_header_lists_are_refused() {
    let mut victim = Victim::new(&[]).await;
    let long = block(&[("x", &vec![b'x'; 1 << 20])]);
    for port in victim.both_ports() {
        let begun = || std::iter::once(frame(HEADERS, 0, 1, &call(RANGE)));
        let field = begun().chain(long.chunks(16_000).map(|part| frame(CONTINUATION, 0, 1, part)));
        beside_others(&mut victim, "a field of a megabyte", async { drop(pour(port, field).await) }).await;
        let endless = begun().chain(std::iter::repeat_n(frame(CONTINUATION, 0, 1, &block(&[("y", &[b'y'; 4000])])), 20_000));
        beside_others(&mut victim, "continuations without end", async { drop(pour(port, endless).await) }).await;
        // 0x40: kept in the table; 0xbe: its newest entry. 4,000 bytes for each byte sent.
        let mut bomb = call(RANGE);
        bomb.extend([0x40, 1, b'z', 127, 0xa1, 0x1e]);
        bomb.extend(vec![b'z'; 4000]);
        bomb.extend(vec![0xbe; 10_000]);
        let bombs = (0..50u32).map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb));
        beside_others(&mut victim, "a table entry named again and again", async { drop(pour(port, bombs).await) }).await;
    }
}

/// Five thousand calls on one connection whose message never comes whole, each declared as long as one may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_never_come_whole_cost_little() {
    let mut victim = Victim::new(&[]).await;
    let port = victim.client_port();
    let before = victim.cluster.members[0].process().open_files();
    let declared = [&[0][..], &(2u32 << 20).to_be_bytes(), b"begun"].concat();
    let calls = (0..5000u32).map(|number| {
        let id = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, id, &call("/etcdserverpb.KV/Put")), frame(DATA, 0, id, &declared)].concat()
    });
    let mut held = None;
    beside_others(&mut victim, "calls that never come whole", async { held = Some(pour(port, calls).await) }).await;
    drop(held);
    let process = &mut victim.cluster.members[0];
    crate::harness::eventually("their connection closed", || {
        let closed = process.process().open_files() <= before;
        async move { closed.then_some(()) }
    })
    .await;
    victim.check("the end of such calls").await;
}

/// Ends what a client has begun and left: the frames are good, only nobody waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_and_go_leave_nothing() {
    let mut victim = Victim::new(&[]).await;
    for port in victim.both_ports() {
        beside_others(&mut victim, "connections that come and go", async {
            for _ in 0..1000 {
                let wire = Wire::http2(port).await;
                // Without TIME_WAIT: others on this machine need the ports.
                let _ = socket2::SockRef::from(&wire.0).set_linger(Some(Duration::ZERO));
            }
        })
        .await;
    }
}
