//! The sending side.

use super::{CHUNKS_AHEAD, KEPT, Lapsing, Snapshot};
use crate::channel::{Client, Links};
use crate::{PeerMetrics, codec, pb};
use futures::{Stream, StreamExt, future, stream};
use parking_lot::Mutex;
use pb::snapshot_part::Part;
use rusd_storage::raft::types::Vote;
use rusd_storage::snapshot::{Hold, Outgoing, Progress, SnapshotData};
use rusd_storage::types::LogPosition;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

/// The receiver syncs and switches after the last part; it gets this many idle times for that.
const INSTALL_IDLE_TIMES: u32 = 20;
/// Progress of who has handed over all of it.
const END: u64 = u64::MAX;

/// Counts what is handed to the connection.
struct Sent {
    chunks: u64,
    bytes: u64,
    progress: Arc<AtomicU64>,
    metrics: Arc<PeerMetrics>,
}

impl Sent {
    fn count(&mut self, chunk: Option<pb::SnapshotChunk>) -> Part {
        let Some(chunk) = chunk else {
            self.progress.store(END, Relaxed);
            return Part::End(pb::SnapshotEnd { chunks: self.chunks, bytes: self.bytes });
        };
        self.chunks += 1;
        self.bytes += chunk.data.len() as u64;
        self.progress.store(self.chunks, Relaxed);
        self.metrics.sent(chunk.data.len());
        Part::Chunk(chunk)
    }
}

/// Sends all of it, or what the receiver lacks; returns the receiver's vote.
pub async fn send(links: &Links, target: u64, client: Client, vote: Vote, snapshot: Snapshot) -> Result<Vote, Status> {
    let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else {
        return Err(Status::internal("a received snapshot can't be sent on"));
    };
    let head = pb::SnapshotHead { bytes: outgoing.weight(), pruned: true, ..codec::head_to(&vote, &snapshot.meta) };
    let mut attempt = Attempt::new(links, target, &outgoing);
    let result = ask_and_send(links, target, client, vote, outgoing, head, &mut attempt.from).await;
    if let Err(status) = &result {
        attempt.broke(links, target, status);
    }
    result
}

async fn ask_and_send(
    links: &Links,
    target: u64,
    client: Client,
    vote: Vote,
    mut outgoing: Outgoing,
    mut head: pb::SnapshotHead,
    from: &mut Option<i64>,
) -> Result<Vote, Status> {
    let held = ask(links, target, client.clone(), &vote).await?;
    if held.applied.is_some_and(|applied| applied >= outgoing.position()) {
        // It was installed, and the connection broke before the answer.
        return Ok(vote);
    }
    let resumed = held.progress.filter(|held| outgoing.resume(held));
    *from = Some(resumed.map_or(0, |held| held.revision));
    head.resumes = resumed.as_ref().map(codec::progress_to);
    send_parts(links, target, client, outgoing, head).await
}

/// What a peer says of itself before it is sent a snapshot.
#[derive(Default)]
struct Held {
    progress: Option<Progress>,
    applied: Option<LogPosition>,
}

/// What the receiver has. A release that can't tell has nothing.
async fn ask(links: &Links, target: u64, mut client: Client, vote: &Vote) -> Result<Held, Status> {
    let request = links.request(target, pb::SnapshotProgressRequest { vote: Some(codec::vote_to(vote)) });
    // It may first have to finish with a transfer whose connection is gone.
    let limit = links.times.idle + links.times.connect;
    let answer = tokio::time::timeout(limit, client.snapshot_progress(request)).await;
    match answer.map_err(|_| Status::deadline_exceeded(format!("no answer in {limit:?}")))? {
        Ok(answer) => {
            let answer = answer.into_inner();
            let applied = answer.applied.map(|at| LogPosition { term: at.term, index: at.index });
            Ok(Held { progress: answer.held.map(codec::progress_from), applied })
        }
        Err(status) if status.code() == Code::Unimplemented => Ok(Held::default()),
        Err(status) => Err(status),
    }
}

async fn send_parts(links: &Links, target: u64, mut client: Client, outgoing: Outgoing, head: pb::SnapshotHead) -> Result<Vote, Status> {
    let progress = Arc::new(AtomicU64::new(0));
    let sent = Sent { chunks: 0, bytes: 0, progress: progress.clone(), metrics: links.metrics(target) };
    let call = client.install_snapshot(links.request(target, parts(outgoing, head, sent)));
    let response = tokio::select! {
        response = call => response?,
        () = stalled(progress, links.times.idle) => return Err(Status::deadline_exceeded("the transfer makes no progress")),
    };
    codec::vote_from(response.into_inner().vote).map_err(Status::from)
}

struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(links: &Links) -> Self {
        links.snapshots_in_flight.fetch_add(1, Relaxed);
        Self(links.snapshots_in_flight.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is left at the sender of transfers that broke, by receiver.
#[derive(Default)]
pub struct Interrupted(Mutex<HashMap<u64, Lapsing<Attempt>>>);

/// An attempt to send a snapshot. Kept after it broke, it makes the next one find the same snapshot, and the log after it.
struct Attempt {
    _hold: Hold,
    _in_flight: InFlight,
    position: LogPosition,
    /// The last revision that the receiver had when this attempt began to send; `None` before.
    from: Option<i64>,
    /// The same of the attempt before.
    reached: Option<i64>,
    /// For so long the snapshot is kept if this attempt gets no further than the one before.
    until: Instant,
}

impl Attempt {
    fn new(links: &Links, target: u64, outgoing: &Outgoing) -> Self {
        let (hold, in_flight, position) = (outgoing.hold(), InFlight::new(links), outgoing.position());
        let before = links.interrupted.0.lock().get(&target).and_then(Lapsing::take).filter(|before| before.position == position);
        let (reached, until) = before.map_or((None, Instant::now()), |before| (before.from.or(before.reached), before.until));
        Self { _hold: hold, _in_flight: in_flight, position, from: None, reached, until }
    }

    /// Keeps the snapshot for the next attempt; not for ever for a receiver that gets no further.
    fn broke(mut self, links: &Links, target: u64, status: &Status) {
        if matches!(status.code(), Code::ResourceExhausted | Code::DataLoss | Code::InvalidArgument | Code::FailedPrecondition) {
            return;
        }
        let now = Instant::now();
        // A receiver that was started again begins anew, and moves.
        if self.from.is_some() && self.from != self.reached {
            self.until = now + KEPT;
        }
        let lasts = self.until.saturating_duration_since(now);
        if !lasts.is_zero() {
            links.interrupted.0.lock().entry(target).or_default().put(self, lasts);
        }
    }
}

/// Resolves once nothing has moved for `idle`.
async fn stalled(progress: Arc<AtomicU64>, idle: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(if seen == END { idle * INSTALL_IDLE_TIMES } else { idle }).await;
        let now = progress.load(Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

fn parts(outgoing: Outgoing, head: pb::SnapshotHead, sent: Sent) -> impl Stream<Item = pb::SnapshotPart> + Send + 'static {
    let (read, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || read_ahead(outgoing, &read));
    let head = stream::once(future::ready(part(Part::Head(head))));
    head.chain(stream::unfold((sent, chunks), |(mut sent, mut chunks)| async move {
        // What could not be read is a stream without end: the receiver installs nothing.
        let chunk = chunks.recv().await?;
        Some((part(sent.count(chunk)), (sent, chunks)))
    }))
}

/// Reads all of it, and `None` for its end, until nobody wants more.
fn read_ahead(mut outgoing: Outgoing, read: &mpsc::Sender<Option<pb::SnapshotChunk>>) {
    loop {
        let chunk = match outgoing.next_chunk() {
            Ok(chunk) => chunk.map(|data| pb::SnapshotChunk { crc32c: crc32c::crc32c(&data), data }),
            Err(error) => return tracing::error!("can't read the snapshot: {error}"),
        };
        let is_end = chunk.is_none();
        super::make_way();
        if read.blocking_send(chunk).is_err() || is_end {
            return;
        }
    }
}

fn part(part: Part) -> pb::SnapshotPart {
    pb::SnapshotPart { part: Some(part) }
}
