//! What a member keeps of a snapshot that it got a part of, as a sender sees it.

use crate::harness::eventually;
use crate::metrics::value;
use crate::peers::{FALSE_TERM, chunk, crc32c, false_vote, head, image, peer, running, unharmed};
use futures::{StreamExt, stream};
use rusd_network::pb::snapshot_part::Part;
use rusd_network::pb::{SnapshotChunk, SnapshotHead, SnapshotPosition, Vote};
use rusd_storage::command::state::LogPosition;
use tonic::Code;

/// Kind 2: a frame of one record, the only one of its revision.
fn frame(revision: u8, unit: u8) -> Option<Part> {
    frame_of(revision, unit, 1)
}

fn frame_of(revision: u8, unit: u8, value_bytes: u32) -> Option<Part> {
    // Term, index, one item: a record without flags, its numbers, key and value.
    let length: Vec<u8> = (0..5).map(|byte| (value_bytes >> (7 * byte)) as u8 & 0x7f | if byte < 4 { 0x80 } else { 0 }).collect();
    let body = [&[1, unit, 1, 1, 0, revision, 0, revision, 1, 0, 1, b'k'][..], &length, &vec![b'v'; value_bytes as usize]].concat();
    let position = [FALSE_TERM.to_le_bytes(), u64::from(unit).to_le_bytes()].concat();
    let revision = i64::from(revision).to_le_bytes();
    chunk([&[2][..], &crc32c(&body).to_le_bytes(), &position, &position, &revision, &revision, &body].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_frames_are_kept_unless_something_was_damaged() {
    let (mut cluster, revision, before) = running().await;
    let mouth = peer(&cluster);
    let (me, vote) = (mouth.caller, false_vote(&mouth.caller));
    let begin = |resumes| Some(Part::Head(SnapshotHead { pruned: true, resumes, ..head(&me) }));
    let first = || chunk(image(b"", crc32c(b"")));
    let damaged = || Some(Part::Chunk(SnapshotChunk { data: vec![2].into(), crc32c: 1 }));
    let (half, unpruned) = (|| chunk(vec![4, 1, 2, 3]), || Some(Part::Head(head(&me))));
    let held = |revision: i64, count| SnapshotPosition {
        snapshot: Some(LogPosition { term: FALSE_TERM, index: 1000 }),
        compact_revision: 0,
        revision,
        units: count,
        frames: count,
        records: count,
    };

    let broken = vec![begin(None), first(), frame(2, 0), frame(3, 1), half()];
    assert_eq!(mouth.snapshot(broken.clone()).await.expect_err("no end").code(), Code::Aborted);
    assert_eq!(mouth.progress(vote).await.expect("an answer"), Some(held(3, 2)), "without the half of a frame");
    let old = Vote { term: 0, ..vote };
    assert_eq!(mouth.progress(old).await.expect("an answer"), None, "not of the sender's business: it has been replaced");

    let more = vec![begin(Some(held(3, 2))), first(), frame(4, 2)];
    assert_eq!(mouth.snapshot(more).await.expect_err("no end").code(), Code::Aborted);
    assert_eq!(mouth.progress(vote).await.expect("an answer"), Some(held(4, 3)));

    // Whatever is wrong, the next one begins from the start.
    let go_on = || begin(Some(held(3, 2)));
    for (code, parts) in [
        (Code::FailedPrecondition, vec![begin(Some(held(4, 2)))]),
        (Code::DataLoss, vec![go_on(), first(), damaged()]),
        (Code::Internal, vec![go_on(), first(), frame(3, 2)]),
        (Code::Internal, vec![go_on(), first(), frame(4, 1)]),
        (Code::Internal, vec![go_on(), frame(4, 2)]),
        (Code::InvalidArgument, vec![go_on(), first(), None]),
        (Code::Aborted, vec![unpruned(), first(), frame(2, 0)]),
        (
            Code::ResourceExhausted,
            vec![Some(Part::Head(SnapshotHead { bytes: u64::MAX, pruned: true, resumes: Some(held(3, 2)), ..head(&me) }))],
        ),
    ] {
        mouth.snapshot(broken.clone()).await.expect_err("no end");
        assert_eq!(mouth.snapshot(parts).await.expect_err("something is wrong").code(), code);
        assert_eq!(mouth.progress(vote).await.expect("an answer"), None, "{code}");
    }
    let none = mouth.snapshot(vec![go_on()]).await.expect_err("nothing to go on from");
    assert_eq!(none.code(), Code::FailedPrecondition);
    unharmed(&mut cluster, revision, &before).await;
}

/// Far more than what members tell each other meanwhile.
const VALUE_BYTES: u32 = 400_000;

/// The connection is dead and the receiver doesn't know it yet: the question of the next sender ends the waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_waits_on_a_dead_connection_gives_way() {
    let (mut cluster, revision, before) = running().await;
    let mouth = std::sync::Arc::new(peer(&cluster));
    let vote = false_vote(&mouth.caller);
    let begin = Some(Part::Head(SnapshotHead { pruned: true, ..head(&mouth.caller) }));
    let parts = stream::iter([begin, chunk(image(b"", crc32c(b""))), frame_of(2, 0, VALUE_BYTES)]).chain(stream::pending());
    let sender = mouth.clone();
    let waiting = tokio::spawn(async move { sender.snapshot_stream(parts).await });
    let received = format!("etcd_network_peer_received_bytes_total{{From=\"{:x}\"}}", mouth.caller.member_id);
    let all = || async { value(&cluster, 0, &received).await.filter(|bytes| *bytes >= f64::from(VALUE_BYTES)).map(drop) };
    eventually("all that is sent", all).await;
    let held = mouth.progress(vote).await.expect("an answer").map(|held| held.revision);
    assert_eq!(held, Some(2));
    let status = waiting.await.expect("the call ends").expect_err("another sender is to go on");
    assert_eq!((status.code(), status.message()), (Code::Aborted, "its sender, or the next one, begins anew"));
    unharmed(&mut cluster, revision, &before).await;
}
