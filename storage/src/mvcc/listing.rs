//! A large range that is measured before it is read: who knows its size can send it while it is being read.

use super::compact::Pin;
use super::entry::Seen;
use super::read::{CHUNK_KEYS, Walk, missing};
use super::{ReadError, Store};
use crate::command::Range;
use crate::types::{KeyValue, Revision};
use std::sync::Arc;

/// Values read at once only to be measured: they may be long.
const READ_KEYS: usize = 64;

/// What the size of a key in an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of the key.
    pub key: usize,
    /// Bytes of the value.
    pub value: usize,
    /// As in [`KeyValue`].
    pub create_revision: i64,
    /// As in [`KeyValue`].
    pub mod_revision: i64,
    /// As in [`KeyValue`].
    pub version: i64,
    /// As in [`KeyValue`].
    pub lease: i64,
}

impl Shape {
    fn of(kv: &KeyValue) -> Self {
        Self {
            key: kv.key.len(),
            value: kv.value.len(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// A range in key order at one revision, whose history stays while this lives.
pub struct Listing {
    store: Arc<Store>,
    _pin: Pin,
    walk: Walk,
    left: usize,
    /// Store revision at the start, for the header.
    pub revision: i64,
    /// All keys of the range, whatever the limit.
    pub count: i64,
}

enum Measured {
    Known(Shape),
    Read(Revision),
}

impl Store {
    /// Measures a range, showing the shape of each key it will give. In key order and without filters; `keys_only` is up to the caller.
    ///
    /// # Errors
    /// As of a range.
    pub fn listing(self: &Arc<Self>, range: &Range, show: &mut dyn FnMut(Shape)) -> Result<Listing, ReadError> {
        let pin = self.pin();
        let (at, revision) = self.read_at(range, None, &pin)?;
        let count = self.count(&range.key, &range.range_end, at);
        let left = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let walk = Walk::new(&range.key, &range.range_end, at, true);
        self.measure(walk.clone(), left, show)?;
        Ok(Listing { store: Arc::clone(self), _pin: pin, walk, left, revision, count })
    }

    /// Only keys that were changed since `walk.at` are read, for nobody remembers how long they were.
    fn measure(&self, mut walk: Walk, mut left: usize, show: &mut dyn FnMut(Shape)) -> Result<(), ReadError> {
        while walk.next.is_some() && left > 0 {
            let at = walk.at;
            let measured = self.chunk_of(&mut walk, left.min(CHUNK_KEYS), |entry| {
                Some(match entry.seen_at(at)? {
                    Seen::Older(revision) => Measured::Read(revision),
                    Seen::Current(item) => {
                        let meta = item.meta();
                        let (key, value, mod_revision) = (item.key().len(), item.value_len(), meta.revision.main);
                        let (create_revision, version, lease) = (meta.create_revision, meta.version, meta.lease);
                        Measured::Known(Shape { key, value, create_revision, mod_revision, version, lease })
                    }
                })
            });
            left -= measured.len();
            let wanted: Vec<Revision> =
                measured.iter().filter_map(|one| if let Measured::Read(revision) = one { Some(*revision) } else { None }).collect();
            for wanted in wanted.chunks(READ_KEYS) {
                for (record, revision) in self.log.read(wanted)?.into_iter().zip(wanted) {
                    show(Shape::of(&record.ok_or_else(|| missing(*revision))?.kv));
                }
            }
            measured.iter().for_each(|one| {
                if let Measured::Known(shape) = one {
                    show(*shape);
                }
            });
        }
        Ok(())
    }
}

impl Listing {
    /// The next `keys_max` keys; empty at the end.
    ///
    /// # Errors
    /// The disk fails, or another state has taken the place of this one.
    pub fn next(&mut self, keys_max: usize) -> Result<Vec<KeyValue>, ReadError> {
        let kvs = self.store.walk(&mut self.walk, keys_max.min(self.left))?;
        self.left -= kvs.len();
        Ok(kvs)
    }
}
