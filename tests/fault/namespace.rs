//! Network namespaces without names: each is held open by a file descriptor of this process, so that it vanishes with it, however it ends.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;

/// A namespace with a loopback device and, after [`Namespace::device`], one more.
#[derive(Clone)]
pub struct Namespace(Arc<File>);

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` as far as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

impl Namespace {
    /// A new one. Needs root.
    pub fn new() -> io::Result<Self> {
        let thread = std::thread::spawn(|| {
            // SAFETY: changes the namespace of this thread alone, which ends here.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            run("ip", &["link", "set", "lo", "up"])?;
            File::open("/proc/thread-self/ns/net")
        });
        Ok(Self(Arc::new(thread.join().expect("the thread doesn't panic")?)))
    }

    /// Moves the calling thread into it, for good: meant for threads of one's own.
    pub fn enter(&self) -> io::Result<()> {
        enter(self.0.as_raw_fd())
    }

    /// Makes a command's process start in it.
    pub fn apply(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        let file = self.0.clone();
        // SAFETY: setns is one system call; nothing is allocated between fork and exec.
        unsafe {
            command.pre_exec(move || enter(file.as_raw_fd()));
        }
    }

    /// A device with this address in 10.77.0.0/24; whoever reads the file gets its outgoing IP packets, one a read, and what is written
    /// to it comes in.
    pub fn device(&self, address: u8) -> io::Result<File> {
        let this = self.clone();
        let thread = std::thread::spawn(move || {
            this.enter()?;
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
            let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
            request.name[..4].copy_from_slice(b"tun0");
            // SAFETY: the request lives through the call, which fills in no more than `struct ifreq`, 40 bytes.
            check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
            run("ip", &["address", "add", &format!("10.77.0.{address}/24"), "dev", "tun0"])?;
            run("ip", &["link", "set", "tun0", "up", "mtu", "4000"])?;
            Ok(file)
        });
        thread.join().expect("the thread doesn't panic")
    }
}

fn enter(file: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; only the calling thread moves.
    check(unsafe { libc::setns(file, libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())) }
}
