//! Where requests become too large.

use crate::build::{Op, get, put, range, then};
use crate::pair::Pair;
use rusd::pb::etcdserverpb::RangeRequest;

#[tokio::test]
async fn the_size_of_requests() {
    let pair = Pair::start(&["--max-request-bytes=10000"]).await;
    // Around the limit of the marshalled request, which the two may cut a few bytes apart, and around that of gRPC, which is exact.
    for size in [0, 5_000, 9_900, 10_200, 20_000, 500_000] {
        pair.same(put("k", &"v".repeat(size))).await;
        pair.same(then(vec![put("k", &"v".repeat(size)).op(), get("none").op()])).await;
        pair.same(RangeRequest { range_end: "l".repeat(size).into(), ..get("k") }).await;
    }
    let overhead = 512 << 10;
    // Key: 2 + 1 bytes, value: 4 bytes of head.
    for size in [10_000 + overhead - 7, 10_000 + overhead - 6, 10_000 + overhead, 2 << 20] {
        pair.same(put("k", &"v".repeat(size))).await;
    }
    pair.same(range("\0", "\0")).await;
}
