//! etcd's HashKV (contract b.11): crc32c over the history as etcd's key bucket would hold it.

use super::{ReadError, Store};
use crate::error::Rejection;
use crate::types::{Record, Revision};
use bytes::BufMut;
use prost::encoding::{bytes as pb_bytes, int64};
use std::collections::HashSet;

/// Compactions whose hash is remembered.
const CACHED_MAX: usize = 10;
/// History read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Keys looked at per lock hold.
const CHUNK_KEYS: usize = 1000;

/// The hash at a compaction, by the rules before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedHash {
    /// The compact revision, up to which it hashes.
    pub(super) revision: i64,
    /// The compact revision before.
    pub(super) compact_revision: i64,
    /// crc32c.
    pub(super) hash: u32,
}

impl Store {
    /// etcd's HashKV (contract b.11): (hash, compact revision, hash revision). Revision 0 is the current one.
    pub fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), ReadError> {
        if let Some(cached) = self.hashes.lock().iter().find(|cached| cached.revision == revision) {
            return Ok((cached.hash, cached.compact_revision, revision));
        }
        let pin = self.pin();
        if revision < 0 {
            // Nothing is that old, so etcd hashes nothing.
            return Ok((crc32c::crc32c(b"key"), pin.compact_revision(), revision));
        }
        let at = if revision == 0 { pin.revision() } else { revision };
        if at > pin.revision() {
            return Err(Rejection::FutureRevision.into());
        }
        if at < pin.compact_revision() {
            return Err(Rejection::Compacted.into());
        }
        Ok((self.hash_of(at, pin.compact_revision(), false)?, pin.compact_revision(), at))
    }

    pub(super) fn cache_hash(&self, cached: CachedHash) {
        let mut hashes = self.hashes.lock();
        hashes.push_back(cached);
        if hashes.len() > CACHED_MAX {
            hashes.pop_front();
        }
    }

    /// The hash at `revision` as if `compact_revision` were the compact revision. The caller sees to it that the history is there.
    /// `compacting`: as a compaction at `revision` computes it.
    pub(super) fn hash_of(&self, revision: i64, compact_revision: i64, compacting: bool) -> Result<u32, ReadError> {
        let keep = self.keep(revision, compact_revision, compacting);
        let mut crc = crc32c::crc32c(b"key");
        let mut bytes = Vec::new();
        let mut next = 1;
        while next <= revision {
            let (records, after) = self.log.history(next, revision, CHUNK_BYTES)?;
            next = after;
            bytes.clear();
            for record in records {
                let main = record.revision.main;
                let hidden = main <= compact_revision && !keep.contains(&record.revision);
                let tombstone_at_compaction = main == compact_revision && record.tombstone;
                if !hidden && !tombstone_at_compaction {
                    encode(&mut bytes, &record);
                }
            }
            crc = crc32c::crc32c_append(crc, &bytes);
        }
        Ok(crc)
    }

    /// The records at or below the compact revision that count: the newest of each key that exists at `revision`. If no key does, etcd
    /// hides nothing, which after a compaction leaves the newest of each key that exists at the compact revision. A compaction keeps
    /// tombstones of its own revision, too, so that one is enough for it to hide the rest.
    fn keep(&self, revision: i64, compact_revision: i64, compacting: bool) -> HashSet<Revision> {
        let (mut keep, any) = self.newest_at(revision, compact_revision, compacting);
        if !any {
            keep = self.newest_at(compact_revision, compact_revision, false).0;
        }
        keep
    }

    /// Revisions up to `max` of the keys that exist at `main`, and whether any key does, or with `tombstones` died right then.
    fn newest_at(&self, main: i64, max: i64, tombstones: bool) -> (HashSet<Revision>, bool) {
        let mut found = HashSet::new();
        let mut any = false;
        let mut next = Some(Vec::new());
        while let Some(from) = next.take() {
            let index = self.index.read();
            for (passed, entry) in index.tree.iter_from(&from).enumerate() {
                if passed == CHUNK_KEYS {
                    next = Some(entry.key.to_vec());
                    break;
                }
                let Some(change) = entry.change_at(main) else { continue };
                if change.tombstone {
                    any |= tombstones && change.revision.main == main;
                    continue;
                }
                any = true;
                if change.revision.main <= max {
                    found.insert(change.revision);
                }
            }
        }
        (found, any)
    }
}

/// etcd's bucket key (main `_` sub, `t` for a tombstone) and canonical protobuf `KeyValue`.
fn encode(out: &mut Vec<u8>, record: &Record) {
    out.put_i64(record.revision.main);
    out.put_u8(b'_');
    out.put_i64(record.revision.sub);
    let kv = &record.kv;
    if record.tombstone {
        out.put_u8(b't');
        field(1, &kv.key, out);
        return;
    }
    field(1, &kv.key, out);
    for (tag, number) in [(2, kv.create_revision), (3, kv.mod_revision), (4, kv.version)] {
        number_field(tag, number, out);
    }
    field(5, &kv.value, out);
    number_field(6, kv.lease, out);
}

fn field(tag: u32, bytes: &bytes::Bytes, out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        pb_bytes::encode(tag, bytes, out);
    }
}

fn number_field(tag: u32, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        int64::encode(tag, &number, out);
    }
}
