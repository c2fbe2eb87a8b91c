//! Connections: one port for gRPC and HTTP/1.1, told apart by the first bytes.
//!
//! A shutdown stops accepting, tells every connection to finish (GOAWAY), and after the grace ends what is left.

use super::beginning::Beginning;
use super::crowd::{self, Guest};
use crate::grpc::front::Front;
use axum::Router;
use axum::body::Body;
use axum::serve::{Listener, ListenerExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rusd_network::Cork;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Peers send a lot at once: log entries, snapshots. In frames of 16 KiB, HTTP/2's default, that takes a system call and a turn of the
/// connection for each.
const PEER_FRAME_BYTES_MAX: u32 = 64 << 10;
/// Metadata of a call; grpc-go takes 16 MiB, hyper's own 16 KiB are too few for some tokens.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// Who sends half a header, or half of what tells its protocol, is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between probes of a silent connection, as Go's.
const PROBE: Duration = Duration::from_secs(15);
/// A connection that takes nothing for so long is dead, or its client has stopped reading: etcd's keep-alive timeout, which grpc-go
/// hands to the kernel likewise.
const STUCK: Duration = Duration::from_secs(20);

/// A TCP listener whose connections don't delay small writes, and don't outlive a client that went away without a word.
pub fn tcp(listener: TcpListener) -> impl Listener<Io = TcpStream> {
    listener.tap_io(|stream| {
        let socket = socket2::SockRef::from(&*stream);
        let probes = socket2::TcpKeepalive::new().with_time(PROBE).with_interval(PROBE);
        let set = stream
            .set_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&probes))
            .and_then(|()| socket.set_tcp_user_timeout(Some(STUCK)));
        if let Err(error) = set {
            tracing::debug!(%error, "a connection keeps the system's settings");
        }
    })
}

/// Serves clients until `shutdown`, then lets calls end for `grace`.
pub async fn serve<L: Listener>(listener: L, front: Front, shutdown: CancellationToken, grace: Duration) {
    let streams = front.max_concurrent_streams();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| front.answer(request));
    serve_with(listener, service, Guest::Client, streams, shutdown, grace).await;
}

/// Serves a plain HTTP router (`--listen-metrics-urls`) likewise.
pub async fn serve_router<L: Listener>(listener: L, router: Router, shutdown: CancellationToken, grace: Duration) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
    serve_with(listener, service, Guest::Other, 100, shutdown, grace).await;
}

async fn serve_with<L, S, B>(mut listener: L, service: S, guest: Guest, streams: u32, shutdown: CancellationToken, grace: Duration)
where
    L: Listener,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (connections, end) = (TaskTracker::new(), CancellationToken::new());
    let builder = builder(guest, streams);
    loop {
        let accept = async {
            let place = crowd::place(guest).await;
            (place, listener.accept().await.0)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept => accepted,
        };
        let connection = serve_one(accepted, service.clone(), builder.clone(), shutdown.clone());
        let connection = async move {
            connection.await;
            drop(place);
        };
        connections.spawn(end.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(grace, connections.wait()).await.is_err() {
        end.cancel();
        connections.wait().await;
    }
}

fn builder(guest: Guest, streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(Duration::from_secs(2 * 60 * 60))
        .keep_alive_timeout(Duration::from_secs(20));
    if guest == Guest::Other {
        builder.http2().max_frame_size(PEER_FRAME_BYTES_MAX);
    }
    builder
}

async fn serve_one<I, S, B>(io: I, service: S, builder: Builder<TokioExecutor>, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (io, plain) = Beginning::new(Cork::new(io));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let undecided = async {
        tokio::time::sleep(HEADER_TIMEOUT).await;
        if plain.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = undecided => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_shutdown_ends_idle_connections_and_frees_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", axum::routing::get(|| async { "hello" }));
        let server = tokio::spawn(serve_router(tcp(listener), router, shutdown.clone(), Duration::from_millis(200)));

        let mut idle = TcpStream::connect(address).await.expect("it accepts");
        let mut asking = TcpStream::connect(address).await.expect("it accepts");
        asking.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
        let mut text = String::new();
        asking.read_to_string(&mut text).await.expect("it answers");
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");

        shutdown.cancel();
        server.await.expect("it ends");
        // Nothing was sent, so nothing but the end comes back.
        assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
        TcpListener::bind(address).await.expect("the port is free again");
    }
}
