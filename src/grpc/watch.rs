//! The Watch service: translates between the wire and [`WatchStream`], which does the work.
//!
//! A stream is one state that the transport polls when it can send: no task and no channel of its own. A client that doesn't read is not
//! polled; what it costs then is its bounded queue.

use super::transport::{self, Reading};
use crate::pb::etcdserverpb::{self as pb, watch_request::RequestUnion};
use crate::pb::mvccpb;
use crate::server::Server;
use crate::watch::watcher::Filters;
use crate::watch::{Create, Event, History, Hub, Response, WatchStream, stream};
use futures::Stream;
use rusd_storage::KeyValue;
use std::pin::Pin;
use std::sync::Arc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status, Streaming};

/// etcd allows this much beyond `--max-request-bytes` for what surrounds a request.
const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

/// Who may watch what; asked before each watch begins.
pub trait WatchPermission: Send + Sync + 'static {
    /// Refuses with the status whose text becomes the watch's cancel reason. `range_end` as it came.
    fn may_watch(&self, metadata: &MetadataMap, key: &[u8], range_end: &[u8]) -> Result<(), Status>;
}

/// No authentication: everybody may.
pub struct Everybody;

impl WatchPermission for Everybody {
    fn may_watch(&self, _: &MetadataMap, _: &[u8], _: &[u8]) -> Result<(), Status> {
        Ok(())
    }
}

/// The service.
#[derive(Clone)]
pub struct WatchService {
    server: Arc<Server>,
    hub: Arc<Hub>,
    permission: Arc<dyn WatchPermission>,
}

impl WatchService {
    /// On a running hub. Streams that want a leader are ended by the front.
    pub fn new(server: Arc<Server>, hub: Arc<Hub>, permission: Arc<dyn WatchPermission>) -> Self {
        Self { server, hub, permission }
    }
}

/// A header as this member gives it.
pub fn header(server: &Server, revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: server.identity.cluster_id,
        member_id: server.identity.member_id,
        revision,
        raft_term: server.consensus.term(),
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::watch_server::Watch for WatchService {
    type WatchStream = Responses;

    async fn watch(&self, request: Request<Streaming<pb::WatchRequest>>) -> Result<tonic::Response<Responses>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let config = &self.server.config;
        let options = stream::Options {
            progress_interval: config.watch_progress_notify_interval,
            fragment_bytes: config.max_request_bytes + GRPC_OVERHEAD_BYTES,
        };
        let session = Session {
            server: self.server.clone(),
            permission: self.permission.clone(),
            metadata,
            hub: self.hub.clone(),
            stream: WatchStream::open(self.hub.clone(), options),
            requests: Some(requests),
        };
        let responses = futures::stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(tonic::Response::new(Box::pin(responses)))
    }
}

struct Session {
    server: Arc<Server>,
    permission: Arc<dyn WatchPermission>,
    metadata: MetadataMap,
    hub: Arc<Hub>,
    stream: WatchStream,
    /// None once the client has closed its half, which does not end the stream.
    requests: Option<Streaming<pb::WatchRequest>>,
}

impl Session {
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            if let Some(response) = self.stream.pop() {
                return Ok(encode(response, &self.server, self.hub.history()));
            }
            tokio::select! {
                request = next_request(&mut self.requests) => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => self.requests = None,
                    // The client speaks nonsense, or is gone.
                    Err(status) => {
                        let nonsense = transport::unreadable(&status, Reading::Stream);
                        return Err(nonsense.unwrap_or_else(|| Status::new(Code::Cancelled, "etcdserver: watch canceled")));
                    }
                },
                () = self.stream.wait() => {}
            }
        }
    }

    fn take(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                // etcd checks the key it will use and the range end as it came.
                let key: &[u8] = if create.key.is_empty() { &[0] } else { &create.key };
                match self.permission.may_watch(&self.metadata, key, &create.range_end) {
                    Ok(()) => self.stream.create(decode(create)),
                    Err(status) => self.stream.refuse(reason(&status)),
                }
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.stream.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            // etcd ignores what it doesn't know.
            None => {}
        }
    }
}

async fn next_request(requests: &mut Option<Streaming<pb::WatchRequest>>) -> Result<Option<pb::WatchRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}

/// A status as Go prints it: that is what clients parse.
fn reason(status: &Status) -> String {
    let code = match status.code() {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

fn decode(create: pb::WatchCreateRequest) -> Create {
    use pb::watch_create_request::FilterType;
    let has = |filter: FilterType| create.filters.contains(&(filter as i32));
    Create {
        filters: Filters { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) },
        key: create.key,
        range_end: create.range_end,
        start_revision: create.start_revision,
        progress_notify: create.progress_notify,
        prev_kv: create.prev_kv,
        watch_id: create.watch_id,
        fragment: create.fragment,
    }
}

fn encode(response: Response, server: &Server, history: &dyn History) -> pb::WatchResponse {
    let events = response.events().iter().map(|event| encode_event(event, response.prev_kv, history)).collect();
    pb::WatchResponse {
        header: Some(header(server, response.revision)),
        watch_id: response.watch_id,
        created: response.created,
        canceled: response.canceled,
        compact_revision: response.compact_revision,
        cancel_reason: response.cancel_reason,
        fragment: response.fragment,
        events,
    }
}

fn encode_event(event: &Event, prev_kv: bool, history: &dyn History) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let kind = if event.record.tombstone { EventType::Delete } else { EventType::Put };
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(encode_kv(&event.record.kv)),
        prev_kv: if prev_kv { event.previous(history).map(encode_kv) } else { None },
    }
}

/// A key as the wire has it.
pub(super) fn encode_kv(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_gos() {
        let denied = Status::new(Code::PermissionDenied, "etcdserver: permission denied");
        assert_eq!(reason(&denied), "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    }

    #[test]
    fn unknown_filters_are_ignored() {
        let create = pb::WatchCreateRequest { filters: vec![1, 7], ..pb::WatchCreateRequest::default() };
        assert_eq!(decode(create).filters, Filters { no_put: false, no_delete: true });
    }
}
