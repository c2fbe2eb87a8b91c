//! Snapshots that move from one store to another.

use super::Member;
use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use rusd_storage::raft::types::{SnapshotMeta, TypeConfig};
use rusd_storage::snapshot::{Outgoing, Receiver, SnapshotData};
use rusd_storage::{LogPosition, Record};

/// The largest message two members exchange has room for this.
const CHUNK_BYTES_MAX: usize = 600 << 10;

pub async fn outgoing(member: &mut Member) -> (SnapshotMeta, Outgoing) {
    let snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData> =
        member.opened.state_machine.get_current_snapshot().await.expect("no error").expect("something was applied");
    let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else { panic!("something to send") };
    (snapshot.meta, outgoing)
}

pub fn chunks(outgoing: &mut Outgoing) -> Vec<Bytes> {
    std::iter::from_fn(|| outgoing.next_chunk().expect("history is there")).collect()
}

/// Takes in all chunks and switches to what they are.
pub async fn install(member: &mut Member, meta: &SnapshotMeta, chunks: Vec<Bytes>) {
    let mut receiver = Receiver::begin(member.opened.engine.clone()).expect("a partial store");
    feed(&mut receiver, &chunks);
    switch(member, meta, receiver).await;
}

pub fn feed(receiver: &mut Receiver, chunks: &[Bytes]) {
    for chunk in chunks {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "{} bytes in a chunk", chunk.len());
        receiver.chunk(chunk.clone()).expect("a good chunk");
    }
}

pub async fn switch(member: &mut Member, meta: &SnapshotMeta, receiver: Receiver) {
    let data = receiver.finish().expect("all of it");
    member.opened.state_machine.install_snapshot(meta, data).await.expect("a switch");
    member.next = member.opened.state.applied().expect("applied").index + 1;
}

/// All that readers can tell apart: keys, history, leases, alarms, the hash members compare, and how far it goes.
pub type Told = (Vec<rusd_storage::KeyValue>, Vec<Record>, Vec<(i64, Vec<Bytes>)>, usize, (u32, i64, i64), Option<LogPosition>);

pub fn told(member: &Member) -> Told {
    let state = &member.opened.state;
    let store = state.store();
    let from = store.compact_revision().max(0);
    let history = store.history(from + 1, store.revision(), usize::MAX).expect("history").0;
    let leases = state.leases().iter().map(|lease| (lease.id, state.lease(lease.id, true).expect("listed").1)).collect();
    (member.all(), history, leases, state.alarms().len(), store.hash_kv(0).expect("a hash"), state.applied())
}

pub fn directories() -> (tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"))
}
