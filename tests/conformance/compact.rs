//! Compaction, and what it leaves.

use crate::build::{compact, delete, get, put, range};
use crate::call::Call;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{CompactionRequest, HashKvRequest, RangeRequest};

#[tokio::test]
async fn what_may_be_compacted() {
    let pair = Pair::start(&[]).await;
    for revision in [-5, 2, 1, 0, 0, -1, 1] {
        pair.same(compact(revision)).await;
    }
    for value in 0..6 {
        pair.accepted(put("k", &value.to_string())).await;
    }
    for (revision, physical) in
        [(99, true), (99, false), (3, false), (3, true), (2, true), (5, true), (5, true), (7, false), (7, true), (8, true)]
    {
        pair.same(CompactionRequest { revision, physical }).await;
        for at in 0..=8 {
            pair.same(RangeRequest { revision: at, ..get("k") }).await;
        }
    }
    pair.refused(compact(8), "etcdserver: mvcc: required revision is a future revision").await;
}

/// HashKV is the same number for the same history (contract b.11), before and after each compaction, and for revisions whose
/// hash was only kept.
#[tokio::test]
async fn hashes_through_compactions() {
    let pair = Pair::start(&[]).await;
    hash_everywhere(&pair, 4).await;
    for round in 0..4 {
        for step in 0..8 {
            pair.accepted(put(&format!("k{}", step % 3), &format!("{round}.{step}"))).await;
        }
        pair.accepted(delete("k1", "")).await;
        let last = 10 + 9 * round;
        hash_everywhere(&pair, last + 2).await;
        // On the tombstone, before it, and right after it.
        pair.accepted(compact(last - [0, 1, 4, 0][round as usize])).await;
        hash_everywhere(&pair, last + 2).await;
    }
    pair.accepted(delete("\0", "\0")).await;
    hash_everywhere(&pair, 40).await;
    pair.accepted(compact(38)).await;
    hash_everywhere(&pair, 40).await;
    pair.accepted(put("again", "")).await;
    hash_everywhere(&pair, 41).await;
    pair.same(range("\0", "\0")).await;
}

async fn hash_everywhere(pair: &Pair, to: i64) {
    for revision in -1..=to {
        pair.same(HashKvRequest { revision }).await;
    }
    pair.same(Call::Hash).await;
}
