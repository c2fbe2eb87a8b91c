//! Puts changes in key order without looking at a key at every comparison: keys lie elsewhere, one allocation each, and begin alike.

use super::item::Item;
use super::leaf::{common, head};

/// So few are compared by their keys.
const FEW: usize = 8;
/// Levels of heads at most: keys may be made to need one for each of them.
const LEVELS: usize = 32;
/// Bytes of a key in its head.
const HEAD_BYTES: usize = 8;

/// A change, and the head of its key.
pub type Headed = (u64, Item);

/// Sorts by key, then by revision.
pub fn sort(changes: &mut [Headed]) {
    level(changes, 0, LEVELS);
}

/// Sorts changes whose keys begin with the same `shared` bytes: by heads taken where they begin to differ, and where these are the same by
/// the next ones.
fn level(changes: &mut [Headed], shared: usize, levels: usize) {
    let differs = match changes.split_first() {
        Some(((_, first), rest)) if rest.len() >= FEW && levels > 0 => {
            let first = first.key().get(shared..).unwrap_or_default();
            let least = rest.iter().map(|(_, item)| common(first, item.key().get(shared..).unwrap_or_default())).min();
            shared + least.unwrap_or(0)
        }
        _ => return by_key(changes),
    };
    // A level that gets no further than the one before tells nothing new: some keys end there.
    if levels < LEVELS && differs < shared + HEAD_BYTES {
        return by_key(changes);
    }
    changes.iter_mut().for_each(|(first, item)| *first = head(item.key(), differs));
    changes.sort_unstable_by_key(|(first, _)| *first);
    for alike in changes.chunk_by_mut(|(a, _), (b, _)| a == b).filter(|alike| alike.len() > 1) {
        level(alike, differs, levels - 1);
    }
}

fn by_key(changes: &mut [Headed]) {
    changes.sort_unstable_by(|(_, left), (_, right)| left.key().cmp(right.key()).then_with(|| left.revision().cmp(&right.revision())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{KeyValue, Record, Revision};
    use proptest::prelude::*;

    fn change(key: Vec<u8>, main: i64) -> Headed {
        let kv = KeyValue { key: key.into(), ..KeyValue::default() };
        (0, Item::new(&Record { revision: Revision::new(main, 0), tombstone: false, kv }, true))
    }

    /// Keys that begin alike over several heads, that are beginnings of each other, and zeros that look like the end of a key.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![&b""[..], b"/registry/pods/", b"/registry/p", b"\0\0\0\0\0\0\0\0\0", b"ab"]);
        let tail = prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 255]), 0..12);
        (prop::collection::vec(part, 0..4), tail).prop_map(|(parts, tail)| [parts.concat(), tail].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn sorts_by_key_and_revision(keys in prop::collection::vec((key(), 1i64..5), 0..300)) {
            let mut changes: Vec<Headed> = keys.iter().map(|(key, main)| change(key.clone(), *main)).collect();
            sort(&mut changes);
            let mut expected = keys;
            expected.sort();
            let got: Vec<(Vec<u8>, i64)> = changes.iter().map(|(_, item)| (item.key().to_vec(), item.main())).collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// Each key goes on a head further than the one before.
    #[test]
    fn keys_that_need_a_level_each_are_sorted_too() {
        let mut changes: Vec<Headed> = (0..200).rev().map(|number| change(vec![b'a'; number * HEAD_BYTES], 1)).collect();
        sort(&mut changes);
        assert!(changes.is_sorted_by(|(_, left), (_, right)| left.key() < right.key()));
    }
}
