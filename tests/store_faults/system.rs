//! What the operating system refuses.

use crate::disk::Disk;
use crate::harness::skipped;
use crate::store::{Store, copy, differences, refusal, tree};

/// Big enough for a store.
const DISK_MIB: u32 = 64;

#[tokio::test]
async fn a_file_for_a_data_dir_is_refused() {
    let mut store = Store::filled().await;
    let directory = store.data_dir().to_path_buf();
    for inner in ["", "member"] {
        store.restore();
        let path = if inner.is_empty() { directory.clone() } else { directory.join(inner) };
        std::fs::remove_dir_all(&path).expect("it is there");
        std::fs::write(&path, "a file").expect("it writes");
        refusal(&format!("a file at {}", path.display()), &store.ends(), &[path.to_str().expect("UTF-8"), "not a directory", "--data-dir"]);
        assert_eq!(std::fs::read(&path).expect("it reads"), b"a file");
        std::fs::remove_file(&path).expect("it is there");
    }
    store.restore();
    store.whole("after the refusals").await;
}

/// The member's data dir on a disk of its own.
async fn on_a_disk(what: &str) -> Option<(Store, Disk)> {
    let mut store = Store::filled().await;
    let disk = match Disk::new(store.cluster.root(), "small", DISK_MIB) {
        Ok(disk) => disk,
        Err(error) => {
            skipped(what, &error);
            return None;
        }
    };
    let directory = disk.path().join("data");
    copy(store.data_dir(), &directory);
    store.cluster.members[0].data_dir = directory;
    Some((store, disk))
}

#[tokio::test]
async fn a_read_only_data_dir_is_refused() {
    let Some((mut store, mut disk)) = on_a_disk("a read-only data dir").await else { return };
    let before = tree(store.data_dir());
    disk.allow_writes(false);
    refusal(
        "read-only",
        &store.ends(),
        &[store.data_dir().to_str().expect("UTF-8"), "read-only file system", "Let the server write there"],
    );
    disk.allow_writes(true);
    assert_eq!(differences(&before, &tree(store.data_dir())), Vec::<String>::new());
    store.whole("with writes").await;
}

/// A new member on a full disk, and one that has data there.
#[tokio::test]
async fn a_full_disk_is_told_at_the_start_and_costs_nothing() {
    let Some((mut store, disk)) = on_a_disk("a full disk at start").await else { return };
    let filled = store.data_dir().to_path_buf();
    disk.fill();
    let new = disk.path().join("new");
    store.cluster.members[0].data_dir.clone_from(&new);
    refusal("a new member on a full disk", &store.ends(), &[new.to_str().expect("UTF-8"), "no space left", "Make room"]);
    store.cluster.members[0].data_dir = filled;
    store.cluster.start(0);
    // It may find the room it needs in its own file, and then serves until it needs more.
    let began = store.cluster.begins_or_ends(0).await;
    println!("with data on a full disk it {}", if began { "starts" } else { "doesn't start" });
    let log = store.cluster.log(0);
    store.cluster.kill(0);
    assert!(!log.contains("panicked at"), "{log}");
    assert!(began || log.to_lowercase().contains("no space left") && log.contains("Make room"), "{log}");
    disk.make_room();
    store.whole("with room").await;
}
