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
//! | 72..80 | sequence of the insertion, see [`super::disk`] |
//! | 80.. | replaced frame ids (u64 each), then the body |
//!
//! All integers are little endian. A free slot holds [`MARKER`] and the sequence of the insertion that freed it.

use super::Span;
use crate::types::LogPosition;

/// What a free slot begins with.
const MARKER: &[u8] = b"free";
const MARKER_BYTES: usize = 16;
/// Bytes before the replaced ids and the body.
pub const HEADER: usize = 80;
/// Ids that one frame may replace: with them it must stay far below the size at which sled makes a blob file.
pub const REPLACED_MAX: usize = 4096;
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
    /// Ids of the state frames that this one makes void, at most [`REPLACED_MAX`].
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
pub fn encode(header: &Header, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + header.replaced.len() * 8 + body.len());
    out.resize(HEADER, 0);
    header.replaced.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    out.extend_from_slice(body);
    seal(&mut out, header, sequence);
    out
}

/// Fills in the first [`HEADER`] bytes of a frame whose replaced ids and body follow them already.
pub fn seal(out: &mut [u8], header: &Header, sequence: u64) {
    assert!(header.replaced.len() <= REPLACED_MAX, "a frame replaces {} others, at most {REPLACED_MAX} are allowed", header.replaced.len());
    out[4] = VERSION;
    out[5] = match header.kind {
        Kind::Log => 1,
        Kind::State => 2,
    };
    let replaced = u16::try_from(header.replaced.len()).expect("checked above");
    out[6..8].copy_from_slice(&replaced.to_le_bytes());
    out[16..20].copy_from_slice(&header.part.to_le_bytes());
    out[20..24].copy_from_slice(&header.parts.to_le_bytes());
    let Span { first, last, first_revision, last_revision } = header.span;
    let (a, b) = match header.kind {
        Kind::Log => header.committed.map_or((0, 0), |at| (at.term, at.index + 1)),
        Kind::State => (first_revision.cast_unsigned(), last_revision.cast_unsigned()),
    };
    out[8..16].copy_from_slice(&header.id.to_le_bytes());
    for (field, at) in [first.term, first.index, last.term, last.index, a, b, sequence].into_iter().zip((24..).step_by(8)) {
        out[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// What is put into a free slot.
pub fn marker(sequence: u64) -> [u8; MARKER_BYTES] {
    let mut out = [0; MARKER_BYTES];
    out[..4].copy_from_slice(MARKER);
    out[4..12].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&out[..12]);
    out[12..].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// The sequence in a marker, if these are the bytes of one.
pub fn decode_marker(bytes: &[u8]) -> Option<u64> {
    let sequence = u64_at(<&[u8; MARKER_BYTES]>::try_from(bytes).ok()?, 4);
    (bytes == marker(sequence)).then_some(sequence)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Sequence of the insertion of a frame that was decoded.
pub fn sequence(bytes: &[u8]) -> u64 {
    u64_at(bytes, 72)
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
            let bytes = encode(&header(kind), 77, b"body");
            let (decoded, at) = decode(&bytes).expect("intact");
            assert_eq!((decoded, sequence(&bytes), &bytes[at..]), (header(kind), 77, &b"body"[..]));
        }
    }

    #[test]
    fn a_marker_is_no_frame_and_no_frame_a_marker() {
        assert_eq!(decode_marker(&marker(u64::MAX)), Some(u64::MAX));
        assert_eq!(decode_marker(&encode(&header(Kind::Log), 1, b"")), None);
        assert_eq!(decode(&marker(5)), Err(BadFrame::Short));
        for bit in 0..MARKER_BYTES * 8 {
            let mut flipped = marker(5);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_marker(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&header(Kind::State), 77, b"some body");
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
