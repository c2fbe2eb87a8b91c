//! A frame: the value of one slot. Checksummed as a whole, named by an id that is never reused.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | crc32c of all that follows |
//! | 4, 5, 6..8 | version 1, kind (1 log, 2 state), number of replaced ids (u16) |
//! | 8..16 | frame id; the parts of a run share it |
//! | 16..20, 20..24 | part, parts |
//! | 24..56 | first and last log position (term, index each) |
//! | 56..72 | log: commit position (term, index + 1; 0 = none). state: first and last main revision |
//! | 72.. | replaced frame ids (u64 each), then the body |
//!
//! All integers are little endian. A free slot holds [`MARKER`] and nothing else.

use super::Span;
use crate::types::LogPosition;

/// What a free slot holds.
pub const MARKER: &[u8] = b"free";
const HEADER: usize = 72;
const VERSION: u8 = 1;

/// Which ring a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Raft log entries.
    Log,
    /// State units.
    State,
}

/// Everything about a frame but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Ring.
    pub kind: Kind,
    /// Never reused.
    pub id: u64,
    /// Number of this part, from 0.
    pub part: u32,
    /// Parts of the run; 1 for a frame of its own.
    pub parts: u32,
    /// Log positions, and for state frames revisions.
    pub span: Span,
    /// Commit position known when a log frame was written.
    pub committed: Option<LogPosition>,
    /// Ids of the state frames that this one makes void.
    pub replaced: Vec<u64>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Shorter than its own header says.
    #[error("it is cut short")]
    Short,
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum matches but the fields contradict each other or the version is unknown.
    #[error("its header is of an unknown version or contradicts itself")]
    Header,
}

/// Encodes a frame around `body`.
pub fn encode(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + header.replaced.len() * 8 + body.len());
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION);
    out.push(match header.kind {
        Kind::Log => 1,
        Kind::State => 2,
    });
    let replaced = u16::try_from(header.replaced.len()).expect("a frame replaces few others");
    out.extend_from_slice(&replaced.to_le_bytes());
    out.extend_from_slice(&header.id.to_le_bytes());
    out.extend_from_slice(&header.part.to_le_bytes());
    out.extend_from_slice(&header.parts.to_le_bytes());
    for position in [header.span.first, header.span.last] {
        out.extend_from_slice(&position.term.to_le_bytes());
        out.extend_from_slice(&position.index.to_le_bytes());
    }
    let (a, b) = match header.kind {
        Kind::Log => header.committed.map_or((0, 0), |at| (at.term, at.index + 1)),
        Kind::State => (header.span.first_revision.cast_unsigned(), header.span.last_revision.cast_unsigned()),
    };
    out.extend_from_slice(&a.to_le_bytes());
    out.extend_from_slice(&b.to_le_bytes());
    for id in &header.replaced {
        out.extend_from_slice(&id.to_le_bytes());
    }
    out.extend_from_slice(body);
    let checksum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Verifies and decodes a frame; the body starts at the returned offset.
pub fn decode(bytes: &[u8]) -> Result<(Header, usize), BadFrame> {
    if bytes.len() < HEADER {
        return Err(BadFrame::Short);
    }
    if u32_at(bytes, 0) != crc32c::crc32c(&bytes[4..]) {
        return Err(BadFrame::Checksum);
    }
    let kind = match (bytes[4], bytes[5]) {
        (VERSION, 1) => Kind::Log,
        (VERSION, 2) => Kind::State,
        _ => return Err(BadFrame::Header),
    };
    let replaced = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let body = HEADER + replaced * 8;
    let (part, parts) = (u32_at(bytes, 16), u32_at(bytes, 20));
    if bytes.len() < body || part >= parts {
        return Err(BadFrame::Header);
    }
    let position = |at| LogPosition { term: u64_at(bytes, at), index: u64_at(bytes, at + 8) };
    let mut span = Span { first: position(24), last: position(40), ..Span::default() };
    let (a, b) = (u64_at(bytes, 56), u64_at(bytes, 64));
    let committed = match kind {
        Kind::Log => (b > 0).then(|| LogPosition { term: a, index: b - 1 }),
        Kind::State => {
            span.first_revision = a.cast_signed();
            span.last_revision = b.cast_signed();
            None
        }
    };
    if span.first.index > span.last.index || span.first_revision > span.last_revision {
        return Err(BadFrame::Header);
    }
    let replaced = (0..replaced).map(|at| u64_at(bytes, HEADER + at * 8)).collect();
    Ok((Header { kind, id: u64_at(bytes, 8), part, parts, span, committed, replaced }, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: Kind) -> Header {
        let mut span = Span { first: LogPosition { term: 1, index: 7 }, last: LogPosition { term: 2, index: 9 }, ..Span::default() };
        if kind == Kind::State {
            (span.first_revision, span.last_revision) = (3, 8);
        }
        let committed = (kind == Kind::Log).then_some(LogPosition { term: 1, index: 0 });
        Header { kind, id: 42, part: 1, parts: 3, span, committed, replaced: vec![4, 5] }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for kind in [Kind::Log, Kind::State] {
            let bytes = encode(&header(kind), b"body");
            let (decoded, at) = decode(&bytes).expect("intact");
            assert_eq!((decoded, &bytes[at..]), (header(kind), &b"body"[..]));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&header(Kind::State), b"some body");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
