//! Who calls, and whom it means: one ASCII metadata entry with every call between members.
//!
//! A member that was wiped has forgotten its votes and the entries it acknowledged. So a call names the caller's data dir, and the one that
//! the caller expects at the other end: either side finds out.

use rusd_storage::types::LogPosition;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The metadata key.
pub const KEY: &str = "rusd-peer";

/// The caller's ids, and how far it knows the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Cluster id.
    pub cluster_id: u64,
    /// Member id.
    pub member_id: u64,
    /// Random id of its data dir.
    pub data_dir_id: u64,
    /// Who is meant; 0 = whoever answers.
    pub target_id: u64,
    /// The data dir that the meant member has published; 0 = not known.
    pub target_data_dir_id: u64,
    /// The newest peer protocol it speaks.
    pub version: u32,
    /// The oldest one it still speaks.
    pub oldest_version: u32,
    /// Log position of its applied membership.
    pub membership: Option<LogPosition>,
}

impl Caller {
    /// Writes the entry: hexadecimal fields joined by `-`.
    pub fn to_value(&self) -> MetadataValue<Ascii> {
        let (known, position) = (u8::from(self.membership.is_some()), self.membership.unwrap_or_default());
        let text = format!(
            "{:x}-{:x}-{:x}-{:x}-{:x}-{known}-{:x}-{:x}-{:x}-{:x}",
            self.cluster_id,
            self.member_id,
            self.data_dir_id,
            self.target_id,
            self.version,
            position.term,
            position.index,
            self.target_data_dir_id,
            self.oldest_version
        );
        MetadataValue::try_from(text).expect("hexadecimal digits are ASCII")
    }

    /// Reads the entry; `None` if it is missing or not ours.
    pub fn from_metadata(metadata: &MetadataMap) -> Option<Self> {
        let text = metadata.get(KEY)?.to_str().ok()?;
        let mut fields = text.split('-').map(|field| u64::from_str_radix(field, 16).ok());
        let mut next = || fields.next().flatten();
        let (cluster_id, member_id, data_dir_id, target_id) = (next()?, next()?, next()?, next()?);
        let version = u32::try_from(next()?).ok()?;
        let known = next()? == 1;
        let position = LogPosition { term: next()?, index: next()? };
        let (target_data_dir_id, oldest_version) = (next()?, u32::try_from(next()?).ok()?);
        let membership = known.then_some(position);
        Some(Self { cluster_id, member_id, data_dir_id, target_id, target_data_dir_id, version, oldest_version, membership })
    }

    /// Whether there is a protocol version that both speak.
    pub fn understands(&self, other: &Self) -> bool {
        self.oldest_version.max(other.oldest_version) <= self.version.min(other.version)
    }

    /// A caller of this version.
    pub fn new(cluster_id: u64, member_id: u64, data_dir_id: u64) -> Self {
        let (oldest_version, version) = crate::protocol();
        Self { cluster_id, member_id, data_dir_id, target_id: 0, target_data_dir_id: 0, version, oldest_version, membership: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_survives_the_wire() {
        for membership in [None, Some(LogPosition { term: 3, index: 0 })] {
            let caller = Caller { membership, target_id: 7, target_data_dir_id: 70, ..Caller::new(u64::MAX, 2, 9) };
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, caller.to_value());
            assert_eq!(Caller::from_metadata(&metadata), Some(caller));
        }
    }

    #[test]
    fn versions_overlap_or_not() {
        let speaks = |oldest_version, version| Caller { oldest_version, version, ..Caller::new(1, 2, 3) };
        assert!(speaks(1, 1).understands(&speaks(1, 2)) && speaks(1, 2).understands(&speaks(2, 3)));
        assert!(!speaks(1, 1).understands(&speaks(2, 3)) && !speaks(2, 3).understands(&speaks(1, 1)));
    }

    #[test]
    fn garbage_is_no_caller() {
        for text in ["", "-", "1-2-3", "x-y-z-a-b-c-d-e", "1-2-3-4-5-1-0-0", "1-2-3-4-ffffffffff-1-0-0-0-1"] {
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, MetadataValue::try_from(text).expect("ASCII"));
            assert_eq!(Caller::from_metadata(&metadata), None, "{text}");
        }
    }
}
