//! An operator's hands: members as MemberList tells them, and the steps of a change.

use crate::harness::client::{Client, etcdctl};
use crate::harness::cluster::Cluster;
use crate::harness::process::Ended;
use crate::harness::{PATIENCE, eventually};
use rusd::pb::etcdserverpb as pb;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tonic::{Code, Status};

/// Quick elections; changes aren't held up by the five seconds that a link must have been up.
pub const QUICK: [&str; 3] = ["--heartbeat-interval=50", "--election-timeout=500", "--strict-reconfig-check=false"];

/// The same, but nobody stands for election while a leader lives, however busy the machine is.
pub const CALM: [&str; 3] = ["--heartbeat-interval=50", "--election-timeout=5000", "--strict-reconfig-check=false"];

/// The members as one member knows them.
pub async fn members(client: &Client) -> Result<Vec<pb::Member>, Status> {
    let request = pb::MemberListRequest { linearizable: false };
    Ok(client.cluster.clone().member_list(request).await?.into_inner().members)
}

/// The id of the member at this place, as a member that runs knows it.
pub async fn id_of(cluster: &Cluster, asked: usize, member: usize) -> u64 {
    let url = cluster.members[member].peer_url();
    eventually("the member's id", || async {
        let members = members(&cluster.client(asked)).await.ok()?;
        members.into_iter().find(|known| known.peer_ur_ls.contains(&url)).map(|known| known.id)
    })
    .await
}

/// Who leads, and in which term.
pub async fn leadership(cluster: &Cluster) -> (usize, u64) {
    eventually("a leader", || async {
        let leader = cluster.leader().await?;
        let status = cluster.client(leader).status().await.ok()?;
        (status.leader == status.header?.member_id).then_some((leader, status.raft_term))
    })
    .await
}

/// Adds a member through another one; answers its id. The process isn't started.
pub async fn add(cluster: &Cluster, asked: usize, member: usize, learner: bool) -> Result<u64, Status> {
    add_at(cluster, asked, &cluster.members[member].peer_url(), learner).await
}

async fn add_at(cluster: &Cluster, asked: usize, url: &str, learner: bool) -> Result<u64, Status> {
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_string()], is_learner: learner };
    let client = Client::patient(&cluster.members[asked].client_url());
    let answer = client.cluster.clone().member_add(request).await?.into_inner();
    Ok(answer.member.expect("the added member").id)
}

/// Removes a member through another one.
pub async fn remove(cluster: &Cluster, asked: usize, id: u64) -> Result<(), Status> {
    let client = Client::patient(&cluster.members[asked].client_url());
    client.cluster.clone().member_remove(pb::MemberRemoveRequest { id }).await.map(drop)
}

/// Promotes a learner.
pub async fn promote(cluster: &Cluster, asked: usize, id: u64) -> Result<(), Status> {
    let client = Client::patient(&cluster.members[asked].client_url());
    client.cluster.clone().member_promote(pb::MemberPromoteRequest { id }).await.map(drop)
}

/// One more member, known to the harness only: ports and a data dir, and flags to join with.
pub fn newcomer(cluster: &mut Cluster, flags: &[&str]) -> usize {
    cluster.add(&[flags, &["--initial-cluster-state=existing"]].concat())
}

/// Starts a member that was added; `others` are those in the cluster with it.
pub fn start_joining(cluster: &mut Cluster, member: usize, others: &[usize]) {
    let named = |at: &usize| format!("{}={}", cluster.members[*at].name, cluster.members[*at].peer_url());
    cluster.initial_cluster = others.iter().chain([&member]).map(named).collect::<Vec<_>>().join(",");
    cluster.start(member);
}

/// Adds a voter, starts it and waits until it votes.
pub async fn grow(cluster: &mut Cluster, asked: usize, flags: &[&str], others: &[usize]) -> usize {
    let member = newcomer(cluster, flags);
    let id = add(cluster, asked, member, false).await.expect("added");
    start_joining(cluster, member, others);
    cluster.wait_ready(member).await;
    wait_votes(cluster, asked, id).await;
    member
}

/// Until the member with this id votes: what openraft says, not what clients are told.
pub async fn wait_votes(cluster: &Cluster, asked: usize, id: u64) {
    let url = cluster.members[asked].client_url();
    eventually("a vote for the new member", || async {
        // A pending voter is no target: only who votes can be handed leadership.
        let vars = http(&url, "/debug/vars").await?;
        let voters = vars["raft.status"]["voters"].as_array()?.clone();
        voters.contains(&format!("{id:x}").into()).then_some(())
    })
    .await;
}

/// A JSON page of a member.
pub async fn http(url: &str, path: &str) -> Option<serde_json::Value> {
    use http_body_util::{BodyExt, Empty};
    let address = url.strip_prefix("http://")?;
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path).header("Host", address).body(Empty::<bytes::Bytes>::new()).ok()?;
    let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
    connection.abort();
    serde_json::from_slice(&body).ok()
}

/// `etcdctl` against some members only.
pub fn ctl(cluster: &Cluster, members: &[usize], arguments: &[&str]) -> Ended {
    let endpoints: Vec<String> = members.iter().map(|member| cluster.members[*member].client_url()).collect();
    etcdctl(&endpoints, arguments)
}

/// The error that an etcdctl that failed tells.
pub fn error_of(ended: &Ended) -> String {
    ended.stderr.lines().filter_map(|line| line.strip_prefix("Error: ")).next_back().unwrap_or_default().to_string()
}

/// Repeats a call until it succeeds.
pub async fn insist<T, F: Future<Output = Result<T, Status>>>(what: &str, mut call: impl FnMut() -> F) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(status) => assert!(std::time::Instant::now() < deadline, "{what}: {status}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Adds a member, with patience; answers its id.
pub async fn insist_added(cluster: &Cluster, asked: usize, member: usize, learner: bool) -> u64 {
    insist_added_at(cluster, asked, &cluster.members[member].peer_url(), learner).await
}

/// The same for any URL. A call that failed may have added it: then it is refused when it is repeated, and the list tells the id.
pub async fn insist_added_at(cluster: &Cluster, asked: usize, url: &str, learner: bool) -> u64 {
    let unsure = AtomicBool::new(false);
    insist("added", || async {
        let status = match add_at(cluster, asked, url, learner).await {
            Err(status) => status,
            added => return added,
        };
        if status.message() != "etcdserver: Peer URLs already exists" {
            unsure.store(true, Ordering::Relaxed);
        } else if unsure.load(Ordering::Relaxed) {
            let known = members(&cluster.client(asked)).await?;
            if let Some(member) = known.into_iter().find(|known| known.peer_ur_ls == [url]) {
                return Ok(member.id);
            }
        }
        Err(status)
    })
    .await
}

/// Removes a member, with patience. A call that failed may have removed it: then there is nobody to remove when it is repeated.
pub async fn insist_removed(cluster: &Cluster, asked: usize, id: u64) {
    let unsure = AtomicBool::new(false);
    insist("removed", || async {
        match remove(cluster, asked, id).await {
            Err(status) if status.code() != Code::NotFound => {
                unsure.store(true, Ordering::Relaxed);
                Err(status)
            }
            Err(_) if unsure.load(Ordering::Relaxed) => Ok(()),
            answer => answer,
        }
    })
    .await;
}

/// Until these members have the same members, and the same hash of all keys at a revision that one of them had when this began; somebody may
/// be writing meanwhile.
pub async fn wait_equal(cluster: &Cluster, which: &[usize]) {
    // Of whoever was ahead when this began; 0 = to be asked.
    let reached = AtomicI64::new(0);
    eventually("equal members", || async {
        let clients: Vec<Client> = which.iter().map(|member| cluster.client(*member)).collect();
        if reached.load(Ordering::Relaxed) == 0 {
            let mut ahead = 0;
            for client in &clients {
                ahead = client.status().await.ok()?.header?.revision.max(ahead);
            }
            reached.store(ahead, Ordering::Relaxed);
        }
        let revision = reached.load(Ordering::Relaxed);
        let mut seen = Vec::new();
        for client in &clients {
            let hash = match client.maintenance.clone().hash_kv(pb::HashKvRequest { revision }).await {
                Ok(answer) => answer.into_inner().hash,
                Err(status) => {
                    if status.message().contains("compacted") {
                        reached.store(0, Ordering::Relaxed);
                    }
                    return None;
                }
            };
            seen.push((members(client).await.ok()?, hash));
        }
        seen.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}
