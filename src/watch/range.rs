//! What a watcher listens to: one key, or a half-open range of keys.

use bytes::Bytes;

/// Upper end of a range; ordered so that `Open` is above every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangeEnd {
    /// Keys below this one.
    Before(Bytes),
    /// Every key from the start on.
    Open,
}

/// A watcher's keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly one key.
    Point(Bytes),
    /// All keys from the first to below the second.
    Span(Bytes, RangeEnd),
}

impl KeyRange {
    /// Reads etcd's (key, range_end) of a watch request: an empty key means the single byte 0, an empty end the one key, an end of one
    /// zero byte all keys from `key` on. `None` if the range is empty (`mvcc: watcher range is empty`).
    pub fn from_request(key: Bytes, range_end: Bytes) -> Option<Self> {
        let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
        match range_end.as_ref() {
            [] => Some(Self::Point(key)),
            [0] => Some(Self::Span(key, RangeEnd::Open)),
            end if key.as_ref() < end => Some(Self::Span(key, RangeEnd::Before(range_end))),
            _ => None,
        }
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Point(point) => point == key,
            Self::Span(start, RangeEnd::Open) => key >= start.as_ref(),
            Self::Span(start, RangeEnd::Before(end)) => key >= start.as_ref() && key < end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &'static [u8], end: &'static [u8]) -> Option<KeyRange> {
        KeyRange::from_request(Bytes::from_static(key), Bytes::from_static(end))
    }

    #[test]
    fn reads_requests_as_etcd_does() {
        assert_eq!(request(b"", b""), Some(KeyRange::Point(Bytes::from_static(&[0]))));
        assert_eq!(request(b"a", b"\0"), Some(KeyRange::Span(Bytes::from_static(b"a"), RangeEnd::Open)));
        assert_eq!(request(b"b", b"a"), None);
        assert_eq!(request(b"a", b"a"), None);
        assert!(request(b"a", b"b").is_some_and(|range| range.contains(b"a") && range.contains(b"az") && !range.contains(b"b")));
        assert!(request(b"", b"\0").is_some_and(|range| range.contains(b"\0") && range.contains(b"\xff\xff")));
    }
}
