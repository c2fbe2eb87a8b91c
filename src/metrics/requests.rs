//! Requests of clients: how long they take, and what the clients are.

use super::page::Page;
use crate::server::requests::Requests;
use parking_lot::Mutex;
use rusd_storage::measure::{Counter, KINDS};
use std::collections::BTreeMap;

pub(super) fn read(page: &mut Page, requests: &Requests, clients: &Clients) {
    page.gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit.", requests.pending.get() as f64);
    page.counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", &requests.failed);
    let mut family = page.histograms("etcd_server_request_duration_seconds", "Response latency distribution in seconds for each type.");
    let kinds = KINDS.into_iter().zip(&requests.proposals);
    for (kind, outcomes) in kinds.chain([("Range", &requests.range), ("ReadonlyTxn", &requests.read_only_txn)]) {
        family.add_used(&[("success", "false"), ("type", kind)], &outcomes.failure);
        family.add_used(&[("success", "true"), ("type", kind)], &outcomes.success);
    }
    drop(family);
    let mut family = page.histograms("etcd_server_range_duration_seconds", "The latency distributions of txn.Range");
    family.add_used(&[("success", "false")], &requests.reading.failure);
    family.add_used(&[("success", "true")], &requests.reading.success);
    drop(family);
    page.histogram(
        "etcd_disk_backend_defrag_duration_seconds",
        "The latency distribution of backend defragmentation.",
        &requests.defragment,
    );
    page.gauge(
        "etcd_disk_defrag_inflight",
        "Whether or not defrag is active on the member. 1 means active, 0 means not.",
        f64::from(u8::from(requests.defragmenting.get() > 0)),
    );
    clients.read(page);
}

/// Versions that clients of today send; what sends none is "unknown".
const KNOWN: [&str; 6] = ["3.3", "3.4", "3.5", "3.6", "3.7", "unknown"];
/// Further versions that are told apart, and their length: anybody may send any.
const OTHERS_MAX: usize = 32;
const OTHER_BYTES_MAX: usize = 32;
/// What goes beyond.
const BEYOND: &str = "other";

/// Requests by the version that the client says it has.
#[derive(Debug, Default)]
pub struct Clients {
    known: [Counts; KNOWN.len()],
    others: Mutex<BTreeMap<String, Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    unary: Counter,
    stream: Counter,
}

impl Counts {
    fn of(&self, unary: bool) -> &Counter {
        if unary { &self.unary } else { &self.stream }
    }
}

impl Clients {
    /// A request is let in; `version` is empty if none was sent.
    pub fn count(&self, version: &str, unary: bool) {
        let version = if version.is_empty() { "unknown" } else { version };
        if let Some(at) = KNOWN.iter().position(|known| *known == version) {
            return self.known[at].of(unary).inc();
        }
        let mut others = self.others.lock();
        if let Some(counts) = others.get(version) {
            return counts.of(unary).inc();
        }
        let told = others.len() < OTHERS_MAX && version.len() <= OTHER_BYTES_MAX;
        others.entry(if told { version } else { BEYOND }.to_string()).or_default().of(unary).inc();
    }

    fn read(&self, page: &mut Page) {
        let mut family = page.counters("etcd_server_client_requests_total", "The total number of client requests per client version.");
        let others = self.others.lock();
        let known = KNOWN.into_iter().zip(&self.known);
        for (version, counts) in known.chain(others.iter().map(|(version, counts)| (version.as_str(), counts))) {
            for (kind, counter) in [("stream", &counts.stream), ("unary", &counts.unary)] {
                if counter.get() > 0 {
                    family.add(&[("client_api_version", version), ("type", kind)], counter.get());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_makes_the_page_grow_without_end() {
        let clients = Clients::default();
        for number in 0..1000 {
            clients.count(&format!("9.{number}"), true);
        }
        clients.count(&"x".repeat(10_000), false);
        let others = clients.others.lock();
        assert_eq!(others.len(), OTHERS_MAX + 1);
        assert_eq!(others[BEYOND].unary.get(), 1000 - OTHERS_MAX as u64);
        assert_eq!(others[BEYOND].stream.get(), 1);
    }
}
