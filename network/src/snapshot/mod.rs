//! Snapshots on their way: head, checksummed chunks, end. Without its end nothing is installed.
//!
//! When a transfer breaks, the receiver keeps what has arrived ([`Partial`]) and the sender keeps the snapshot and the log after it
//! ([`Interrupted`]), both for [`KEPT`] at most. The next sender, the same or a new leader, asks what is there and goes on from it where
//! that is sound (`rusd_storage::snapshot::Progress`). What breaks by damage or by a disk is not kept.

mod lapsing;
mod partial;
mod receive;
mod send;

use lapsing::Lapsing;
pub use lapsing::discard;
use openraft::alias::SnapshotOf;
pub use partial::Partial;
pub use receive::{Taking, receive};
use rusd_storage::raft::types::TypeConfig;
use rusd_storage::snapshot::SnapshotData;
pub use send::{Interrupted, send};
use std::time::Duration;

/// For so long a broken transfer may be gone on with. Meanwhile it takes disk and memory at the receiver; at the sender compactions made
/// since wait with their work on disk, and the log stays.
pub const KEPT: Duration = Duration::from_secs(60);

/// So many chunks wait between the disk and the connection, on either side: 512 KiB as a rule, 4 MiB at most.
const CHUNKS_AHEAD: usize = 8;

/// Between two chunks a thread that moves a snapshot lets others have its CPU, if any wait for one: writes must not wait behind a join. On
/// two busy cores that took a quarter off their p99.
fn make_way() {
    std::thread::yield_now();
}

type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;
