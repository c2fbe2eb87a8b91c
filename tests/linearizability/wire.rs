//! Watch requests as a stream, and ranges of keys.

use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Keys from..to; all from `from` on if `to` is "\0".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub from: String,
    /// The first key beyond.
    pub to: String,
}

impl Range {
    /// Every key.
    pub fn everything() -> Self {
        Self { from: "\0".into(), to: "\0".into() }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &str) -> bool {
        self.from.as_str() <= key && (self.to == "\0" || key < self.to.as_str())
    }
}

/// The requests of one watch stream. Dropping it closes the client's half.
pub struct WatchRequests(mpsc::Sender<WatchRequest>);

impl WatchRequests {
    /// A stream that begins with the creation of one watch.
    pub fn new(range: &Range, start_revision: i64, prev_kv: bool) -> (Self, ReceiverStream<WatchRequest>) {
        let (sender, receiver) = mpsc::channel(8);
        let create = WatchCreateRequest {
            key: range.from.clone().into(),
            range_end: range.to.clone().into(),
            start_revision,
            prev_kv,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.try_send(first).expect("the channel is empty");
        (Self(sender), ReceiverStream::new(receiver))
    }

    /// Asks for progress, unless older requests still wait.
    pub fn ask_progress(&self) {
        let _ = self.0.try_send(WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) });
    }
}
