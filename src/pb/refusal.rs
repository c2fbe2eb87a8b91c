//! What a request is refused for by its looks alone, before anybody else sees it (contract a.4, 1-8).

/// A malformed request. Texts and codes are in `grpc::status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A key is missing.
    EmptyKey,
    /// An operation of a txn says nothing: etcd calls that "key not found".
    EmptyOperation,
    /// `ignore_value` with a value.
    ValueProvided,
    /// `ignore_lease` with a lease.
    LeaseProvided,
    /// More operations than `--max-txn-ops`.
    TooManyOps,
    /// A key written twice in one branch.
    DuplicateKey,
    /// Unknown sort order or target.
    InvalidSortOption,
}
