//! etcd's HashKV (contract b.11): crc32c over the history as etcd's key bucket would hold it.

use super::{CHUNK_RECORDS, ReadError, Store};
use crate::error::{Rejection, StorageError};
use crate::measure::{Histogram, Stopwatch};
use crate::types::Record;
use bytes::BufMut;
use prost::encoding::{bytes as pb_bytes, int64};

/// Compactions whose hash is remembered.
pub(super) const CACHED_MAX: usize = 10;
/// History read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Keys looked at per lock hold.
const CHUNK_KEYS: usize = 1000;

/// A hash that is being made, or the one that was made at a compaction, by the rules before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashing {
    /// Up to which it hashes; at a compaction the compact revision.
    pub(super) revision: i64,
    /// The compact revision whose rules hold; at a compaction the one before.
    compact_revision: i64,
    /// Of the records the compact revision hides, those count that are the newest of a key that exists here.
    kept_at: i64,
    /// The next main revision.
    next: i64,
    /// crc32c so far.
    hash: u32,
}

impl Store {
    /// etcd's HashKV (contract b.11): (hash, compact revision, hash revision). Revision 0 is the current one.
    pub fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), ReadError> {
        // 0 asks for the newest revision, but a compaction at 0 leaves a hash of its own.
        match self.compaction_hash(revision).filter(|_| revision != 0) {
            Some((hash, compact_revision)) => Ok((hash, compact_revision, revision)),
            None => self.measured(&self.log.measures().compactions.hash_revision, revision),
        }
    }

    /// etcd's Hash: the same over all there is.
    pub fn hash(&self) -> Result<u32, ReadError> {
        let (hash, _, _) = self.measured(&self.log.measures().compactions.hash, 0)?;
        Ok(hash)
    }

    fn measured(&self, histogram: &Histogram, revision: i64) -> Result<(u32, i64, i64), ReadError> {
        let watch = Stopwatch::start();
        let answer = self.hash_kv_in_steps(revision, &mut || {})?;
        histogram.took(watch.elapsed());
        Ok(answer)
    }

    /// The newest revision that has a hash from its compaction, if that still lives in memory.
    pub fn newest_compaction_hash(&self) -> Option<i64> {
        self.hashes.lock().back().map(|done| done.revision)
    }

    /// What the compaction at `revision` has left, and the compact revision before it.
    pub fn compaction_hash(&self, revision: i64) -> Option<(u32, i64)> {
        self.hashes.lock().iter().find(|done| done.revision == revision).map(|done| (done.hash, done.compact_revision))
    }

    /// The hash as it is made on demand, never one that a compaction has left: its rules for tombstones are others. `between` is called
    /// after every part of about a mebibyte. History stays where it is meanwhile.
    ///
    /// # Errors
    /// See [`Self::hash_kv`].
    pub fn hash_kv_in_steps(&self, revision: i64, between: &mut dyn FnMut()) -> Result<(u32, i64, i64), ReadError> {
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
        let mut hashing = self.begin_hash(at, pin.compact_revision(), false);
        while !self.hash_some(&mut hashing)? {
            between();
        }
        Ok((hashing.hash, hashing.compact_revision, at))
    }

    pub(super) fn cache_hash(&self, done: Hashing) {
        let mut hashes = self.hashes.lock();
        hashes.push_back(done);
        if hashes.len() > CACHED_MAX {
            hashes.pop_front();
        }
    }

    /// Begins the hash at `revision` as if `compact_revision` were the compact revision. The caller sees to it that the history stays until
    /// it is done. If no key exists at `revision`, etcd hides nothing, which after a compaction leaves the newest of each key that
    /// exists at the compact revision. `compacting`: as a compaction at `revision` computes it. That keeps tombstones of its own revision,
    /// too, so that one is enough for it to hide the rest.
    pub(super) fn begin_hash(&self, revision: i64, compact_revision: i64, compacting: bool) -> Hashing {
        let kept_at = if self.keeps_any(revision, compacting) { revision } else { compact_revision };
        Hashing { revision, compact_revision, kept_at, next: 1, hash: crc32c::crc32c(b"key") }
    }

    /// Hashes some more; true when all is hashed.
    pub(super) fn hash_some(&self, hashing: &mut Hashing) -> Result<bool, StorageError> {
        if hashing.next > hashing.revision {
            return Ok(true);
        }
        let (records, next) = self.log.history(hashing.next, hashing.revision, CHUNK_BYTES)?;
        let mut bytes = Vec::new();
        for records in records.chunks(CHUNK_RECORDS) {
            let index = self.index.read();
            let counts = |record: &&Record| {
                let main = record.revision.main;
                let kept = || {
                    let change = index.tree.get(&record.kv.key).and_then(|entry| entry.change_at(hashing.kept_at));
                    change.is_some_and(|change| change.revision() == record.revision && !change.tombstone())
                };
                main > hashing.compact_revision || (kept() && !(main == hashing.compact_revision && record.tombstone))
            };
            let counting: Vec<&Record> = records.iter().filter(counts).collect();
            drop(index);
            counting.into_iter().for_each(|record| encode(&mut bytes, record));
        }
        hashing.hash = crc32c::crc32c_append(hashing.hash, &bytes);
        hashing.next = next;
        Ok(next > hashing.revision)
    }

    /// Whether any key exists at a revision, or with `tombstones` died right then.
    fn keeps_any(&self, revision: i64, tombstones: bool) -> bool {
        let mut next = Some(Vec::new());
        while let Some(from) = next.take() {
            let index = self.index.read();
            for (passed, entry) in index.tree.iter_from(&from).enumerate() {
                let change = entry.change_at(revision);
                if change.is_some_and(|change| !change.tombstone() || (tombstones && change.revision().main == revision)) {
                    return true;
                }
                if passed == CHUNK_KEYS {
                    next = Some(entry.key().to_vec());
                    break;
                }
            }
        }
        false
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
