//! Real processes for tests, and what talks to them.
//!
//! ```text
//! Cluster    members of one cluster: start, kill -9, stop, resume, terminate; logs, leader, endpoints     (cluster)
//! Process    one child with its log file; killed when dropped, also when the test panics                  (process)
//! Client     every etcd service over one channel, from the crate's own stubs                              (client)
//! ports      numbers that nobody else takes, neither other tests nor the system                           (ports)
//! ```
//!
//! A file `tests/x.rs` takes it in with `mod harness;`, a folder `tests/x/main.rs` with `#[path = "../harness/mod.rs"] mod harness;`.
//! Everything waits for conditions; [`PATIENCE`] is only there so that a broken server doesn't hang the run. A test that panics leaves
//! its directory behind and prints where, with the end of every log. `RUSD_BIN` names another server than the one cargo built.
#![allow(dead_code)] // Every test takes its own part of it.

pub mod client;
pub mod cluster;
pub mod ports;
pub mod process;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After this long a condition counts as never met. Generous: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The server under test.
pub fn rusd() -> PathBuf {
    std::env::var_os("RUSD_BIN").map_or_else(|| env!("CARGO_BIN_EXE_rusd").into(), PathBuf::from)
}

/// One of the real tools (`etcd`, `etcdctl`, `etcdutl`, `grpcurl`); panics if `tools/build.sh` hasn't built it.
pub fn tool(name: &str) -> PathBuf {
    find_tool(name).unwrap_or_else(|| panic!("tools/bin/{name} is missing; `tools/build.sh {name}` builds it"))
}

/// The same, or `None`.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tools/bin").join(name);
    path.exists().then_some(path)
}

/// Asks until there is an answer; panics with `what` after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout_at(deadline.into(), ask()).await {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?} still not: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Says that something wasn't tested, so that nobody takes the green for it.
pub fn skipped(what: &str, why: &str) {
    eprintln!("\n#### SKIPPED: {what}: {why} ####\n");
}
