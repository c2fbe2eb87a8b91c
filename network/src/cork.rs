//! A connection that gathers what is written until the other tasks of its thread have had their turn.
//!
//! HTTP/2 flushes after every answer. When one fdatasync, or one read from a socket, wakes a dozen requests of a connection, the connection
//! would run after each of them and pay for a system call, a packet and a wake-up of the other side each time. So the first flush of little
//! only asks to be run again, behind what is runnable now; the second one writes. With nothing else to run that costs a turn of the
//! scheduler, microseconds; nothing is ever held back by time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From so much on gathering gains nothing.
const ENOUGH_BYTES: usize = 16 << 10;
/// Larger pieces are not copied.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub struct Cork<I> {
    io: I,
    gathered: Vec<u8>,
    written: usize,
    /// It has been asked to be run again.
    waited: bool,
}

impl<I> Cork<I> {
    /// Around a connection on which nothing was written.
    pub fn new(io: I) -> Self {
        Self { io, gathered: Vec::new(), written: 0, waited: false }
    }
}

impl<I: AsyncWrite + Unpin> Cork<I> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.gathered.clear();
        (self.written, self.waited) = (0, false);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Cork<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cork<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() + piece.len() > ENOUGH_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        if piece.len() > PIECE_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
            return Pin::new(&mut self.io).poll_write(cx, piece);
        }
        self.gathered.extend_from_slice(piece);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let little = !self.gathered.is_empty() && self.written == 0 && self.gathered.len() < ENOUGH_BYTES / 2;
        if little && !std::mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    async fn received(far: &mut DuplexStream, bytes: usize) -> Vec<u8> {
        let mut all = vec![0; bytes];
        far.read_exact(&mut all).await.expect("the near end lives");
        all
    }

    #[tokio::test]
    async fn what_is_little_waits_one_turn_and_no_longer() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut cork = Cork::new(near);
        assert_eq!(cork.write(b"one").await.expect("it gathers"), 3);
        assert!(futures::poll!(pin!(cork.flush())).is_pending(), "the first flush only asks for a turn");
        assert_eq!(cork.write(b"two").await.expect("it gathers"), 3);
        assert!(futures::poll!(pin!(cork.flush())).is_ready());
        assert_eq!(received(&mut far, 6).await, b"onetwo");
        // It begins anew.
        cork.write_all(b"three").await.expect("it gathers");
        assert!(futures::poll!(pin!(cork.flush())).is_pending());
        cork.flush().await.expect("the far end lives");
        assert_eq!(received(&mut far, 5).await, b"three");
    }

    #[tokio::test]
    async fn large_pieces_follow_what_was_gathered() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut cork = Cork::new(near);
        let large = vec![7; PIECE_BYTES_MAX + 1];
        cork.write_all(b"head").await.expect("it gathers");
        cork.write_all(&large).await.expect("the far end lives");
        assert_eq!(received(&mut far, 4 + large.len()).await, [&b"head"[..], &large].concat(), "without a flush");
        cork.shutdown().await.expect("the far end lives");
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_in_order() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut cork = Cork::new(near);
        let writer = tokio::spawn(async move {
            for number in 0..200u8 {
                cork.write_all(&[number; 200]).await?;
                if number % 7 == 0 {
                    cork.flush().await?;
                }
            }
            cork.shutdown().await
        });
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.expect("the near end ends well");
        assert_eq!(all, (0..200u8).flat_map(|number| [number; 200]).collect::<Vec<_>>());
        writer.await.expect("no panic").expect("the far end lives");
    }
}
