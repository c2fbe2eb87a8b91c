//! A member whose last run ended while many frames were being replaced: what it was shown before it knew is forgotten.

mod common;

use common::Member;
use common::copies::{self, Copies};
use common::moving::told;
use rusd_storage::engine::{Engine, Faults, FrameId, Options, Shown, Span, StateFrame};
use rusd_storage::raft;
use std::sync::{Arc, mpsc};

type Frames = Vec<(FrameId, StateFrame)>;

fn open(directory: &std::path::Path, faults: Option<Arc<dyn Faults>>) -> (Engine, Frames, u64) {
    let (mut frames, mut anew) = (Vec::new(), 0);
    let opened = Engine::open(directory, Options { faults, ..Options::default() }, &mut |shown| {
        match shown {
            Shown::Frame(id, frame) => frames.push((id, frame)),
            Shown::Anew => {
                anew += 1;
                frames.clear();
            }
        }
        Ok(())
    });
    frames.sort_unstable_by_key(|(id, _)| id.0);
    (opened.expect("a whole store").0, frames, anew)
}

/// All frames in one.
fn merged(frames: &Frames) -> StateFrame {
    let spans = || frames.iter().map(|(_, frame)| frame.span);
    let span = Span {
        first: spans().map(|span| span.first).min().expect("there are some"),
        last: spans().map(|span| span.last).max().expect("there are some"),
        first_revision: spans().map(|span| span.first_revision).filter(|revision| *revision > 0).min().unwrap_or_default(),
        last_revision: spans().map(|span| span.last_revision).max().unwrap_or_default(),
    };
    StateFrame { span, body: frames.iter().map(|(_, frame)| &frame.body[..]).collect::<Vec<_>>().concat().into() }
}

#[tokio::test]
async fn frames_beside_the_one_that_replaces_them_leave_no_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut member = Member::open(directory.path());
    for number in 0..300 {
        member.put(&format!("key{:02}", number % 20), &format!("{number}")).await.expect("a put");
        member.settle().await;
    }
    member.delete("key03", "key05").await;
    member.settle().await;
    let expected = told(&member);
    member.opened.engine.close().expect("closes");
    drop(member);

    let copies = Arc::new(Copies::of(directory.path()));
    let (engine, frames, _) = open(directory.path(), Some(copies.clone()));
    assert!(frames.len() > 250, "a frame for every put");
    drop(copies.take());
    engine.replace_state(Some(merged(&frames)), frames.iter().map(|(id, _)| *id).collect());
    let (done, synced) = mpsc::channel();
    engine.sync(Box::new(move |result| drop(done.send(result))));
    synced.recv().expect("a completion is always called").expect("a healthy disk");
    let taken = copies.take();
    drop(engine);

    let mut both = 0;
    for copy in &taken {
        let second = copies::copy(copy.path()).expect("it can be copied");
        both += open(second.path(), None).2;
        let answers = Arc::new(common::Answers::default());
        let opened = raft::open(copy.path(), raft::Options::default(), answers.clone()).expect("the store opens");
        let next = opened.state.applied().expect("something was applied").index + 1;
        let member = Member { opened, answers, next }.replayed().await.expect("the log applies");
        assert!(told(&member) == expected);
        let member = member.restart(copy.path()).await;
        assert!(told(&member) == expected, "opened again");
    }
    assert!(both > 0, "{} copies, none with both", taken.len());
}
