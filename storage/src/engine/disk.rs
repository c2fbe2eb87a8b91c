//! One sled Db under the rules that make it durable (`reference/storage.md`, part 1): our own fdatasync, a cap on the bytes between two,
//! plain inserts only, no blob files. Only the writer thread (or a snapshot being received) inserts.
//!
//! sled takes everything behind the first unreadable byte of its newest segments for a torn write and drops it without a word, which after
//! a bit flip or a truncation of the file would be acknowledged data. So every insertion carries the next number of a *sequence*, and the
//! file `SYNCED` beside sled's holds the newest one known to be durable. It is written after each fdatasync and never synced itself: what it
//! says after a power cut may be old, never too new. A Db that holds less than that is damaged.

use super::directory::io;
use super::frame::Header;
use super::{FRAME_BYTES_MAX, Faults, frame};
use crate::error::StorageError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// sled's segment size. A page stays below a quarter of it, so that no blob file is made: 17 frames of 64 KiB are 1.06 MiB.
const SEGMENT_BYTES: usize = 8 << 20;
/// Bytes inserted between two fdatasyncs at most: beyond it sled may reuse a segment whose successor is not on disk yet.
pub const UNSYNCED_BYTES_MAX: usize = SEGMENT_BYTES / 5;
/// What an insertion counts at least towards the cap: sled rewrites a leaf of large values after ten of even the smallest changes in it.
pub const INSERTED_BYTES_MIN: usize = 8 << 10;
/// Slots made at a time: a pre-split tree keeps its leaves small.
const SLOTS_STEP: u32 = 256;
/// How often, and after what pause, a lock that our own last Db still holds is tried again: 2 s in all.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// Blob files are looked for every so many syncs.
const BLOB_CHECK_SYNCS: u64 = 4096;

/// Only one slot in so many is used, the others stay empty for ever: a leaf of sled has 9 to 16 keys, and each of its 256 cache shards keeps
/// one leaf at least, whatever its budget. With every slot in use that was 9 frames a leaf, 130 MB (measured over 9,000 frames of 64 KiB:
/// 283 MB at 1, 60 MB at 8, 42 MB at 16).
const SPACING: u32 = 8;
/// A shard looks at its leaves only when 64 accesses have gathered: seven frames when they are written, 32 when they are read. So many
/// touches of about 0.4 us after a frame make it look sooner: 60 MB become 28 in that measurement, and a LIST or a start no longer leaves
/// hundreds behind.
const TOUCHES: usize = 40;
/// What is touched, bytes.
const LARGE_BYTES: usize = 16 << 10;
const _: () = assert!(FRAME_BYTES_MAX <= SEGMENT_BYTES / 72);

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingName {
    /// The Raft log.
    Log,
    /// The state.
    State,
}

/// An opened Db with its two rings.
pub struct Disk {
    path: PathBuf,
    db: sled::Db,
    log: sled::Tree,
    state: sled::Tree,
    file: File,
    faults: Option<Arc<dyn Faults>>,
    /// Sequence of the last insertion; changed by the inserting thread only.
    sequence: AtomicU64,
    syncs: AtomicU64,
    watermark: File,
}

/// Slots of one ring that may be overwritten; owned by the inserting thread.
#[derive(Default)]
pub struct Slots {
    free: VecDeque<u32>,
    made: u32,
}

impl Slots {
    /// Learns of an existing slot at open.
    pub fn found(&mut self, slot: u32, is_free: bool) {
        self.made = self.made.max(slot + 1);
        if is_free {
            self.release(slot);
        }
    }

    /// Gives a slot back. One that keeps others apart is never used again.
    pub fn release(&mut self, slot: u32) {
        if slot.is_multiple_of(SPACING) {
            self.free.push_back(slot);
        }
    }
}

impl Disk {
    /// Opens (or creates) the Db at `path`: removes half-written sled snapshots, makes what the page cache holds durable before sled
    /// trusts it, and turns sled's panics on damage into errors.
    pub fn open(path: &Path, cache_bytes: u64, faults: Option<Arc<dyn Faults>>) -> Result<Self, StorageError> {
        prepare(path)?;
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes).segment_size(SEGMENT_BYTES).flush_every_ms(None);
        let opened = guarded(path, "database", || {
            let db = open_unlocked(&config)?;
            let (log, state) = (db.open_tree("log")?, db.open_tree("state")?);
            db.flush()?;
            Ok((db, log, state))
        });
        let (db, log, state) = opened?;
        let file_path = path.join("db");
        let file = OpenOptions::new().read(true).write(true).open(&file_path).map_err(io("open", &file_path))?;
        let synced_path = path.join("SYNCED");
        let watermark = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&synced_path);
        let watermark = watermark.map_err(io("open", &synced_path))?;
        let (sequence, syncs) = (AtomicU64::new(0), AtomicU64::new(0));
        let disk = Self { path: path.to_path_buf(), db, log, state, file, faults, sequence, syncs, watermark };
        disk.settle()?;
        Ok(disk)
    }

    fn settle(&self) -> Result<(), StorageError> {
        self.file.sync_all().map_err(io("sync", &self.path))?;
        for name in ["conf", "blobs"] {
            if let Ok(file) = File::open(self.path.join(name)) {
                file.sync_all().map_err(io("sync", &self.path))?;
            }
        }
        for directory in [Some(self.path.as_path()), self.path.parent()].into_iter().flatten() {
            File::open(directory).and_then(|file| file.sync_all()).map_err(io("sync", directory))?;
        }
        self.check_no_blobs()
    }

    fn check_no_blobs(&self) -> Result<(), StorageError> {
        let blobs = self.path.join("blobs");
        match fs::read_dir(&blobs).map(Iterator::count) {
            Ok(0) | Err(_) => Ok(()),
            Ok(count) => Err(StorageError::Damaged {
                path: blobs,
                what: "blob files".into(),
                detail: format!("{count} files that are never synced"),
            }),
        }
    }

    /// sled's file, the one that counts.
    pub fn file_path(&self) -> PathBuf {
        self.path.join("db")
    }

    fn ring(&self, ring: RingName) -> &sled::Tree {
        match ring {
            RingName::Log => &self.log,
            RingName::State => &self.state,
        }
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Inserts a frame into a free slot. The caller counts bytes and syncs.
    pub fn insert(&self, ring: RingName, slots: &mut Slots, header: &Header, body: &[u8]) -> Result<u32, StorageError> {
        let slot = self.free_slot(ring, slots)?;
        self.overwrite(ring, slot, header, body)?;
        Ok(slot)
    }

    /// The same for a body that stands behind [`frame::HEADER`] spare bytes, to spare it a copy. Replaces no frames.
    pub fn insert_in_place(&self, ring: RingName, slots: &mut Slots, header: &Header, value: &mut [u8]) -> Result<u32, StorageError> {
        let slot = self.free_slot(ring, slots)?;
        frame::seal(value, header, self.next_sequence());
        self.put(ring, slot, value, "insert of a frame")?;
        Ok(slot)
    }

    fn free_slot(&self, ring: RingName, slots: &mut Slots) -> Result<u32, StorageError> {
        if let Some(slot) = slots.free.pop_front() {
            return Ok(slot);
        }
        let first = slots.made.next_multiple_of(SPACING);
        for slot in slots.made..first + SLOTS_STEP {
            self.mark(ring, slot)?;
            slots.found(slot, slot > first);
        }
        Ok(first)
    }

    /// Writes a frame into the slot it already has.
    pub fn overwrite(&self, ring: RingName, slot: u32, header: &Header, body: &[u8]) -> Result<(), StorageError> {
        self.put(ring, slot, &frame::encode(header, self.next_sequence(), body), "insert of a frame")
    }

    /// Voids a slot; it is free once the caller says so to `Slots`.
    pub fn mark(&self, ring: RingName, slot: u32) -> Result<(), StorageError> {
        self.put(ring, slot, &frame::marker(self.next_sequence()), "insert of a marker")
    }

    fn put(&self, ring: RingName, slot: u32, value: &[u8], what: &str) -> Result<(), StorageError> {
        let tree = self.ring(ring);
        guarded(&self.path, what, || {
            tree.insert(slot.to_be_bytes(), value)?;
            let_go(tree, slot, value.len())
        })
    }

    /// The frame in a slot, verified. `None` for a free or absent slot.
    pub fn read(&self, ring: RingName, slot: u32) -> Result<Option<(Header, sled::IVec, usize)>, StorageError> {
        let tree = self.ring(ring);
        let value = guarded(&self.path, "read of a frame", || {
            let value = tree.get(slot.to_be_bytes())?;
            let_go(tree, slot, value.as_ref().map_or(0, |value| value.len()))?;
            Ok(value)
        })?;
        match value {
            None => Ok(None),
            Some(value) if frame::decode_marker(&value).is_some() => Ok(None),
            Some(value) => {
                let (header, body) = frame::decode(&value).map_err(|bad| self.damaged(ring, slot, bad.to_string()))?;
                Ok(Some((header, value, body)))
            }
        }
    }

    /// The body of a frame or run, put together; `None` if the slots hold something else by now.
    pub fn read_run(&self, ring: RingName, id: u64, slots: &[u32]) -> Result<Option<Bytes>, StorageError> {
        if let [slot] = slots {
            let Some((header, value, at)) = self.read(ring, *slot)? else { return Ok(None) };
            return Ok((header.id == id).then(|| Bytes::from_owner(value).slice(at..)));
        }
        let mut body = Vec::new();
        for (part, slot) in slots.iter().enumerate() {
            let Some((header, value, at)) = self.read(ring, *slot)? else { return Ok(None) };
            if header.id != id || header.part as usize != part || header.parts as usize != slots.len() {
                return Ok(None);
            }
            body.extend_from_slice(&value[at..]);
        }
        Ok(Some(body.into()))
    }

    /// Shows every slot in slot order, frames verified; `None` for a free one.
    pub fn scan(
        &self,
        ring: RingName,
        mut see: impl FnMut(u32, Option<(Header, Bytes)>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut slots = self.ring(ring).iter();
        loop {
            let Some((key, value)) = guarded(&self.path, "scan of a ring", || slots.next().transpose())? else { return Ok(()) };
            let slot = <[u8; 4]>::try_from(&key[..]).map(u32::from_be_bytes).map_err(|_| StorageError::Damaged {
                path: self.file_path(),
                what: format!("key of the {ring:?} ring"),
                detail: "not a slot number".into(),
            })?;
            if let Some(sequence) = frame::decode_marker(&value) {
                self.sequence.fetch_max(sequence, Ordering::Relaxed);
                see(slot, None)?;
            } else {
                let (header, body) = frame::decode(&value).map_err(|bad| self.damaged(ring, slot, bad.to_string()))?;
                guarded(&self.path, "scan of a ring", || let_go(self.ring(ring), slot, value.len()))?;
                self.sequence.fetch_max(frame::sequence(&value), Ordering::Relaxed);
                see(slot, Some((header, Bytes::from_owner(value).slice(body..))))?;
            }
        }
    }

    /// A damage report naming file, ring and slot.
    pub fn damaged(&self, ring: RingName, slot: u32, detail: String) -> StorageError {
        StorageError::Damaged { path: self.file_path(), what: format!("frame in slot {slot} of the {ring:?} ring"), detail }
    }

    /// A small value with its own checksum: vote, floor.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<(), StorageError> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&self.next_sequence().to_le_bytes());
        bytes.extend_from_slice(value);
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        guarded(&self.path, "insert of a key", || self.db.insert(key, bytes).map(drop))
    }

    /// Reads what `put_meta` wrote.
    pub fn get_meta(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let Some(bytes) = guarded(&self.path, "read of a key", || self.db.get(key))? else { return Ok(None) };
        let intact = bytes.split_first_chunk::<4>().filter(|(sum, rest)| u32::from_le_bytes(**sum) == crc32c::crc32c(rest));
        let Some((sequence, value)) = intact.and_then(|(_, rest)| rest.split_first_chunk::<8>()) else {
            let detail = "its checksum does not match".into();
            return Err(StorageError::Damaged { path: self.file_path(), what: format!("key {key}"), detail });
        };
        self.sequence.fetch_max(u64::from_le_bytes(*sequence), Ordering::Relaxed);
        Ok(Some(value.to_vec()))
    }

    /// Compares what both scans and the keys have shown with what is known to have been durable. Before any insertion.
    pub fn check_watermark(&self) -> Result<(), StorageError> {
        let mut bytes = [0; 12];
        if self.watermark.read_exact_at(&mut bytes, 0).is_err() || bytes == [0; 12] {
            return Ok(());
        }
        let (value, checksum) = bytes.split_at(8);
        if checksum != crc32c::crc32c(value).to_le_bytes() {
            tracing::warn!(path = %self.path.join("SYNCED").display(), "ignored: its checksum does not match");
            return Ok(());
        }
        let synced = u64::from_le_bytes(value.try_into().expect("eight bytes"));
        let found = self.sequence.load(Ordering::Relaxed);
        if found >= synced {
            return Ok(());
        }
        let detail = format!("{synced} changes were durable, the newest that can be read is {found}");
        Err(StorageError::Damaged { path: self.file_path(), what: "the newest frames".into(), detail })
    }

    /// Makes everything inserted so far durable.
    pub fn sync(&self) -> Result<(), StorageError> {
        if let Some(faults) = &self.faults {
            faults.before_sync().map_err(io("sync", &self.path))?;
        }
        guarded(&self.path, "flush", || {
            // sled looks at its current buffer without this, and whoever else makes it write may replace the buffer meanwhile.
            let _pinned = sled::pin();
            self.db.flush().map(drop)
        })?;
        self.file.sync_data().map_err(io("sync", &self.file_path()))?;
        self.raise_watermark();
        let count = self.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(BLOB_CHECK_SYNCS) { self.check_no_blobs() } else { Ok(()) }
    }

    /// A failure is no matter: an old watermark is a correct one.
    fn raise_watermark(&self) {
        let mut bytes = [0; 12];
        let value = self.sequence.load(Ordering::Relaxed).to_le_bytes();
        bytes[..8].copy_from_slice(&value);
        bytes[8..].copy_from_slice(&crc32c::crc32c(&value).to_le_bytes());
        if let Err(error) = self.watermark.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "SYNCED not written");
        }
    }

    /// Size of sled's file.
    pub fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// Nobody wants a frame soon again, but sled keeps it until it looks at its cache: makes it look.
fn let_go(tree: &sled::Tree, slot: u32, bytes: usize) -> sled::Result<()> {
    let touches = if bytes < LARGE_BYTES { 0 } else { TOUCHES };
    (0..touches).try_for_each(|_| tree.contains_key(slot.to_be_bytes()).map(drop))
}

fn prepare(path: &Path) -> Result<(), StorageError> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
        }
    }
    let file_path = path.join("db");
    if let Ok(file) = OpenOptions::new().read(true).write(true).open(&file_path) {
        file.sync_all().map_err(io("sync", &file_path))?;
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io("sync", path))
}

/// sled's pool threads may hold the file, and its lock, a moment longer than the Db that was dropped. We hold the member directory's lock, so
/// that it can be nobody else: wait for them.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.kind() == std::io::ErrorKind::Other && error.to_string().contains("could not acquire lock") =>
            {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Runs a sled call; its errors and its panics become ours.
fn guarded<T>(path: &Path, what: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StorageError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(io("use", &path.join("db"))(error)),
        Ok(Err(error)) => Err(StorageError::Damaged { path: path.join("db"), what: what.into(), detail: error.to_string() }),
        Err(_) => Err(StorageError::Damaged { path: path.join("db"), what: what.into(), detail: "the storage library gave up".into() }),
    }
}
