//! sled's file. sled itself may tidy up what it can't read, so that the file isn't compared; but it is refused however often it is tried.

use crate::store::{Store, alter, refusal};

const ADVICE: &str = "Remove this member and add it again with an empty data dir, or restore from a backup";

/// With this damage the member is refused twice, or has everything: what was changed may be no part of the data.
async fn refused_or_whole(store: &mut Store, case: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
    store.restore();
    let (path, directory) = (store.file("db-1/db"), store.file("db-1").display().to_string());
    alter(&path, damage);
    store.cluster.start(0);
    let begun = store.cluster.begins_or_ends(0).await;
    if begun {
        assert!(store.cluster.terminate(0).await.success(), "{case}");
        store.whole(case).await;
        return false;
    }
    store.cluster.kill(0);
    for again in ["", ", again"] {
        refusal(&format!("{case}{again}"), &store.ends(), &[&directory, "is damaged", ADVICE]);
    }
    true
}

#[tokio::test]
async fn a_database_that_was_cut_is_refused() {
    let mut store = Store::filled().await;
    let size = std::fs::metadata(store.file("db-1/db")).expect("a file").len() as usize;
    for cut in [0, 1, 512, size / 4, size / 2, size - size / 4, size - 5000, size - 1] {
        let refused = refused_or_whole(&mut store, &format!("cut to {cut} of {size} bytes"), |bytes| bytes.truncate(cut)).await;
        // The file ends with a note of sled's own that no key needs.
        assert!(refused || cut + 5000 >= size, "{cut}");
    }
    store.restore();
    store.whole("after all refusals").await;
}

#[tokio::test]
async fn flipped_bits_of_a_database_are_refused_or_harmless() {
    let mut store = Store::filled().await;
    let size = std::fs::metadata(store.file("db-1/db")).expect("a file").len() as usize;
    let mut refused = 0;
    for part in 0..24 {
        let at = part * size / 24 + part * 37 % 512;
        let case = format!("bit {} of byte {at} of {size} flipped", part % 8);
        refused += usize::from(refused_or_whole(&mut store, &case, |bytes| bytes[at] ^= 1 << (part % 8)).await);
    }
    // Most of the file is values.
    assert!(refused >= 8, "{refused} of 24");
    store.restore();
    store.whole("after all refusals").await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_refused() {
    let mut store = Store::filled().await;
    let pointer = store.file("CURRENT").display().to_string();
    store.refused_untouched("no database", &[&pointer, "db-1 holds no database", ADVICE], |store| {
        std::fs::remove_dir_all(store.file("db-1")).expect("it is there");
    });
    store.refused_untouched("no file of the database", &[&pointer, "db-1 holds no database", ADVICE], |store| {
        std::fs::remove_file(store.file("db-1/db")).expect("it is there");
    });
    store.restore();
    store.whole("after the refusals").await;
}
