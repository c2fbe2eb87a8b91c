//! A disk of one's own: ext4 on a file, mounted by a loop device, so that its power can be cut and it can fill up without harm to others.
//!
//! A cut (`EXT4_IOC_SHUTDOWN` without flushing the journal) is kinder than a real one, for a drive's cache survives, but it loses whatever
//! was written without a sync.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `_IOR('X', 125, __u32)`; the argument says how.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = (2 << 30) | (4 << 16) | (b'X' as libc::c_ulong) << 8 | 125;
static NOLOGFLUSH: u32 = 2;

/// Mounted until it is dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

fn run(command: &str, arguments: &[&Path]) -> Result<(), String> {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr))) }
}

impl Disk {
    /// A new one of so many MiB, its image and mount point below `directory`.
    ///
    /// # Errors
    /// Without root or loop devices.
    pub fn new(directory: &Path, name: &str, size_mib: u32) -> Result<Self, String> {
        let mut disk =
            Self { image: directory.join(format!("{name}.image")), mount: directory.join(format!("{name}.disk")), mounted: false };
        std::fs::create_dir(&disk.mount).map_err(|error| error.to_string())?;
        run(&format!("truncate -s {size_mib}M"), &[&disk.image])?;
        run("mkfs.ext4 -q -F", &[&disk.image])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn mount(&mut self) -> Result<(), String> {
        run("mount -o loop", &[&self.image, &self.mount])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.mounted) { run("umount", &[&self.mount]) } else { Ok(()) }
    }

    /// Cuts the power: what isn't on the medium now never will be. The process that uses it must be ended before [`Disk::repower`].
    pub fn cut(&self) {
        let device = |path: &Path| std::fs::metadata(path).expect("a directory").dev();
        assert_ne!(device(&self.mount), device(self.image.parent().expect("a directory")), "this would be the machine's own disk");
        let file = File::open(&self.mount).expect("the mount point");
        // SAFETY: the ioctl reads a u32, on a descriptor that is open.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const NOLOGFLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// After a cut, mounts it again as it was.
    pub fn repower(&mut self) {
        self.unmount().expect("nobody uses it");
        self.mount().expect("it was mounted before");
    }

    /// Mounts it read-only, or writable again.
    #[allow(dead_code)] // For `tests/store_faults` alone.
    pub fn allow_writes(&mut self, allowed: bool) {
        run(if allowed { "mount -o remount,rw" } else { "mount -o remount,ro" }, &[&self.mount]).expect("it is mounted");
    }

    /// Fills it to the last block.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a file");
        for block in [1 << 20, 4096] {
            while file.write_all(&vec![1; block]).is_ok() {}
        }
        let _ = file.sync_all();
    }

    /// Fills it, but leaves so much.
    #[allow(dead_code)] // For `tests/linearizability` alone.
    pub fn fill_but(&self, mib: u64) {
        self.fill();
        let file = File::options().write(true).open(self.ballast()).expect("it was just written");
        let length = file.metadata().expect("it is open").len();
        file.set_len(length.checked_sub(mib << 20).expect("there was less")).expect("it gets shorter");
        file.sync_all().expect("it syncs");
    }

    /// Makes room again.
    pub fn make_room(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{} stays mounted: {error}", self.mount.display());
        }
    }
}
