//! One child process and its log.

use super::{PATIENCE, POLL};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running (or ended) child. Stdout and stderr go to its log file. Dropped = `kill -9` and reaped.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Where this child's part of the file begins.
    log_start: u64,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output is appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let log_start = file.metadata().expect("it is open").len();
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{:?} doesn't start: {error}", command.get_program()));
        Self { child, log: log.into(), log_start, status: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `libc::SIGSTOP` and the like; nothing happens if it has ended.
    pub fn signal(&mut self, signal: i32) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.pid()).expect("a pid");
            // SAFETY: plain numbers; the child hasn't been reaped, so the pid is still its own.
            #[allow(unsafe_code)]
            let sent = unsafe { libc::kill(pid, signal) };
            assert_eq!(sent, 0, "signal {signal} to {pid}");
        }
    }

    /// `kill -9`, reaped.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.status = self.status.or_else(|| self.child.try_wait().expect("it is our child"));
        self.status
    }

    /// Waits for its end; panics after [`PATIENCE`].
    pub async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} doesn't end:\n{}", self.pid(), tail(&self.log()));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for a log line with this message; panics if it ends before, or after [`PATIENCE`].
    pub async fn wait_line(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.line(message) {
                return line;
            }
            let ended = self.ended();
            // It may have said so with its last breath.
            if let Some(line) = self.line(message) {
                return line;
            }
            assert!(ended.is_none() && Instant::now() < deadline, "no line {message:?} ({ended:?}):\n{}", tail(&self.log()));
            tokio::time::sleep(POLL).await;
        }
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.seek(SeekFrom::Start(self.log_start)).and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its first log line with this message.
    pub fn line(&self, message: &str) -> Option<Value> {
        line(&self.log(), message)
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: u64 = text.split(' ').nth(1).expect("the second field").parse().expect("a number");
        pages * 4096
    }

    /// Open files.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the end of {} ----\n{}", self.log.display(), tail(&self.log()));
        }
    }
}

/// What a process that ended by itself left.
#[derive(Debug)]
pub struct Ended {
    /// `None` = by a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The log line with this message; panics if there is none, or if a line before it isn't JSON.
    pub fn line(&self, message: &str) -> Value {
        line(&self.stderr, message).unwrap_or_else(|| panic!("no line {message:?} in {}", self.stderr))
    }
}

/// Runs a command to its end, without the caller's `ETCD_*` variables; kills it and panics after `limit`.
pub fn run(mut command: Command, limit: Duration) -> Ended {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
        if command.get_envs().all(|(given, _)| given != name) {
            command.env_remove(name);
        }
    }
    let (out, err) = (tempfile::NamedTempFile::new().expect("a file"), tempfile::NamedTempFile::new().expect("a file"));
    command.stdin(Stdio::null()).stdout(out.reopen().expect("a second handle")).stderr(err.reopen().expect("a second handle"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?} doesn't start: {error}", command.get_program()));
    let deadline = Instant::now() + limit;
    let text = |file: &tempfile::NamedTempFile| String::from_utf8_lossy(&std::fs::read(file.path()).expect("it reads")).into_owned();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Ended { code: status.code(), stdout: text(&out), stderr: text(&err) };
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} doesn't end within {limit:?}:\n{}{}", tail(&text(&out)), tail(&text(&err)));
        }
        std::thread::sleep(POLL);
    }
}

/// The first JSON line of a log with this message.
pub fn line(log: &str, message: &str) -> Option<Value> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find(|line| line["msg"] == message)
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
