//! Calls that are good HTTP/2 and bad gRPC. Codes and texts are etcd's (and grpc-go's), told by etcd itself where it is built.

use crate::harness::cluster::Cluster;
use crate::harness::{PATIENCE, find_tool, skipped};
use crate::victim::Victim;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rusd::pb::etcdserverpb::request_op::Request as Op;
use rusd::pb::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use std::io::Write;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GZIP: Headers = &[("grpc-encoding", b"gzip")];
/// `--max-request-bytes` and what gRPC may be longer.
const MESSAGE_BYTES_MAX: usize = 1_572_864 + (512 << 10);

type Headers = &'static [(&'static str, &'static [u8])];

/// A call. `content-type` and `te` are there unless `headers` say something else.
struct Call {
    name: &'static str,
    path: &'static str,
    headers: Headers,
    body: Vec<u8>,
    code: u8,
    message: &'static str,
    /// Where it isn't, the reason is told beside it.
    as_etcd: bool,
}

/// Refused, and by etcd in the same words.
fn refused(name: &'static str, path: &'static str, headers: Headers, body: Vec<u8>, code: u8, message: &'static str) -> Call {
    Call { name, path, headers, body, code, message, as_etcd: true }
}

fn fine(name: &'static str, headers: Headers, body: Vec<u8>) -> Call {
    refused(name, RANGE, headers, body, 0, "")
}

/// Refused by rusd alone, or with another text.
fn ours(name: &'static str, path: &'static str, headers: Headers, body: Vec<u8>, code: u8, message: &'static str) -> Call {
    Call { as_etcd: false, ..refused(name, path, headers, body, code, message) }
}

/// gRPC's frame around a message.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend(message);
    frame
}

fn range() -> Vec<u8> {
    RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec()
}

fn put(value_bytes: usize) -> Vec<u8> {
    PutRequest { key: "big".into(), value: vec![b'v'; value_bytes].into(), ..Default::default() }.encode_to_vec()
}

/// A put whose message has exactly so many bytes: the key takes up what the lengths leave.
fn put_of(bytes: usize) -> Vec<u8> {
    let sized = |key: usize| PutRequest { key: vec![b'k'; key].into(), value: vec![b'v'; bytes - 64].into(), ..Default::default() };
    let message = (1..64).map(|key| sized(key).encode_to_vec()).find(|message| message.len() == bytes);
    message.expect("a key of some length fits")
}

fn txn(success: Vec<RequestOp>) -> Vec<u8> {
    TxnRequest { success, ..Default::default() }.encode_to_vec()
}

/// Txns in txns, written from the inside out: encoding them as messages would itself recurse.
fn nested(levels: usize) -> Vec<u8> {
    let field = |tag: u8, inside: Vec<u8>| {
        let mut bytes = vec![tag];
        prost::encode_length_delimiter(inside.len(), &mut bytes).expect("memory");
        bytes.extend(inside);
        bytes
    };
    (0..levels).fold(Vec::new(), |inner, _| field(0x12, field(0x22, inner)))
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn good() -> Vec<u8> {
    framed(0, &range())
}

/// Nobody's service, or nobody's method.
fn paths() -> Vec<Call> {
    vec![
        refused("an unknown service", "/foo.Bar/Baz", &[], good(), 12, "unknown service foo.Bar"),
        refused("an unknown method", "/etcdserverpb.KV/Nope", &[], good(), 12, "unknown method Nope for service etcdserverpb.KV"),
        refused("an unknown stream", "/etcdserverpb.Watch/Nope", &[], good(), 12, "unknown method Nope for service etcdserverpb.Watch"),
        refused("a service alone", "/etcdserverpb.KV", &[], good(), 12, "malformed method name: \"/etcdserverpb.KV\""),
        refused("a deep path", "/a/b/c", &[], good(), 12, "unknown service a/b"),
        refused("an empty name", "//", &[], good(), 12, "unknown service "),
    ]
}

fn headers() -> Vec<Call> {
    const WEB: Headers = &[("content-type", b"application/grpc-web")];
    vec![
        fine("a message format of its own", &[("content-type", b"application/grpc+json")], good()),
        refused("grpc-web", RANGE, WEB, good(), 3, "invalid gRPC request content-type \"application/grpc-web\""),
        fine("metadata that isn't UTF-8", &[("x-y", b"\xff\xfe")], good()),
        fine("a token that isn't UTF-8", &[("token", b"\xff\xfe")], good()),
        fine("hasleader that isn't UTF-8", &[("hasleader", b"\xff\xfe")], good()),
        refused(
            "a version that isn't UTF-8",
            RANGE,
            &[("client-api-version", b"3.\xff")],
            good(),
            3,
            "etcdserver: invalid client api version",
        ),
        // etcd refuses both with HTTP's 400. A timeout is the client's to keep, so nothing is lost by not reading it.
        ours("a timeout that is none", RANGE, &[("grpc-timeout", b"soon")], good(), 0, ""),
        ours("binary metadata that isn't", RANGE, &[("x-bin", b"!!!")], good(), 0, ""),
    ]
}

fn frames() -> Vec<Call> {
    let two = [good(), good()].concat();
    let half = [&[0, 0, 0, 0, 100][..], &range()].concat();
    const FLAG: &str = "grpc: compressed flag set with identity or empty encoding";
    const SNAPPY: &str = "grpc: Decompressor is not installed for grpc-encoding \"snappy\"";
    vec![
        fine("two messages", &[], two),
        fine("gzip", GZIP, framed(1, &gzipped(&range()))),
        refused("half a message", RANGE, &[], half, 2, "unexpected EOF"),
        // etcd says EOF to half a frame's head, and waits for ever for a message that never comes.
        ours("half a frame's head", RANGE, &[], vec![0, 0], 2, "unexpected EOF"),
        ours("no message", RANGE, &[], vec![], 13, "Missing request message."),
        refused("a flag without encoding", RANGE, &[], framed(1, &range()), 13, FLAG),
        refused("a flag with identity", RANGE, &[("grpc-encoding", b"identity")], framed(1, &range()), 13, FLAG),
        refused("an unknown flag", RANGE, &[], framed(2, &range()), 13, "grpc: received unexpected payload format 2"),
        refused("an unknown encoding", RANGE, &[("grpc-encoding", b"snappy")], framed(1, &range()), 12, SNAPPY),
        ours("gzip that isn't", RANGE, GZIP, framed(1, &range()), 13, "grpc: failed to decompress the message: unexpected end of file"),
    ]
}

fn messages() -> Vec<Call> {
    const WIRE: &str = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
    const UTF8: &str = "grpc: error unmarshalling request: string field contains invalid UTF-8";
    const STREAM: &str = "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data";
    let garbage = || framed(0, &[0xff; 32]);
    let no_op = framed(0, &txn(vec![RequestOp { request: None }]));
    let no_key = framed(0, &txn(vec![RequestOp { request: Some(Op::RequestRange(RangeRequest::default())) }]));
    vec![
        refused("garbage", RANGE, &[], garbage(), 13, WIRE),
        refused("a field longer than its message", RANGE, &[], framed(0, &[0x0a, 0x7f, 0x01]), 13, WIRE),
        refused("a name that isn't UTF-8", "/etcdserverpb.Auth/UserGet", &[], framed(0, &[0x0a, 2, 0xff, 0xfe]), 13, UTF8),
        refused("garbage for a watch", "/etcdserverpb.Watch/Watch", &[], garbage(), 13, STREAM),
        refused("garbage for a lease", "/etcdserverpb.Lease/LeaseKeepAlive", &[], garbage(), 13, STREAM),
        // Go takes a field of another wire type for one that it doesn't know.
        ours("another wire type", RANGE, &[], framed(0, &[0x08, 0x01]), 13, WIRE),
        fine("unknown fields", &[], framed(0, &[&range()[..], &[0xf8, 0x7f, 1, 0xfa, 0x7f, 1, 0]].concat())),
        refused("no key", RANGE, &[], framed(0, &[]), 3, "etcdserver: key is not provided"),
        refused("a txn of nothing", TXN, &[], no_op, 3, "etcdserver: key not found"),
        refused("a txn without key", TXN, &[], no_key, 3, "etcdserver: key is not provided"),
        // protobuf in Rust stops at 100 messages in one another, Go's at 10,000; nobody needs either.
        ours("txns in txns", TXN, &[], framed(0, &nested(4000)), 13, WIRE),
    ]
}

fn sizes() -> Vec<Call> {
    const DECLARED: &str = "grpc: received message larger than max (4294967295 vs. 2097152)";
    const BY_ONE: &str = "grpc: received message larger than max (2097153 vs. 2097152)";
    const BOMB: &str = "grpc: received message after decompression larger than max 2097152";
    const TOO_LARGE: &str = "etcdserver: request is too large";
    let declared = [&[0, 0xff, 0xff, 0xff, 0xff][..], &range()].concat();
    vec![
        refused("4 GiB declared", RANGE, &[], declared, 8, DECLARED),
        refused("one byte too many", PUT, &[], framed(0, &put_of(MESSAGE_BYTES_MAX + 1)), 8, BY_ONE),
        refused("as long as gRPC takes", PUT, &[], framed(0, &put_of(MESSAGE_BYTES_MAX)), 3, TOO_LARGE),
        refused("as long as a request may not be", PUT, &[], framed(0, &put(1_572_864)), 3, TOO_LARGE),
        refused("a gzip bomb", PUT, GZIP, framed(1, &gzipped(&vec![0; 64 << 20])), 8, BOMB),
    ]
}

/// Undoes the escapes of `grpc-message`, of which each side makes others.
fn unescaped(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Header, body and trailers of the answer.
async fn exchange(url: &str, call: &Call) -> (HeaderMap, Bytes, HeaderMap) {
    let authority = url.strip_prefix("http://").expect("http").to_owned();
    let io = TokioIo::new(tokio::net::TcpStream::connect(&authority).await.expect("it accepts"));
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new()).handshake(io).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let body = Full::new(Bytes::from(call.body.clone()));
    let mut request = http::Request::post(format!("{url}{}", call.path)).body(body).expect("a request");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    for (name, value) in call.headers {
        request.headers_mut().insert(*name, HeaderValue::from_bytes(value).expect("a header value"));
    }
    let answer = async {
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body");
        let trailers = body.trailers().cloned().unwrap_or_default();
        (head.headers, body.to_bytes(), trailers)
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("no answer to {}", call.name));
    driver.abort();
    answer
}

/// Code and message of the answer.
async fn ask(url: &str, call: &Call) -> (u8, String) {
    let (head, _, trailers) = exchange(url, call).await;
    let field = |name: &str| trailers.get(name).or_else(|| head.get(name)).map(|value| unescaped(value.as_bytes()));
    let code = field("grpc-status").expect("a status").parse().expect("a number");
    (code, field("grpc-message").unwrap_or_default())
}

/// Who has gzip built in says so in every call, a kube-apiserver among others; it gets it only where it has used it itself, as with grpc-go.
/// Compressing takes many times as long as sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_compressed_for_who_compresses() {
    const TAKES: Headers = &[("grpc-accept-encoding", b"gzip")];
    const USES: Headers = &[("grpc-accept-encoding", b"gzip"), ("grpc-encoding", b"gzip")];
    let calls = [
        (fine("takes gzip", TAKES, good()), false),
        (fine("uses gzip", USES, framed(1, &gzipped(&range()))), true),
        (fine("uses gzip, but not for this message", USES, good()), true),
    ];
    let mut victim = Victim::new(&[]).await;
    let mut urls = vec![victim.url()];
    let mut etcd = Cluster::prepare(1, &[]);
    if let Some(binary) = find_tool("etcd") {
        etcd.members[0].program = binary;
        etcd.start_all();
        etcd.wait_all().await;
        urls.push(etcd.members[0].client_url());
    } else {
        skipped("the same of etcd itself", "tools/bin/etcd is missing");
    }
    for (call, compressed) in calls {
        for url in &urls {
            let (head, body, _) = exchange(url, &call).await;
            let said = head.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
            assert_eq!((said, body.first() == Some(&1)), (compressed, compressed), "{} at {url}", call.name);
        }
    }
    victim.check("compression").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_calls_are_refused_in_etcds_words() {
    let mut victim = Victim::new(&[]).await;
    let mut etcd = Cluster::prepare(1, &[]);
    let told = match find_tool("etcd") {
        Some(binary) => {
            etcd.members[0].program = binary;
            etcd.start_all();
            etcd.wait_all().await;
            true
        }
        None => {
            skipped("the same words from etcd itself", "tools/bin/etcd is missing");
            false
        }
    };
    let mut wrong = Vec::new();
    for call in [paths(), headers(), frames(), messages(), sizes()].into_iter().flatten() {
        let expected = (call.code, call.message.to_owned());
        let said = ask(&victim.url(), &call).await;
        if said != expected {
            wrong.push(format!("{}: rusd says {said:?}, not {expected:?}", call.name));
        }
        if told && call.as_etcd {
            let said = ask(&etcd.members[0].client_url(), &call).await;
            if said != expected {
                wrong.push(format!("{}: etcd says {said:?}, not {expected:?}", call.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    victim.check("bad calls").await;
}
