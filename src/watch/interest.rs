//! Who wants which key: the index that makes an event's cost depend on its matches, not on the number of watchers.
//!
//! Watchers of the same key or range form a *group*, so that a thousand watchers of one prefix are matched once. Groups of single keys are
//! found by hash, groups of ranges in an interval tree: a treap ordered by (start, end) whose nodes know the highest end below them.

use super::range::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::HashMap;

/// Index of a group, stable while it has members.
pub type GroupId = u32;

/// Members of one key or range, ordered by serial.
#[derive(Debug)]
pub struct Group<T> {
    members: Vec<(u64, T)>,
}

impl<T> Group<T> {
    /// Members in the order of their serials.
    pub fn members(&self) -> impl Iterator<Item = &T> {
        self.members.iter().map(|(_, member)| member)
    }
}

/// The index. `T` is a handle of the watcher; its `serial` is unique.
#[derive(Debug)]
pub struct Interest<T> {
    groups: Vec<Group<T>>,
    free: Vec<GroupId>,
    points: HashMap<Bytes, GroupId>,
    spans: SpanTree,
    len: usize,
}

impl<T> Default for Interest<T> {
    fn default() -> Self {
        Self { groups: Vec::new(), free: Vec::new(), points: HashMap::new(), spans: SpanTree::default(), len: 0 }
    }
}

impl<T> Interest<T> {
    /// Number of members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a member; a serial already in the group is replaced.
    pub fn insert(&mut self, range: &KeyRange, serial: u64, member: T) {
        let id = match self.find(range) {
            Some(id) => id,
            None => self.add_group(range),
        };
        let members = &mut self.groups[id as usize].members;
        match members.binary_search_by_key(&serial, |(serial, _)| *serial) {
            Ok(at) => members[at].1 = member,
            Err(at) => {
                members.insert(at, (serial, member));
                self.len += 1;
            }
        }
    }

    /// Removes a member and its group with the last one; `None` if it was not there.
    pub fn remove(&mut self, range: &KeyRange, serial: u64) -> Option<T> {
        let id = self.find(range)?;
        let members = &mut self.groups[id as usize].members;
        let at = members.binary_search_by_key(&serial, |(serial, _)| *serial).ok()?;
        let (_, member) = members.remove(at);
        self.len -= 1;
        if members.is_empty() {
            *members = Vec::new();
            match range {
                KeyRange::Point(key) => {
                    self.points.remove(key);
                }
                KeyRange::Span(start, end) => self.spans.remove(start, end),
            }
            self.free.push(id);
        }
        Some(member)
    }

    /// Calls `visit` for each group that wants `key`.
    pub fn matches(&self, key: &[u8], visit: &mut impl FnMut(GroupId)) {
        if let Some(id) = self.points.get(key) {
            visit(*id);
        }
        self.spans.stab(key, visit);
    }

    /// A group shown by [`Self::matches`].
    pub fn group(&self, id: GroupId) -> &Group<T> {
        &self.groups[id as usize]
    }

    /// Upper bound of the group ids in use, for tables indexed by them.
    pub fn group_bound(&self) -> usize {
        self.groups.len()
    }

    /// All members, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.groups.iter().flat_map(Group::members)
    }

    fn find(&self, range: &KeyRange) -> Option<GroupId> {
        match range {
            KeyRange::Point(key) => self.points.get(key).copied(),
            KeyRange::Span(start, end) => self.spans.get(start, end),
        }
    }

    fn add_group(&mut self, range: &KeyRange) -> GroupId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group { members: Vec::new() });
            (self.groups.len() - 1) as GroupId
        });
        match range {
            KeyRange::Point(key) => {
                self.points.insert(key.clone(), id);
            }
            KeyRange::Span(start, end) => self.spans.insert(start.clone(), end.clone(), id),
        }
        id
    }
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: RangeEnd,
    /// Highest end in this subtree.
    reach: RangeEnd,
    priority: u64,
    group: GroupId,
    left: Link,
    right: Link,
}

impl Node {
    fn order(&self, start: &[u8], end: &RangeEnd) -> Ordering {
        start.cmp(self.start.as_ref()).then_with(|| end.cmp(&self.end))
    }

    fn update(&mut self) {
        let children = [&self.left, &self.right];
        let highest = children.into_iter().flatten().map(|child| &child.reach).fold(&self.end, |a, b| a.max(b));
        if self.reach != *highest {
            self.reach = highest.clone();
        }
    }
}

/// Interval tree of distinct ranges; depth is logarithmic in expectation, whatever order they come in.
#[derive(Debug, Default)]
struct SpanTree {
    root: Link,
    seed: u64,
}

impl SpanTree {
    fn get(&self, start: &[u8], end: &RangeEnd) -> Option<GroupId> {
        let mut node = self.root.as_deref();
        while let Some(here) = node {
            node = match here.order(start, end) {
                Ordering::Equal => return Some(here.group),
                Ordering::Less => here.left.as_deref(),
                Ordering::Greater => here.right.as_deref(),
            };
        }
        None
    }

    fn insert(&mut self, start: Bytes, end: RangeEnd, group: GroupId) {
        let priority = self.next_priority();
        let (left, right) = split(self.root.take(), &start, &end);
        let node = Box::new(Node { start, reach: end.clone(), end, priority, group, left: None, right: None });
        self.root = merge(merge(left, Some(node)), right);
    }

    fn remove(&mut self, start: &[u8], end: &RangeEnd) {
        fn walk(link: &mut Link, start: &[u8], end: &RangeEnd) {
            let Some(node) = link else { return };
            match node.order(start, end) {
                Ordering::Equal => {
                    let (left, right) = (node.left.take(), node.right.take());
                    *link = merge(left, right);
                }
                Ordering::Less => {
                    walk(&mut node.left, start, end);
                    node.update();
                }
                Ordering::Greater => {
                    walk(&mut node.right, start, end);
                    node.update();
                }
            }
        }
        walk(&mut self.root, start, end);
    }

    fn stab(&self, key: &[u8], visit: &mut impl FnMut(GroupId)) {
        fn walk(link: &Link, key: &[u8], visit: &mut impl FnMut(GroupId)) {
            let Some(node) = link else { return };
            if !below(key, &node.reach) {
                return;
            }
            walk(&node.left, key, visit);
            if node.start.as_ref() <= key {
                if below(key, &node.end) {
                    visit(node.group);
                }
                walk(&node.right, key, visit);
            }
        }
        walk(&self.root, key, visit);
    }

    /// splitmix64: the shape needs no secrecy, only independence of the keys' order.
    fn next_priority(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn below(key: &[u8], end: &RangeEnd) -> bool {
    match end {
        RangeEnd::Open => true,
        RangeEnd::Before(end) => key < end.as_ref(),
    }
}

/// Parts `link` into what is below (start, end) and the rest.
fn split(link: Link, start: &[u8], end: &RangeEnd) -> (Link, Link) {
    let Some(mut node) = link else { return (None, None) };
    if node.order(start, end) == Ordering::Greater {
        let (left, right) = split(node.right.take(), start, end);
        node.right = left;
        node.update();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), start, end);
        node.left = right;
        node.update();
        (left, Some(node))
    }
}

/// Joins two trees; everything in `left` is below everything in `right`.
fn merge(left: Link, right: Link) -> Link {
    match (left, right) {
        (None, other) | (other, None) => other,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.update();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.update();
                Some(right)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(KeyRange),
        Remove(usize),
        Match(Bytes),
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', b'c', 0xff]), 1..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::Point),
            key().prop_map(|key| KeyRange::Span(key, RangeEnd::Open)),
            (key(), key()).prop_map(|(a, b)| match a.cmp(&b) {
                Ordering::Less => KeyRange::Span(a, RangeEnd::Before(b)),
                Ordering::Equal => KeyRange::Point(a),
                Ordering::Greater => KeyRange::Span(b, RangeEnd::Before(a)),
            }),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => range().prop_map(Step::Insert), 2 => any::<usize>().prop_map(Step::Remove), 2 => key().prop_map(Step::Match)]
    }

    fn check_reach(link: &Link) -> Option<RangeEnd> {
        let node = link.as_deref()?;
        let highest = [check_reach(&node.left), check_reach(&node.right), Some(node.end.clone())].into_iter().flatten().max();
        assert_eq!(Some(node.reach.clone()), highest);
        highest
    }

    proptest! {
        /// The index finds exactly the watchers a walk over all of them finds, through any history of arrivals and departures.
        #[test]
        fn finds_what_a_full_scan_finds(steps in prop::collection::vec(step(), 1..120)) {
            let mut index = Interest::default();
            let mut naive: Vec<(u64, KeyRange)> = Vec::new();
            for (serial, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(range) => {
                        index.insert(&range, serial as u64, serial as u64);
                        naive.push((serial as u64, range));
                    }
                    Step::Remove(at) if !naive.is_empty() => {
                        let (serial, range) = naive.swap_remove(at % naive.len());
                        prop_assert_eq!(index.remove(&range, serial), Some(serial));
                        prop_assert_eq!(index.remove(&range, serial), None);
                    }
                    Step::Remove(_) => {}
                    Step::Match(key) => {
                        let mut found = Vec::new();
                        index.matches(&key, &mut |id| found.extend(index.group(id).members().copied()));
                        found.sort_unstable();
                        let mut expected: Vec<u64> =
                            naive.iter().filter(|(_, range)| range.contains(&key)).map(|(serial, _)| *serial).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                }
                prop_assert_eq!(index.len(), naive.len());
                check_reach(&index.spans.root);
            }
        }
    }

    #[test]
    fn many_ranges_in_order_stay_shallow() {
        fn depth(link: &Link) -> usize {
            link.as_deref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        let mut index = Interest::default();
        for n in 0..10_000u64 {
            let key = Bytes::from(format!("{n:08}"));
            let end = Bytes::from(format!("{n:08}~"));
            index.insert(&KeyRange::Span(key, RangeEnd::Before(end)), n, n);
        }
        assert!(depth(&index.spans.root) < 60, "depth {}", depth(&index.spans.root));
        let mut found = Vec::new();
        index.matches(b"00004711x", &mut |id| found.extend(index.group(id).members().copied()));
        assert_eq!(found, [4711]);
    }
}
