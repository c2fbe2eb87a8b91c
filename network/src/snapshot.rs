//! Snapshots on their way: head, checksummed chunks, end. Without its end nothing is installed.

use crate::channel::{Client, Links};
use crate::{PeerMetrics, codec, pb};
use futures::{Stream, StreamExt, stream};
use openraft::alias::SnapshotOf;
use pb::snapshot_part::Part;
use rusd_storage::StorageError;
use rusd_storage::engine::Engine;
use rusd_storage::raft::types::{SnapshotMeta, TypeConfig, Vote};
use rusd_storage::snapshot::{Outgoing, Receiver, SnapshotData};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tonic::{Status, Streaming};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The receiver syncs and switches after the last part; it gets this many idle times for that.
const INSTALL_IDLE_TIMES: u32 = 20;

/// What must stay free beside a received snapshot and a quarter of its size.
const ROOM_BYTES_MIN: u64 = 32 << 20;

struct Sending {
    outgoing: Option<Outgoing>,
    head: Option<pb::SnapshotHead>,
    chunks: u64,
    bytes: u64,
    progress: Arc<AtomicU64>,
    metrics: Arc<PeerMetrics>,
}

/// Sends all of it; returns the receiver's vote.
pub async fn send(
    links: &Links,
    target: u64,
    mut client: Client,
    vote: Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
) -> Result<Vote, Status> {
    let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else {
        return Err(Status::internal("a received snapshot can't be sent on"));
    };
    let head = pb::SnapshotHead { bytes: outgoing.weight(), ..codec::head_to(&vote, &snapshot.meta) };
    let _in_flight = InFlight::new(links);
    let progress = Arc::new(AtomicU64::new(0));
    let sending = Sending {
        outgoing: Some(outgoing),
        head: Some(head),
        chunks: 0,
        bytes: 0,
        progress: progress.clone(),
        metrics: links.metrics(target),
    };
    let call = client.install_snapshot(links.request(target, parts(sending)));
    let response = tokio::select! {
        response = call => response?,
        () = stalled(progress, links.times.idle) => return Err(Status::deadline_exceeded("the transfer makes no progress")),
    };
    codec::vote_from(response.into_inner().vote).map_err(Status::from)
}

struct InFlight<'a>(&'a Links);

impl<'a> InFlight<'a> {
    fn new(links: &'a Links) -> Self {
        links.snapshots_in_flight.fetch_add(1, Relaxed);
        Self(links)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.snapshots_in_flight.fetch_sub(1, Relaxed);
    }
}

/// Resolves once nothing has moved for `idle`.
async fn stalled(progress: Arc<AtomicU64>, idle: Duration) {
    const END: u64 = u64::MAX;
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

fn parts(sending: Sending) -> impl Stream<Item = pb::SnapshotPart> + Send + 'static {
    stream::unfold(sending, |mut sending| async move {
        if let Some(head) = sending.head.take() {
            return Some((part(Part::Head(head)), sending));
        }
        let mut outgoing = sending.outgoing.take()?;
        // Reading frames blocks.
        let (outgoing, chunk) = tokio::task::spawn_blocking(move || {
            let chunk = outgoing.next_chunk().map(|chunk| chunk.map(|data| pb::SnapshotChunk { crc32c: crc32c::crc32c(&data), data }));
            (outgoing, chunk)
        })
        .await
        .ok()?;
        match chunk {
            Ok(Some(chunk)) => {
                sending.outgoing = Some(outgoing);
                sending.chunks += 1;
                sending.bytes += chunk.data.len() as u64;
                sending.progress.store(sending.chunks, Relaxed);
                sending.metrics.sent(chunk.data.len());
                Some((part(Part::Chunk(chunk)), sending))
            }
            Ok(None) => {
                sending.progress.store(u64::MAX, Relaxed);
                Some((part(Part::End(pb::SnapshotEnd { chunks: sending.chunks, bytes: sending.bytes })), sending))
            }
            // The receiver sees a stream without end and drops what it has.
            Err(error) => {
                tracing::error!("can't read the snapshot: {error}");
                None
            }
        }
    })
}

fn part(part: Part) -> pb::SnapshotPart {
    pb::SnapshotPart { part: Some(part) }
}

/// Takes in a snapshot whole, verified and durable.
pub async fn receive(
    mut parts: Streaming<pb::SnapshotPart>,
    engine: Engine,
    idle: Duration,
    metrics: &PeerMetrics,
    accept: impl Fn(&Vote, &SnapshotMeta) -> bool,
) -> Result<Option<(Vote, Snapshot)>, Status> {
    let Some(Part::Head(head)) = next(&mut parts, idle).await? else {
        return Err(Status::invalid_argument("a snapshot begins with its head"));
    };
    let weight = head.bytes;
    let (vote, meta) = codec::head_from(head)?;
    if !accept(&vote, &meta) {
        return Ok(None);
    }
    let disk = engine.clone();
    // What an earlier transfer left is removed first.
    let mut receiver = blocking(move || Receiver::begin(engine)).await?;
    if let Some(free) = disk.free_bytes() {
        has_room(free, weight)?;
    }
    let (mut chunks, mut bytes) = (0, 0);
    loop {
        match next(&mut parts, idle).await? {
            Some(Part::Chunk(chunk)) => {
                (chunks, bytes) = (chunks + 1, bytes + chunk.data.len() as u64);
                metrics.received(chunk.data.len());
                if crc32c::crc32c(&chunk.data) != chunk.crc32c {
                    return Err(Status::data_loss("a snapshot chunk was damaged on its way"));
                }
                receiver = blocking(move || receiver.chunk(chunk.data).map(|()| receiver)).await?;
            }
            Some(Part::End(end)) if (end.chunks, end.bytes) == (chunks, bytes) => break,
            Some(_) => return Err(Status::invalid_argument("snapshot parts are missing or out of order")),
            None => return Err(Status::aborted("the snapshot ended early")),
        }
    }
    let snapshot = blocking(move || receiver.finish()).await?;
    Ok(Some((vote, Snapshot { meta, snapshot })))
}

/// Whether the disk can take it. The sender tries again by itself, so room that is made later is found.
fn has_room(free: u64, weight: u64) -> Result<(), Status> {
    let needed = weight.saturating_add(weight / 4).saturating_add(ROOM_BYTES_MIN);
    if weight == 0 || free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let sentence = format!(
        "the state takes {} MiB of disk while it is received, {} MiB are free: make room, it is tried again",
        mib(needed),
        mib(free)
    );
    tracing::warn!(needed, free, "a snapshot was refused: {sentence}");
    Err(Status::resource_exhausted(sentence))
}

async fn next(parts: &mut Streaming<pb::SnapshotPart>, idle: Duration) -> Result<Option<Part>, Status> {
    let part = tokio::time::timeout(idle, parts.next()).await.map_err(|_| Status::deadline_exceeded("the transfer makes no progress"))?;
    part.transpose()?.map(|part| part.part.ok_or_else(|| Status::invalid_argument("an unknown snapshot part"))).transpose()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StorageError> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Status::internal(error.to_string())),
        Err(_) => Err(Status::internal("taking in a snapshot failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_would_fill_the_disk_is_refused_with_a_sentence() {
        let gib = 1 << 30;
        assert!(has_room(2 * gib, gib).is_ok());
        assert!(has_room(0, 0).is_ok(), "a sender that doesn't say");
        let refused = has_room(gib + gib / 4, gib).expect_err("it would leave nothing");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            refused.message(),
            "the state takes 1312 MiB of disk while it is received, 1280 MiB are free: make room, it is tried again"
        );
    }
}
