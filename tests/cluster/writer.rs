//! A client that writes all the time, and knows what was acknowledged and how long it ever had to wait.

use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// What it saw.
#[derive(Debug, Default)]
pub struct Written {
    /// Numbers whose write was acknowledged.
    pub acknowledged: Vec<u64>,
    /// Writes that no endpoint would take, with the last error.
    pub failed: Vec<(u64, String)>,
    /// The longest time between two acknowledgements.
    pub gap: Duration,
}

/// A running writer.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

impl Writer {
    /// Writes `w/N` = N, one after the other. Like an etcd client it goes to the next endpoint when one is Unavailable.
    pub fn start(cluster: &Cluster) -> Self {
        let clients: Vec<Client> = cluster.endpoints().iter().map(|url| Client::new(url)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(clients, stop.clone()));
        Self { stop, task }
    }

    /// Ends it.
    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer doesn't panic")
    }
}

async fn write(clients: Vec<Client>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let (mut at, mut last) = (0, Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut error = String::new();
        let mut done = false;
        for _ in 0..clients.len() * 20 {
            match clients[at % clients.len()].put(format!("w/{number:08}"), number.to_string()).await {
                Ok(_) => {
                    done = true;
                    break;
                }
                Err(status) => error = status.to_string(),
            }
            at += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if done {
            written.gap = written.gap.max(last.elapsed());
            last = Instant::now();
            written.acknowledged.push(number);
        } else {
            written.failed.push((number, error));
        }
    }
    written
}

impl Written {
    /// Whether a member has all that was acknowledged; panics with what is missing.
    pub async fn must_be_at(&self, client: &Client) {
        for number in &self.acknowledged {
            let value = client.read(format!("w/{number:08}"), true).await.expect("it reads");
            assert_eq!(value.as_deref(), Some(number.to_string().as_bytes()), "acknowledged write {number}");
        }
    }
}
