//! Port numbers that stay free until the server takes them.
//!
//! They lie below the range from which the system gives ports to outgoing connections, so that none of the thousands of connections of
//! a test takes one by chance. Between test processes a number is reserved by the UDP socket of the same number, which a server never
//! wants and which the system frees when the test ends, however it ends.

use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

struct Reserved {
    next: u16,
    tokens: Vec<UdpSocket>,
}

static RESERVED: Mutex<Option<Reserved>> = Mutex::new(None);

/// A free TCP port, reserved for this process until its end.
pub fn free() -> u16 {
    let mut reserved = RESERVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let start = FIRST + u16::try_from(std::process::id() * 53 % u32::from(LAST - FIRST)).expect("it is below LAST");
    let reserved = reserved.get_or_insert_with(|| Reserved { next: start, tokens: Vec::new() });
    for _ in FIRST..=LAST {
        let port = reserved.next;
        reserved.next = if port == LAST { FIRST } else { port + 1 };
        let Ok(token) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        // On all addresses: a server may listen on 0.0.0.0.
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            reserved.tokens.push(token);
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {LAST}");
}
