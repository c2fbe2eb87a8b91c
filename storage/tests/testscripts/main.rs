//! Golden stories of the state: `storage/testscripts/ROOM/STORY` says commands and, behind `----`, what they answer.
//!
//! Every story is told several times: as written, with no value resident, and with kills, restarts and moves to another member between its
//! blocks. The answers must be the same, for it is the same log. `RUSD_STORY=txn/` tells some of them.
//!
//! `RUSD_REWRITE=1 cargo test -p rusd-storage --test testscripts` writes the answers anew: read the diff before you commit it.

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod parse;
mod script;
mod show;
mod teller;

use script::Script;
use std::path::{Path, PathBuf};
use teller::Teller;

/// How a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// As it is written.
    AsWritten,
    /// As written, and no value stays in memory.
    NothingResident,
    /// Behind every block something happens that no reader may notice; what comes first is said here.
    Disturbed(usize),
}

const TELLINGS: [Telling; 4] = [Telling::AsWritten, Telling::NothingResident, Telling::Disturbed(0), Telling::Disturbed(1)];

/// By turns: a kill and the log again, a move to a new member as a snapshot, a restart from frames.
async fn disturb(teller: &mut Teller, turn: usize) {
    match turn % 3 {
        0 => teller.restart().await,
        1 => teller.moves().await,
        _ => {
            teller.settle().await;
            teller.restart().await;
        }
    }
}

fn stories() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of stories").flatten() {
            let path = entry.path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

async fn tell(script: &Script, telling: Telling) -> Vec<String> {
    let mut teller = Teller::new(if telling == Telling::NothingResident { 0 } else { 1 << 20 });
    let mut answers = Vec::new();
    for (at, block) in script.blocks.iter().enumerate() {
        answers.push(teller.block(&block.commands).await);
        if let Telling::Disturbed(first) = telling {
            disturb(&mut teller, at + first).await;
        }
    }
    answers
}

/// Tells one story in every way; what ended otherwise than written.
async fn check(path: PathBuf, rewrite: bool) -> Vec<String> {
    let text = std::fs::read_to_string(&path).expect("a readable story");
    let mut script = Script::parse(&text).unwrap_or_else(|reason| panic!("{}: {reason}", path.display()));
    if rewrite {
        let answers = tell(&script, Telling::AsWritten).await;
        script.blocks.iter_mut().zip(answers).for_each(|(block, answer)| block.answer = answer);
        std::fs::write(&path, script.text()).expect("a writable story");
    }
    let mut wrong = Vec::new();
    for telling in TELLINGS.into_iter().filter(|telling| *telling == Telling::AsWritten || !script.once) {
        let answers = tell(&script, telling).await;
        for (block, answer) in script.blocks.iter().zip(answers) {
            if block.answer != answer {
                wrong.push(format!("{} ({telling:?})\n{}----\n{}but now:\n{answer}", path.display(), block.commands.text(), block.answer));
            }
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stories_end_as_written() {
    let rewrite = std::env::var_os("RUSD_REWRITE").is_some();
    let only = std::env::var("RUSD_STORY").unwrap_or_default();
    let stories = stories();
    assert!(stories.len() > 20, "only {} stories were found", stories.len());
    let told: Vec<_> =
        stories.into_iter().filter(|path| path.to_string_lossy().contains(&only)).map(|path| tokio::spawn(check(path, rewrite))).collect();
    let mut wrong = Vec::new();
    for story in told {
        wrong.extend(story.await.expect("a story that can be told"));
    }
    assert!(wrong.is_empty(), "{} answers differ\n\n{}", wrong.len(), wrong.join("\n"));
}
