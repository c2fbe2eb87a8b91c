//! The key index: a B+tree in key order whose inner nodes know how many live keys each child holds, so that counting a range takes
//! O(log n).

use super::entry::Entry;
use super::leaf::{LEAF_ENTRIES, Leaf};

/// Entries of a leaf, children of an inner node, at most.
const FANOUT: usize = LEAF_ENTRIES;
/// A node below this size looks for a neighbour to join.
const SPARSE: usize = FANOUT / 4;

struct Child {
    /// Not above any key below; the first child's is not looked at.
    low: Box<[u8]>,
    live: usize,
    node: Node,
}

enum Node {
    Leaf(Leaf),
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
        Self { root: Node::Leaf(Leaf::default()), live: 0, len: 0 }
    }
}

fn child_of(children: &[Child], key: &[u8]) -> usize {
    children.partition_point(|child| *child.low <= *key).saturating_sub(1)
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
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.entries()[at]),
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

    /// Changes a key's entry, or adds the one that `change` gives if there is none; on one way down.
    ///
    /// # Panics
    /// `change` gives an entry though there is one, or none though there is none.
    pub fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(Option<&mut Entry>) -> (R, Option<Entry>)) -> R {
        let done = self.root.upsert(key, change);
        self.live = self.live.wrapping_add_signed(done.live);
        self.len += usize::from(done.new);
        if let Some(right) = done.split {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(FANOUT)));
            let Node::Inner(children) = &mut self.root else { unreachable!("it was made an inner node") };
            children.push(Child { low: Box::default(), live: left.live(), node: left });
            children.push(right);
        }
        done.result
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.root.remove(key)?;
        self.live -= usize::from(entry.live());
        self.len -= 1;
        while let Node::Inner(children) = &mut self.root {
            match children.len() {
                0 => self.root = Node::Leaf(Leaf::default()),
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
                Node::Leaf(leaf) => {
                    let at = leaf.find(key).unwrap_or_else(|at| at);
                    return Iter { inner, leaf: leaf.entries()[at..].iter() };
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
                Node::Leaf(leaf) => {
                    let at = leaf.find(key).unwrap_or_else(|at| at);
                    return rank + leaf.entries()[..at].iter().filter(|entry| entry.live()).count();
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
            Self::Leaf(leaf) => leaf.entries().iter().filter(|entry| entry.live()).count(),
            Self::Inner(children) => children.iter().map(|child| child.live).sum(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.entries().len(),
            Self::Inner(children) => children.len(),
        }
    }

    fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<(R, isize)> {
        match self {
            Self::Leaf(leaf) => {
                let entry = leaf.find(key).ok().map(|at| leaf.entry(at))?;
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

    fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(Option<&mut Entry>) -> (R, Option<Entry>)) -> Upserted<R> {
        match self {
            Self::Leaf(leaf) => match leaf.find(key) {
                Ok(at) => {
                    let entry = leaf.entry(at);
                    let before = isize::from(entry.live());
                    let (result, new) = change(Some(entry));
                    assert!(new.is_none(), "the key is there");
                    Upserted { result, live: isize::from(leaf.entries()[at].live()) - before, new: false, split: None }
                }
                Err(at) => {
                    let (result, entry) = change(None);
                    let entry = entry.expect("the key is new");
                    let live = isize::from(entry.live());
                    Upserted { result, live, new: true, split: insert(leaf, at, entry) }
                }
            },
            Self::Inner(children) => {
                let at = child_of(children, key);
                let mut done = children[at].node.upsert(key, change);
                children[at].live = children[at].live.wrapping_add_signed(done.live);
                done.split = done.split.and_then(|split| take_in(children, at, split));
                done
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        match self {
            Self::Leaf(leaf) => leaf.find(key).ok().map(|at| leaf.remove(at)),
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

/// What came of a change: how many more keys live, whether the key is new, and a right neighbour if the node had to split.
struct Upserted<R> {
    result: R,
    live: isize,
    new: bool,
    split: Option<Child>,
}

/// Puts an entry into a leaf; a new right neighbour if it had to split.
fn insert(leaf: &mut Leaf, at: usize, entry: Entry) -> Option<Child> {
    let right = leaf.insert(at, entry)?;
    let low = separator(leaf.entries(), right.entries());
    let node = Node::Leaf(right);
    Some(Child { low, live: node.live(), node })
}

/// Puts the new right neighbour of child `at` into their parent, which may have to split, too.
fn take_in(children: &mut Vec<Child>, at: usize, split: Child) -> Option<Child> {
    children[at].live -= split.live;
    children.insert(at + 1, split);
    if children.len() <= FANOUT {
        return None;
    }
    let middle = if at + 2 == children.len() { children.len() - 1 } else { children.len() / 2 };
    let mut right = children.split_off(middle);
    let low = std::mem::take(&mut right[0].low);
    let node = Node::Inner(right);
    Some(Child { low, live: node.live(), node })
}

/// Joins child `at` with the one before or after it if they fit in three quarters of a node.
fn join_neighbour(children: &mut Vec<Child>, at: usize) {
    let fits = |left: usize| children.len() > left + 1 && children[left].node.size() + children[left + 1].node.size() <= FANOUT / 4 * 3;
    let Some(left) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(|left| fits(*left)) else { return };
    let right = children.remove(left + 1);
    let left = &mut children[left];
    left.live += right.live;
    match (&mut left.node, right.node) {
        (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
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
                Node::Leaf(leaf) => self.leaf = leaf.entries().iter(),
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
                    tree.upsert(&bytes, |was| (assert!(was.is_none()), Some(entry(key, op == 7))));
                } else if op % 3 == 0 {
                    map.insert(key, op % 2 == 0);
                    tree.upsert(&bytes, |was| (*was.expect("there") = entry(key, op % 2 != 0), None));
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
