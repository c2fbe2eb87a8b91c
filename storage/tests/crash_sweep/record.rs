//! Writes down every file operation below one directory: this binary defines the C library's calls itself, so that the standard library
//! and sled call these, which forward to the kernel.
//!
//! While recording, operations are made one at a time: some order that could have been is the order that was.
#![allow(unsafe_code)]

use libc::{c_char, c_int, c_uint, c_void, mode_t, off64_t, size_t, ssize_t};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// One operation. Paths are relative to the directory; the directory itself is the empty path.
#[derive(Clone, Debug)]
pub enum Op {
    /// A file that was not there.
    Create(PathBuf),
    /// A directory.
    Mkdir(PathBuf),
    /// Bytes at an offset.
    Write(PathBuf, u64, Arc<[u8]>),
    /// Another length.
    SetLen(PathBuf, u64),
    /// fsync or fdatasync of a file.
    Sync(PathBuf),
    /// fsync of a directory.
    SyncDir(PathBuf),
    /// From, to.
    Rename(PathBuf, PathBuf),
    /// A name goes, of a file or of an empty directory.
    Remove(PathBuf),
    /// What the test did or was told at this point.
    Mark(u64),
}

struct Recording {
    root: PathBuf,
    ops: Vec<Op>,
}

static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);
static ACTIVE: AtomicBool = AtomicBool::new(false);
static UNSYNCED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn lock() -> MutexGuard<'static, Option<Recording>> {
    RECORDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// From now on operations below `root` are written down. What a test that failed has begun is forgotten.
pub fn start(root: &Path) {
    let root = root.canonicalize().expect("an existing directory");
    *lock() = Some(Recording { root, ops: Vec::new() });
    ACTIVE.store(true, Ordering::SeqCst);
}

/// What was written down.
pub fn stop() -> Vec<Op> {
    ACTIVE.store(false, Ordering::SeqCst);
    lock().take().expect("a recording").ops
}

/// Puts a mark between the operations.
pub fn mark(number: u64) {
    if let Some(recording) = lock().as_mut() {
        recording.ops.push(Op::Mark(number));
    }
}

/// Whether syncs do nothing, which spares the disk while images are judged.
pub fn skip_syncs(skip: bool) {
    UNSYNCED.store(skip, Ordering::SeqCst);
}

/// Makes a call, and writes down what `op` says if it succeeded. `op` runs before the call.
fn call(op: impl FnOnce(&Path) -> Vec<Op>, made: impl FnOnce() -> i64) -> i64 {
    if !ACTIVE.load(Ordering::SeqCst) || INSIDE.get() {
        return made();
    }
    INSIDE.set(true);
    let mut recording = lock();
    let ops = recording.as_ref().map_or_else(Vec::new, |recording| op(&recording.root));
    let result = made();
    if result >= 0
        && let Some(recording) = recording.as_mut()
    {
        recording.ops.extend(ops.into_iter().map(|op| match op {
            Op::Write(path, at, bytes) => Op::Write(path, at, bytes[..result as usize].into()),
            other => other,
        }));
    }
    drop(recording);
    INSIDE.set(false);
    result
}

fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(Path::to_path_buf)
}

/// The path behind a descriptor; none for what was removed.
fn of_descriptor(root: &Path, fd: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    below(root, &path).filter(|_| path.exists())
}

/// # Safety
/// `path` is a C string.
unsafe fn of_name(root: &Path, at: c_int, path: *const c_char) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    if path.is_absolute() || at == libc::AT_FDCWD {
        return below(root, path);
    }
    of_descriptor(root, at).map(|directory| directory.join(path))
}

fn system(number: libc::c_long, arguments: [i64; 4]) -> i64 {
    let [a, b, c, d] = arguments;
    // SAFETY: the caller passes what it was called with.
    unsafe { libc::syscall(number, a, b, c, d) }
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let op = |root: &Path| {
        let Some(name) = (unsafe { of_name(root, at, path) }) else { return Vec::new() };
        match std::fs::metadata(root.join(&name)) {
            Err(_) if flags & libc::O_CREAT != 0 => vec![Op::Create(name)],
            Ok(known) if flags & libc::O_TRUNC != 0 && known.len() > 0 => vec![Op::SetLen(name, 0)],
            _ => Vec::new(),
        }
    };
    call(op, || system(libc::SYS_openat, [at.into(), path as i64, flags.into(), mode.into()])) as c_int
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

fn written(root: &Path, fd: c_int, buffer: *const c_void, count: size_t, at: impl FnOnce() -> i64) -> Vec<Op> {
    let Some(path) = of_descriptor(root, fd) else { return Vec::new() };
    // SAFETY: the caller of write(2) promises it.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), count) };
    vec![Op::Write(path, at().unsigned_abs(), bytes.into())]
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    let at = || unsafe { libc::lseek64(fd, 0, libc::SEEK_CUR) };
    let made = || system(libc::SYS_write, [fd.into(), buffer as i64, count as i64, 0]);
    call(|root| written(root, fd, buffer, count, at), made) as ssize_t
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, at: off64_t) -> ssize_t {
    let made = || system(libc::SYS_pwrite64, [fd.into(), buffer as i64, count as i64, at]);
    call(|root| written(root, fd, buffer, count, || at), made) as ssize_t
}

fn synced(fd: c_int, number: libc::c_long) -> c_int {
    let op = |root: &Path| {
        let Some(path) = of_descriptor(root, fd) else { return Vec::new() };
        vec![if root.join(&path).is_dir() { Op::SyncDir(path) } else { Op::Sync(path) }]
    };
    let skip = UNSYNCED.load(Ordering::SeqCst);
    call(op, || if skip { 0 } else { system(number, [fd.into(), 0, 0, 0]) }) as c_int
}

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fsync)
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fdatasync)
}

/// It promises nothing that counts after a power cut.
///
/// # Safety
/// As `sync_file_range(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: c_int, at: off64_t, count: off64_t, flags: c_uint) -> c_int {
    if UNSYNCED.load(Ordering::SeqCst) {
        return 0;
    }
    system(libc::SYS_sync_file_range, [fd.into(), at, count, flags.into()]) as c_int
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off64_t) -> c_int {
    let op = |root: &Path| of_descriptor(root, fd).map(|path| Op::SetLen(path, len.unsigned_abs())).into_iter().collect();
    call(op, || system(libc::SYS_ftruncate, [fd.into(), len, 0, 0])) as c_int
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let op = |root: &Path| {
        let names = unsafe { (of_name(root, libc::AT_FDCWD, from), of_name(root, libc::AT_FDCWD, to)) };
        if let (Some(from), Some(to)) = names { vec![Op::Rename(from, to)] } else { Vec::new() }
    };
    let cwd = i64::from(libc::AT_FDCWD);
    call(op, || system(libc::SYS_renameat, [cwd, from as i64, cwd, to as i64])) as c_int
}

/// # Safety
/// As unlinkat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    let op = |root: &Path| unsafe { of_name(root, at, path) }.map(Op::Remove).into_iter().collect();
    call(op, || system(libc::SYS_unlinkat, [at.into(), path as i64, flags.into(), 0])) as c_int
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// # Safety
/// As rmdir(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// # Safety
/// As mkdir(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    let op = |root: &Path| unsafe { of_name(root, libc::AT_FDCWD, path) }.map(Op::Mkdir).into_iter().collect();
    call(op, || system(libc::SYS_mkdirat, [libc::AT_FDCWD.into(), path as i64, mode.into(), 0])) as c_int
}

/// Whether the recorder sees what the standard library does: else a sweep would pass by seeing nothing.
pub fn works() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    start(directory.path());
    std::fs::write(directory.path().join("a"), b"abc").expect("writable");
    std::fs::rename(directory.path().join("a"), directory.path().join("b")).expect("renamable");
    std::fs::create_dir(directory.path().join("d")).expect("creatable");
    std::fs::remove_dir_all(directory.path().join("d")).expect("removable");
    let _ = CString::default();
    stop().len() == 5
}
