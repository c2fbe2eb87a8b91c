//! The key index: a B+tree in key order whose inner nodes know how many live keys each child holds, so that counting a range takes
//! O(log n).

use super::entry::Entry;

/// Entries of a leaf, children of an inner node, at most.
const FANOUT: usize = 64;
/// A node below this size looks for a neighbour to join.
const SPARSE: usize = FANOUT / 4;

struct Child {
    /// Not above any key below; the first child's is not looked at.
    low: Box<[u8]>,
    live: usize,
    node: Node,
}

enum Node {
    Leaf(Vec<Entry>),
    Inner(Vec<Child>),
}

/// The tree. Keys are unique.
pub struct Tree {
    root: Node,
    live: usize,
    len: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::Leaf(Vec::new()), live: 0, len: 0 }
    }
}

fn child_of(children: &[Child], key: &[u8]) -> usize {
    children.partition_point(|child| *child.low <= *key).saturating_sub(1)
}

fn find(entries: &[Entry], key: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.key().cmp(key))
}

/// The shortest key above all of `left` and not above any of `right`: most of a key need not be kept twice.
fn separator(left: &[Entry], right: &[Entry]) -> Box<[u8]> {
    let (below, above) = (left.last().map_or(&[][..], Entry::key), right[0].key());
    let common = below.iter().zip(above).take_while(|(a, b)| a == b).count();
    above[..above.len().min(common + 1)].into()
}

impl Tree {
    /// All keys, dead ones included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Live keys.
    pub fn live(&self) -> usize {
        self.live
    }

    /// A key's entry.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &entries[at]),
                Node::Inner(children) => node = &children[child_of(children, key)].node,
            }
        }
    }

    /// Changes a key's entry and keeps the counts; `None` if there is none. The key itself must stay.
    pub fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let (result, delta) = self.root.update(key, change)?;
        self.live = self.live.wrapping_add_signed(delta);
        Some(result)
    }

    /// Adds an entry whose key is not there yet.
    pub fn insert(&mut self, entry: Entry) {
        self.live += usize::from(entry.live());
        self.len += 1;
        if let Some(right) = self.root.insert(entry) {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(FANOUT)));
            let Node::Inner(children) = &mut self.root else { unreachable!("it was made an inner node") };
            children.push(Child { low: Box::default(), live: left.live(), node: left });
            children.push(right);
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.root.remove(key)?;
        self.live -= usize::from(entry.live());
        self.len -= 1;
        while let Node::Inner(children) = &mut self.root {
            match children.len() {
                0 => self.root = Node::Leaf(Vec::new()),
                1 => self.root = children.pop().expect("there is one").node,
                _ => break,
            }
        }
        Some(entry)
    }

    /// Entries from `key` on, in key order.
    pub fn iter_from(&self, key: &[u8]) -> Iter<'_> {
        let mut inner = Vec::with_capacity(4);
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = find(entries, key).unwrap_or_else(|at| at);
                    return Iter { inner, leaf: entries[at..].iter() };
                }
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    inner.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }

    /// Live keys below `key`.
    pub fn rank(&self, key: &[u8]) -> usize {
        let mut rank = 0;
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = find(entries, key).unwrap_or_else(|at| at);
                    return rank + entries[..at].iter().filter(|entry| entry.live()).count();
                }
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    rank += children[..at].iter().map(|child| child.live).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }
}

impl Node {
    fn live(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.iter().filter(|entry| entry.live()).count(),
            Self::Inner(children) => children.iter().map(|child| child.live).sum(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<(R, isize)> {
        match self {
            Self::Leaf(entries) => {
                let entry = find(entries, key).ok().map(|at| &mut entries[at])?;
                let before = isize::from(entry.live());
                let result = change(entry);
                Some((result, isize::from(entry.live()) - before))
            }
            Self::Inner(children) => {
                let at = child_of(children, key);
                let (result, delta) = children[at].node.update(key, change)?;
                children[at].live = children[at].live.wrapping_add_signed(delta);
                Some((result, delta))
            }
        }
    }

    /// A new right neighbour if it had to split.
    fn insert(&mut self, entry: Entry) -> Option<Child> {
        match self {
            Self::Leaf(entries) => {
                let at = find(entries, entry.key()).unwrap_or_else(|at| at);
                if entries.len() < FANOUT {
                    entries.insert(at, entry);
                    return None;
                }
                let mut right = if at == FANOUT { Vec::new() } else { entries.split_off(FANOUT / 2) };
                if at >= entries.len() {
                    right.insert(at - entries.len(), entry)
                } else {
                    entries.insert(at, entry)
                }
                let low = separator(entries, &right);
                let node = Self::Leaf(right);
                Some(Child { low, live: node.live(), node })
            }
            Self::Inner(children) => {
                let at = child_of(children, entry.key());
                children[at].live += usize::from(entry.live());
                let split = children[at].node.insert(entry)?;
                children[at].live -= split.live;
                children.insert(at + 1, split);
                if children.len() <= FANOUT {
                    return None;
                }
                let middle = if at + 2 == children.len() { children.len() - 1 } else { children.len() / 2 };
                let mut right = children.split_off(middle);
                let low = std::mem::take(&mut right[0].low);
                let node = Self::Inner(right);
                Some(Child { low, live: node.live(), node })
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        match self {
            Self::Leaf(entries) => find(entries, key).ok().map(|at| entries.remove(at)),
            Self::Inner(children) => {
                let at = child_of(children, key);
                let entry = children[at].node.remove(key)?;
                children[at].live -= usize::from(entry.live());
                if children[at].node.size() == 0 {
                    children.remove(at);
                } else if children[at].node.size() < SPARSE {
                    join_neighbour(children, at);
                }
                Some(entry)
            }
        }
    }
}

/// Joins child `at` with the one before or after it if they fit in three quarters of a node.
fn join_neighbour(children: &mut Vec<Child>, at: usize) {
    let fits = |left: usize| children.len() > left + 1 && children[left].node.size() + children[left + 1].node.size() <= FANOUT / 4 * 3;
    let Some(left) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(|left| fits(*left)) else { return };
    let right = children.remove(left + 1);
    let left = &mut children[left];
    left.live += right.live;
    match (&mut left.node, right.node) {
        (Node::Leaf(left), Node::Leaf(mut right)) => left.append(&mut right),
        (Node::Inner(left), Node::Inner(mut right)) => left.append(&mut right),
        _ => unreachable!("neighbours are of one level"),
    }
}

/// Entries in key order.
pub struct Iter<'a> {
    inner: Vec<std::slice::Iter<'a, Child>>,
    leaf: std::slice::Iter<'a, Entry>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            let Some(child) = self.inner.last_mut()?.next() else {
                self.inner.pop();
                continue;
            };
            match &child.node {
                Node::Leaf(entries) => self.leaf = entries.iter(),
                Node::Inner(children) => self.inner.push(children.iter()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::*;
    use crate::types::{KeyValue, Record, Revision};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(key: u16, tombstone: bool) -> Entry {
        let kv = KeyValue { key: key.to_be_bytes().to_vec().into(), ..KeyValue::default() };
        Entry::new(Item::new(&Record { revision: Revision::new(2, 0), tombstone, kv }, true))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u8..8, 0u16..600), 0..3000), probes in prop::collection::vec(0u16..620, 20)) {
            let (mut tree, mut map) = (Tree::default(), BTreeMap::<u16, bool>::new());
            for (op, key) in ops {
                let bytes = key.to_be_bytes();
                if op < 3 {
                    prop_assert_eq!(tree.remove(&bytes).map(|entry| entry.live()), map.remove(&key));
                } else if let std::collections::btree_map::Entry::Vacant(slot) = map.entry(key) {
                    slot.insert(op != 7);
                    tree.insert(entry(key, op == 7));
                } else {
                    map.insert(key, op % 2 == 0);
                    prop_assert!(tree.update(&bytes, |was| *was = entry(key, op % 2 != 0)).is_some());
                }
            }
            prop_assert_eq!((tree.len(), tree.live()), (map.len(), map.values().filter(|live| **live).count()));
            for probe in probes {
                let bytes = probe.to_be_bytes();
                prop_assert_eq!(tree.get(&bytes).map(Entry::live), map.get(&probe).copied());
                prop_assert_eq!(tree.rank(&bytes), map.range(..probe).filter(|(_, live)| **live).count());
                let keys: Vec<&[u8]> = tree.iter_from(&bytes).map(Entry::key).collect();
                let expected: Vec<[u8; 2]> = map.range(probe..).map(|(key, _)| key.to_be_bytes()).collect();
                prop_assert_eq!(keys, expected.iter().map(|key| &key[..]).collect::<Vec<_>>());
            }
        }
    }
}
