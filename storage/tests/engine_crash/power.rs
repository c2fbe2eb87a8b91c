//! Power cuts: ext4 on a loop device is shut down without flushing its journal (`EXT4_IOC_SHUTDOWN`), mounted again and compared.
//!
//! Kinder than a real cut (a drive's cache survives), but it loses whatever was written without a sync.

use super::workload::{self, Rng};
use super::{ALONE, Said, Work, moment, number, seed};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `_IOR('X', 125, __u32)`; the argument says how.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = (2 << 30) | (4 << 16) | (b'X' as libc::c_ulong) << 8 | 125;
static NOLOGFLUSH: u32 = 2;

struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(command: &str, arguments: &[&Path]) -> Result<(), String> {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr))) }
}

impl Disk {
    fn new(directory: &Path) -> Result<Self, String> {
        let disk = Self { image: directory.join("image"), mount: directory.join("mount") };
        std::fs::create_dir(&disk.mount).map_err(|error| error.to_string())?;
        run("truncate -s 1500M", &[&disk.image])?;
        run("mkfs.ext4 -q -F", &[&disk.image])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount -o loop", &[&self.image, &self.mount])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.mount])
    }

    #[allow(unsafe_code)]
    fn cut(&self) {
        let device = |path: &Path| std::fs::metadata(path).expect("a directory").dev();
        assert_ne!(device(&self.mount), device(self.image.parent().expect("a directory")), "this would be the machine's own disk");
        let file = File::open(&self.mount).expect("the mount point");
        // SAFETY: the ioctl reads a u32, on a descriptor that is open.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const NOLOGFLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().expect("a directory");
    let disk = match Disk::new(directory.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("\n*** SKIPPED: power cuts need root and a loop device: {reason} ***\n");
            return;
        }
    };
    let member = disk.mount.join("member");
    let mut rng = Rng::new(seed());
    let mut said = Said::default();
    for round in 0..number("RUSD_ROUNDS", 6) {
        let work = Work::start(&member, rng.next(), "");
        let (lines, time) = moment(&mut rng);
        work.hear(&mut said, lines, time);
        disk.cut();
        // It may have noticed, and said so.
        work.kill(&mut said, true);
        disk.unmount().expect("unmounted");
        disk.mount().expect("mounted again");
        said.compare(&workload::survivors(&member), round);
    }
    println!("{} acknowledged steps, all there", said.acks);
}
