//! Large answers on their way out. An answer is encoded whole and then lies in memory until its client has taken it, so without a bound a
//! few clients that don't read would take all memory.
//!
//! ```text
//! claim room for the answer -> encode -> hand it out in pieces, as the client takes them -> give the room back
//!      | no room: whoever has taken nothing for a while loses its answer; else wait, and in the end refuse
//! ```
//!
//! Small answers pass by all this.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// From here on an answer is large.
pub const LARGE_BYTES: usize = 1 << 20;
/// What all large answers together may take.
const ROOM_BYTES: usize = 256 << 20;
/// Handed out at once: a copy, so that what is sent doesn't keep the whole answer in memory.
const PIECE_BYTES: usize = 64 << 10;
/// Who has taken nothing for so long loses its answer to somebody who waits.
const STUCK: Duration = Duration::from_secs(5);
/// Between looks for such answers.
const LOOK: Duration = Duration::from_millis(250);

/// The room for all large answers of a member.
pub struct Outflow {
    /// In KiB.
    room: Arc<Semaphore>,
    held: Mutex<Vec<Weak<Large>>>,
}

/// A large answer, or the room kept for it.
pub struct Large {
    held: Mutex<Held>,
    taken: CancellationToken,
}

struct Held {
    /// `None` once it was taken away.
    room: Option<OwnedSemaphorePermit>,
    rest: Bytes,
    moved: Instant,
}

/// All room was taken by others for too long.
#[derive(Debug)]
pub struct NoRoom;

/// The client was too slow for an answer that others needed room for.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing of a large answer while others waited for its room")]
pub struct Lost;

impl Outflow {
    /// Empty.
    pub fn new() -> Arc<Self> {
        Self::of(ROOM_BYTES)
    }

    fn of(bytes: usize) -> Arc<Self> {
        Arc::new(Self { room: Arc::new(Semaphore::new(bytes >> 10)), held: Mutex::default() })
    }

    /// Room for an answer of about so many bytes; `None` if it is small. One beyond all room waits until it is alone.
    ///
    /// # Errors
    /// There was none for `patience`.
    pub async fn claim(&self, bytes: usize, patience: Duration) -> Result<Option<Arc<Large>>, NoRoom> {
        if bytes < LARGE_BYTES {
            return Ok(None);
        }
        let wanted = u32::try_from((bytes >> 10).min(ROOM_BYTES >> 10)).unwrap_or(u32::MAX);
        let mut acquired = std::pin::pin!(Arc::clone(&self.room).acquire_many_owned(wanted));
        let deadline = Instant::now() + patience;
        let room = loop {
            match tokio::time::timeout(LOOK, acquired.as_mut()).await {
                Ok(room) => break room.expect("never closed"),
                Err(_) if Instant::now() >= deadline => return Err(NoRoom),
                Err(_) => self.take_from_the_stuck(),
            }
        };
        let large = Arc::new(Large {
            taken: CancellationToken::new(),
            held: Mutex::new(Held { room: Some(room), rest: Bytes::new(), moved: Instant::now() }),
        });
        let mut held = self.held.lock();
        held.retain(|one| one.strong_count() > 0);
        held.push(Arc::downgrade(&large));
        Ok(Some(large))
    }

    fn take_from_the_stuck(&self) {
        for large in self.held.lock().iter().filter_map(Weak::upgrade) {
            let mut held = large.held.lock();
            if held.room.is_some() && held.moved.elapsed() >= STUCK {
                (held.room, held.rest) = (None, Bytes::new());
                large.taken.cancel();
            }
        }
    }
}

impl Large {
    /// The client has taken something.
    pub fn moved(&self) {
        self.held.lock().moved = Instant::now();
    }

    /// Resolves when it is taken away.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// The encoded answer; the next pieces come from it.
    pub fn put(&self, answer: Bytes) {
        let mut held = self.held.lock();
        if held.room.is_some() {
            held.rest = answer;
        }
        held.moved = Instant::now();
    }

    /// What the client may have next; `None` at its end.
    ///
    /// # Errors
    /// It was taken away.
    pub fn next_piece(&self) -> Result<Option<Bytes>, Lost> {
        let mut held = self.held.lock();
        if held.room.is_none() {
            return Err(Lost);
        }
        held.moved = Instant::now();
        let size = held.rest.len().min(PIECE_BYTES);
        let piece = held.rest.split_to(size);
        Ok((size > 0).then(|| Bytes::copy_from_slice(&piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_out_whole() {
        let outflow = Outflow::of(64 << 20);
        assert!(outflow.claim(LARGE_BYTES - 1, Duration::ZERO).await.expect("small").is_none());
        let large = outflow.claim(LARGE_BYTES, Duration::ZERO).await.expect("room").expect("large");
        let answer: Bytes = (0..=255u8).cycle().take(LARGE_BYTES + 7).collect();
        large.put(answer.clone());
        let mut whole = Vec::new();
        while let Some(piece) = large.next_piece().expect("nobody waits") {
            whole.extend(piece);
        }
        assert!(answer == whole);
    }

    #[tokio::test]
    async fn the_stuck_lose_their_room_to_who_waits_and_nobody_else_does() {
        let outflow = Outflow::of(4 << 20);
        let claim = |patience| outflow.claim(4 << 20, patience);
        let first = claim(Duration::ZERO).await.expect("room").expect("large");
        first.put(Bytes::from(vec![0; LARGE_BYTES]));
        assert!(matches!(claim(Duration::from_millis(300)).await, Err(NoRoom)));
        assert!(first.next_piece().is_ok(), "it was in time");
        let second = claim(STUCK * 10).await.expect("the first one's room").expect("large");
        assert!(first.next_piece().is_err());
        drop(second);
        drop(first);
        assert!(claim(Duration::from_secs(5)).await.is_ok());
    }
}
