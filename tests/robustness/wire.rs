//! HTTP/2 written by hand, so that it can be wrong.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Any frame, also an impossible one.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression.
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            length(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// HPACK's integer behind a 7 bit prefix.
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(u8::try_from(length).expect("below 127"));
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// The headers of a gRPC call.
pub fn call(path: &str) -> Vec<u8> {
    block(&[
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"x"),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ])
}

/// A connection that says whatever it is told to.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it accepts");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    /// The same, past preface and settings.
    pub async fn http2(port: u16) -> Self {
        let mut wire = Self::connect(port).await;
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        wire
    }

    /// Whether it could be sent; the server may have hung up.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(5), self.0.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame's kind, flags, stream and payload; `None` once the server has hung up, or says nothing for so long.
    pub async fn next(&mut self, patience: Duration) -> Option<(u8, u8, u32, Vec<u8>)> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(size).ok()?];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            Some((head[3], head[4], stream, payload))
        };
        tokio::time::timeout(patience, read).await.ok().flatten()
    }

    /// Reads until the server hangs up; what it wrote.
    pub async fn rest(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = async {
            let mut buffer = [0; 16 << 10];
            loop {
                match self.0.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(size) => bytes.extend(&buffer[..size]),
                }
            }
        };
        tokio::time::timeout(patience, read).await.ok()?;
        Some(bytes)
    }
}
