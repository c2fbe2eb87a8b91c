//! Files around the Db: lock, format version, and the pointer that names the current Db.
//!
//! | file | what |
//! |---|---|
//! | `LOCK` | held (flock) while a process uses the directory |
//! | `FORMAT` | storage format; says `creating` until the first Db is complete |
//! | `CURRENT` | name of the Db directory in use; replaced by one durable rename |
//! | `db-N/` | a sled Db; any but the current one is a partial install and is removed at open |

use crate::error::{StorageError, advice};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The format this version reads and writes.
pub const FORMAT: u32 = 1;
const CREATING: &str = "creating";

/// Turns an io::Error into ours.
pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |error| StorageError::Io { action, path, detail: format!("{error}{}", advice(&error)) }
}

/// The locked member directory.
pub struct Directory {
    path: PathBuf,
    _lock: File,
    /// Numbers of partial Dbs that are being filled, or wait for the switch to them.
    live: Arc<Mutex<HashSet<u64>>>,
}

/// Keeps a partial Db from being removed as a leftover.
pub struct Live {
    number: u64,
    live: Arc<Mutex<HashSet<u64>>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.live.lock().remove(&self.number);
    }
}

/// Which Db is current.
pub enum Current {
    /// None yet: this number is to be created, then `complete` called.
    Create(u64),
    /// This one.
    Open(u64),
}

impl Directory {
    /// Creates (0700) and locks the directory, checks the format and says which Db to open. Removes partial Dbs.
    pub fn open(path: &Path) -> Result<(Self, Current), StorageError> {
        create_durably(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("restrict", path))?;
        let directory = Self { path: path.to_path_buf(), _lock: lock(path)?, live: Arc::default() };
        let current = directory.find_current()?;
        let keep = match current {
            Current::Create(_) => None,
            Current::Open(number) => Some(number),
        };
        directory.remove_partial(|| keep)?;
        Ok((directory, current))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where Db `number` lives.
    pub fn db(&self, number: u64) -> PathBuf {
        self.path.join(format!("db-{number}"))
    }

    /// Bytes that this process may still write to its file system; `None` if the system doesn't say.
    pub fn free_bytes(&self) -> Option<u64> {
        let path = std::ffi::CString::new(self.path.as_os_str().as_encoded_bytes()).ok()?;
        let mut answer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: a valid path, and room for the answer, which is read only if the call says that it was written.
        #[allow(unsafe_code)]
        let answer = unsafe { (libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) == 0).then(|| answer.assume_init())? };
        Some(answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    fn find_current(&self) -> Result<Current, StorageError> {
        let path = self.path.join("FORMAT");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.refuse_leftovers()?;
                write_durably(&path, &format!("{FORMAT} {CREATING}\n"))?;
                return Ok(Current::Create(1));
            }
            Err(error) => return Err(io("read", &path)(error)),
        };
        if text == format!("{FORMAT} {CREATING}\n") {
            return Ok(Current::Create(1));
        }
        if text != format!("{FORMAT}\n") {
            return Err(StorageError::UnknownFormat { path, found: format!("{:?}", text.trim_end()), known: FORMAT });
        }
        self.read_pointer().map(Current::Open)
    }

    /// FORMAT is written first: without it there may be nothing that could be mistaken for a partial Db and removed.
    fn refuse_leftovers(&self) -> Result<(), StorageError> {
        let entries = fs::read_dir(&self.path).map_err(io("list", &self.path))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == "CURRENT" || name.to_string_lossy().starts_with("db-") {
                let detail = "the file FORMAT is missing beside it".to_string();
                return Err(StorageError::Damaged { path: entry.path(), what: "storage format".into(), detail });
            }
        }
        Ok(())
    }

    fn read_pointer(&self) -> Result<u64, StorageError> {
        let path = self.path.join("CURRENT");
        let damaged = |detail: String| StorageError::Damaged { path: path.clone(), what: "pointer to the current Db".into(), detail };
        let text = fs::read_to_string(&path).map_err(|error| damaged(error.to_string()))?;
        let (name, sum) = text.strip_suffix('\n').and_then(|text| text.split_once(' ')).ok_or_else(|| damaged(format!("{text:?}")))?;
        if sum != format!("{:08x}", crc32c::crc32c(name.as_bytes())) {
            return Err(damaged(format!("{text:?}")));
        }
        let number = name.strip_prefix("db-").and_then(|number| number.parse().ok()).ok_or_else(|| damaged(format!("{text:?}")))?;
        if !self.db(number).join("db").is_file() {
            return Err(damaged(format!("{name} holds no database")));
        }
        Ok(number)
    }

    /// Makes Db `number` current by one durable rename.
    pub fn point_to(&self, number: u64) -> Result<(), StorageError> {
        let name = format!("db-{number}");
        let text = format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()));
        write_durably(&self.path.join("CURRENT"), &text)
    }

    /// The first Db exists and is pointed to: from now on a missing pointer is damage.
    pub fn complete(&self) -> Result<(), StorageError> {
        write_durably(&self.path.join("FORMAT"), &format!("{FORMAT}\n"))
    }

    /// From now on Db `number` is being filled.
    pub fn live(&self, number: u64) -> Live {
        self.live.lock().insert(number);
        Live { number, live: Arc::clone(&self.live) }
    }

    /// Removes every Db but that which `keep` names and those that are being filled: one snapshot may arrive while the switch to another
    /// is queued. `keep` is asked when none can cease to be live any more.
    pub fn remove_partial(&self, keep: impl FnOnce() -> Option<u64>) -> Result<(), StorageError> {
        let live = self.live.lock();
        let keep = keep();
        let entries = fs::read_dir(&self.path).map_err(io("list", &self.path))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_prefix("db-")) else { continue };
            let number: Option<u64> = number.parse().ok();
            let kept = number.is_some_and(|number| keep == Some(number) || live.contains(&number));
            if !kept {
                match fs::remove_dir_all(entry.path()) {
                    // A partial one removes itself when it is dropped.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &entry.path())(error)),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Creates the directory and its missing parents, and makes the new names durable.
fn create_durably(path: &Path) -> Result<(), StorageError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))?;
    for created in missing {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync", parent))?;
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join("LOCK");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io("open", &path))?;
    // SAFETY: flock on a descriptor that `file` owns and keeps open.
    #[allow(unsafe_code)]
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if result == 0 { Ok(file) } else { Err(StorageError::Locked(directory.to_path_buf())) }
}

/// Writes a small file so that after a crash either the old or the new one is there.
pub fn write_durably(path: &Path, text: &str) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().expect("a file in a directory"))?.sync_all()
    };
    write().map_err(io("write", path))
}
