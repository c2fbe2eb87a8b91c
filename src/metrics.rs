//! What Prometheus sees, under etcd's names (contract c.3).
//!
//! Counters are bumped where things happen; whatever the member knows anyway (sizes, Raft indexes) is read when somebody scrapes.

mod member;
mod network;
mod page;
mod process;
mod requests;
mod state;

use crate::pb;
use crate::server::Server;
use crate::server::leases::Leases;
use crate::watch::Hub;
use page::Page;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use prost::Message as _;
use requests::Clients;
use rusd_storage::measure::{Counter, Inflight};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Code;

/// Codes by their number, as grpc-go's interceptor names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many requests, one response.
    ClientStream,
    /// Many and many.
    BidiStream,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Counters of one gRPC method, found once per request by its path.
#[derive(Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    /// How it is called.
    pub kind: Kind,
    /// Calls begun.
    pub started: IntCounter,
    /// Calls ended, by code.
    handled: Vec<IntCounter>,
    /// Messages from clients.
    pub received: IntCounter,
    /// Messages to clients.
    pub sent: IntCounter,
}

impl Method {
    /// Counts a call that ended with `code`.
    pub fn handled(&self, code: Code) {
        self.handled[code as usize].inc();
    }
}

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    methods: HashMap<String, Arc<Method>>,
    /// Bytes of gRPC messages from clients.
    pub received_bytes: IntCounter,
    /// Bytes of gRPC messages to clients.
    pub sent_bytes: IntCounter,
    /// Health checks that failed.
    pub health_failures: IntCounter,
    /// Health checks that passed.
    pub health_successes: IntCounter,
    /// Requests by the version of the client.
    pub clients: Clients,
    scrapes: Scrapes,
}

/// Of the page itself.
#[derive(Debug, Default)]
struct Scrapes {
    in_flight: Inflight,
    done: Counter,
}

impl Scrapes {
    fn read(&self, page: &mut Page) {
        page.gauge("promhttp_metric_handler_requests_in_flight", "Current number of scrapes being served.", self.in_flight.get() as f64);
        page.counters("promhttp_metric_handler_requests_total", "Total number of scrapes by HTTP status code.")
            .add(&[("code", "200")], self.done.get());
    }
}

/// What is read when somebody scrapes.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The member.
    pub server: &'a Server,
    /// Its watches.
    pub hub: &'a Hub,
    /// Its clock of leases.
    pub leases: &'a Leases,
}

/// Registers as it makes: a name given twice is a mistake of ours.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("names and labels are constants");
        self.0.register(Box::new(metric.clone())).expect("each name is used once");
        metric
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }
}

impl Metrics {
    /// A fresh registry with every series at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("registered once, into a fresh registry");
        Self {
            methods: methods(&make),
            received_bytes: make
                .counter("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients."),
            sent_bytes: make.counter("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients."),
            health_failures: make.counter("etcd_server_health_failures", "The total number of failed health checks"),
            health_successes: make.counter("etcd_server_health_success", "The total number of successful health checks"),
            clients: Clients::default(),
            scrapes: Scrapes::default(),
            registry,
        }
    }

    /// The counters of the method at `path` ("/package.Service/Method").
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Whether any method belongs to this service.
    pub fn has_service(&self, service: &str) -> bool {
        self.methods
            .keys()
            .any(|path| path.strip_prefix('/').and_then(|path| path.rsplit_once('/')).is_some_and(|(known, _)| known == service))
    }

    /// The text of a scrape.
    pub fn render(&self, sources: Sources<'_>) -> Vec<u8> {
        let _in_flight = self.scrapes.in_flight.begin();
        let mut page = Page::default();
        member::read(&mut page, sources.server);
        state::read(&mut page, &sources);
        network::read(&mut page, sources.server);
        requests::read(&mut page, &sources.server.requests, &self.clients);
        self.scrapes.read(&mut page);
        let mut families = self.registry.gather();
        families.extend(page.into_families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let text = encode(&families);
        self.scrapes.done.inc();
        text
    }
}

fn encode(families: &[MetricFamily]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64 << 10);
    // Only an inconsistent family can fail.
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        tracing::warn!(%error, "metrics not encoded");
    }
    text
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Every method of every service, with all its series at zero.
fn methods(make: &Maker<'_>) -> HashMap<String, Arc<Method>> {
    let labels = ["grpc_method", "grpc_service", "grpc_type"];
    let started = make.counters("grpc_server_started_total", "Total number of RPCs started on the server.", &labels);
    let received = make.counters("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.", &labels);
    let sent = make.counters("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.", &labels);
    let labels = ["grpc_code", "grpc_method", "grpc_service", "grpc_type"];
    let handled = make.counters(
        "grpc_server_handled_total",
        "Total number of RPCs completed on the server, regardless of success or failure.",
        &labels,
    );
    let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).expect("written by build.rs");
    let mut methods = HashMap::new();
    for file in set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => Kind::Unary,
                    (false, true) => Kind::ServerStream,
                    (true, false) => Kind::ClientStream,
                    (true, true) => Kind::BidiStream,
                };
                let labels = [method.name(), name.as_str(), kind.name()];
                let path = format!("/{name}/{}", method.name());
                let counters = Method {
                    path: path.clone(),
                    kind,
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODES.iter().map(|code| handled.with_label_values(&[code, method.name(), &name, kind.name()])).collect(),
                };
                methods.insert(path, Arc::new(counters));
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_are_there_from_the_start() {
        let metrics = Metrics::new();
        assert_eq!(metrics.methods.len(), 6 + 1 + 5 + 5 + 8 + 17 + 2 + 5 + 3);
        assert_eq!(metrics.method("/etcdserverpb.Watch/Watch").expect("it is etcd's").kind, Kind::BidiStream);
        let put = metrics.method("/etcdserverpb.KV/Put").expect("it is etcd's");
        put.started.inc();
        put.handled(Code::Cancelled);
        let text = String::from_utf8(encode(&metrics.registry.gather())).expect("text");
        let want =
            r#"grpc_server_handled_total{grpc_code="Canceled",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#;
        assert!(text.contains(want), "{text}");
        assert!(text.contains(
            r#"grpc_server_started_total{grpc_method="Snapshot",grpc_service="etcdserverpb.Maintenance",grpc_type="server_stream"} 0"#
        ));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
