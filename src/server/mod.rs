//! A member's parts, without verbs of its own.

mod alone;
pub mod assemble;
pub mod boot;
pub mod bootstrap;
pub mod compactor;
pub mod consensus;
mod corruption;
pub mod dead_leader;
pub mod error;
pub mod hand_over;
pub mod identity;
pub mod leadership;
pub mod lease_routing;
pub mod leases;
pub mod members;
pub mod membership;
pub mod notify;
pub mod peers;
pub mod ports;
pub mod propose;
pub mod publish;
pub mod read;
pub mod remote;
pub mod requests;
mod round;
pub mod sick_disk;
pub mod snapshots;
mod standing;
pub mod version;
pub mod waiters;

pub use error::Error;

use crate::config::Config;
use rusd_storage::apply::State;
use rusd_storage::measure::Measures;
use std::sync::Arc;

/// What a running member is made of.
pub struct Server {
    /// Flags.
    pub config: Arc<Config>,
    /// Ids.
    pub identity: identity::Identity,
    /// The replicated state.
    pub state: Arc<State>,
    /// Sizes.
    pub engine: rusd_storage::engine::Engine,
    /// What is counted of the state.
    pub measures: Arc<Measures>,
    /// How long requests take.
    pub requests: Arc<requests::Requests>,
    /// The one openraft door.
    pub consensus: Arc<consensus::Consensus>,
    /// Writes.
    pub propose: propose::Propose,
    /// Linearizable reads.
    pub read: read::Read,
    /// Membership changes.
    pub members: Arc<members::Members>,
}
