//! What strangers and broken peers send to the peer port: it is refused and logged, and the member goes on as it was.

use crate::harness::client::channel;
use crate::harness::cluster::Cluster;
use crate::harness::{PATIENCE, eventually};
use crate::operator::{QUICK, id_of, insist, insist_added, insist_removed, leadership, newcomer, wait_equal};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use prost::Message as _;
use rusd::pb::etcdserverpb::HashKvRequest;
use rusd_network::pb::raft_internal_client::RaftInternalClient;
use rusd_network::pb::snapshot_part::Part;
use rusd_network::pb::{
    AppendRequest, Entry, ForwardRequest, ForwardedProposal, PingRequest, Refusal, SnapshotChunk, SnapshotEnd, SnapshotHead, SnapshotPart,
    SnapshotPosition, SnapshotProgressRequest, Vote, VoteRequest,
};
use rusd_network::{Caller, caller};
use rusd_storage::command::state::{LogPosition, Membership, Node, StoredMembership, Voters};
use rusd_storage::command::{Proposal, Put, proposal};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The member that is called; the calls come in the name of another one.
const VICTIM: usize = 0;

/// Every call's answer to one message by one caller.
pub struct Mouth {
    client: RaftInternalClient<Channel>,
    pub caller: Caller,
}

impl Mouth {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(caller::KEY, self.caller.to_value());
        request
    }

    fn as_if(&self, caller: Caller) -> Self {
        Self { client: self.client.clone(), caller }
    }

    async fn ping(&self) -> Result<(), Status> {
        self.client.clone().ping(self.request(PingRequest {})).await.map(drop)
    }

    async fn vote(&self, message: VoteRequest) -> Result<(), Status> {
        self.client.clone().request_vote(self.request(message)).await.map(drop)
    }

    async fn heartbeat(&self, message: AppendRequest) -> Result<(), Status> {
        self.client.clone().heartbeat(self.request(message)).await.map(drop)
    }

    /// Whether any message of the stream was answered.
    async fn append(&self, message: AppendRequest) -> Result<bool, Status> {
        let request = self.request(stream::iter([message]));
        let mut answers = self.client.clone().append_entries(request).await?.into_inner();
        Ok(answers.message().await?.is_some())
    }

    pub async fn snapshot(&self, parts: Vec<Option<Part>>) -> Result<(), Status> {
        self.snapshot_stream(stream::iter(parts)).await
    }

    /// Parts as they come.
    pub async fn snapshot_stream(&self, parts: impl Stream<Item = Option<Part>> + Send + 'static) -> Result<(), Status> {
        let parts = parts.map(|part| SnapshotPart { part });
        self.client.clone().install_snapshot(self.request(parts)).await.map(drop)
    }

    /// What is left of a transfer that broke.
    pub async fn progress(&self, vote: Vote) -> Result<Option<SnapshotPosition>, Status> {
        let request = self.request(SnapshotProgressRequest { vote: Some(vote) });
        Ok(self.client.clone().snapshot_progress(request).await?.into_inner().held)
    }
}

/// A put that counts in `term` alone, forwarded to the leader: how it was refused.
async fn forward(mouth: &Mouth, term: u64) -> Option<Refusal> {
    let put = Put { key: "forwarded".into(), value: "v".into(), ..Put::default() };
    let proposal = Proposal { origin: 1, sequence: 1, term, command: Some(proposal::Command::Put(put)), ..Proposal::default() };
    let proposals = vec![ForwardedProposal { sequence: 1, proposal: proposal.encode_to_vec().into(), term }];
    let request = mouth.request(stream::iter([ForwardRequest { proposals }]));
    let mut answers = mouth.client.clone().forward(request).await.expect("a stream").into_inner();
    let answer = answers.message().await.expect("no failure")?;
    Some(answer.refusals[0].refusal())
}

/// A leader that was deposed, or elected again, appends no write meant for another term: there it would count for nothing, and its proposer
/// would wait in vain. Refused, it is made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_write_of_another_term_goes_back() {
    let (mut cluster, revision, before) = running().await;
    let mouth_to = |cluster: &Cluster, leader: usize| {
        let client = RaftInternalClient::new(channel(&cluster.members[leader].peer_url(), PATIENCE));
        Mouth { client, caller: identity(cluster, (leader + 1) % 3) }
    };
    let (leader, term) = leadership(&cluster).await;
    for other in [0, term - 1, term + 1] {
        assert_eq!(forward(&mouth_to(&cluster, leader), other).await, Some(Refusal::NotLeader), "term {other} of {term}");
    }
    unharmed(&mut cluster, revision, &before).await;
    loop {
        let (leader, term) = leadership(&cluster).await;
        let refused = forward(&mouth_to(&cluster, leader), term).await;
        let read = cluster.client(leader).get("forwarded").await.expect("it reads");
        if refused.is_none() && read.as_deref() == Some(b"v") {
            return;
        }
        // Only who was deposed in between may refuse it, or lose it.
        assert_ne!(leadership(&cluster).await, (leader, term), "its own term is taken: {refused:?}, {read:?}");
    }
}

/// Member id, cluster id and data dir id, as the member has stored them.
fn identity(cluster: &Cluster, member: usize) -> Caller {
    let text = std::fs::read(cluster.members[member].data_dir.join("member/identity.json")).expect("it has one");
    let stored: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let number = |name: &str| stored["identity"][name].as_u64().unwrap_or_else(|| panic!("{name} in {stored}"));
    Caller::new(number("cluster_id"), number("member_id"), number("data_dir_id"))
}

pub fn peer(cluster: &Cluster) -> Mouth {
    let client = RaftInternalClient::new(channel(&cluster.members[VICTIM].peer_url(), PATIENCE));
    Mouth { client, caller: identity(cluster, 1) }
}

/// HashKV of every member at one revision, once it has reached it.
async fn hashes(cluster: &Cluster, revision: i64) -> Vec<u32> {
    let mut hashes = Vec::new();
    for member in 0..cluster.len().min(3) {
        let client = cluster.client(member);
        let hash = || async { client.maintenance.clone().hash_kv(HashKvRequest { revision }).await };
        hashes.push(insist("a hash", hash).await.into_inner().hash);
    }
    hashes
}

/// A cluster of three with some history; its revision and its hashes.
pub async fn running() -> (Cluster, i64, Vec<u32>) {
    let cluster = Cluster::running(3, &QUICK).await;
    let mut revision = 0;
    for number in 0..20 {
        let client = cluster.client(VICTIM);
        revision = insist("a put", || async { client.put(format!("k{number}"), "v").await }).await;
    }
    wait_equal(&cluster, &[0, 1, 2]).await;
    let before = hashes(&cluster, revision).await;
    (cluster, revision, before)
}

/// The same process with the same history, which serves on, and a term that no refused message has raised.
pub async fn unharmed(cluster: &mut Cluster, revision: i64, before: &[u32]) {
    assert_eq!(hashes(cluster, revision).await, before);
    let client = cluster.client(VICTIM);
    let status = client.status().await.expect("a status");
    assert_eq!(status.header.expect("a header").revision, revision, "nothing was applied");
    assert!(status.raft_term < FALSE_TERM, "term {}", status.raft_term);
    insist("a put", || async { client.put("after", "v").await }).await;
    wait_equal(cluster, &[0, 1, 2]).await;
    let process = cluster.members[VICTIM].process();
    assert_eq!(process.ended(), None);
    assert!(!process.log().contains("panicked at"), "{}", process.log());
}

/// Far beyond what the cluster reaches by itself.
pub const FALSE_TERM: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let (mut cluster, revision, before) = running().await;
    let joining = newcomer(&mut cluster, &QUICK);
    let removed = insist_added(&cluster, VICTIM, joining, true).await;
    insist_removed(&cluster, VICTIM, removed).await;
    let honest = peer(&cluster);
    honest.ping().await.expect("a member is welcome");
    let me = honest.caller;
    let victim = id_of(&cluster, VICTIM, VICTIM).await;
    let cases = [
        ("OtherCluster", "etcdserver: cluster ID mismatch", Caller { cluster_id: 1, member_id: 0xa1, ..me }),
        ("OtherVersion", "no peer protocol version in common", Caller { version: 9, oldest_version: 8, member_id: 0xa2, ..me }),
        ("Stranger", "not a member of this cluster", Caller { member_id: 0xa3, ..me }),
        ("WrongTarget", "the call was meant for another member", Caller { member_id: 0xa4, target_id: victim ^ 1, ..me }),
        ("Removed", "the member has been permanently removed from the cluster", Caller { member_id: removed, ..me }),
        ("Wiped", "this member's data dir is not the one it joined with", Caller { data_dir_id: me.data_dir_id ^ 1, ..me }),
    ];
    for (verdict, sentence, caller) in cases {
        let mouth = honest.as_if(caller);
        let answers = [
            mouth.ping().await,
            mouth.vote(VoteRequest { vote: Some(false_vote(&me)), last: Some(position(u64::MAX - 1)), leadership_transfer: true }).await,
            mouth.heartbeat(append(&me, vec![])).await,
            mouth.append(append(&me, vec![])).await.map(drop),
            mouth.snapshot(vec![Some(Part::Head(head(&me)))]).await,
            mouth.progress(false_vote(&me)).await.map(drop),
        ];
        for answer in answers {
            let status = answer.expect_err(verdict);
            assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, sentence), "{verdict}");
        }
        let (field, id) = (format!("\"verdict\":\"{verdict}\""), format!("\"peer\":\"{:x}\"", caller.member_id));
        let told = |log: String| log.lines().any(|line| line.contains(&field) && line.contains(&id)).then_some(());
        eventually(&format!("a line about {verdict}"), || async { told(cluster.log(VICTIM)) }).await;
    }
    let status = honest.client.clone().ping(PingRequest {}).await.expect_err("it doesn't say who it is");
    assert_eq!(status.code(), Code::Unauthenticated);
    eventually("a line", || async { cluster.log(VICTIM).contains("does not say which peer").then_some(()) }).await;
    unharmed(&mut cluster, revision, &before).await;
}

fn position(index: u64) -> LogPosition {
    LogPosition { term: FALSE_TERM, index }
}

pub fn false_vote(from: &Caller) -> Vote {
    Vote { term: FALSE_TERM, voted_for: from.member_id, committed: true }
}

fn append(from: &Caller, entries: Vec<Entry>) -> AppendRequest {
    AppendRequest { vote: Some(false_vote(from)), previous: Some(position(5)), entries, committed: None }
}

fn entry(at: LogPosition) -> Entry {
    Entry { position: Some(at), command: Some(Bytes::from_static(b"x")), membership: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_appends_are_refused() {
    let (mut cluster, revision, before) = running().await;
    let mouth = peer(&cluster);
    let me = mouth.caller;
    let inconsistent = Membership { configs: vec![Voters { ids: vec![7] }], nodes: vec![] };
    let newer = LogPosition { term: FALSE_TERM + 1, index: 6 };
    let older = LogPosition { term: 1, index: 6 };
    let cases = [
        ("no vote", AppendRequest { vote: None, ..append(&me, vec![]) }),
        ("an entry without position", append(&me, vec![Entry { position: None, ..entry(older) }])),
        ("entries don't follow one another", append(&me, vec![entry(position(9))])),
        ("entries don't follow one another", append(&me, vec![entry(position(6)), entry(position(6))])),
        ("entries don't follow one another", append(&me, vec![entry(older)])),
        ("entries don't follow one another", AppendRequest { previous: Some(position(u64::MAX)), ..append(&me, vec![entry(position(0))]) }),
        ("an entry is newer than its leader", append(&me, vec![entry(newer)])),
        ("an inconsistent membership", append(&me, vec![Entry { membership: Some(inconsistent), ..entry(position(6)) }])),
    ];
    for (why, message) in cases {
        let status = mouth.heartbeat(message.clone()).await.expect_err(why);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, format!("malformed peer message: {why}").as_str()));
        assert!(!mouth.append(message).await.unwrap_or(false), "{why}: a stream of it was answered");
        let line = format!("ended an append stream: malformed peer message: {why}");
        eventually(&line, || async { cluster.log(VICTIM).contains(&line).then_some(()) }).await;
    }
    eventually("a line", || async { cluster.log(VICTIM).contains("refused a heartbeat: malformed").then_some(()) }).await;
    let status = mouth.vote(VoteRequest::default()).await.expect_err("no vote");
    assert_eq!(status.code(), Code::InvalidArgument);
    unharmed(&mut cluster, revision, &before).await;
}

pub fn head(from: &Caller) -> SnapshotHead {
    let (ids, id) = (vec![from.member_id], from.member_id);
    let membership = Membership { configs: vec![Voters { ids }], nodes: vec![Node { id, peer_urls: vec![] }] };
    let membership = StoredMembership { log_position: Some(position(1)), membership: Some(membership) };
    SnapshotHead { vote: Some(false_vote(from)), last: Some(position(1000)), membership: Some(membership), ..Default::default() }
}

/// A chunk whose own checksum is right.
pub fn chunk(data: Vec<u8>) -> Option<Part> {
    Some(Part::Chunk(SnapshotChunk { crc32c: crc32c(&data), data: data.into() }))
}

/// CRC-32C (RFC 3720, reflected polynomial 0x82f63b78).
pub fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !data.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// Kind 1: a position, the checksum of an image, and the image.
pub fn image(bytes: &[u8], checksum: u32) -> Vec<u8> {
    [&[1][..], &FALSE_TERM.to_le_bytes(), &1000_u64.to_le_bytes(), &checksum.to_le_bytes(), bytes].concat()
}

fn end(chunks: u64, bytes: usize) -> Option<Part> {
    Some(Part::End(SnapshotEnd { chunks, bytes: bytes as u64 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_snapshots_are_refused() {
    let (mut cluster, revision, before) = running().await;
    let mouth = peer(&cluster);
    let me = mouth.caller;
    let begin = || Some(Part::Head(head(&me)));
    let damaged = Some(Part::Chunk(SnapshotChunk { data: Bytes::from_static(b"abc"), crc32c: 1 }));
    let empty = image(b"", crc32c(b""));
    let (nonsense, size) = (image(b"\xff\xff\xff", crc32c(b"\xff\xff\xff")), empty.len());
    let cases = [
        (Code::InvalidArgument, "begins with its head", vec![]),
        (Code::InvalidArgument, "begins with its head", vec![end(0, 0)]),
        (Code::InvalidArgument, "no vote", vec![Some(Part::Head(SnapshotHead { vote: None, ..head(&me) }))]),
        (Code::ResourceExhausted, "make room", vec![Some(Part::Head(SnapshotHead { bytes: u64::MAX, ..head(&me) }))]),
        (Code::Aborted, "ended early", vec![begin()]),
        (Code::InvalidArgument, "an unknown snapshot part", vec![begin(), None]),
        (Code::InvalidArgument, "out of order", vec![begin(), begin()]),
        (Code::InvalidArgument, "out of order", vec![begin(), end(5, 5)]),
        (Code::DataLoss, "damaged on its way", vec![begin(), damaged]),
        (Code::Internal, "order of chunks", vec![begin(), chunk(vec![])]),
        (Code::Internal, "order of chunks", vec![begin(), chunk(vec![2; 100])]),
        (Code::Internal, "image", vec![begin(), chunk(image(b"xyz", 1))]),
        (Code::Internal, "image", vec![begin(), chunk(nonsense)]),
        (Code::Internal, "frame", vec![begin(), chunk(empty.clone()), chunk(vec![2; 100])]),
        (Code::Internal, "end of the snapshot", vec![begin(), chunk(empty.clone()), chunk(vec![3; 17])]),
        (Code::Internal, "end of the snapshot", vec![begin(), end(0, 0)]),
        (Code::Internal, "end of the snapshot", vec![begin(), chunk(empty.clone()), end(1, size)]),
        (Code::Aborted, "ended early", vec![begin(), chunk(empty)]),
    ];
    for (code, why, parts) in cases {
        let status = mouth.snapshot(parts).await.expect_err(why);
        assert!(status.code() == code && status.message().contains(why), "{why}: {status}");
    }
    eventually("a line", || async { cluster.log(VICTIM).contains("refused a snapshot: ").then_some(()) }).await;
    unharmed(&mut cluster, revision, &before).await;
}
