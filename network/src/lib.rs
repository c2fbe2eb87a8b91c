//! Members talk to members: openraft's network over gRPC, the peer service, and the small questions around it.
//!
//! A connection holds a member *id*; where that member lives is looked up in the shared [`PeerTable`] at every (re)connect. Whoever calls
//! says who it is in one metadata entry ([`Caller`]) and is judged ([`Directory`]) before openraft sees anything of it.

pub mod caller;
pub mod channel;
pub mod codec;
pub mod connection;
pub mod contact;
mod cork;
mod dial;
pub mod directory;
pub mod factory;
pub mod forward;
pub mod metrics;
pub mod pb;
pub mod presence;
pub mod service;
mod snapshot;

pub use caller::Caller;
pub use channel::{Links, PeerTable, Purpose, Times, never_sent};
pub use contact::LeaderContact;
pub use cork::Cork;
pub use dial::{dial, port_is_closed, socket_file};
pub use directory::{Directory, Expelled, Expulsion, Verdict};
pub use factory::Factory;
pub use forward::{Forwarder, Refusals};
pub use metrics::PeerMetrics;
pub use presence::Presence;
pub use service::{Local, Service};

/// Descriptors of `rusd.peer`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peer_descriptor.bin"));

/// The newest peer protocol this release speaks, which also covers what its log may say.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest one it still speaks; members that have none in common refuse each other.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;

/// Oldest and newest peer protocol that this process announces. `RUSD_TEST_PROTOCOL=OLDEST-NEWEST` makes it announce others, so that a test
/// can mix releases that don't exist yet; what is spoken stays the same.
pub fn protocol() -> (u32, u32) {
    static ANNOUNCED: std::sync::OnceLock<(u32, u32)> = std::sync::OnceLock::new();
    *ANNOUNCED.get_or_init(|| {
        let text = std::env::var("RUSD_TEST_PROTOCOL").unwrap_or_default();
        let announced = text.split_once('-').and_then(|(oldest, newest)| Some((oldest.parse().ok()?, newest.parse().ok()?)));
        announced.unwrap_or((OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION))
    })
}

/// What a member takes in one message, whatever its own `--max-request-bytes`: a smaller flag on one member must not stop its replication.
pub const RECEIVE_LIMIT_BYTES: usize = 64 << 20;

/// openraft with our types.
pub type Raft = openraft::Raft<rusd_storage::raft::types::TypeConfig, rusd_storage::raft::StateMachine>;
