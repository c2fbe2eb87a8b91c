//! Real member processes of one run, ended when dropped.

use crate::workload::channel;
use rusd::pb::etcdserverpb::StatusRequest;
use rusd::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cluster of processes. `RUSD_BIN` names the server (default: the one cargo built).
pub struct Members {
    directory: Option<TempDir>,
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
    extra: Vec<String>,
}

impl Members {
    /// Starts `count` members with `extra` flags.
    pub fn start_new(count: usize, extra: &[&str]) -> Self {
        let ports = free_ports(count);
        let mut members = Self {
            directory: Some(tempfile::tempdir().expect("a temporary directory")),
            ports,
            children: (0..count).map(|_| None).collect(),
            extra: extra.iter().map(ToString::to_string).collect(),
        };
        (0..count).for_each(|member| members.start(member));
        members
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Client URLs.
    pub fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|(client, _)| format!("http://127.0.0.1:{client}")).collect()
    }

    fn root(&self) -> PathBuf {
        self.directory.as_ref().expect("present until dropped").path().to_path_buf()
    }

    fn log(&self, member: usize) -> File {
        let path = self.root().join(format!("m{member}.log"));
        OpenOptions::new().create(true).append(true).open(path).expect("a log file")
    }

    /// Starts a member that is down.
    pub fn start(&mut self, member: usize) {
        let (client, peer) = self.ports[member];
        let cluster: Vec<String> = self.ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
        let binary = std::env::var("RUSD_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rusd").to_string());
        let child = Command::new(binary)
            .args([format!("--name=m{member}"), format!("--data-dir={}", self.root().join(format!("m{member}")).display())])
            .args([format!("--listen-client-urls=http://127.0.0.1:{client}"), format!("--advertise-client-urls=http://127.0.0.1:{client}")])
            .args([format!("--listen-peer-urls=http://127.0.0.1:{peer}"), format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}")])
            .args([format!("--initial-cluster={}", cluster.join(",")), "--log-level=info".to_string()])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(self.log(member))
            .stderr(self.log(member))
            .spawn()
            .expect("the server starts");
        self.children[member] = Some(child);
    }

    fn signal(&self, member: usize, signal: &str) {
        if let Some(child) = &self.children[member] {
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        }
    }

    /// kill -9, reaped.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.children[member].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP.
    pub fn stop(&self, member: usize) {
        self.signal(member, "-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self, member: usize) {
        self.signal(member, "-CONT");
    }

    /// Which member says it leads, if one does.
    pub async fn leader(&self) -> Option<usize> {
        for (member, url) in self.endpoints().iter().enumerate() {
            let answer = MaintenanceClient::new(channel(url)).status(StatusRequest {}).await;
            if let Ok(status) = answer.map(tonic::Response::into_inner)
                && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
            {
                return Some(member);
            }
        }
        None
    }

    /// Until the member answers Status; panics after a minute, or if the process ended.
    pub async fn wait_serving(&mut self, member: usize) {
        let url = self.endpoints()[member].clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if MaintenanceClient::new(channel(&url)).status(StatusRequest {}).await.is_ok() {
                return;
            }
            let ended = self.children[member].as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                let kept = self.keep();
                panic!("member {member} does not serve ({ended:?}); logs kept in {}", kept.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keeps directory and logs for a human.
    pub fn keep(&mut self) -> PathBuf {
        match self.directory.take() {
            Some(directory) => {
                let path = directory.keep();
                self.directory = None;
                path
            }
            None => PathBuf::from("(already kept)"),
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in 0..self.children.len() {
            self.kill(member);
        }
    }
}

/// Ports that were free a moment ago: all are held until all are found.
fn free_ports(count: usize) -> Vec<(u16, u16)> {
    let listeners: Vec<TcpListener> = (0..count * 2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
    ports.chunks(2).map(|pair| (pair[0], pair[1])).collect()
}
