//! A sick disk and a wrong clock for one member: a small library between the server and libc (`shim.c`), built by the C compiler that
//! also links Rust programs, and given to the process by `LD_PRELOAD`. So the server under test is the one that ships.
//!
//! The two talk through a file that both have mapped: what is set here holds at the member's next system call.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

const WORDS: usize = 16;

/// Words of the mapped file, as `shim.c` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    SyncDelayMicros,
    SyncError,
    Stalled,
    WriteError,
    ClockOffsetSecs,
    DieAt,
    DieAfter,
    Calls,
}

/// A call at which the process may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DieAt {
    /// fsync or fdatasync, before it.
    Sync = 1,
    /// A write, before it.
    Write = 2,
    /// A rename, before it.
    Rename = 3,
    /// The removal of a file, before it.
    Unlink = 4,
}

/// The faults of one member.
pub struct Shim {
    words: &'static [AtomicI32; WORDS],
    control: PathBuf,
}

/// The library, built once; why not, else.
fn library() -> Result<&'static Path, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fault/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim.so");
        let fresh = library.with_extension(std::process::id().to_string());
        let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&fresh, &source]).arg("-ldl").output();
        match output {
            // Renamed, so that a process that uses the old one keeps it.
            Ok(output) if output.status.success() => std::fs::rename(&fresh, &library).map(|()| library).map_err(|error| error.to_string()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("cc: {error}")),
        }
    });
    built.as_deref().map_err(Clone::clone)
}

impl Shim {
    /// Faults for a member whose files are in `data_dir`; `control` is where the mapped file goes.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn new(control: &Path) -> Result<Self, String> {
        library()?;
        let words = map(control).map_err(|error| error.to_string())?;
        Ok(Self { words, control: control.into() })
    }

    /// What the member's environment needs.
    pub fn environment(&self, data_dir: &Path) -> Vec<(String, String)> {
        let library = library().expect("it was built before");
        vec![
            ("LD_PRELOAD".into(), library.display().to_string()),
            ("RUSD_FAULTS".into(), self.control.display().to_string()),
            ("RUSD_FAULTS_DIR".into(), data_dir.display().to_string()),
        ]
    }

    fn set(&self, word: Word, value: i32) {
        self.words[word as usize].store(value, Ordering::SeqCst);
    }

    /// Everything works again; the clock stays where it is.
    pub fn heal(&self) {
        for word in [Word::SyncDelayMicros, Word::SyncError, Word::Stalled, Word::WriteError, Word::DieAt] {
            self.set(word, 0);
        }
    }

    /// Every sync takes so much longer.
    pub fn slow(&self, delay: Duration) {
        self.set(Word::SyncDelayMicros, i32::try_from(delay.as_micros()).expect("a short time"));
    }

    /// Syncs and writes hang until [`Shim::heal`] or [`Shim::resume`].
    pub fn stall(&self) {
        self.set(Word::Stalled, 1);
    }

    /// Ends a stall; other faults stay.
    pub fn resume(&self) {
        self.set(Word::Stalled, 0);
    }

    /// Syncs fail with this `errno`.
    pub fn fail_syncs(&self, errno: i32) {
        self.set(Word::SyncError, errno);
    }

    /// Writes fail with this `errno`.
    pub fn fail_writes(&self, errno: i32) {
        self.set(Word::WriteError, errno);
    }

    /// The wall clock is wrong by so much.
    pub fn set_clock(&self, offset_secs: i32) {
        self.set(Word::ClockOffsetSecs, offset_secs);
    }

    /// The process ends, as by `kill -9`, at such a call, after so many others of its kind.
    pub fn die_at(&self, call: DieAt, after: i32) {
        self.set(Word::DieAfter, after);
        self.set(Word::DieAt, call as i32);
    }

    /// Whether the call of [`Shim::die_at`] has come.
    pub fn died(&self) -> bool {
        self.words[Word::DieAfter as usize].load(Ordering::SeqCst) < 0
    }

    /// Calls that passed through so far: how a test knows that the library is at work.
    pub fn calls(&self) -> i32 {
        self.words[Word::Calls as usize].load(Ordering::SeqCst)
    }
}

fn map(path: &Path) -> io::Result<&'static [AtomicI32; WORDS]> {
    let length = WORDS * 4;
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    file.set_len(length as u64)?;
    // SAFETY: the file is open and that long; the mapping is never undone, so references to it stay good.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*at.cast::<[AtomicI32; WORDS]>())
    }
}
