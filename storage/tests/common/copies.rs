//! What a store's files hold at its syncs.

use rusd_storage::engine::Faults;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tempfile::TempDir;

/// Keeps what the files hold whenever they are about to be synced.
#[derive(Debug)]
pub struct Copies {
    from: PathBuf,
    taken: Mutex<Vec<TempDir>>,
}

impl Copies {
    /// Of a store in this directory.
    pub fn of(directory: &Path) -> Self {
        Self { from: directory.into(), taken: Mutex::default() }
    }

    /// What was taken since the last call.
    pub fn take(&self) -> Vec<TempDir> {
        std::mem::take(&mut *self.taken.lock().expect("no panic while held"))
    }
}

impl Faults for Copies {
    fn before_sync(&self) -> std::io::Result<()> {
        self.taken.lock().expect("no panic while held").push(copy(&self.from)?);
        Ok(())
    }
}

/// A copy of a directory.
pub fn copy(from: &Path) -> std::io::Result<TempDir> {
    let copy = tempfile::tempdir()?;
    let done = Command::new("cp").arg("-r").arg(from.join(".")).arg(copy.path()).status()?;
    assert!(done.success());
    Ok(copy)
}
