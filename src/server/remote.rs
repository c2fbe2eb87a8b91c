//! What running members tell over plain HTTP on their peer ports, before we are a member ourselves: `GET /members` and `GET /version`
//! (contract c.2).

use crate::config::urls;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;

/// An answer beyond this is no list of members.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A running cluster as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its id.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<Member>,
    /// Oldest and newest peer protocol of the member that was asked; none if it is no rusd.
    pub protocol: Option<(u32, u32)>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Member id.
    pub id: u64,
    /// Sorted peer URLs.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    /// Empty before the member has started for the first time.
    #[serde(default)]
    pub name: String,
    /// Likewise.
    #[serde(rename = "clientURLs", default)]
    pub client_urls: Vec<String>,
    /// Whether it has no vote, and isn't to get one by itself.
    #[serde(rename = "isLearner", default)]
    pub is_learner: bool,
}

/// The header that tells the peer protocol: `OLDEST-NEWEST`.
pub const PROTOCOL_HEADER: &str = "X-Rusd-Protocol";

/// Its value for this release.
pub fn protocol_header() -> String {
    let (oldest, newest) = rusd_network::protocol();
    format!("{oldest}-{newest}")
}

/// The cluster version as a running member tells it.
#[derive(Clone, Debug, Deserialize)]
struct Versions {
    etcdcluster: String,
}

/// Asks one URL after the other, each for at most `timeout`; the first answer counts, as with etcd.
pub async fn first(peer_urls: &[String], timeout: Duration) -> Option<Remote> {
    for url in peer_urls {
        if let Some(remote) = in_time(url, timeout, members(url)).await {
            return Some(remote);
        }
    }
    None
}

/// Asks all URLs at once; the answers that come within `timeout`.
pub async fn all(peer_urls: &[String], timeout: Duration) -> Vec<Remote> {
    let asked = peer_urls.iter().map(|url| in_time(url, timeout, members(url)));
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Major and minor of the cluster version, from whoever answers first with one that is decided.
pub async fn cluster_version(peer_urls: &[String], timeout: Duration) -> Option<(u64, u64)> {
    for url in peer_urls {
        let version = in_time(url, timeout, version(url)).await;
        if let Some(version) = version.and_then(|text| major_minor(&text)) {
            return Some(version);
        }
    }
    None
}

/// `3.7.1` is (3, 7).
pub fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

async fn in_time<T>(url: &str, timeout: Duration, ask: impl Future<Output = Result<T, AskError>>) -> Option<T> {
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => tracing::debug!(url, %error, "a peer didn't answer"),
        Err(_) => tracing::debug!(url, "a peer didn't answer in time"),
    }
    None
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Url(#[from] urls::UrlError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] http::Error),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("status {0}")]
    Status(http::StatusCode),
    #[error("no cluster id in the answer")]
    NoClusterId,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

async fn members(url: &str) -> Result<Remote, AskError> {
    let response = get(url, "/members").await?;
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let cluster_id = text("X-Etcd-Cluster-ID").and_then(|id| u64::from_str_radix(id, 16).ok()).ok_or(AskError::NoClusterId)?;
    let protocol = text(PROTOCOL_HEADER).and_then(|range| {
        let (oldest, newest) = range.split_once('-')?;
        Some((oldest.parse().ok()?, newest.parse().ok()?))
    });
    Ok(Remote { cluster_id, members: serde_json::from_slice(response.body())?, protocol })
}

async fn version(url: &str) -> Result<String, AskError> {
    let versions: Versions = serde_json::from_slice(get(url, "/version").await?.body())?;
    Ok(versions.etcdcluster)
}

async fn get(url: &str, path: &str) -> Result<http::Response<Bytes>, AskError> {
    let address = urls::parse(url)?;
    // What the URL says is the host that an HTTP server expects to hear, be it that of a socket file.
    let host = address.url.authority().to_owned();
    let stream = rusd_network::dial(&[address.text]).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(AskError::Status(response.status()));
        }
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(AskError::Body)?.to_bytes();
        Ok(http::Response::from_parts(parts, body))
    };
    // The connection does its work only while it is polled; it may end before the answer has been read.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => { ended?; exchange.await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn peer(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn the_first_good_answer_counts() {
        let good = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: cdf818194e3a8c32\r\nConnection: close\r\n\r\n\
                    [{\"id\":10276657743932975437,\"peerURLs\":[\"http://localhost:2380\"],\"name\":\"default\"}]";
        let urls = [
            peer("garbage").await,
            peer("HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n").await,
            peer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await,
            peer(good).await,
        ];
        let remote = first(&urls, Duration::from_secs(5)).await.expect("one answers");
        assert_eq!((remote.cluster_id, remote.members[0].id), (0xcdf8_1819_4e3a_8c32, 0x8e9e_05c5_2164_694d));
        assert!(remote.members[0].client_urls.is_empty() && !remote.members[0].is_learner);
        assert_eq!((remote.members[0].name.as_str(), remote.protocol), ("default", None));
        assert_eq!(first(&urls[..3], Duration::from_secs(5)).await, None);
        assert_eq!(all(&urls, Duration::from_secs(5)).await, [remote]);
    }

    #[tokio::test]
    async fn a_cluster_version_counts_once_it_is_decided() {
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\"}";
        let decided = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\"}";
        let urls = [peer("garbage").await, peer(answer).await, peer(decided).await];
        assert_eq!(cluster_version(&urls, Duration::from_secs(5)).await, Some((3, 7)));
        assert_eq!(cluster_version(&urls[..2], Duration::from_secs(5)).await, None);
    }
}
