//! The small files that say what the rest is.

use crate::store::{Store, alter};

/// What a damaged member must be told.
const ADVICE: &str = "Remove this member and add it again with an empty data dir, or restore from a backup";
const OLDER: &str = "Start it with the version of rusd that wrote it";

/// Changes the identity as someone does who knows its checksum isn't needed for the format.
fn later_identity(bytes: &mut Vec<u8>) {
    *bytes = String::from_utf8(bytes.clone()).expect("text").replace("\"format\": 1", "\"format\": 2").into_bytes();
}

#[tokio::test]
async fn control_files_that_were_cut_flipped_or_lost_are_refused() {
    let mut store = Store::filled().await;
    for name in ["CURRENT", "FORMAT", "identity.json"] {
        let path = store.file(name);
        let (file, size) = (path.to_str().expect("UTF-8").to_owned(), std::fs::metadata(&path).expect("a file").len() as usize);
        let advice = if name == "FORMAT" { OLDER } else { ADVICE };
        for cut in [0, size / 2] {
            let words = [file.as_str(), if cut == 0 && name == "FORMAT" { "" } else { advice }];
            store.refused_untouched(&format!("{name} cut to {cut} bytes"), &words, |store| {
                alter(&store.file(name), |bytes| bytes.truncate(cut));
            });
        }
        // Every byte of the short ones.
        for at in (0..size).step_by(size.div_ceil(16)) {
            for bit in [0, 6] {
                store.refused_untouched(&format!("{name} with bit {bit} of byte {at} flipped"), &[&file], |store| {
                    alter(&store.file(name), |bytes| bytes[at] ^= 1 << bit);
                });
            }
        }
    }
    for name in ["CURRENT", "FORMAT"] {
        store.refused_untouched(&format!("{name} missing"), &["CURRENT", ADVICE], |store| {
            std::fs::remove_file(store.file(name)).expect("it is there");
        });
    }
    store.restore();
    store.whole("after all refusals").await;
}

#[tokio::test]
async fn later_formats_are_refused() {
    let mut store = Store::filled().await;
    let format = store.file("FORMAT").display().to_string();
    store.refused_untouched("a later storage format", &[&format, "format \"2\"", "knows 1", OLDER], |store| {
        std::fs::write(store.file("FORMAT"), "2\n").expect("it writes");
    });
    let identity = store.file("identity.json").display().to_string();
    store.refused_untouched("a later identity", &[&identity, "format 2", "knows 1", OLDER], |store| {
        alter(&store.file("identity.json"), later_identity);
    });
    store.restore();
    store.whole("after all refusals").await;
}

/// Without `identity.json` a store would be another member's, or a new one's.
#[tokio::test]
async fn a_store_without_its_identity_is_refused() {
    let mut store = Store::filled().await;
    let member = store.file("").display().to_string();
    store.refused_untouched("no identity", &[member.trim_end_matches('/'), "identity.json", ADVICE], |store| {
        std::fs::remove_file(store.file("identity.json")).expect("it is there");
    });
    store.restore();
    store.whole("after the refusal").await;
}
