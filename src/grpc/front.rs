//! What every call passes: counters, the learner's and the leader's gate, then the service.
//!
//! KV and Lease are called directly; all other services through tonic's router. Per call: one look into a table of methods, two counters,
//! a counting body each way. No string is made.

use super::lease::LeaseService;
use super::listing::{Carried, Pieces};
use super::messages::Messages;
use super::outflow::Large;
use super::slow::Timed;
use super::transport::{self, ContentType, Reading};
use super::{Api, status};
use crate::metrics::{Kind, Method, Metrics};
use crate::pb;
use crate::pb::etcdserverpb::lease_server::LeaseServer;
use crate::server::{Error, Server};
use axum::Router;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// etcd's allowance on top of `--max-request-bytes`.
const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

/// Served, and not counted: etcd has none.
const REFLECTION: &str = "/grpc.reflection.";

/// Sets what all services have in common: message sizes and compression. A macro, for each generated server is a type of its own.
#[macro_export]
macro_rules! with_limits {
    ($server:expr, $config:expr) => {
        $server
            .max_decoding_message_size($crate::grpc::front::decode_bytes_max($config))
            .max_encoding_message_size(i32::MAX as usize)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
    };
}

/// The largest message a client may send.
pub fn decode_bytes_max(config: &crate::config::Config) -> usize {
    config.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
}

/// One for all connections; a clone is a few counts up.
#[derive(Clone)]
pub struct Front {
    shared: Arc<Shared>,
    kv: pb::etcdserverpb::kv_server::KvServer<Api>,
    lease: Option<LeaseServer<LeaseService>>,
    routes: Routes,
    web: Router,
}

struct Shared {
    server: Arc<Server>,
    metrics: Arc<Metrics>,
    /// Ends the streams of clients that want a leader, and is then replaced.
    leaderless: Mutex<CancellationToken>,
}

impl Front {
    /// The services of this crate, and `web` for whatever isn't gRPC. Must be called within the runtime: it starts the task that
    /// ends streams once the leader is gone, which lives as long as the front does.
    pub fn new(api: Api, web: Router) -> Self {
        use pb::etcdserverpb::{
            auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer, maintenance_server::MaintenanceServer,
        };
        use pb::health::health_server::HealthServer;
        let config = api.server.config.clone();
        let shared = Shared { server: api.server.clone(), metrics: api.metrics.clone(), leaderless: Mutex::default() };
        let shared = Arc::new(shared);
        tokio::spawn(watch_leader(Arc::downgrade(&shared), config.election_timeout));
        let one = Arc::new(api);
        let routes = Routes::default()
            .add_service(with_limits!(ClusterServer::from_arc(one.clone()), &config))
            .add_service(with_limits!(MaintenanceServer::from_arc(one.clone()), &config))
            .add_service(with_limits!(AuthServer::from_arc(one.clone()), &config))
            .add_service(with_limits!(HealthServer::from_arc(one.clone()), &config));
        Self { shared, kv: with_limits!(KvServer::from_arc(one), &config), lease: None, routes: with_reflection(routes), web }
    }

    /// Adds a service: `front.with(|routes| routes.add_service(with_limits!(WatchServer::new(..), &config)))`.
    pub fn with(mut self, add: impl FnOnce(Routes) -> Routes) -> Self {
        self.routes = add(self.routes);
        self
    }

    /// Adds the Lease service.
    pub fn with_lease(mut self, lease: LeaseService) -> Self {
        let lease = with_limits!(LeaseServer::new(lease), &self.shared.server.config);
        self.lease = Some(lease);
        self
    }

    /// `--max-concurrent-streams`.
    pub fn max_concurrent_streams(&self) -> u32 {
        self.shared.server.config.max_concurrent_streams
    }

    /// Answers one HTTP request of either kind.
    pub fn answer<B>(&self, mut request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send,
    {
        match transport::content_type(request.headers()) {
            ContentType::Grpc => {}
            ContentType::Unfit => return Answer::Refused(Some(Box::new(transport::unsupported_type(request.headers())))),
            ContentType::Other => return Answer::Web(Box::pin(self.web.clone().call(request.map(axum::body::Body::new)))),
        }
        transport::compress_for_who_compresses(request.headers_mut());
        let method = self.shared.metrics.method(request.uri().path()).cloned();
        let (mut ending, mut timed) = (None, None);
        if let Some(method) = &method {
            method.started.inc();
            match self.shared.admit(&request, method) {
                Ok(token) => {
                    ending = token;
                    timed = Timed::new(method, self.shared.server.config.warning_unary_request_duration);
                }
                Err(status) => {
                    method.handled(status.code());
                    return Answer::Refused(Some(Box::new(status.into_http())));
                }
            }
        } else if !request.uri().path().starts_with(REFLECTION) {
            let status = transport::unknown_path(request.uri().path(), |service| self.shared.metrics.has_service(service));
            return Answer::Refused(Some(Box::new(status.into_http())));
        }
        let path = request.uri().path();
        let is_kv = path.starts_with("/etcdserverpb.KV/");
        let lease = self.lease.as_ref().filter(|_| path.starts_with("/etcdserverpb.Lease/"));
        let request = request.map(|body| Received {
            body,
            metrics: self.shared.metrics.clone(),
            method: method.clone(),
            messages: Messages::default(),
        });
        let call: BoxFuture<'static, Result<Response<tonic::body::Body>, Infallible>> = match lease {
            _ if is_kv => self.kv.clone().call(request),
            Some(lease) => lease.clone().call(request),
            None => Box::pin(self.routes.clone().call(request)),
        };
        let ending = ending.map(|token: CancellationToken| Box::pin(token.cancelled_owned()));
        Answer::Grpc { call, method, ending, timed, metrics: self.shared.metrics.clone() }
    }
}

/// Reflection speaks of all services; a descriptor set that doesn't decode would be our own.
fn with_reflection(routes: Routes) -> Routes {
    let builder = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTORS);
    let v1 = builder().build_v1().expect("written by build.rs").accept_compressed(CompressionEncoding::Gzip);
    routes.add_service(v1).add_service(builder().build_v1alpha().expect("written by build.rs"))
}

impl Shared {
    /// The gates (contract a.5): a learner serves little, and who asks for a leader gets none without one.
    /// For a stream of such a client, what will end it.
    fn admit<B>(&self, request: &Request<B>, method: &Method) -> Result<Option<CancellationToken>, Status> {
        let consensus = &self.server.consensus;
        if consensus.is_learner() && !serves_as_learner(request.uri().path()) {
            return Err(status::not_for_learner());
        }
        let version = request.headers().get("client-api-version").map(HeaderValue::as_bytes).unwrap_or_default();
        let Ok(version) = std::str::from_utf8(version) else {
            return Err(Status::invalid_argument("etcdserver: invalid client api version"));
        };
        self.metrics.clients.count(version, method.kind == Kind::Unary);
        let wants_leader = request.headers().get("hasleader").is_some_and(|value| value == "true");
        if !wants_leader {
            return Ok(None);
        }
        if consensus.status().leader == 0 {
            return Err(Error::NoLeader.into());
        }
        Ok((method.kind != Kind::Unary).then(|| self.leaderless.lock().clone()))
    }
}

/// A serializable Range too; its handler looks at that.
fn serves_as_learner(path: &str) -> bool {
    matches!(path, "/etcdserverpb.KV/Range" | "/etcdserverpb.Maintenance/Status" | "/etcdserverpb.Maintenance/Snapshot")
}

/// Ends the streams that want a leader when there has been none for three election timeouts.
async fn watch_leader(shared: Weak<Shared>, election_timeout: Duration) {
    let mut missed = 0;
    let mut ticks = tokio::time::interval(election_timeout.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.server.consensus.status().leader != 0 {
            missed = 0;
            continue;
        }
        missed += 1;
        if missed >= 3 {
            std::mem::take(&mut *shared.leaderless.lock()).cancel();
            missed = 0;
        }
    }
}

/// A request body that is counted.
struct Received<B> {
    body: B,
    metrics: Arc<Metrics>,
    method: Option<Arc<Method>>,
    messages: Messages,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let this = &mut *self;
            this.metrics.received_bytes.inc_by(data.len() as u64);
            let begun = this.messages.begun(data);
            if let Some(method) = this.method.as_ref().filter(|_| begun > 0) {
                method.received.inc_by(begun);
            }
        }
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer on its way.
pub enum Answer {
    /// Not gRPC.
    Web(BoxFuture<'static, Result<Response<axum::body::Body>, Infallible>>),
    /// Stopped at a gate.
    Refused(Option<Box<Response<tonic::body::Body>>>),
    /// In a service.
    Grpc {
        /// The service's work.
        call: BoxFuture<'static, Result<Response<tonic::body::Body>, Infallible>>,
        /// Its counters.
        method: Option<Arc<Method>>,
        /// What ends it before its time.
        ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
        /// To tell of it if it is slow.
        timed: Option<Timed>,
        /// Byte counters.
        metrics: Arc<Metrics>,
    },
}

impl Future for Answer {
    type Output = Result<Response<Answered>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Web(call) => call.as_mut().poll(cx).map_ok(|response| response.map(Answered::Web)),
            Self::Refused(response) => {
                let response = response.take().expect("a future isn't polled after its end");
                Poll::Ready(Ok(response.map(|body| Answered::Grpc(Counted::new(body, None, None, None)))))
            }
            Self::Grpc { call, method, ending, timed, metrics } => {
                let Poll::Ready(Ok(mut response)) = call.as_mut().poll(cx) else {
                    // A stream may have no answer yet, hence no headers, and ends for want of a leader all the same.
                    ready!(ending.as_mut().map_or(Poll::Pending, |ending| ending.as_mut().poll(cx)));
                    return Poll::Ready(Ok(leaderless(method.take(), timed.take()).map(Answered::Grpc)));
                };
                if let Some(status) = response.extensions().get().and_then(|status| transport::unreadable(status, Reading::Request)) {
                    response = status.into_http();
                }
                let code = response.extensions().get::<Status>().map(Status::code);
                if let (Some(timed), Some(method)) = (timed.take(), method.as_deref()) {
                    timed.ended(method, code.unwrap_or(Code::Ok));
                }
                let mut method = method.take();
                if let (Some(code), Some(method)) = (code, method.take_if(|_| code.is_some())) {
                    method.handled(code);
                }
                let ending = ending.take();
                let metrics = metrics.clone();
                let large = response.extensions_mut().remove::<Arc<Large>>();
                let pieces = response.extensions_mut().remove::<Carried>().and_then(|carried| carried.take());
                Poll::Ready(Ok(response.map(|body| {
                    let mut body = Counted::new(body, method, ending, Some(metrics));
                    (body.large, body.pieces) = (large, pieces);
                    Answered::Grpc(body)
                })))
            }
        }
    }
}

/// The end of a call that waits for a leader, without an answer before it.
fn leaderless(method: Option<Arc<Method>>, timed: Option<Timed>) -> Response<Counted> {
    let status = Status::from(Error::NoLeader);
    if let Some(method) = method {
        method.handled(status.code());
        if let Some(timed) = timed {
            timed.ended(&method, status.code());
        }
    }
    status.into_http().map(|body| Counted::new(body, None, None, None))
}

impl Drop for Answer {
    /// A client that leaves before the answer counts as Canceled.
    fn drop(&mut self) {
        if let Self::Grpc { method: Some(method), .. } = self {
            method.handled(Code::Cancelled);
        }
    }
}

/// A response body of either kind.
pub enum Answered {
    /// gRPC.
    Grpc(Counted),
    /// Not gRPC.
    Web(axum::body::Body),
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Grpc(body) => body.poll(cx).map_err(Into::into),
            Self::Web(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc(body) => body.ended || (body.large.is_none() && body.pieces.is_none() && body.body.is_end_stream()),
            Self::Web(body) => body.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Grpc(_) => SizeHint::default(),
            Self::Web(body) => body.size_hint(),
        }
    }
}

/// A gRPC response body: counts its bytes and how the call ended, and may be ended for want of a leader.
pub struct Counted {
    body: tonic::body::Body,
    method: Option<Arc<Method>>,
    /// Its end is.
    counted: bool,
    messages: Messages,
    metrics: Option<Arc<Metrics>>,
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Where an answer waits that goes out in pieces.
    large: Option<Arc<Large>>,
    /// What goes out instead of the message of the service.
    pieces: Option<Pieces>,
    /// What ends it.
    trailers: Option<Frame<Bytes>>,
    ended: bool,
}

impl Counted {
    fn new(
        body: tonic::body::Body,
        method: Option<Arc<Method>>,
        ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let (counted, messages) = (method.is_none(), Messages::default());
        Self { body, method, counted, messages, metrics, ending, large: None, pieces: None, trailers: None, ended: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let lost = self.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready());
        if lost {
            return Poll::Ready(Some(self.end_without_leader()));
        }
        let frame = ready!(self.next_frame(cx));
        if let Some(Ok(frame)) = &frame {
            if let (Some(data), Some(metrics)) = (frame.data_ref(), &self.metrics) {
                metrics.sent_bytes.inc_by(data.len() as u64);
                let begun = self.messages.begun(data);
                if let Some(method) = self.method.as_ref().filter(|_| begun > 0) {
                    method.sent.inc_by(begun);
                }
            }
            if let Some(trailers) = frame.trailers_ref() {
                let code = trailers.get(Status::GRPC_STATUS).map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
                self.count(code);
            }
        }
        Poll::Ready(frame)
    }

    /// The service's next frame; of a large answer its next piece.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(pieces) = &mut self.pieces {
            if let Some(piece) = ready!(pieces.poll(cx)) {
                return Poll::Ready(Some(piece.map(Frame::data)));
            }
            // The message is out, and the service's empty one is not for the client.
            while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                if !frame.as_ref().is_ok_and(Frame::is_data) {
                    return Poll::Ready(Some(frame));
                }
            }
            return Poll::Ready(None);
        }
        let Some(large) = self.large.clone() else { return Pin::new(&mut self.body).poll_frame(cx) };
        let piece = || large.next_piece().map_err(|lost| Status::resource_exhausted(lost.to_string())).transpose();
        if let Some(piece) = piece() {
            return Poll::Ready(Some(piece.map(Frame::data)));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(match frame?.into_data() {
            Ok(data) => {
                large.put(data);
                // The encoder's buffer is the same memory: it must go, else the answer couldn't be taken away.
                if let Poll::Ready(Some(Ok(trailers))) = Pin::new(&mut self.body).poll_frame(cx) {
                    (self.trailers, self.body) = (Some(trailers), tonic::body::Body::empty());
                }
                piece().map(|piece| piece.map(Frame::data))
            }
            Err(trailers) => Some(Ok(trailers)),
        })
    }

    fn end_without_leader(&mut self) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        self.body = tonic::body::Body::empty();
        let status = Status::from(Error::NoLeader);
        self.count(status.code());
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }

    fn count(&mut self, code: Code) {
        if let Some(method) = self.method.as_ref().filter(|_| !self.counted) {
            method.handled(code);
        }
        self.counted = true;
    }
}

impl Drop for Counted {
    /// A stream that its client left counts as Canceled.
    fn drop(&mut self) {
        self.count(Code::Cancelled);
    }
}
