//! Syncs of a Db that is being filled, beside its filling.

use super::disk::Disk;
use crate::error::StorageError;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// So many syncs may wait while one runs: the disk is no more than three of `UNSYNCED_BYTES_MAX` behind.
const WAITING_SYNCS_MAX: usize = 1;

/// See the module. The kernel tells of a failed sync once: after it nothing here succeeds again.
pub enum WriteBack {
    /// No thread runs.
    Idle,
    /// One does.
    Running(Thread),
    /// A sync has failed.
    Failed,
}

/// The syncing thread; dropped, it ends first, for it holds the Db.
pub struct Thread {
    asked: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<Result<(), StorageError>>>,
}

impl WriteBack {
    /// Has what was inserted synced; waits while the disk is behind.
    ///
    /// # Errors
    /// Of a sync asked for earlier, once; or that there was one.
    pub fn ask(&mut self, disk: &Arc<Disk>) -> Result<(), StorageError> {
        if matches!(self, Self::Idle) {
            *self = Self::Running(Thread::start(Arc::clone(disk))?);
        }
        match self {
            Self::Running(thread) if thread.ask() => Ok(()),
            _ => self.settle(),
        }
    }

    /// Waits for the syncs asked for.
    ///
    /// # Errors
    /// As those of `ask`.
    pub fn settle(&mut self) -> Result<(), StorageError> {
        let ended = match std::mem::replace(self, Self::Failed) {
            Self::Idle => Ok(()),
            Self::Running(mut thread) => thread.end(),
            Self::Failed => Err(StorageError::Closed("a sync of the partial snapshot has failed".into())),
        };
        if ended.is_ok() {
            *self = Self::Idle;
        }
        ended
    }

    /// An error if a sync is known to have failed.
    pub fn check(&mut self) -> Result<(), StorageError> {
        if matches!(self, Self::Failed) { self.settle() } else { Ok(()) }
    }
}

impl Thread {
    fn start(disk: Arc<Disk>) -> Result<Self, StorageError> {
        let (asked, asks) = mpsc::sync_channel(WAITING_SYNCS_MAX);
        let sync = move || {
            while asks.recv().is_ok() {
                asks.try_iter().for_each(drop);
                disk.sync_early()?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("write-back".into()).spawn(sync);
        let thread = thread.map_err(|error| StorageError::Closed(format!("no thread can be started: {error}")))?;
        Ok(Self { asked: Some(asked), thread: Some(thread) })
    }

    /// False once a sync has failed.
    fn ask(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.send(()).is_ok())
    }

    fn end(&mut self) -> Result<(), StorageError> {
        self.asked = None;
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| Err(StorageError::Closed("the write-back thread ended badly".into())))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::debug!(%error, "a partial snapshot is dropped");
        }
    }
}
