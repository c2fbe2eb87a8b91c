//! To a peer URL: over TCP, or for `unix://` to a socket file.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
use tonic::transport::Uri;

/// A connection to a peer.
pub type PeerStream = Either<TcpStream, UnixStream>;

/// Where a peer URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// Host and port.
    Tcp(String, u16),
    /// A socket file; a relative path is one in the working directory.
    Unix(PathBuf),
}

/// The file that a `unix` URL names by what follows its slashes; whoever binds it must read it in the same way.
pub fn socket_file(text: &str) -> PathBuf {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    std::ffi::OsString::from_vec(bytes).into()
}

/// `None` if it leads nowhere.
fn target(url: &str) -> Option<Target> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Some(Target::Unix(socket_file(path.strip_prefix("//").unwrap_or(path))));
    }
    let uri = url.parse::<Uri>().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.authority()?.as_str().rsplit(['@', ']']).next()?;
    match uri.port_u16() {
        Some(port) => Some(Target::Tcp(host, port)),
        // It is there, and can't be one.
        None if port.trim_end_matches(':').contains(':') => None,
        None => Some(Target::Tcp(host, 80)),
    }
}

async fn connect(target: Target) -> io::Result<PeerStream> {
    match target {
        Target::Tcp(host, port) => {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Either::Left(stream))
        }
        Target::Unix(path) => UnixStream::connect(path).await.map(Either::Right),
    }
}

/// To the first of these peer URLs that takes a connection.
///
/// # Errors
/// Of the last one that leads anywhere.
pub async fn dial(urls: &[String]) -> io::Result<PeerStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no peer URL");
    for target in urls.iter().filter_map(|url| target(url)) {
        match connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether every address of these URLs refuses a connection within `timeout`: the host is there, and nobody listens. Anything else, a
/// name that isn't found or an answer that doesn't come, is no proof.
pub async fn port_is_closed(urls: &[String], timeout: Duration) -> bool {
    let closed = |url: &String| {
        let target = target(url);
        async move {
            match target {
                None => false,
                Some(Target::Unix(path)) => refuses(UnixStream::connect(path), timeout).await,
                Some(Target::Tcp(host, port)) => {
                    let Ok(Ok(found)) = tokio::time::timeout(timeout, tokio::net::lookup_host((host, port))).await else { return false };
                    let each: Vec<_> = found.map(|address| refuses(TcpStream::connect(address), timeout)).collect();
                    !each.is_empty() && futures::future::join_all(each).await.into_iter().all(|refused| refused)
                }
            }
        }
    };
    !urls.is_empty() && futures::future::join_all(urls.iter().map(closed)).await.into_iter().all(|closed| closed)
}

async fn refuses<T>(connecting: impl Future<Output = io::Result<T>>, timeout: Duration) -> bool {
    let outcome = tokio::time::timeout(timeout, connecting).await;
    matches!(outcome, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_a_host_or_a_file() {
        let tcp = |host: &str, port| Some(Target::Tcp(host.into(), port));
        for (url, leads) in [
            ("http://a", tcp("a", 80)),
            ("http://a:", tcp("a", 80)),
            ("http://[::1]", tcp("::1", 80)),
            ("http://[::1]:2380", tcp("::1", 2380)),
            ("http://a:99999", None),
            ("unix://peer:1", Some(Target::Unix("peer:1".into()))),
            ("unix:peer", Some(Target::Unix("peer".into()))),
            ("unix:///run/peer", Some(Target::Unix("/run/peer".into()))),
        ] {
            assert_eq!(target(url), leads, "{url}");
        }
    }

    #[tokio::test]
    async fn only_a_port_that_refuses_is_closed() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", open.local_addr().expect("it is bound"));
        let wait = Duration::from_secs(5);
        assert!(!port_is_closed(std::slice::from_ref(&url), wait).await, "it listens");
        assert!(!port_is_closed(&["http://127.0.0.1:1".into(), url.clone()], wait).await, "one of two listens");
        drop(open);
        assert!(port_is_closed(&["http://127.0.0.1:1".into(), url], wait).await);
        assert!(!port_is_closed(&[], wait).await && !port_is_closed(&["http://nowhere.invalid:1".into()], wait).await);
    }

    #[tokio::test]
    async fn a_socket_file_is_dialled_and_found_closed_like_a_port() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peer");
        let urls = ["http://127.0.0.1:1".to_string(), format!("unix://{}", path.display())];
        let wait = Duration::from_secs(5);
        assert!(!port_is_closed(&urls, wait).await, "a file that isn't there proves nothing");
        let open = tokio::net::UnixListener::bind(&path).expect("it binds");
        assert!(matches!(dial(&urls).await, Ok(Either::Right(_))));
        assert!(!port_is_closed(&urls, wait).await);
        drop(open);
        assert!(port_is_closed(&urls, wait).await);
        assert_eq!(dial(&urls).await.err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    }
}
