//! Ranges so large that they are sent while they are read.

use crate::build::{compact, put, range, then};
use crate::harness::client::Client;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, request_op};

/// Operations of a txn at most, by default.
const OPS: usize = 128;

/// Puts of keys `from`, `from + step`, ... below `to`, with values of many lengths that begin with `word`.
fn puts(from: usize, to: usize, step: usize, word: &str) -> Vec<Vec<RequestOp>> {
    let puts: Vec<RequestOp> = (from..to)
        .step_by(step)
        .map(|number| {
            let put = put(&format!("key{number:06}"), &word.repeat(1 + number * 7919 % 400));
            RequestOp { request: Some(request_op::Request::RequestPut(put)) }
        })
        .collect();
    puts.chunks(OPS).map(<[RequestOp]>::to_vec).collect()
}

#[tokio::test]
async fn large_ranges_are_the_same_at_all_revisions() {
    let pair = Pair::start(&[]).await;
    for ops in puts(0, 4000, 1, "first").into_iter().chain(puts(0, 4000, 3, "second")) {
        pair.accepted(then(ops)).await;
    }
    let all = range("key", "kez");
    for revision in [0, 20, 33, 35] {
        for limit in [0, 1500, 3999, 4000, 5000] {
            pair.same(RangeRequest { revision, limit, ..all.clone() }).await;
        }
        pair.same(RangeRequest { revision, serializable: true, ..range("key001", "\0") }).await;
    }
    pair.same(RangeRequest { keys_only: true, ..all.clone() }).await;
    pair.same(RangeRequest { sort_order: 2, ..all.clone() }).await;
    pair.accepted(compact(33)).await;
    for revision in [32, 33, 34] {
        pair.same(RangeRequest { revision, ..all.clone() }).await;
    }
}

async fn list(client: &Client, revision: i64) -> RangeResponse {
    let request = RangeRequest { revision, ..range("key", "kez") };
    client.kv.clone().range(request).await.expect("a range").into_inner()
}

#[tokio::test]
async fn a_large_range_shows_one_revision_whatever_happens_meanwhile() {
    let pair = Pair::start(&[]).await;
    let client = &pair.clients()[1];
    for ops in puts(0, 4000, 1, "first") {
        client.kv.clone().txn(then(ops)).await.expect("a txn");
    }
    let writes = async {
        for round in 0..4 {
            for ops in puts(round, 4000, 2, &format!("round {round} ")) {
                client.kv.clone().txn(then(ops)).await.expect("a txn");
            }
        }
    };
    let lists = async {
        let mut seen = Vec::new();
        for _ in 0..12 {
            seen.push(list(client, 0).await);
        }
        seen
    };
    let ((), seen) = tokio::join!(writes, lists);
    for answer in &seen {
        let revision = answer.header.as_ref().expect("a header").revision;
        let again = list(client, revision).await;
        assert!(again.kvs == answer.kvs && again.count == 4000, "at revision {revision}");
    }
    let revisions: std::collections::BTreeSet<i64> = seen.iter().filter_map(|answer| Some(answer.header.as_ref()?.revision)).collect();
    assert!(revisions.len() > 1, "nothing was written meanwhile: {revisions:?}");
}
