//! The layer rules of ARCHITECTURE.md, checked on the source text.

use std::path::{Path, PathBuf};

fn sources(root: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(root)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("readable").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("readable");
            found.push((path, text));
        }
    }
    found
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("inside").display().to_string()
}

/// Files (of `roots`) that use `word` outside comments, but for those below `allowed`.
fn users(roots: &[&str], word: &str, allowed: &[&str]) -> Vec<String> {
    let all = roots.iter().flat_map(|root| sources(root));
    let using = all.filter(|(_, text)| code(text).any(|line| line.contains(word)));
    using.map(|(path, _)| relative(&path)).filter(|path| !allowed.iter().any(|prefix| path.starts_with(prefix))).collect()
}

const ROOMS: [&str; 3] = ["src", "storage/src", "network/src"];

#[test]
fn only_the_engine_knows_sled() {
    assert_eq!(users(&ROOMS, "sled::", &["storage/src/engine/"]), Vec::<String>::new());
}

#[test]
fn openraft_is_named_in_few_places() {
    let allowed = [
        "storage/src/raft/",
        "network/src/",
        "src/server/consensus.rs",
        "src/server/membership.rs",
        "src/server/propose.rs",
        "src/server/read.rs",
    ];
    assert_eq!(users(&ROOMS, "openraft::", &allowed), Vec::<String>::new());
}

#[test]
fn storage_knows_neither_clients_nor_peers() {
    for word in ["tonic::", "etcdserverpb", "rusd_network", "std::env::", "SystemTime", "rand::"] {
        assert_eq!(users(&["storage/src"], word, &[]), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn the_engine_and_the_rooms_look_only_down() {
    for (room, words) in [
        ("storage/src/engine", &["crate::mvcc", "crate::apply", "crate::raft", "crate::statelog"][..]),
        ("storage/src/mvcc", &["crate::apply", "crate::raft", "crate::lessor", "crate::cluster"]),
        ("storage/src/lessor", &["crate::apply", "crate::raft", "crate::mvcc", "crate::cluster"]),
        ("storage/src/cluster", &["crate::apply", "crate::raft", "crate::mvcc", "crate::lessor"]),
    ] {
        for word in words {
            assert_eq!(users(&[room], word, &[]), Vec::<String>::new(), "{room} uses {word}");
        }
    }
}

#[test]
fn every_file_says_its_idea() {
    let silent: Vec<String> =
        ROOMS.iter().flat_map(|root| sources(root)).filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| relative(&path)).collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn nothing_is_left_unbuilt() {
    for word in ["todo!(", "unimplemented!("] {
        assert_eq!(users(&ROOMS, word, &[]), Vec::<String>::new(), "{word}");
    }
}
