//! Maintenance, Cluster and what Auth says while it is off.

use crate::build::{put, range};
use crate::call::Call;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{AlarmRequest, AuthenticateRequest, DowngradeRequest, MemberListRequest, MoveLeaderRequest, StatusRequest};

#[tokio::test]
async fn what_a_member_says_of_itself() {
    let pair = Pair::start(&["--quota-backend-bytes=123456789"]).await;
    wait_for_version(&pair).await;
    for _ in 0..2 {
        pair.accepted(Call::Status).await;
        pair.accepted(Call::MemberList(MemberListRequest { linearizable: true })).await;
        pair.accepted(Call::MemberList(MemberListRequest { linearizable: false })).await;
        pair.accepted(Call::Defragment).await;
        pair.accepted(Call::AuthStatus).await;
        pair.accepted(put("k", "v")).await;
    }
    pair.same(Call::Authenticate(AuthenticateRequest { name: "root".into(), password: "root".into() })).await;
    pair.same(MoveLeaderRequest { target_id: 99 }).await;
    pair.same(MoveLeaderRequest { target_id: 0 }).await;
    pair.same(range("\0", "\0")).await;
}

/// The cluster version, and with it the storage version, is decided a moment after the start.
async fn wait_for_version(pair: &Pair) {
    for client in pair.clients() {
        crate::harness::eventually("a storage version", || async {
            let status = client.maintenance.clone().status(StatusRequest {}).await.ok()?.into_inner();
            (status.storage_version == "3.7.0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn alarms() {
    let pair = Pair::start(&[]).await;
    // An unknown action ends the real etcd.
    for action in 0..=2 {
        for alarm in 0..=2 {
            for member_id in [0, 7, u64::MAX] {
                // What is activated stays on until the end: from here on writes are refused.
                pair.same(AlarmRequest { action, member_id, alarm }).await;
            }
            pair.same(put("k", "v")).await;
            pair.same(range("\0", "\0")).await;
        }
    }
}

#[tokio::test]
async fn downgrades_without_a_job() {
    let pair = Pair::start(&[]).await;
    wait_for_version(&pair).await;
    for action in [2, 3, -1] {
        pair.same(DowngradeRequest { action, version: String::new() }).await;
    }
}
