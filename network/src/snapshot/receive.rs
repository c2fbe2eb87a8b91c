//! The receiving side.

use super::lapsing::discard;
use super::{CHUNKS_AHEAD, Partial, Snapshot};
use crate::{PeerMetrics, codec, pb};
use pb::snapshot_part::Part;
use rusd_storage::StorageError;
use rusd_storage::engine::{Engine, ROOM_BYTES_MIN};
use rusd_storage::raft::types::Vote;
use rusd_storage::snapshot::Receiver;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

/// Where a snapshot is taken in.
pub struct Taking<'a> {
    /// Holds the partial Db.
    pub engine: &'a Engine,
    /// What broken transfers leave.
    pub partial: &'a Partial,
    /// Of the sender.
    pub metrics: &'a PeerMetrics,
    /// A transfer without progress for so long is given up.
    pub idle: Duration,
}

/// Takes in a snapshot whole, verified and durable; none if the sender isn't the one to `accept` from, at first or when all is there. What
/// arrived before a break is kept. To be run to its end, also when the sender is gone.
pub async fn receive(
    mut parts: Streaming<pb::SnapshotPart>,
    taking: Taking<'_>,
    accept: impl Fn(&Vote) -> bool,
) -> Result<Option<(Vote, Snapshot)>, Status> {
    let mut under_way = taking.partial.under_way();
    let first = under_way.next(&mut parts, taking.idle).await?.and_then(|part| part.part);
    let Some(Part::Head(head)) = first else {
        return Err(Status::invalid_argument("a snapshot begins with its head"));
    };
    let (weight, pruned, resumes) = (head.bytes, head.pruned, head.resumes);
    let (vote, meta) = codec::head_from(head)?;
    if !accept(&vote) {
        return Ok(None);
    }
    under_way.is_of(vote);
    let filling = Filling::start(taking.begin(weight, resumes).await?);
    let keep = async |filling: Filling| {
        let receiver = filling.end().await?;
        if pruned {
            taking.partial.keep(receiver).await
        } else {
            discard(receiver)
        }
        Ok::<_, Status>(())
    };
    let (mut chunks, mut bytes) = (0, 0);
    loop {
        let part = match under_way.next(&mut parts, taking.idle).await {
            Ok(Some(part)) => part.part,
            broken => {
                keep(filling).await?;
                return Err(broken.err().unwrap_or_else(|| Status::aborted("the snapshot ended early")));
            }
        };
        match part {
            Some(Part::Chunk(chunk)) => {
                (chunks, bytes) = (chunks + 1, bytes + chunk.data.len() as u64);
                taking.metrics.received(chunk.data.len());
                if !filling.take(chunk).await {
                    break;
                }
            }
            Some(Part::End(end)) if (end.chunks, end.bytes) == (chunks, bytes) => break,
            part => {
                discard(filling.end().await?);
                return Err(Status::invalid_argument(match part {
                    None => "an unknown snapshot part",
                    Some(_) => "snapshot parts are missing or out of order",
                }));
            }
        }
    }
    // Its place may have been taken meanwhile: then openraft would drop it, and who took it can go on from here.
    if !accept(&vote) {
        keep(filling).await?;
        return Ok(None);
    }
    let receiver = filling.end().await?;
    let snapshot = blocking(move || receiver.finish()).await?;
    Ok(Some((vote, Snapshot { meta, snapshot })))
}

/// Takes chunks in on a thread of its own, which need not be woken for each.
struct Filling {
    chunks: mpsc::Sender<pb::SnapshotChunk>,
    thread: JoinHandle<Result<Receiver, Status>>,
}

impl Filling {
    fn start(mut receiver: Receiver) -> Self {
        let (chunks, mut queue) = mpsc::channel::<pb::SnapshotChunk>(CHUNKS_AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = queue.blocking_recv() {
                if crc32c::crc32c(&chunk.data) != chunk.crc32c {
                    return Err(Status::data_loss("a snapshot chunk was damaged on its way"));
                }
                receiver.chunk(chunk.data).map_err(failed)?;
                super::make_way();
            }
            Ok(receiver)
        });
        Self { chunks, thread }
    }

    /// False if an earlier one wasn't taken; the end tells why.
    async fn take(&self, chunk: pb::SnapshotChunk) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }

    /// With all that was taken.
    async fn end(self) -> Result<Receiver, Status> {
        drop(self.chunks);
        self.thread.await.unwrap_or_else(|_| Err(Status::internal("taking in a snapshot failed")))
    }
}

fn failed(error: StorageError) -> Status {
    Status::internal(error.to_string())
}

impl Taking<'_> {
    /// What a broken transfer has left, if the sender goes on from it; otherwise that is removed first.
    async fn begin(&self, weight: u64, resumes: Option<pb::SnapshotPosition>) -> Result<Receiver, Status> {
        let engine = self.engine.clone();
        let receiver = match resumes {
            None => {
                let left = self.partial.take();
                let begin = move || {
                    drop(left);
                    Receiver::begin(engine)
                };
                blocking(begin).await?
            }
            Some(wanted) => self
                .partial
                .take_exactly(codec::progress_from(wanted))
                .ok_or_else(|| Status::failed_precondition("the part of a snapshot that it goes on from is not here"))?,
        };
        if let Some(free) = self.engine.free_bytes()
            && let Err(status) = has_room(free, weight, receiver.bytes())
        {
            discard(receiver);
            return Err(status);
        }
        if resumes.is_some() {
            self.metrics.received_snapshots.resumed.inc();
            tracing::info!(revision = receiver.progress().revision, spared_bytes = receiver.bytes(), "snapshot transfer resumed");
        }
        Ok(receiver)
    }
}

/// Whether the disk can take what of it isn't there yet. The sender tries again by itself, so room that is made later is found.
fn has_room(free: u64, weight: u64, have: u64) -> Result<(), Status> {
    let needed = weight.saturating_add(weight / 4).saturating_sub(have).saturating_add(ROOM_BYTES_MIN);
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StorageError> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(Status::internal("taking in a snapshot failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_would_fill_the_disk_is_refused_with_a_sentence() {
        let gib = 1 << 30;
        assert!(has_room(2 * gib, gib, 0).is_ok());
        assert!(has_room(gib + gib / 4, gib, gib / 2).is_ok(), "half of it is there already");
        assert!(has_room(0, 0, 0).is_ok(), "a sender that doesn't say");
        let refused = has_room(gib + gib / 4, gib, 0).expect_err("it would leave nothing");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            refused.message(),
            "the state takes 1312 MiB of disk while it is received, 1280 MiB are free: make room, it is tried again"
        );
    }
}
