//! The Lease service, and leases as keys see them.

use crate::build::{delete, get, grant, put, range};
use crate::call::Call;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest};

fn ask(id: i64) -> LeaseTimeToLiveRequest {
    LeaseTimeToLiveRequest { id, keys: true }
}

#[tokio::test]
async fn what_is_granted() {
    let pair = Pair::start(&[]).await;
    for (id, ttl) in [
        (1, 60),
        (1, 60),
        (-1, 60),
        (i64::MIN, 60),
        (i64::MAX, 60),
        (2, 9_000_000_000),
        (3, 9_000_000_001),
        (3, i64::MAX),
        (4, 3600),
        (5, 6),
    ] {
        pair.same(grant(id, ttl)).await;
        pair.same(ask(id)).await;
        pair.same(Call::KeepAlive(id)).await;
    }
    // These live shortly, so only the answer to the grant is sure.
    for (id, ttl) in [(11, 0), (12, -5), (13, i64::MIN), (14, 1), (15, 2)] {
        pair.same(grant(id, ttl)).await;
    }
    pair.same(LeaseRevokeRequest { id: 4 }).await;
    for id in [4, 99, 0] {
        pair.same(LeaseRevokeRequest { id }).await;
        pair.same(ask(id)).await;
        pair.same(Call::KeepAlive(id)).await;
    }
}

#[tokio::test]
async fn keys_of_leases() {
    let pair = Pair::start(&[]).await;
    pair.accepted(grant(1, 600)).await;
    pair.accepted(grant(2, 600)).await;
    let with = |lease, key: &str| PutRequest { lease, ..put(key, "v") };
    let calls: Vec<Call> = vec![
        with(1, "b").into(),
        with(1, "a").into(),
        with(1, "moved").into(),
        with(2, "moved").into(),
        with(1, "freed").into(),
        put("freed", "v").into(),
        with(1, "deleted").into(),
        delete("deleted", "").into(),
        with(1, "kept").into(),
        PutRequest { ignore_lease: true, ..put("kept", "w") }.into(),
        with(3, "nobody's").into(),
    ];
    for call in calls {
        pair.same(call).await;
        pair.same(ask(1)).await;
        pair.same(ask(2)).await;
        pair.same(LeaseTimeToLiveRequest { id: 1, keys: false }).await;
    }
    pair.same(range("\0", "\0")).await;
    for id in [1, 1, 2] {
        pair.same(LeaseRevokeRequest { id }).await;
        pair.same(range("\0", "\0")).await;
        pair.same(get("kept")).await;
    }
    // A lease without keys changes no revision.
    pair.accepted(grant(5, 600)).await;
    pair.accepted(LeaseRevokeRequest { id: 5 }).await;
    pair.same(Call::Leases).await;
}

/// The list is in the order in which leases end.
#[tokio::test]
async fn the_list_of_leases() {
    let pair = Pair::start(&[]).await;
    pair.same(Call::Leases).await;
    for (id, ttl) in [(5, 900), (3, 300), (9, 600), (-4, 1200)] {
        pair.accepted(grant(id, ttl)).await;
    }
    pair.same(Call::Leases).await;
    pair.accepted(Call::KeepAlive(3)).await;
    pair.same(Call::Leases).await;
}
