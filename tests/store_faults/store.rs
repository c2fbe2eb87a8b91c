//! The member all this happens to: its intact data dir, kept as a master copy, and what a refusal must look like.

use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::process::{Ended, run, tail};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Keys of the store; enough for frames all over the file.
const KEYS: usize = 120;
const VALUE_BYTES: usize = 2000;

/// A cluster of one with something to lose.
pub struct Store {
    pub cluster: Cluster,
    master: PathBuf,
}

impl Store {
    /// Fills a member, ends it in good order and puts its data dir aside.
    pub async fn filled() -> Self {
        let mut cluster = Cluster::running(1, &[]).await;
        let client = Client::patient(&cluster.members[0].client_url());
        for number in 0..KEYS {
            client.put(key(number), value(number)).await.expect("a put");
        }
        assert!(cluster.terminate(0).await.success());
        let master = cluster.root().join("master");
        copy(&cluster.members[0].data_dir, &master);
        Self { cluster, master }
    }

    /// The data dir in use.
    pub fn data_dir(&self) -> &Path {
        &self.cluster.members[0].data_dir
    }

    /// Below `DATA_DIR/member`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data_dir().join("member").join(name)
    }

    /// The intact data dir again.
    pub fn restore(&self) {
        if self.data_dir().exists() {
            std::fs::remove_dir_all(self.data_dir()).expect("it can be removed");
        }
        copy(&self.master, self.data_dir());
    }

    /// Starts the member, which must end by itself.
    pub fn ends(&self) -> Ended {
        run(self.cluster.command(0), PATIENCE)
    }

    /// With this damage, the member is refused with all of `words`, and nothing is touched.
    pub fn refused_untouched(&self, case: &str, words: &[&str], damage: impl FnOnce(&Self)) {
        self.restore();
        damage(self);
        let before = tree(self.data_dir());
        refusal(case, &self.ends(), words);
        assert_eq!(differences(&before, &tree(self.data_dir())), Vec::<String>::new(), "{case}");
    }

    /// The member starts and has everything.
    pub async fn whole(&mut self, case: &str) {
        self.cluster.start(0);
        self.cluster.wait_ready(0).await;
        let client = Client::patient(&self.cluster.members[0].client_url());
        for number in 0..KEYS {
            let found = client.get(key(number)).await.expect("a read");
            assert_eq!(found, Some(value(number)), "{case}: key {number}");
        }
        assert!(self.cluster.terminate(0).await.success(), "{case}");
    }
}

fn key(number: usize) -> String {
    format!("key-{number:03}")
}

/// Bytes that don't compress, the same each time.
fn value(number: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

/// It ended with 1 and one sentence that has all of `words`, in whichever case, without a panic; answers the sentence.
pub fn refusal(case: &str, ended: &Ended, words: &[&str]) -> String {
    let output = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(1), "{case}:\n{}", tail(&output));
    for word in ["panicked at", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!output.contains(word), "{case}: {word}\n{}", tail(&output));
    }
    let lines =
        output.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{case}: bare {line}")));
    let loud: Vec<_> = lines.filter(|line| matches!(line["level"].as_str(), Some("error" | "fatal"))).collect();
    assert_eq!(loud.len(), 1, "{case}: one line is to be loud: {loud:#?}");
    let sentence = loud[0]["error"].as_str().unwrap_or_default().to_owned();
    // Which file meets the fault first is chance, and the system's errors are worded by Go's rules above the storage, and by Rust's in it.
    let lower = sentence.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "{case}: no {word:?} in {sentence:?}");
    }
    println!("{case}: {sentence}");
    sentence
}

/// Copies a directory with its modes.
pub fn copy(from: &Path, to: &Path) {
    let output = std::process::Command::new("cp").arg("-a").args([from, to]).output().expect("cp starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Changes the bytes of a file.
pub fn alter(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    change(&mut bytes);
    std::fs::write(path, bytes).expect("it writes");
}

/// Kind, mode and content of everything below `root`, itself included.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (bool, u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("it is there");
        let bytes = if metadata.is_file() { std::fs::read(&path).expect("it reads") } else { Vec::new() };
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("it lists").flatten().map(|entry| entry.path()));
        }
        // A directory's time tells of files that came and went; ours tries whether it can write.
        let changed = if metadata.is_file() { metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() } else { 0 };
        found.insert(path, (metadata.is_dir(), metadata.permissions().mode(), changed, bytes));
    }
    found
}

/// What isn't the same in both, by name.
pub fn differences<T: PartialEq>(before: &BTreeMap<PathBuf, T>, after: &BTreeMap<PathBuf, T>) -> Vec<String> {
    let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).map(|name| name.display().to_string()).collect()
}
