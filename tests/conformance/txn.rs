//! Txn: compares, what may be written together, nesting, and in which order things are refused.

use crate::build::{Op, compare, delete, get, grant, put, range, then, txn};
use crate::pair::Pair;
use rusd::pb::etcdserverpb::compare::{CompareResult, TargetUnion};
use rusd::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

#[tokio::test]
async fn every_compare() {
    let pair = Pair::start(&[]).await;
    pair.accepted(grant(7, 600)).await;
    pair.accepted(PutRequest { lease: 7, ..put("k1", "m") }).await;
    pair.accepted(put("k2", "m")).await;
    pair.accepted(put("k2", "n")).await;
    let unions = |number: i64| {
        [
            TargetUnion::Version(number),
            TargetUnion::CreateRevision(number),
            TargetUnion::ModRevision(number),
            TargetUnion::Lease(number),
            TargetUnion::Value(format!("{}", char::from(b'l' + u8::try_from(number.rem_euclid(4)).expect("below 4"))).into()),
        ]
    };
    for (key, end) in [("k1", ""), ("k2", ""), ("none", ""), ("k", "l"), ("n", "o"), ("k1", "\0"), ("z", "a")] {
        for result in -1..=4 {
            for union in [-1, 0, 1, 2, 3, 4, 7].into_iter().flat_map(unions) {
                let exact = compare(key, CompareResult::Equal, union);
                let exact = Compare { result, range_end: end.to_string().into(), ..exact };
                // A target that the union doesn't hold reads as zero.
                let odd = Compare { target: (exact.target + 1) % 6, ..exact.clone() };
                pair.same(txn(vec![exact.clone()], vec![get("k1").op()], vec![])).await;
                pair.same(txn(vec![odd.clone()], vec![], vec![])).await;
                if result == 0 {
                    pair.same(txn(vec![exact, odd], vec![put("then", "").op()], vec![put("else", "").op()])).await;
                }
            }
        }
    }
    pair.same(txn(vec![Compare { key: "k1".into(), target_union: None, ..Default::default() }], vec![], vec![])).await;
    pair.same(txn(vec![Compare::default()], vec![], vec![])).await;
}

/// All pairs and triples of operations that may or may not collide, in both branches and nested.
#[tokio::test]
async fn what_may_be_written_together() {
    let pair = Pair::start(&[]).await;
    let parts: Vec<RequestOp> = vec![
        put("a", "1").op(),
        put("b", "1").op(),
        delete("a", "").op(),
        delete("a", "c").op(),
        delete("a", "\0").op(),
        delete("b", "a").op(),
        then(vec![put("a", "2").op()]).op(),
        then(vec![delete("a", "").op()]).op(),
        txn(vec![], vec![put("a", "3").op()], vec![put("a", "4").op(), delete("b", "").op()]).op(),
        txn(vec![Compare { key: "a".into(), ..Default::default() }], vec![put("b", "5").op()], vec![delete("b", "").op()]).op(),
        then(vec![then(vec![put("b", "6").op()]).op(), get("a").op()]).op(),
        range("a", "z").op(),
    ];
    for first in &parts {
        for second in &parts {
            pair.same(then(vec![first.clone(), second.clone()])).await;
            pair.same(txn(vec![], vec![first.clone()], vec![second.clone()])).await;
            pair.same(then(vec![txn(vec![], vec![first.clone()], vec![second.clone()]).op()])).await;
            pair.same(range("\0", "\0")).await;
            for third in [&parts[0], &parts[2], &parts[6], &parts[11]] {
                pair.same(then(vec![first.clone(), second.clone(), third.clone()])).await;
            }
        }
    }
}

/// Several things are wrong at once: which one is named?
#[tokio::test]
async fn the_order_of_refusals() {
    let pair = Pair::start(&["--max-txn-ops=3"]).await;
    pair.accepted(put("k", "v")).await;
    let wrong: Vec<RequestOp> = vec![
        RequestOp { request: None },
        get("").op(),
        RangeRequest { sort_order: 9, ..get("k") }.op(),
        RangeRequest { revision: 99, ..get("k") }.op(),
        put("", "").op(),
        PutRequest { ignore_value: true, ..put("k", "v") }.op(),
        PutRequest { ignore_lease: true, lease: 1, ..put("k", "v") }.op(),
        PutRequest { ignore_value: true, ..put("none", "") }.op(),
        PutRequest { lease: 99, ..put("k", "v") }.op(),
        delete("", "").op(),
        then(vec![get("k").op(); 4]).op(),
        then(vec![put("", "").op()]).op(),
        then(vec![put("k", "1").op()]).op(),
        put("k", "2").op(),
        get("k").op(),
    ];
    for first in &wrong {
        pair.same(txn(vec![Compare::default()], vec![first.clone()], vec![])).await;
        for second in &wrong {
            pair.same(then(vec![first.clone(), second.clone()])).await;
            pair.same(txn(vec![], vec![first.clone()], vec![second.clone()])).await;
            pair.same(then(vec![get("k").op(), then(vec![first.clone(), second.clone()]).op()])).await;
        }
    }
    let compares = |count| vec![Compare { key: "k".into(), ..Default::default() }; count];
    for (compared, succeeds, fails) in [(3, 3, 3), (4, 0, 0), (0, 4, 0), (0, 0, 4), (0, 0, 0)] {
        pair.same(txn(compares(compared), vec![get("k").op(); succeeds], vec![get("k").op(); fails])).await;
    }
    // What the outer level takes is gone for the inner one.
    for (outer, inner) in [(1, 2), (2, 1), (2, 2), (3, 0), (3, 1)] {
        let mut ops = vec![get("k").op(); outer - 1];
        ops.push(then(vec![get("k").op(); inner]).op());
        pair.same(then(ops)).await;
    }
    pair.same(range("\0", "\0")).await;
}

/// What operations see of each other, and which revisions their headers name.
#[tokio::test]
async fn what_operations_see() {
    let pair = Pair::start(&[]).await;
    pair.accepted(grant(7, 600)).await;
    pair.accepted(put("a", "1")).await;
    pair.accepted(put("b", "1")).await;
    let see = || range("\0", "\0").op();
    let old = |revision| RangeRequest { revision, ..range("\0", "\0") }.op();
    let txns: Vec<TxnRequest> = vec![
        then(vec![see(), put("a", "2").op(), see(), delete("b", "").op(), see()]),
        then(vec![delete("none", "").op(), see(), put("a", "3").op(), delete("none", "").op()]),
        then(vec![delete("none", "").op()]),
        then(vec![put("c", "1").op(), old(0), old(2), old(5), old(-3)]),
        then(vec![put("c", "1").op(), old(6)]),
        then(vec![put("c", "1").op(), old(99)]),
        then(vec![PutRequest { prev_kv: true, ..put("c", "2") }.op(), then(vec![see(), put("d", "1").op(), see()]).op(), see()]),
        then(vec![then(vec![]).op()]),
        then(vec![then(vec![see()]).op(), then(vec![]).op()]),
        then(vec![put("e", "1").op(), delete("e", "\0").op(), see()]),
        then(vec![delete("a", "\0").op(), put("a", "9").op(), put("b", "9").op(), see()]),
        then(vec![PutRequest { lease: 7, ..put("l", "1") }.op(), PutRequest { lease: 8, ..put("m", "1") }.op()]),
        then(vec![PutRequest { lease: 7, ..put("l", "1") }.op(), see()]),
        then(vec![PutRequest { ignore_lease: true, prev_kv: true, ..put("l", "2") }.op(), see()]),
        then(vec![PutRequest { ignore_value: true, prev_kv: true, ..put("l", "") }.op(), see()]),
        txn(vec![Compare { key: "zz".into(), ..Default::default() }], vec![], vec![]),
        txn(vec![], vec![see()], vec![put("never", "").op()]),
        txn(vec![], vec![RangeRequest { serializable: true, ..get("a") }.op()], vec![RangeRequest { serializable: true, ..get("a") }.op()]),
        TxnRequest::default(),
    ];
    for request in txns {
        pair.same(request).await;
        pair.same(range("\0", "\0")).await;
    }
}

/// Inner compares are decided on what was there before the txn, at every depth.
#[tokio::test]
async fn paths_are_chosen_up_front() {
    let pair = Pair::start(&[]).await;
    let has = |key: &str| compare(key, CompareResult::Greater, TargetUnion::CreateRevision(0));
    let mark = |name: &str| vec![put("mark", name).op()];
    for _ in 0..2 {
        for (outer, inner) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")] {
            let deep = txn(vec![has(inner)], mark("yes"), mark("no")).op();
            let branch = |name: &str| vec![put("a", name).op(), deep.clone()];
            pair.same(txn(vec![has(outer)], branch("then"), branch("else"))).await;
            pair.same(range("\0", "\0")).await;
        }
        pair.same(then(vec![delete("a", "b").op(), txn(vec![has("a")], mark("was"), mark("wasn't")).op()])).await;
        pair.same(put("b", "1")).await;
    }
}
