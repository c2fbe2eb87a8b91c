//! The Watch service, told in step: each answer is awaited before the next thing happens.

use crate::build::{Op, compact, delete, grant, put, then};
use crate::pair::Pair;
use crate::watching::{Streams, key, span};
use rusd::pb::etcdserverpb::watch_create_request::FilterType;
use rusd::pb::etcdserverpb::watch_request::RequestUnion;
use rusd::pb::etcdserverpb::{LeaseRevokeRequest, PutRequest, WatchCreateRequest, WatchRequest};

#[tokio::test]
async fn creating_and_cancelling() {
    let pair = Pair::start(&[]).await;
    pair.accepted(put("k", "v")).await;
    let mut streams = Streams::open(&pair);
    // Without watches progress isn't told, and unknown ids aren't cancelled.
    streams.progress().await;
    streams.cancel(0).await;
    streams.cancel(-1).await;
    let with = |watch_id| WatchCreateRequest { watch_id, ..key("k") };
    for create in [
        with(0),
        with(0),
        with(2),
        with(0),
        with(2),
        with(-1),
        with(-1),
        with(-9),
        with(i64::MAX),
        key(""),
        span("", "\0"),
        span("k", "k"),
        span("k", "a"),
        span("\0", "\0"),
        span("k", "\0"),
        WatchCreateRequest { start_revision: -1, ..key("k") },
        WatchCreateRequest { start_revision: i64::MIN, watch_id: 77, ..key("k") },
        WatchCreateRequest { start_revision: 99, ..key("k") },
        WatchCreateRequest { filters: vec![7, -3], ..key("k") },
        WatchCreateRequest { watch_id: 2, ..span("k", "a") },
    ] {
        streams.create(create).await;
    }
    for id in [0, 2, -9, 2] {
        streams.cancel(id).await;
    }
    for _ in 0..3 {
        streams.same("a cancel").await;
    }
    streams.silent("the second cancel of the same id").await;
    streams.create(with(2)).await;
    streams.create(with(0)).await;
    for stream in &streams.0 {
        stream.ask(RequestUnion::ProgressRequest(Default::default())).await;
    }
    // One watch begins in the future, so there is no progress of the whole stream.
    streams.silent("progress of a stream with a watch of the future").await;
}

#[tokio::test]
async fn events_as_they_happen() {
    let pair = Pair::start(&[]).await;
    pair.accepted(grant(7, 600)).await;
    pair.accepted(put("a", "old")).await;
    let mut streams = Streams::open(&pair);
    let filters = [vec![], vec![FilterType::Noput as i32], vec![FilterType::Nodelete as i32], vec![0, 1]];
    for prev_kv in [false, true] {
        for filters in filters.clone() {
            streams.create(WatchCreateRequest { prev_kv, filters, ..span("a", "c") }).await;
        }
    }
    streams.create(key("a")).await;
    streams.create(WatchCreateRequest { start_revision: 8, ..key("a") }).await;
    let leased = |key: &str| PutRequest { lease: 7, ..put(key, "leased") };
    // How many of the watches above each change concerns: puts 4, deletes 4, both of them 6, and of the last two watches those of `a`.
    let changes: Vec<(crate::call::Call, usize)> = vec![
        (put("a", "1").into(), 5),
        (put("a", "1").into(), 5),
        (put("b", "2").into(), 4),
        (put("z", "3").into(), 0),
        (delete("a", "").into(), 5),
        (put("a", "4").into(), 6),
        (leased("b").into(), 4),
        (leased("a").into(), 6),
        (then(vec![put("a", "5").op(), put("b", "5").op(), put("z", "5").op()]).into(), 6),
        (then(vec![put("a", "6").op(), delete("b", "").op()]).into(), 8),
        (delete("none", "").into(), 0),
        (then(vec![put("b", "7").op(), delete("b", "\0").op()]).into(), 6),
        (leased("b").into(), 4),
        (LeaseRevokeRequest { id: 7 }.into(), 4),
    ];
    for (change, answers) in changes {
        pair.accepted(change.clone()).await;
        streams.same_in_any_order(answers, &format!("{change:?}")).await;
        streams.progress().await;
        if pair_revision(&pair).await >= 8 {
            streams.same("progress").await;
        } else {
            streams.silent("progress before the start").await;
        }
    }
}

async fn pair_revision(pair: &Pair) -> i64 {
    let request = rusd::pb::etcdserverpb::RangeRequest { key: "k".into(), ..Default::default() };
    let answer = pair.clients()[1].kv.clone().range(request).await.expect("it serves").into_inner();
    answer.header.expect("always there").revision
}

#[tokio::test]
async fn the_past_is_told_first() {
    let pair = Pair::start(&[]).await;
    for value in 0..5 {
        pair.accepted(put("a", &value.to_string())).await;
        pair.accepted(then(vec![put("b", &value.to_string()).op(), delete("c", "").op()])).await;
        pair.accepted(put("c", "")).await;
    }
    // A put is answered before watchers are told of it: progress tells that they were.
    let mut told = Streams::open(&pair);
    told.create(key("z")).await;
    told.progress().await;
    told.same("all is told").await;
    for start_revision in [1, 2, 3, 9, 16] {
        for (prev_kv, filters) in [(false, vec![]), (true, vec![0]), (true, vec![1]), (false, vec![0, 1])] {
            let mut streams = Streams::open(&pair);
            let nothing = filters.len() == 2;
            streams.create(WatchCreateRequest { start_revision, prev_kv, filters: filters.clone(), ..span("a", "d") }).await;
            // All that was before comes in one answer.
            let no_put_at_the_end = start_revision == 16 && filters == [0];
            if !nothing && !no_put_at_the_end {
                streams.same(&format!("from {start_revision} without {filters:?}")).await;
            }
            streams.create(key("a")).await;
        }
    }
}

#[tokio::test]
async fn compacted_watches() {
    let pair = Pair::start(&[]).await;
    for value in 0..8 {
        pair.accepted(put("a", &value.to_string())).await;
    }
    let mut streams = Streams::open(&pair);
    streams.create(key("a")).await;
    pair.accepted(compact(6)).await;
    for start_revision in [5, 1] {
        streams.create(WatchCreateRequest { start_revision, ..key("a") }).await;
        let answer = streams.same("compacted").await;
        assert!(answer.canceled && answer.compact_revision == 6, "{answer:?}");
    }
    // It keeps its id, and so the stream's progress, until the client cancels it.
    streams.create(WatchCreateRequest { watch_id: 1, ..key("a") }).await;
    streams.progress().await;
    streams.silent("progress of a stream with a compacted watch").await;
    streams.cancel(1).await;
    streams.same("the cancel of what was compacted").await;
    streams.cancel(2).await;
    streams.same("the cancel of what was compacted").await;
    streams.progress().await;
    streams.same("progress").await;
    for start_revision in [6, 7] {
        streams.create(WatchCreateRequest { start_revision, prev_kv: true, ..key("a") }).await;
        streams.same("from the border").await;
    }
}

/// Who listens is told of a change also if it is compacted at once.
#[tokio::test]
async fn compaction_right_after_a_write() {
    let pair = Pair::start(&[]).await;
    let mut streams = Streams::open(&pair);
    streams.create(key("a")).await;
    // The empty store is at revision 1.
    for revision in 2..102 {
        for client in pair.clients() {
            let mut kv = client.kv.clone();
            kv.put(put("a", &revision.to_string())).await.expect("accepted");
            kv.compact(rusd::pb::etcdserverpb::CompactionRequest { revision, physical: false }).await.expect("accepted");
        }
        streams.same("the change").await;
    }
}

/// An answer is cut where the next event would reach the limit, previous values included.
#[tokio::test]
async fn fragments() {
    let pair = Pair::start(&["--max-request-bytes=200000"]).await;
    let mut streams = Streams::open(&pair);
    for (fragment, prev_kv) in [(true, true), (true, false), (false, true)] {
        streams.create(WatchCreateRequest { fragment, prev_kv, ..span("a", "b") }).await;
    }
    // With limits of 200,000 for a request and 724,288 for an answer, only previous values make an answer too large.
    for (key, size) in (0..12).map(|key| (format!("a{key:02}"), 150_000 - 7_000 * key)) {
        pair.accepted(put(&key, &"v".repeat(size))).await;
        streams.same_in_any_order(3, "a put").await;
    }
    pair.accepted(delete("a", "b")).await;
    let mut told = Vec::new();
    for stream in &mut streams.0 {
        let mut parts = Vec::new();
        let mut ended = 0;
        while ended < 3 {
            let answer = stream.answer().await;
            ended += usize::from(!answer.fragment);
            parts.push((answer.watch_id, answer.fragment, answer.events.len()));
        }
        parts.sort_by_key(|(id, ..)| *id);
        told.push(parts);
    }
    assert_eq!(told[0], told[1]);
    assert!(told[1].len() > 3, "nothing was cut");
}

#[tokio::test]
async fn progress_is_told_from_time_to_time() {
    let pair = Pair::start(&["--watch-progress-notify-interval=100ms"]).await;
    pair.accepted(put("a", "1")).await;
    let mut streams = Streams::open(&pair);
    streams.create(key("a")).await;
    // The last one: what is answered from now on is progress.
    streams.create(WatchCreateRequest { progress_notify: true, ..key("a") }).await;
    for _ in 0..3 {
        let answer = streams.same("progress").await;
        assert!(answer.watch_id == 1 && answer.events.is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_stream() {
    let pair = Pair::start(&[]).await;
    let mut streams = Streams::open(&pair);
    streams.create(key("a")).await;
    for stream in &streams.0 {
        stream.ask(RequestUnion::ProgressRequest(Default::default())).await;
    }
    streams.same("progress").await;
    streams.0.iter_mut().for_each(crate::watching::Stream::close);
    pair.accepted(put("a", "1")).await;
    streams.same("a half-closed stream goes on").await;
    // An empty request is no request.
    let mut streams = Streams::open(&pair);
    for stream in &streams.0 {
        stream.raw(WatchRequest { request_union: None }).await;
    }
    streams.create(key("a")).await;
}
