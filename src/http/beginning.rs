//! The first bytes of a connection: until they say which protocol it speaks, nothing else watches over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that notes when its protocol is plain: HTTP/2 by its whole preface, HTTP/1 by the first byte that isn't of one.
pub struct Beginning<I> {
    io: I,
    read: usize,
    plain: Arc<AtomicBool>,
}

impl<I> Beginning<I> {
    /// Before anything was read, and what turns true.
    pub fn new(io: I) -> (Self, Arc<AtomicBool>) {
        let plain = Arc::new(AtomicBool::new(false));
        (Self { io, read: 0, plain: plain.clone() }, plain)
    }

    fn note(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.read..];
        let common = bytes.len().min(expected.len());
        self.read += common;
        if self.read == PREFACE.len() || bytes[..common] != expected[..common] {
            self.read = PREFACE.len();
            self.plain.store(true, Ordering::Relaxed);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Beginning<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if self.read < PREFACE.len() {
            self.note(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Beginning<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_plain_after_its_preface_or_at_the_first_other_byte() {
        for (pieces, expected) in [
            (&[&PREFACE[..10]][..], false),
            (&[&PREFACE[..10], &PREFACE[10..]], true),
            (&[b"P"], false),
            (&[b"P", b"OST / HTTP/1.1"], true),
            (&[b"GET"], true),
            (&[], false),
        ] {
            let (mut beginning, plain) = Beginning::new(());
            pieces.iter().for_each(|piece| beginning.note(piece));
            assert_eq!(plain.load(Ordering::Relaxed), expected, "{pieces:?}");
        }
    }
}
