//! Member and cluster ids by etcd's SHA-1 rule, persisted at first boot; the stored ones win over flags.

/// Who this member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Member id.
    pub member_id: u64,
    /// Cluster id.
    pub cluster_id: u64,
    /// Random id of this data dir.
    pub data_dir_id: u64,
}
