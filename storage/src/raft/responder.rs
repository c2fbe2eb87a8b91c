//! What openraft tells the proposer of an entry.
//!
//! That an entry was applied is told by [`super::ResultSink`], with the result, on every member. So a success needs no word here, no channel
//! and no wake-up: only a loss does.

use super::types::TypeConfig;
use openraft::OptionalSend;
use openraft::errors::ClientWriteError;
use openraft::raft::{ClientWriteResult, responder};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// Why an entry will not be applied through this proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Certainly not appended.
    NotLeader,
    /// Appended, then its leader was lost: its fate is unknown.
    Discarded,
    /// Consensus has ended: its fate is unknown.
    Stopped,
}

/// Who wants to know of losses.
pub trait Losses: Send + Sync + 'static {
    /// The proposal known as `token` is lost. Called on openraft's core: must be quick.
    fn lost(&self, token: u64, loss: Loss);
}

/// openraft's responder. Dropped unused (openraft has ended), it tells that, too.
pub struct Responder<T> {
    losses: Option<Arc<dyn Losses>>,
    token: u64,
    of: PhantomData<fn(T)>,
}

impl<T> Responder<T> {
    /// Tells `losses` if the proposal known as `token` comes to nothing.
    pub fn new(losses: Arc<dyn Losses>, token: u64) -> Self {
        Self { losses: Some(losses), token, of: PhantomData }
    }
}

impl<T: OptionalSend + 'static> responder::Responder<TypeConfig, T> for Responder<T> {
    fn on_complete(mut self, result: T) {
        let Some(losses) = self.losses.take() else { return };
        // There is one kind of result; openraft's trait is open to others.
        match (&result as &dyn Any).downcast_ref::<ClientWriteResult<TypeConfig>>() {
            Some(Ok(_)) => {}
            Some(Err(ClientWriteError::ForwardToLeader(_))) => losses.lost(self.token, Loss::NotLeader),
            Some(Err(_)) | None => losses.lost(self.token, Loss::Discarded),
        }
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        if let Some(losses) = self.losses.take() {
            losses.lost(self.token, Loss::Stopped);
        }
    }
}
