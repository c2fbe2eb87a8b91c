//! Who calls: one ASCII metadata entry with every call between members.

use crate::PROTOCOL_VERSION;
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
    /// Peer protocol.
    pub version: u32,
    /// Log position of its applied membership.
    pub membership: Option<LogPosition>,
}

impl Caller {
    /// Writes the entry: hexadecimal fields joined by `-`.
    pub fn to_value(&self) -> MetadataValue<Ascii> {
        let (known, position) = (u8::from(self.membership.is_some()), self.membership.unwrap_or_default());
        let text = format!(
            "{:x}-{:x}-{:x}-{:x}-{:x}-{known}-{:x}-{:x}",
            self.cluster_id, self.member_id, self.data_dir_id, self.target_id, self.version, position.term, position.index
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
        Some(Self { cluster_id, member_id, data_dir_id, target_id, version, membership: known.then_some(position) })
    }

    /// A caller of this version.
    pub fn new(cluster_id: u64, member_id: u64, data_dir_id: u64) -> Self {
        Self { cluster_id, member_id, data_dir_id, target_id: 0, version: PROTOCOL_VERSION, membership: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_survives_the_wire() {
        for membership in [None, Some(LogPosition { term: 3, index: 0 })] {
            let caller = Caller { membership, target_id: 7, ..Caller::new(u64::MAX, 2, 9) };
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, caller.to_value());
            assert_eq!(Caller::from_metadata(&metadata), Some(caller));
        }
    }

    #[test]
    fn garbage_is_no_caller() {
        for text in ["", "-", "1-2-3", "x-y-z-a-b-c-d-e", "1-2-3-4-ffffffffff-1-0-0"] {
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, MetadataValue::try_from(text).expect("ASCII"));
            assert_eq!(Caller::from_metadata(&metadata), None, "{text}");
        }
    }
}
