//! Range with all its options and their combinations.

use crate::build::{compact, delete, get, put, range};
use crate::call::Call;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::RangeRequest;

/// Keys with revisions, versions and values in different orders, some of them equal.
async fn fill(pair: &Pair) {
    for (key, value) in [("a", "5"), ("b", "4"), ("c", "3"), ("d", "3"), ("e", "1"), ("b", "6"), ("d", "3"), ("d", "2"), ("f", "")] {
        pair.accepted(put(key, value)).await;
    }
    pair.accepted(delete("c", "")).await;
    pair.accepted(put("c", "9")).await;
    pair.accepted(put("a\0", "nul")).await;
}

#[tokio::test]
async fn every_order_target_limit_and_shape() {
    let pair = Pair::start(&[]).await;
    fill(&pair).await;
    for order in -1..=3 {
        for target in -1..=5 {
            for limit in [-1, 0, 1, 2, 4, 7, 8, 100] {
                for (keys_only, count_only) in [(false, false), (true, false), (false, true), (true, true)] {
                    let request = RangeRequest { sort_order: order, sort_target: target, limit, keys_only, count_only, ..range("a", "z") };
                    pair.same(request).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn revisions_filters_and_their_company() {
    let pair = Pair::start(&[]).await;
    fill(&pair).await;
    for revision in -2..=16 {
        pair.same(RangeRequest { revision, ..range("a", "z") }).await;
        pair.same(RangeRequest { revision, limit: 2, ..range("b", "\0") }).await;
        pair.same(RangeRequest { revision, count_only: true, ..range("a", "e") }).await;
        pair.same(RangeRequest { revision, ..get("c") }).await;
        pair.same(Call::RangeStream(RangeRequest { revision, limit: 3, ..range("a", "z") })).await;
    }
    for least in [-1, 0, 2, 5, 9, 99] {
        for most in [-1, 0, 2, 5, 9, 99] {
            let base = RangeRequest { limit: 2, ..range("a", "z") };
            pair.same(RangeRequest { min_mod_revision: least, max_mod_revision: most, ..base.clone() }).await;
            pair.same(RangeRequest { min_create_revision: least, max_create_revision: most, ..base.clone() }).await;
            pair.same(RangeRequest { min_mod_revision: least, max_create_revision: most, limit: 0, ..base.clone() }).await;
            pair.same(RangeRequest { min_mod_revision: least, sort_order: 2, sort_target: 1, count_only: most == 0, ..base }).await;
        }
    }
    pair.accepted(compact(9)).await;
    for revision in 7..=11 {
        pair.same(RangeRequest { revision, ..range("a", "z") }).await;
        pair.same(RangeRequest { revision, serializable: true, ..get("d") }).await;
        pair.same(Call::RangeStream(RangeRequest { revision, ..range("a", "z") })).await;
    }
}

#[tokio::test]
async fn keys_and_ends() {
    let pair = Pair::start(&[]).await;
    pair.same(range("\0", "\0")).await;
    fill(&pair).await;
    let keys = ["", "\0", "a", "a\0", "c", "cc", "z", "\u{7f}"];
    for key in keys {
        for end in keys {
            pair.same(range(key, end)).await;
            pair.same(Call::RangeStream(range(key, end))).await;
            pair.same(RangeRequest { count_only: true, ..range(key, end) }).await;
            pair.same(RangeRequest { limit: 1, keys_only: true, serializable: true, ..range(key, end) }).await;
        }
    }
}

/// With an order but no target, with a target but no order, with a limit: what is taken before it is sorted?
#[tokio::test]
async fn streams_refuse_what_they_can_not_do() {
    let pair = Pair::start(&[]).await;
    fill(&pair).await;
    for order in -1..=3 {
        // No order with a target: each piece is sorted by itself. From the second piece on etcd loses keys, which isn't copied.
        for target in [-1, 0, 1, 2, 3, 4, 5] {
            for limit in [-1, 0, 1, 3, 50] {
                // Where the limit makes more pieces of it, that begins with the second key.
                if order == 0 && (1..=4).contains(&target) && (1..=3).contains(&limit) {
                    continue;
                }
                let request = RangeRequest { sort_order: order, sort_target: target, limit, ..range("a", "z") };
                pair.same(Call::RangeStream(request.clone())).await;
                pair.same(Call::RangeStream(RangeRequest { count_only: true, ..request.clone() })).await;
                pair.same(Call::RangeStream(RangeRequest { max_mod_revision: 5, ..request.clone() })).await;
                pair.same(Call::RangeStream(RangeRequest { keys_only: true, ..request })).await;
            }
        }
    }
    for number in 0..120 {
        pair.accepted(put(&format!("many{number:03}"), &"v".repeat(number * 50))).await;
    }
    for limit in [0, 9, 10, 11, 30, 119, 120, 121] {
        pair.same(Call::RangeStream(RangeRequest { limit, ..range("many", "manz") })).await;
        pair.same(RangeRequest { limit, ..range("many", "manz") }).await;
    }
}
