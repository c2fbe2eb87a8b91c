//! Told to stop, a member stops, and nobody needs to look at its log.

use crate::harness::client::{Client, etcdctl};
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

/// Streams get 6 s to end; watches never end by themselves.
const SECONDS: Duration = Duration::from_secs(15);

/// A watch of all keys that nobody will close.
async fn open_watch(client: &Client) -> tonic::Streaming<WatchResponse> {
    let create = WatchCreateRequest { key: vec![0].into(), range_end: vec![0].into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let input = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut stream = client.watch.clone().watch(input).await.expect("a stream").into_inner();
    assert!(stream.next().await.expect("an answer").expect("no error").created);
    stream
}

#[tokio::test]
async fn signals_end_a_member_in_seconds_under_open_streams() {
    for (count, signal) in [(1, libc::SIGTERM), (1, libc::SIGINT), (3, libc::SIGINT)] {
        let mut cluster = Cluster::running(count, &[]).await;
        let leader = cluster.wait_leader().await;
        let client = Client::patient(&cluster.members[leader].client_url());
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(open_watch(&client).await);
        }
        let put = client.put("k", "v").await.expect("a put");
        for stream in &mut streams {
            let events = stream.next().await.expect("an answer").expect("no error").events;
            assert_eq!(events[0].kv.as_ref().expect("a pair").mod_revision, put);
        }
        let begin = Instant::now();
        let process = cluster.members[leader].process();
        process.signal(signal);
        assert_eq!(process.wait().await.code(), Some(0), "{count} members, signal {signal}");
        assert!(begin.elapsed() < SECONDS, "{:?}", begin.elapsed());
        for mut stream in streams {
            while let Some(Ok(_)) = stream.next().await {}
        }
        cluster.kill(leader);
        cluster.start(leader);
        cluster.wait_ready(leader).await;
        assert_eq!(client.get("k").await.expect("a read"), Some(b"v".to_vec()));
    }
}

/// Lines that call a human.
fn loud(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| ["error", "dpanic", "panic", "fatal"].iter().any(|level| line.contains(&format!(r#""level":"{level}""#))))
        .collect()
}

/// Tools that watch for errors must see none where there is none.
#[tokio::test]
async fn a_normal_life_logs_no_error() {
    let mut cluster = Cluster::running(3, &[]).await;
    for member in 0..3 {
        let client = Client::patient(&cluster.members[member].client_url());
        let mut stream = open_watch(&client).await;
        for number in 0..20 {
            client.put(format!("k{member}-{number}"), "v").await.expect("a put");
        }
        stream.next().await.expect("an answer").expect("no error");
    }
    for arguments in [&["member", "list"][..], &["endpoint", "status"], &["compaction", "30"], &["del", "k0-0"], &["alarm", "list"]] {
        assert_eq!(etcdctl(&cluster.endpoints(), arguments).code, Some(0), "{arguments:?}");
    }
    // Away and back: the others elect, or notice. Who ends is still asked this and that by its peers.
    let mut wrong = Vec::new();
    for _ in 0..5 {
        let leader = cluster.wait_leader().await;
        assert!(cluster.terminate(leader).await.success());
        eventually("a put without it", || async { cluster.client((leader + 1) % 3).put("k", "w").await.ok() }).await;
        wrong.extend(loud(&cluster.log(leader)).into_iter().map(str::to_owned));
        cluster.start(leader);
        cluster.wait_ready(leader).await;
    }
    for member in 0..3 {
        assert!(cluster.terminate(member).await.success());
    }
    (0..3).for_each(|member| wrong.extend(loud(&cluster.log(member)).into_iter().map(str::to_owned)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
