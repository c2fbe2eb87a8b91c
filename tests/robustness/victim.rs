//! The member that all this happens to, and the proof that it goes on.

use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::{eventually, process};

/// However bad the input, a member of next to no data needs no more than this on top of what it had.
const GROWTH_MIB_MAX: u64 = 300;

/// A cluster of one.
pub struct Victim {
    pub cluster: Cluster,
    before_bytes: u64,
    growth_mib_max: u64,
    puts: u32,
}

impl Victim {
    pub async fn new(flags: &[&str]) -> Self {
        let mut cluster = Cluster::running(1, flags).await;
        let before_bytes = cluster.members[0].process().resident_bytes();
        let mut victim = Self { cluster, before_bytes, growth_mib_max: GROWTH_MIB_MAX, puts: 0 };
        victim.check("its start").await;
        victim
    }

    /// What it holds now is its own: from here on only what comes on top counts, up to so many MiB.
    pub fn settle(&mut self, growth_mib_max: u64) {
        self.before_bytes = self.cluster.members[0].process().resident_bytes();
        self.growth_mib_max = growth_mib_max;
    }

    pub fn url(&self) -> String {
        self.cluster.members[0].client_url()
    }

    pub fn client_port(&self) -> u16 {
        self.cluster.members[0].client_port
    }

    pub fn peer_port(&self) -> u16 {
        self.cluster.members[0].peer_port
    }

    pub fn both_ports(&self) -> [u16; 2] {
        [self.client_port(), self.peer_port()]
    }

    /// Others are served on both ports, the process is the same, nothing panicked, and it hasn't grown without bound.
    pub async fn check(&mut self, after: &str) {
        self.puts += 1;
        let (key, value) = ("bystander", self.puts.to_string());
        // A client of its own each time: new connections must be accepted, too.
        let client = Client::patient(&self.url());
        client.put(key, value.clone()).await.unwrap_or_else(|status| panic!("no put after {after}: {status}"));
        let read = client.get(key).await.unwrap_or_else(|status| panic!("no read after {after}: {status}"));
        assert_eq!(read, Some(value.into_bytes()), "after {after}");
        for (port, path) in [(self.client_port(), "/health"), (self.peer_port(), "/version")] {
            let text = eventually("an answer over HTTP/1.1", || get(port, path)).await;
            assert!(text.starts_with("HTTP/1.1 200"), "{path} after {after}: {text}");
        }
        let process = self.cluster.members[0].process();
        assert_eq!(process.ended(), None, "after {after}");
        let log = process.log();
        assert!(!log.contains("panicked at"), "after {after}:\n{}", process::tail(&log));
        let grown = process.resident_bytes().saturating_sub(self.before_bytes);
        println!("after {after}: {} MiB more, {} files", grown >> 20, process.open_files());
        assert!(grown >> 20 < self.growth_mib_max, "{} MiB more after {after}", grown >> 20);
    }
}

async fn get(port: u16, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}
