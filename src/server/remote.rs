//! What a running member tells over plain HTTP on its peer port, before we are a member ourselves: `GET /members` (contract c.2).

use crate::config::urls;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;
use tokio::net::TcpStream;

/// An answer beyond this is no list of members.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A running cluster as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its id.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Member id.
    pub id: u64,
    /// Sorted peer URLs.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    /// Empty before the member has started for the first time.
    #[serde(rename = "clientURLs", default)]
    pub client_urls: Vec<String>,
}

/// Asks one URL after the other, each for at most `timeout`; the first answer counts, as with etcd.
pub async fn first(peer_urls: &[String], timeout: Duration) -> Option<Remote> {
    for url in peer_urls {
        match tokio::time::timeout(timeout, ask(url)).await {
            Ok(Ok(remote)) => return Some(remote),
            Ok(Err(error)) => tracing::debug!(url, %error, "a peer didn't tell its members"),
            Err(_) => tracing::debug!(url, "a peer didn't tell its members in time"),
        }
    }
    None
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Url(#[from] urls::UrlError),
    #[error("no address in the URL")]
    NoAddress,
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

async fn ask(url: &str) -> Result<Remote, AskError> {
    let url = urls::parse(url)?.url;
    let host = url.host_str().ok_or(AskError::NoAddress)?;
    let port = url.port_or_known_default().ok_or(AskError::NoAddress)?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get("/members").header(http::header::HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(AskError::Status(response.status()));
        }
        let id = response.headers().get("X-Etcd-Cluster-ID").and_then(|id| id.to_str().ok());
        let cluster_id = id.and_then(|id| u64::from_str_radix(id, 16).ok()).ok_or(AskError::NoClusterId)?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(AskError::Body)?.to_bytes();
        Ok(Remote { cluster_id, members: serde_json::from_slice(&body)? })
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
        assert!(remote.members[0].client_urls.is_empty());
        assert_eq!(first(&urls[..3], Duration::from_secs(5)).await, None);
    }
}
