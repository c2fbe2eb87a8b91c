//! Put and DeleteRange with all their flags.

use crate::build::{delete, get, grant, put, range};
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{DeleteRangeRequest, PutRequest};

#[tokio::test]
async fn every_flag_of_put() {
    let pair = Pair::start(&[]).await;
    pair.accepted(grant(7, 600)).await;
    for key in ["", "k", "new"] {
        for value in ["", "v"] {
            for lease in [0, 7, 8, -1] {
                for flags in 0..8 {
                    let (prev_kv, ignore_value, ignore_lease) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
                    pair.same(PutRequest { lease, prev_kv, ignore_value, ignore_lease, ..put(key, value) }).await;
                    pair.same(get("k")).await;
                }
            }
        }
        if key == "k" {
            pair.accepted(delete("new", "")).await;
        }
    }
}

#[tokio::test]
async fn every_shape_of_delete() {
    let pair = Pair::start(&[]).await;
    for prev_kv in [false, true] {
        for key in ["", "\0", "a", "b", "x"] {
            for end in ["", "\0", "a", "c", "z"] {
                for existing in ["a", "b", "c"] {
                    pair.accepted(put(existing, "v")).await;
                }
                pair.same(DeleteRangeRequest { prev_kv, ..delete(key, end) }).await;
                pair.same(range("\0", "\0")).await;
            }
        }
    }
}
