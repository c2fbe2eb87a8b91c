//! Watch streams to both servers.

use crate::call::{Normal, normal_header};
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::etcdserverpb::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// One stream to one server. Dropped = the client vanishes.
pub struct Stream {
    requests: Option<mpsc::Sender<WatchRequest>>,
    answers: mpsc::Receiver<Result<WatchResponse, Status>>,
}

impl Stream {
    /// The server answers nothing, not even with headers, before it is asked something.
    pub fn open(client: &Client) -> Self {
        let (requests, receiver) = mpsc::channel(1000);
        let (sender, answers) = mpsc::channel(1000);
        let mut watch = client.watch.clone();
        tokio::spawn(async move {
            let mut stream = match watch.watch(ReceiverStream::new(receiver)).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return drop(sender.send(Err(status)).await),
            };
            while let Some(answer) = stream.message().await.transpose() {
                let ended = answer.is_err();
                if sender.send(answer).await.is_err() || ended {
                    return;
                }
            }
        });
        Self { requests: Some(requests), answers }
    }

    /// Asks.
    pub async fn ask(&self, request: RequestUnion) {
        self.raw(WatchRequest { request_union: Some(request) }).await;
    }

    /// Sends any message.
    pub async fn raw(&self, request: WatchRequest) {
        self.requests.as_ref().expect("not closed").send(request).await.expect("the stream lives");
    }

    /// Says that no more will be asked.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// The next answer; `None` at a good end.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        tokio::time::timeout(PATIENCE, self.answers.recv()).await.expect("the stream is silent")
    }

    /// The next answer of a stream that must live.
    pub async fn answer(&mut self) -> WatchResponse {
        self.next().await.expect("the stream has ended").expect("the stream has failed")
    }
}

impl Normal for WatchResponse {
    fn normal(&mut self) {
        normal_header(&mut self.header);
    }
}

/// One stream to each server, driven in step.
pub struct Streams(pub [Stream; 2]);

impl Streams {
    pub fn open(pair: &Pair) -> Self {
        let [etcd, rusd] = pair.clients();
        Self([Stream::open(etcd), Stream::open(rusd)])
    }

    pub async fn ask(&self, request: RequestUnion) {
        for stream in &self.0 {
            stream.ask(request.clone()).await;
        }
    }

    /// Creates a watch and compares the answer.
    pub async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(create.clone())).await;
        self.same(&format!("{create:?}")).await
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub async fn progress(&self) {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    /// The next answer of each must be the same.
    pub async fn same(&mut self, what: &str) -> WatchResponse {
        self.same_in_any_order(1, what).await.remove(0)
    }

    /// The next so many answers, whatever the order of the watches.
    pub async fn same_in_any_order(&mut self, count: usize, what: &str) -> Vec<WatchResponse> {
        let mut all: Vec<Vec<WatchResponse>> = Vec::new();
        for stream in &mut self.0 {
            let mut answers = Vec::new();
            for _ in 0..count {
                let mut answer = stream.answer().await;
                answer.normal();
                answers.push(answer);
            }
            answers.sort_by_key(|answer| answer.watch_id);
            all.push(answers);
        }
        assert!(all[0] == all[1], "{what}\n  etcd: {:#?}\n  rusd: {:#?}", all[0], all[1]);
        all.remove(1)
    }

    /// Nothing is on its way: what is asked next is answered next.
    pub async fn silent(&mut self, what: &str) {
        let refused = WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() };
        let answer = self.create(refused).await;
        assert!(answer.created && answer.canceled, "{what}: {answer:?}");
    }
}

/// A watch of a key.
pub fn key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_string().into(), ..Default::default() }
}

/// A watch of [key, end).
pub fn span(first: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { range_end: end.to_string().into(), ..key(first) }
}
