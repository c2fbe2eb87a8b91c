//! Members of one cluster.

use super::client::{Client, etcdctl};
use super::process::{Ended, Process};
use super::{eventually, ports, rusd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use tempfile::TempDir;

/// The line after which a member serves.
pub const READY: &str = "ready to serve client requests";

/// See [`Member::setup`].
pub type Setup = Arc<dyn Fn(&mut Command) + Send + Sync>;

/// A member: what it is started with, and its process while it has one.
pub struct Member {
    /// The server; rusd unless it is set to something else before the start.
    pub program: PathBuf,
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Where it listens: 127.0.0.1, unless it lives in a network of its own.
    pub host: String,
    /// The client port.
    pub client_port: u16,
    /// The peer port.
    pub peer_port: u16,
    /// Flags after all others, so that they win.
    pub flags: Vec<String>,
    /// Variables.
    pub environment: Vec<(String, String)>,
    /// Words before the server's own, such as `ip netns exec x`.
    pub prefix: Vec<String>,
    /// What else is done to the command before it starts.
    pub setup: Option<Setup>,
    /// The child; `None` = never started, or killed.
    pub process: Option<Process>,
    log: PathBuf,
}

impl Member {
    /// `http://HOST:CLIENT_PORT`.
    pub fn client_url(&self) -> String {
        format!("http://{}:{}", self.host, self.client_port)
    }

    /// `http://HOST:PEER_PORT`.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.peer_port)
    }

    /// The child; panics if there is none.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} isn't running", self.name))
    }
}

/// Members on 127.0.0.1, each with ports and a data dir of its own, below one temporary directory.
pub struct Cluster {
    /// By number, as all functions count them.
    pub members: Vec<Member>,
    /// `--initial-cluster` of members that start.
    pub initial_cluster: String,
    directory: Option<TempDir>,
}

impl Cluster {
    /// `count` members m0, m1, .. that aren't started yet.
    pub fn prepare(count: usize, flags: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("rusd-test-").tempdir().expect("a temporary directory");
        let mut cluster = Self { members: Vec::new(), initial_cluster: String::new(), directory: Some(directory) };
        for _ in 0..count {
            cluster.add(flags);
        }
        cluster.initial_cluster = cluster.peers();
        cluster
    }

    /// The three that a client's program must get along with, one after the other: the real etcd, for what that doesn't pass is no
    /// expectation of etcd's, then one member of ours, then three.
    pub async fn for_clients(drive: impl Fn(&Self)) {
        let mut etcd = Self::prepare(1, &[]);
        etcd.members[0].program = super::tool("etcd");
        etcd.start_all();
        etcd.wait_all().await;
        drive(&etcd);
        drop(etcd);
        for count in [1, 3] {
            drive(&Self::running(count, &[]).await);
        }
    }

    /// The same, all started and serving.
    pub async fn running(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, flags);
        cluster.start_all();
        cluster.wait_all().await;
        cluster
    }

    /// One more member, not started; answers its number. For one that joins a running cluster, set `initial_cluster` to
    /// [`Self::peers`] and give it `--initial-cluster-state=existing`.
    pub fn add(&mut self, flags: &[&str]) -> usize {
        let name = format!("m{}", self.members.len());
        let flags = flags.iter().map(ToString::to_string).collect();
        let (data_dir, log) = (self.root().join(&name), self.root().join(format!("{name}.log")));
        let (client_port, peer_port) = (ports::free(), ports::free());
        let (host, setup) = ("127.0.0.1".to_string(), None);
        let (environment, prefix, process) = (Vec::new(), Vec::new(), None);
        let program = rusd();
        let member = Member { program, name, data_dir, host, client_port, peer_port, flags, environment, prefix, setup, process, log };
        self.members.push(member);
        self.members.len() - 1
    }

    /// `m0=URL,m1=URL` of all members.
    pub fn peers(&self) -> String {
        self.members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect::<Vec<_>>().join(",")
    }

    /// Where data dirs and logs lie.
    pub fn root(&self) -> &Path {
        self.directory.as_ref().expect("present until dropped").path()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Client URLs.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::client_url).collect()
    }

    /// How a member is started.
    pub fn command(&self, member: usize) -> Command {
        let it = &self.members[member];
        let mut command = match it.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&it.program);
                command
            }
            None => Command::new(&it.program),
        };
        command
            .args([format!("--name={}", it.name), format!("--data-dir={}", it.data_dir.display())])
            .args([format!("--listen-client-urls={}", it.client_url()), format!("--advertise-client-urls={}", it.client_url())])
            .args([format!("--listen-peer-urls={}", it.peer_url()), format!("--initial-advertise-peer-urls={}", it.peer_url())])
            .arg(format!("--initial-cluster={}", self.initial_cluster))
            .args(&it.flags)
            .envs(it.environment.iter().cloned());
        if let Some(setup) = &it.setup {
            setup(&mut command);
        }
        command
    }

    /// Starts a member that is down, and doesn't wait.
    pub fn start(&mut self, member: usize) {
        let command = self.command(member);
        let it = &mut self.members[member];
        let running = it.process.as_mut().is_some_and(|process| process.ended().is_none());
        assert!(!running, "{} is already running", it.name);
        it.process = Some(Process::spawn(command, &it.log));
    }

    /// Starts all, and doesn't wait.
    pub fn start_all(&mut self) {
        (0..self.len()).for_each(|member| self.start(member));
    }

    /// Until it has logged [`READY`]; panics if its process ends.
    pub async fn wait_ready(&mut self, member: usize) {
        self.members[member].process().wait_line(READY).await;
    }

    /// Until it has logged [`READY`] (true) or has ended.
    pub async fn begins_or_ends(&mut self, member: usize) -> bool {
        let process = self.members[member].process();
        let deadline = std::time::Instant::now() + super::PATIENCE;
        loop {
            if process.line(READY).is_some() {
                return true;
            }
            if process.ended().is_some() {
                return false;
            }
            assert!(std::time::Instant::now() < deadline, "neither ready nor ended:\n{}", super::process::tail(&process.log()));
            tokio::time::sleep(super::POLL).await;
        }
    }

    /// Until all that run are ready.
    pub async fn wait_all(&mut self) {
        for member in 0..self.len() {
            if self.members[member].process.is_some() {
                self.wait_ready(member).await;
            }
        }
    }

    /// `kill -9`, reaped.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// SIGSTOP.
    pub fn stop(&mut self, member: usize) {
        self.signal(member, libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self, member: usize) {
        self.signal(member, libc::SIGCONT);
    }

    fn signal(&mut self, member: usize, signal: i32) {
        if let Some(process) = &mut self.members[member].process {
            process.signal(signal);
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self, member: usize) -> ExitStatus {
        let process = self.members[member].process();
        process.signal(libc::SIGTERM);
        let status = process.wait().await;
        self.members[member].process = None;
        status
    }

    /// What a member has logged since it was last started; all it ever logged if it is down.
    pub fn log(&self, member: usize) -> String {
        let it = &self.members[member];
        it.process.as_ref().map_or_else(|| std::fs::read_to_string(&it.log).unwrap_or_default(), Process::log)
    }

    /// A client of this member alone.
    pub fn client(&self, member: usize) -> Client {
        Client::new(&self.members[member].client_url())
    }

    /// The real `etcdctl`, with all members as endpoints.
    pub fn etcdctl(&self, arguments: &[&str]) -> Ended {
        etcdctl(&self.endpoints(), arguments)
    }

    /// Which member says of itself that it leads, if one does.
    pub async fn leader(&self) -> Option<usize> {
        for member in 0..self.len() {
            let status = self.client(member).status().await;
            if status.is_ok_and(|status| status.header.is_some_and(|header| header.member_id == status.leader)) {
                return Some(member);
            }
        }
        None
    }

    /// Waits until one leads.
    pub async fn wait_leader(&self) -> usize {
        eventually("a leader", || self.leader()).await
    }

    /// Keeps directory and logs for a human; answers where they are.
    pub fn keep(&mut self) -> PathBuf {
        let directory = self.directory.as_mut().expect("present until dropped");
        directory.disable_cleanup(true);
        directory.path().into()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Processes first: what they still write must not bring the directory back.
        self.members.iter_mut().for_each(|member| member.process = None);
        if std::thread::panicking() && self.directory.is_some() {
            eprintln!("data and logs are kept in {}", self.keep().display());
        }
    }
}
