//! A leaf of the key index.
//!
//! Keys lie elsewhere, one allocation each, so that a binary search over them would wait for memory at every step. Beside the entries stand
//! the heads of their keys: the eight bytes after what all of them share. A search looks at the heads, which lie side by side, and then
//! asks one key, or two, whether it was right. Heads only say where to look first; the keys decide.

use super::entry::Entry;

/// Entries at most.
pub const LEAF_ENTRIES: usize = 64;

/// Entries in key order.
#[derive(Default)]
pub struct Leaf {
    entries: Vec<Entry>,
    /// Of each entry.
    heads: Vec<u64>,
    /// Bytes that all keys begin with, or fewer.
    shared: usize,
}

/// The eight bytes from `at` on as a number that sorts as they do; what lies beyond the key counts as zeros.
pub fn head(key: &[u8], at: usize) -> u64 {
    let rest = key.get(at..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => u64::from_be_bytes(*whole),
        None => rest.iter().zip((0..8).rev()).fold(0, |head, (byte, place)| head | u64::from(*byte) << (8 * place)),
    }
}

/// How many bytes both begin with.
pub fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

impl Leaf {
    fn of(entries: Vec<Entry>) -> Self {
        let mut leaf = Self { entries, ..Self::default() };
        leaf.survey();
        leaf
    }

    /// Entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry to change; its key must stay.
    pub fn entry(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    fn common(&self) -> usize {
        let ends = self.entries.first().zip(self.entries.last());
        ends.map_or(0, |(first, last)| common(first.key(), last.key()))
    }

    /// After a split: heads are taken anew only if the keys that are left share more, for that looks at every key.
    fn narrow(&mut self) {
        if self.common() > self.shared {
            self.survey();
        }
    }

    /// Finds what the keys share, and their heads, anew.
    fn survey(&mut self) {
        self.shared = self.common();
        self.heads.clear();
        self.heads.extend(self.entries.iter().map(|entry| head(entry.key(), self.shared)));
    }

    /// Where the key is, or would be.
    pub fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let wanted = head(key, self.shared);
        let first = self.heads.partition_point(|head| *head < wanted);
        let alike = self.heads[first..].iter().take_while(|head| **head == wanted).count();
        let by_key = |entry: &Entry| entry.key().cmp(key);
        let place = self.entries[first..first + alike].binary_search_by(by_key).map(|at| first + at).map_err(|at| first + at);
        let Err(at) = place else { return place };
        // A key that doesn't begin as the others do may have a head like theirs.
        let after = at == 0 || self.entries[at - 1].key() < key;
        let before = self.entries.get(at).is_none_or(|entry| key < entry.key());
        if after && before { place } else { self.entries.binary_search_by(by_key) }
    }

    /// Puts an entry where [`Leaf::find`] said; the right half, if the leaf had to split.
    pub fn insert(&mut self, at: usize, entry: Entry) -> Option<Leaf> {
        if self.entries.len() < LEAF_ENTRIES {
            self.put(at, entry);
            return None;
        }
        // Keys that come in order leave full leaves behind.
        if at == LEAF_ENTRIES {
            return Some(Self::of(vec![entry]));
        }
        let mut right =
            Self { entries: self.entries.split_off(LEAF_ENTRIES / 2), heads: self.heads.split_off(LEAF_ENTRIES / 2), shared: self.shared };
        right.narrow();
        self.narrow();
        match at.checked_sub(self.entries.len()) {
            Some(at) => right.put(at, entry),
            None => self.put(at, entry),
        }
        Some(right)
    }

    fn put(&mut self, at: usize, entry: Entry) {
        // The neighbour was looked at just now.
        let neighbour = self.entries.get(at.saturating_sub(1));
        let fits = neighbour.is_some_and(|other| common(other.key(), entry.key()) >= self.shared);
        let head = head(entry.key(), self.shared);
        self.entries.insert(at, entry);
        if fits {
            self.heads.insert(at, head);
        } else {
            self.survey();
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, at: usize) -> Entry {
        self.heads.remove(at);
        self.entries.remove(at)
    }

    /// Takes in the leaf to the right.
    pub fn append(&mut self, mut right: Leaf) {
        self.entries.append(&mut right.entries);
        self.survey();
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::*;
    use crate::types::{KeyValue, Record, Revision};
    use proptest::prelude::*;

    fn entry(key: &[u8]) -> Entry {
        let kv = KeyValue { key: key.to_vec().into(), ..KeyValue::default() };
        Entry::new(Item::new(&Record { revision: Revision::new(2, 0), tombstone: false, kv }, true))
    }

    #[test]
    fn heads_sort_as_keys_do_and_pad_with_zeros() {
        assert_eq!(head(b"abcdefghij", 2), u64::from_be_bytes(*b"cdefghij"));
        assert_eq!(head(b"abc", 1), 0x6263_0000_0000_0000);
        assert_eq!((head(b"abc", 3), head(b"abc", 9)), (0, 0));
    }

    /// Few letters and shared beginnings, with zeros that look like the end of a key.
    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let beginning = prop::sample::select(vec![&b""[..], b"/registry/pods/", b"/registry/p", b"\0\0\0\0\0\0\0\0\0"]);
        let key = (beginning, prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 255]), 0..12));
        prop::collection::vec(key.prop_map(|(beginning, rest)| [beginning, &rest].concat()), 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_key_is_found_where_it_belongs(inserted in keys(), removed in keys(), asked in keys()) {
            let (mut leaf, mut sorted) = (Leaf::default(), Vec::<Vec<u8>>::new());
            for key in inserted {
                let place = sorted.binary_search(&key);
                prop_assert_eq!(leaf.find(&key), place);
                let Err(at) = place else { continue };
                sorted.insert(at, key.clone());
                if let Some(right) = leaf.insert(at, entry(&key)) {
                    prop_assert!(right.find(&sorted[sorted.len() - 1]).is_ok());
                    leaf.append(right);
                    // Half of it goes, so that there is room.
                    while leaf.entries().len() > LEAF_ENTRIES / 2 {
                        leaf.remove(7);
                        sorted.remove(7);
                    }
                }
            }
            for key in removed.iter().chain(sorted.clone().iter().step_by(3)) {
                if let Ok(at) = leaf.find(key) {
                    prop_assert_eq!(leaf.remove(at).key().to_vec(), sorted.remove(at));
                }
            }
            for key in asked.iter().chain(&sorted) {
                prop_assert_eq!(leaf.find(key), sorted.binary_search(key));
            }
        }
    }
}
