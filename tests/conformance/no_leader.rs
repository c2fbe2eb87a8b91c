//! Two members of which one is gone: what the other one still answers, and with which words it refuses.

use crate::build::{Op, get, grant, put, range, then};
use crate::call::{Call, Outcome, outcome};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{
    DeleteRangeRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MemberListRequest, RangeRequest, StatusRequest,
};
use tonic::{Code, Request};

#[tokio::test]
async fn what_is_answered_without_a_leader() {
    let mut pair = Pair::with_members(2, &[]).await;
    pair.accepted(put("k", "v")).await;
    let silent: Vec<_> = pair.clients().iter().map(|client| tokio::spawn(keep_alive_nothing((*client).clone()))).collect();
    for cluster in [&mut pair.etcd, &mut pair.rusd] {
        cluster.kill(1);
    }
    for client in pair.clients() {
        eventually("the leader is missed", || async {
            let status = client.maintenance.clone().status(StatusRequest {}).await.ok()?.into_inner();
            (status.leader == 0).then_some(())
        })
        .await;
    }
    let calls: Vec<Call> = vec![
        RangeRequest { serializable: true, ..range("\0", "\0") }.into(),
        then(vec![RangeRequest { serializable: true, ..get("k") }.op()]).into(),
        Call::RangeStream(RangeRequest { serializable: true, ..get("k") }),
        get("k").into(),
        then(vec![get("k").op()]).into(),
        put("k", "w").into(),
        then(vec![put("k", "w").op()]).into(),
        DeleteRangeRequest { key: "k".into(), ..Default::default() }.into(),
        grant(5, 60).into(),
        LeaseTimeToLiveRequest { id: 5, keys: true }.into(),
        Call::KeepAlive(5),
        Call::Leases,
        Call::MemberList(MemberListRequest { linearizable: false }),
        Call::MemberList(MemberListRequest { linearizable: true }),
        Call::Status,
    ];
    // At once: each takes the request timeout of 7 s or, as a read behind a failing round, twice that.
    let all = futures::future::join_all(calls.iter().map(|call| pair.send(call))).await;
    let differ = |(_, [etcd, rusd]): &(&Call, [Outcome; 2])| etcd != rusd && !unknown_fate(etcd, rusd);
    let wrong: Vec<String> = calls.iter().zip(all).filter(differ).map(|pair| format!("{pair:#?}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for client in pair.clients() {
        assert_eq!(wants_leader(client).await, Outcome::Refusal(Code::Unavailable, "etcdserver: no leader".into()));
    }
    for stream in silent {
        assert_eq!(stream.await.expect("no panic"), Some((Code::Unavailable, "etcdserver: no leader".into())));
    }
}

/// How a stream of keep-alives ends that wants a leader, and on which nobody says anything.
async fn keep_alive_nothing(client: Client) -> Option<(Code, String)> {
    let mut request = Request::new(tokio_stream::pending::<LeaseKeepAliveRequest>());
    request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    let ended = match client.lease.clone().lease_keep_alive(request).await {
        Ok(response) => response.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    ended.map(|status| (status.code(), status.message().to_owned()))
}

/// A write that the survivor, if it was the leader, has put into its log may still be committed. rusd says so; etcd's leader resigned
/// before it took the write.
fn unknown_fate(etcd: &Outcome, rusd: &Outcome) -> bool {
    let refused = |outcome: &Outcome, code, text: &str| *outcome == Outcome::Refusal(code, text.to_string());
    refused(etcd, Code::DeadlineExceeded, "context deadline exceeded") && refused(rusd, Code::Unavailable, "etcdserver: request timed out")
}

async fn wants_leader(client: &Client) -> Outcome {
    let mut request = Request::new(RangeRequest { serializable: true, ..get("k") });
    request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    outcome(client.kv.clone().range(request).await)
}
