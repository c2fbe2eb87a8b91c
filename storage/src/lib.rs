//! rusd-storage: what every member must agree on.
//!
//! Given the same log it makes the same state: no clock, no randomness, no network, no configuration.

pub mod alarm;
pub mod apply;
pub mod auth;
pub mod cluster;
pub mod command;
pub mod engine;
pub mod error;
pub mod lessor;
pub mod measure;
pub mod mvcc;
pub mod raft;
pub mod snapshot;
pub mod statelog;
pub mod types;

pub use error::{AuthRejection, Rejection, StorageError};
pub use types::{KeyValue, LogPosition, Record, Revision};
