//! Bytes that are no protocol, and frames that break it.

use crate::harness::PATIENCE;
use crate::victim::Victim;
use crate::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, block,
    call, frame,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const RANGE: &str = "/etcdserverpb.KV/Range";

fn seed() -> u64 {
    let seed = std::env::var("ROBUST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("ROBUST_SEED={seed}");
    seed
}

/// Random bytes, also where a protocol has begun well, also in pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_end_their_own_connection_only() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut victim = Victim::new(&[]).await;
    let beginnings: [&[u8]; 6] = [
        b"",
        PREFACE,
        &[PREFACE, &frame(SETTINGS, 0, 0, &[])[..]].concat(),
        b"GET / HTTP/1.1\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ];
    for port in victim.both_ports() {
        for round in 0..200 {
            let mut bytes = beginnings[round % beginnings.len()].to_vec();
            let mut noise = vec![0; random.random_range(1..3000)];
            random.fill_bytes(&mut noise);
            bytes.extend(noise);
            let mut wire = Wire::connect(port).await;
            let cut = random.random_range(0..bytes.len());
            let _ = wire.send(&bytes[..cut]).await && wire.send(&bytes[cut..]).await;
        }
    }
    victim.check("random bytes").await;
}

/// A good call, with one or a few of its bytes changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_in_good_calls_hurt_nobody() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut victim = Victim::new(&[]).await;
    for port in victim.both_ports() {
        let path = if port == victim.client_port() { RANGE } else { "/rusd.peer.RaftInternal/AppendEntries" };
        let message = [&[0, 0, 0, 0, 3][..], &[0x0a, 0x01, b'k']].concat();
        let good = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[])[..],
            &frame(HEADERS, END_HEADERS, 1, &call(path))[..],
            &frame(DATA, END_STREAM, 1, &message)[..],
        ]
        .concat();
        for _ in 0..300 {
            let mut bad = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(PREFACE.len()..bad.len());
                bad[at] ^= 1 << random.random_range(0..8);
            }
            let mut wire = Wire::connect(port).await;
            wire.send(&bad).await;
        }
    }
    victim.check("flipped bits").await;
}

/// Each breaks a rule of RFC 9113 that ends the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_end_with_a_goaway() {
    let mut victim = Victim::new(&[]).await;
    let open = frame(HEADERS, END_HEADERS, 1, &call(RANGE));
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("a frame beyond the maximal size", frame(DATA, 0, 1, &vec![0; 1 << 20])),
        ("a declared 16 MiB frame", [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1].to_vec()),
        ("settings of odd length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("an acknowledgement with content", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("a window of 2^32-1", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("frames of 0 bytes asked for", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 0])),
        ("a ping of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("a ping on a stream", frame(PING, 0, 3, &[0; 8])),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 9, b"x")),
        ("headers on stream 0", frame(HEADERS, END_HEADERS, 0, &call(RANGE))),
        ("headers on an even stream", frame(HEADERS, END_HEADERS, 2, &call(RANGE))),
        ("headers in headers", [frame(HEADERS, 0, 1, &call(RANGE)), open.clone()].concat()),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &call(RANGE))),
        ("a header block that isn't one", frame(HEADERS, END_HEADERS, 1, &[0xff; 64])),
        ("padding longer than its frame", frame(HEADERS, END_HEADERS | 8, 1, &[200, 0])),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 7, &[0; 4])),
        ("a window update of 0", [open.clone(), frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat()),
        (
            "a window beyond 2^31",
            [frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()), frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())].concat(),
        ),
        ("a push from a client", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a goaway on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
    ];
    for port in victim.both_ports() {
        for (what, bytes) in &broken {
            let mut wire = Wire::http2(port).await;
            wire.send(bytes).await;
            // Ended by the server: with a word, or by hanging up at once.
            assert!(wire.rest(PATIENCE).await.is_some(), "{what} on {port} is tolerated");
        }
    }
    victim.check("broken frames").await;
}

/// Each breaks a rule that ends a stream, and perhaps its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_end_their_connection_at_most() {
    let mut victim = Victim::new(&[]).await;
    let head = |fields: &[(&str, &[u8])]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    let malformed: Vec<(&str, Vec<u8>)> = vec![
        ("no method", head(&[(":scheme", b"http"), (":path", b"/")])),
        ("no path", head(&[(":method", b"POST"), (":scheme", b"http")])),
        ("an empty path", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"")])),
        ("two methods", head(&[(":method", b"POST"), (":method", b"GET"), (":scheme", b"http"), (":path", b"/")])),
        ("an unknown pseudo header", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"/"), (":x", b"y")])),
        ("upper case", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"/"), ("UPPER", b"y")])),
        ("a connection header", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"/"), ("connection", b"close")])),
        ("a line break in a value", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"/"), ("x", b"a\r\nb")])),
        ("a NUL in a name", head(&[(":method", b"POST"), (":scheme", b"http"), (":path", b"/"), ("x\0y", b"a")])),
        (
            "a lie about the length",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &block(&[
                        (":method", b"POST"),
                        (":scheme", b"http"),
                        (":path", RANGE.as_bytes()),
                        ("content-type", b"application/grpc"),
                        ("content-length", b"3"),
                    ]),
                ),
                frame(DATA, END_STREAM, 1, &[0; 50]),
            ]
            .concat(),
        ),
    ];
    for port in victim.both_ports() {
        for (what, bytes) in &malformed {
            let mut wire = Wire::http2(port).await;
            wire.send(bytes).await;
            wire.send(&frame(PING, 0, 0, b"anybody?")).await;
            // h2 ends the connection for some of them; what matters is that it says something.
            let mut told = 0;
            while let Some((kind, flags, _, _)) = wire.next(PATIENCE).await {
                told += 1;
                if kind == PING && flags & ACK != 0 || kind == GOAWAY {
                    break;
                }
            }
            assert!(told > 0, "nothing comes back after {what} on {port}");
        }
    }
    victim.check("malformed requests").await;
}

/// HTTP/1.1 that never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_http1_is_answered_or_hung_up_on() {
    let mut victim = Victim::new(&[]).await;
    let long = "x".repeat(1 << 20);
    let requests = [
        "GET\r\n\r\n".to_string(),
        "GET / HTTP/9.9\r\n\r\n".into(),
        "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100_000)),
        "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".into(),
        "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
        "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nffffffffffffffffff\r\n".into(),
        "GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET /health?serializable=%zz&exclude=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET /readyz/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
    ];
    for port in victim.both_ports() {
        for request in &requests {
            let mut wire = Wire::connect(port).await;
            wire.send(request.as_bytes()).await;
            let what = request.chars().take(60).collect::<String>();
            assert!(wire.rest(PATIENCE).await.is_some(), "{what:?} on {port} keeps its connection");
        }
    }
    victim.check("bad HTTP/1.1").await;
}
