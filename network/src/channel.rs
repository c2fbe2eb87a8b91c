//! Channels to peers: dialled at the advertised peer URLs only, looked up anew at each (re)connect.

use crate::dial::dial;
use crate::directory::{self, Expelled, Expulsion};
use crate::snapshot::Interrupted;
use crate::{Caller, Cork, Directory, PeerMetrics, RECEIVE_LIMIT_BYTES, Verdict, caller, pb};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use pb::raft_internal_client::RaftInternalClient;
use rusd_storage::measure::Counter;
use rusd_storage::types::LogPosition;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

/// A client of one peer.
pub type Client = RaftInternalClient<Channel>;

/// Traffic that must not wait for other traffic has a TCP connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Appends and votes.
    Append,
    /// Heartbeats and confirmations of leadership.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Forwarded proposals, read indexes and leases.
    Forward,
}

#[derive(Clone, Debug, Default)]
struct Peers {
    urls: HashMap<u64, Vec<String>>,
    /// Where members were before they were given other URLs. An operator changes URLs first and moves the member then: until it is where
    /// it should be, it is still where it was. Who answers there is asked for its id like everybody.
    before: HashMap<u64, Vec<String>>,
    blocked: std::collections::HashSet<u64>,
}

impl Peers {
    fn urls(&self, id: u64) -> Vec<String> {
        if self.blocked.contains(&id) { Vec::new() } else { self.urls.get(&id).cloned().unwrap_or_default() }
    }
}

/// Where members live. Shared by all connections; a change ends the connections it concerns.
#[derive(Debug)]
pub struct PeerTable {
    peers: RwLock<Peers>,
    changed: watch::Sender<u64>,
}

impl Default for PeerTable {
    fn default() -> Self {
        Self { peers: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl PeerTable {
    /// Takes over the addresses of `members` and forgets the removed ones. Who is neither stays: a member may be spoken to before its
    /// entry is applied here.
    pub fn update(&self, members: impl IntoIterator<Item = (u64, Vec<String>)>, is_removed: impl Fn(u64) -> bool) {
        let mut peers = self.peers.write();
        let mut urls = peers.urls.clone();
        urls.retain(|id, _| !is_removed(*id));
        for (id, new) in members {
            let old = urls.insert(id, new.clone());
            if let Some(old) = old.filter(|old| *old != new) {
                peers.before.insert(id, old);
            }
        }
        if peers.urls != urls {
            peers.before.retain(|id, _| urls.contains_key(id));
            peers.urls = urls;
            drop(peers);
            self.changed.send_modify(|generation| *generation += 1);
        }
    }
    /// Adds what the membership says, if nothing newer is known.
    pub fn add_if_missing(&self, id: u64, urls: &[String]) {
        let known = self.peers.read().urls.contains_key(&id);
        if !known && !urls.is_empty() {
            self.peers.write().urls.insert(id, urls.to_vec());
            self.changed.send_modify(|generation| *generation += 1);
        }
    }
    /// The peer URLs of a member; none if it is unknown or cut off.
    pub fn urls(&self, id: u64) -> Vec<String> {
        self.peers.read().urls(id)
    }
    /// Where the member lives, and after that where it lived before: what a connection tries.
    pub fn to_dial(&self, id: u64) -> Vec<String> {
        let peers = self.peers.read();
        let mut urls = peers.urls(id);
        if !urls.is_empty() {
            urls.extend(peers.before.get(&id).cloned().unwrap_or_default());
        }
        urls
    }
    /// All members with a known address, the cut-off ones too.
    pub fn ids(&self) -> Vec<u64> {
        self.peers.read().urls.keys().copied().collect()
    }
    /// Cuts a member off, or joins it again: neither calls to it nor calls from it get through. A switch for tests and drills.
    pub fn set_blocked(&self, id: u64, blocked: bool) {
        let mut peers = self.peers.write();
        if blocked {
            peers.blocked.insert(id)
        } else {
            peers.blocked.remove(&id)
        };
        drop(peers);
        self.changed.send_modify(|generation| *generation += 1);
    }
    /// Whether it is cut off.
    pub fn is_blocked(&self, id: u64) -> bool {
        self.peers.read().blocked.contains(&id)
    }
    /// Counts changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Times of the transport, derived from the election timeout.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For a TCP connection to come up.
    pub connect: Duration,
    /// Between HTTP/2 pings, and how long an answer may take: a half-open connection ends after both.
    pub keep_alive: Duration,
    /// A snapshot transfer or an append answer that makes no progress for so long is given up.
    pub idle: Duration,
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
}

impl Times {
    /// openraft.md section 9, 10: half an election timeout for pings.
    pub fn of(election_timeout: Duration) -> Self {
        Self {
            connect: election_timeout.max(Duration::from_millis(500)),
            keep_alive: (election_timeout / 2).max(Duration::from_millis(250)),
            idle: (election_timeout * 5).max(Duration::from_secs(5)),
            heartbeat: election_timeout / 10,
        }
    }
}

/// A client, and the URLs it was made for.
type OpenClient = (Vec<String>, Client);
/// The caller's entry, and what it was made of: the directory's generation and the membership position.
type Header = ((u64, Option<LogPosition>), MetadataValue<Ascii>);

/// What all connections of this member share.
pub struct Links {
    /// Addresses.
    pub table: Arc<PeerTable>,
    /// Who we are.
    pub directory: Arc<dyn Directory>,
    /// Set when a peer says that we are no member any more.
    pub expelled: Expelled,
    /// Transport times.
    pub times: Times,
    /// Heartbeats that came so late that this member must have been too busy for them.
    pub late_heartbeats: Counter,
    /// Snapshots being sent now, or about to be sent on: no new one should be made meanwhile, for it purges what the receiver needs next.
    pub snapshots_in_flight: Arc<AtomicUsize>,
    pub(crate) interrupted: Interrupted,
    /// Counts append streams of peers that have ended: a leader's ends with its leadership, or with its process.
    pub appends_ended: watch::Sender<u64>,
    open: Mutex<HashMap<(u64, Purpose), OpenClient>>,
    headers: Mutex<HashMap<u64, Header>>,
    metrics: RwLock<HashMap<u64, Arc<PeerMetrics>>>,
    complaints: directory::RateLimit,
}

impl Links {
    /// No connection is made before it is needed.
    pub fn new(table: Arc<PeerTable>, directory: Arc<dyn Directory>, times: Times) -> Arc<Self> {
        Arc::new(Self {
            table,
            directory,
            expelled: Expelled::default(),
            times,
            late_heartbeats: Counter::default(),
            snapshots_in_flight: Arc::default(),
            interrupted: Interrupted::default(),
            appends_ended: watch::Sender::new(0),
            open: Mutex::default(),
            headers: Mutex::default(),
            metrics: RwLock::default(),
            complaints: directory::RateLimit::default(),
        })
    }

    /// A client of the member over the channel of that purpose. Channels reconnect by themselves; one to URLs that no longer hold is
    /// replaced. Errors if no URL is known.
    pub fn client(&self, id: u64, purpose: Purpose) -> Result<Client, Unknown> {
        // Looked up under this lock, so that `drop_outdated` comes after whoever still found the old ones.
        let mut open = self.open.lock();
        let urls = self.table.to_dial(id);
        if urls.is_empty() {
            open.remove(&(id, purpose));
            return Err(Unknown(id));
        }
        if let Some((known, client)) = open.get(&(id, purpose))
            && *known == urls
        {
            return Ok(client.clone());
        }
        let client =
            connect(urls.clone(), self.times).max_decoding_message_size(RECEIVE_LIMIT_BYTES).max_encoding_message_size(RECEIVE_LIMIT_BYTES);
        open.insert((id, purpose), (urls, client.clone()));
        Ok(client)
    }

    /// Drops the channels to URLs that no longer hold. Who isn't spoken to at the moment would keep a connection to where it was.
    pub fn drop_outdated(&self) {
        self.open.lock().retain(|(id, _), (urls, _)| *urls == self.table.to_dial(*id));
    }

    /// A request that says who calls.
    pub fn request<T>(&self, target: u64, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(caller::KEY, self.header(target));
        request
    }

    fn header(&self, target: u64) -> MetadataValue<Ascii> {
        let generation = self.directory.generation();
        let me = self.directory.caller();
        let made_of = (generation, me.membership);
        let mut headers = self.headers.lock();
        match headers.get(&target) {
            Some((known, value)) if *known == made_of => value.clone(),
            _ => {
                let target_data_dir_id = self.directory.data_dir_of(target).unwrap_or(0);
                let value = Caller { target_id: target, target_data_dir_id, ..me }.to_value();
                headers.insert(target, (made_of, value.clone()));
                value
            }
        }
    }

    /// Counters of a peer.
    pub fn metrics(&self, id: u64) -> Arc<PeerMetrics> {
        if let Some(metrics) = self.metrics.read().get(&id) {
            return metrics.clone();
        }
        self.metrics.write().entry(id).or_default().clone()
    }

    /// Counters of all peers.
    pub fn all_metrics(&self) -> Vec<(u64, Arc<PeerMetrics>)> {
        self.metrics.read().iter().map(|(id, metrics)| (*id, metrics.clone())).collect()
    }

    /// Looks at a failed call: a refusal is logged, and a removal noted.
    pub fn note_failure(&self, peer: u64, status: &tonic::Status) {
        let Some(verdict) = directory::refused(status) else { return };
        match verdict {
            Verdict::Removed => self.expelled.set(Expulsion::Removed),
            Verdict::Wiped => self.expelled.set(Expulsion::Wiped),
            _ => {}
        }
        if self.complaints.allow(peer, verdict.word()) {
            tracing::warn!(peer = format!("{peer:x}"), ?verdict, "peer refuses this member: {}", status.message());
        }
    }
}

/// Whether a call failed before a byte of it was sent: there was no connection.
pub fn never_sent(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// No URL is known for this member (or it is cut off).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no peer URL known for member {0:x}")]
pub struct Unknown(pub u64);

/// A lazy channel that tries a member's URLs one after the other at every (re)connect.
pub fn connect(urls: Vec<String>, times: Times) -> Client {
    let endpoint = Endpoint::from_static("http://peer")
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(times.keep_alive)
        .keep_alive_timeout(times.keep_alive)
        .keep_alive_while_idle(true)
        .connect_timeout(times.connect);
    let urls: Arc<[String]> = urls.into();
    let connector = tower::service_fn(move |_: Uri| {
        let urls = urls.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(Cork::new(dial(&urls).await?))) }
    });
    Client::new(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_is_looked_for_where_it_was() {
        let table = PeerTable::default();
        let url = |text: &str| vec![text.to_string()];
        table.update([(1, url("http://a:1")), (2, url("http://b:1"))], |_| false);
        table.update([(1, url("http://c:1")), (2, url("http://b:1"))], |_| false);
        assert_eq!(table.urls(1), ["http://c:1"]);
        assert_eq!(table.to_dial(1), ["http://c:1", "http://a:1"]);
        assert_eq!(table.to_dial(2), ["http://b:1"]);
        table.update([(2, url("http://b:1"))], |id| id == 1);
        assert_eq!((table.to_dial(1), table.ids()), (Vec::new(), vec![2]));
    }

    #[tokio::test]
    async fn a_refused_connection_has_sent_nothing() {
        let mut client = connect(vec!["http://127.0.0.1:1".into()], Times::of(Duration::from_secs(1)));
        let status = client.ping(pb::PingRequest {}).await.expect_err("nobody listens there");
        assert!(never_sent(&status), "{status:?}");
        assert!(!never_sent(&tonic::Status::unavailable("the stream broke")));
    }
}
