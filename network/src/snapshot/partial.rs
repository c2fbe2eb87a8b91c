//! What a transfer that broke has left at its receiver, and who is taking in one now.

use super::KEPT;
use super::lapsing::{Lapsing, discard};
use crate::pb;
use parking_lot::Mutex;
use rusd_storage::raft::types::Vote;
use rusd_storage::snapshot::{Progress, Receiver};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

/// See the module.
#[derive(Default)]
pub struct Partial {
    kept: Lapsing<Receiver>,
    /// Of the sender whose transfer is under way, once it is known.
    sender: Mutex<Option<Vote>>,
    /// Counts those who told the transfer that is under way to stop waiting.
    interruptions: watch::Sender<u64>,
}

impl Partial {
    /// How far the broken transfer is.
    pub fn progress(&self) -> Option<Progress> {
        self.kept.look(Receiver::progress)
    }

    /// A sender is about to send: the connection of the transfer that is under way must be dead, unless a newer leader's.
    pub fn interrupt(&self, vote: &Vote) {
        if self.sender.lock().is_none_or(|sender| *vote >= sender) {
            self.interruptions.send_modify(|count| *count += 1);
        }
    }

    /// Keeps the whole frames that have arrived.
    pub(super) async fn keep(&self, receiver: Receiver) {
        if let Ok(Some(receiver)) = tokio::task::spawn_blocking(move || receiver.interrupted()).await {
            self.kept.put(receiver, KEPT);
        }
    }

    /// What was kept, whoever wants it.
    pub(super) fn take(&self) -> Option<Receiver> {
        self.kept.take()
    }

    /// What was kept, if it is exactly this. Anything else is dropped: the next sender begins from the start.
    pub(super) fn take_exactly(&self, wanted: Progress) -> Option<Receiver> {
        let receiver = self.take()?;
        if receiver.progress() == wanted {
            return Some(receiver);
        }
        discard(receiver);
        None
    }

    /// A transfer begins.
    pub(super) fn under_way(&self) -> UnderWay<'_> {
        UnderWay { partial: self, interrupted: self.interruptions.subscribe() }
    }
}

/// The transfer under way, as long as it lives.
pub struct UnderWay<'a> {
    partial: &'a Partial,
    interrupted: watch::Receiver<u64>,
}

impl UnderWay<'_> {
    /// Whose it is.
    pub fn is_of(&self, vote: Vote) {
        *self.partial.sender.lock() = Some(vote);
    }

    /// The next part; none at the end. An error says that the transfer broke.
    pub async fn next(&mut self, parts: &mut Streaming<pb::SnapshotPart>, idle: Duration) -> Result<Option<pb::SnapshotPart>, Status> {
        tokio::select! {
            biased;
            Ok(()) = self.interrupted.changed() => Err(Status::aborted("its sender, or the next one, begins anew")),
            part = tokio::time::timeout(idle, parts.next()) => {
                part.map_err(|_| Status::deadline_exceeded("the transfer makes no progress"))?.transpose()
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.partial.sender.lock() = None;
    }
}
