//! What isn't gRPC on the client port.

use crate::build::put;
use crate::harness::PATIENCE;
use crate::harness::cluster::Cluster;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::AlarmRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    content_type: String,
    pub body: String,
}

/// Asks over HTTP/1.1, with a connection of its own.
pub async fn ask(port: u16, method: &str, path: &str) -> Page {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it answers");
        String::from_utf8(bytes).expect("text")
    };
    let text = tokio::time::timeout(PATIENCE, talk).await.expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let field = |name: &str| head.lines().filter_map(|line| line.split_once(": ")).find(|(field, _)| field.eq_ignore_ascii_case(name));
    let chunked = field("transfer-encoding").is_some_and(|(_, value)| value == "chunked");
    Page {
        status: head.split(' ').nth(1).expect("a status").parse().expect("a number"),
        content_type: field("content-type").map_or("", |(_, value)| value).to_string(),
        body: if chunked { unchunk(body) } else { body.to_string() },
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Checks come in no order.
fn sorted(page: Page) -> Page {
    let mut lines: Vec<&str> = page.body.split_inclusive('\n').collect();
    if lines.iter().any(|line| line.starts_with("[+]") || line.starts_with("[-]")) {
        lines.sort_unstable();
    }
    Page { body: lines.concat(), ..page }
}

async fn same_pages(pair: &Pair, requests: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (method, path) in requests {
        let mut pages = Vec::new();
        for cluster in [&pair.etcd, &pair.rusd] {
            pages.push(sorted(ask(cluster.members[0].client_port, method, path).await));
        }
        if pages[0] != pages[1] {
            wrong.push(format!("{method} {path}\n  etcd: {:?}\n  rusd: {:?}", pages[0], pages[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const HEALTH: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("POST", "/health"),
    ("HEAD", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?serializable=false"),
    ("GET", "/health?exclude=NOSPACE"),
    ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
    ("GET", "/health?exclude=nonsense"),
    ("GET", "/livez"),
    ("PUT", "/livez"),
    ("GET", "/livez?verbose"),
    ("GET", "/livez?verbose=false"),
    ("GET", "/livez?exclude=serializable_read"),
    ("GET", "/livez?verbose&exclude=serializable_read"),
    ("GET", "/livez/serializable_read"),
    ("GET", "/livez/serializable_read?verbose"),
    ("GET", "/livez/linearizable_read"),
    ("GET", "/livez/nonsense"),
    ("GET", "/readyz"),
    ("DELETE", "/readyz"),
    ("GET", "/readyz?verbose"),
    ("GET", "/readyz?verbose&exclude=linearizable_read&exclude=nonsense"),
    ("GET", "/readyz/data_corruption"),
    ("GET", "/readyz/serializable_read"),
    ("GET", "/readyz/linearizable_read"),
    ("GET", "/readyz/non_learner?verbose"),
    ("GET", "/readyz/nonsense"),
];

/// A moment after the start.
pub async fn versions_decided(cluster: &Cluster) {
    crate::harness::eventually("the versions are decided", || async {
        ask(cluster.members[0].client_port, "GET", "/version").await.body.contains(r#""storage":"3.7.0""#).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_and_version() {
    let pair = Pair::start(&[]).await;
    pair.accepted(put("k", "v")).await;
    for cluster in [&pair.etcd, &pair.rusd] {
        versions_decided(cluster).await;
    }
    same_pages(&pair, HEALTH).await;
    let others = [
        ("GET", "/version"),
        ("POST", "/version"),
        ("GET", "/"),
        ("GET", "/nonsense"),
        ("GET", "/v2/keys"),
        ("GET", "/v2/members"),
        ("GET", "/config/local/log"),
        ("GET", "/debug/pprof/heap"),
        ("GET", "/debug/requests"),
    ];
    same_pages(&pair, &others).await;
    for alarm in [1, 2] {
        pair.accepted(AlarmRequest { action: 1, member_id: 0, alarm }).await;
        same_pages(&pair, HEALTH).await;
        pair.accepted(AlarmRequest { action: 2, member_id: 0, alarm }).await;
    }
}
