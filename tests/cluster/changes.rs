//! Adding, promoting and refusing.

use crate::harness::client::Client;
use crate::harness::cluster::{Cluster, READY};
use crate::harness::process::Process;
use crate::harness::{eventually, rusd, tool};
use crate::operator::{
    self, QUICK, add, ctl, error_of, grow, id_of, insist, insist_added, insist_removed, members, newcomer, promote, remove, start_joining,
};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::Code;

/// `member add` prints the new member's environment; pasted as it is, it starts. Before that the cluster of one goes on as if nothing had
/// happened, though it shows two voters.
#[tokio::test(flavor = "multi_thread")]
async fn what_member_add_prints_starts_the_member() {
    let mut cluster = Cluster::running(1, &["--heartbeat-interval=50", "--election-timeout=500"]).await;
    let (client, peer) = (crate::harness::ports::free(), crate::harness::ports::free());
    let peer_url = format!("http://127.0.0.1:{peer}");
    let added = cluster.etcdctl(&["member", "add", "second", &format!("--peer-urls={peer_url}")]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let shown = members(&cluster.client(0)).await.expect("it lists");
    let new = shown.iter().find(|member| member.peer_ur_ls == [peer_url.clone()]).expect("it is listed");
    assert!(new.name.is_empty() && new.client_ur_ls.is_empty() && !new.is_learner, "an unstarted voter: {new:?}");
    cluster.client(0).put("alone", "yes").await.expect("the new member has no vote yet");
    let again = cluster.etcdctl(&["member", "add", "third", "--peer-urls=http://127.0.0.1:9"]);
    assert_eq!(error_of(&again), "etcdserver: re-configuration failed due to not enough started members");

    let mut command = Command::new(rusd());
    let client_url = format!("http://127.0.0.1:{client}");
    command.arg(format!("--data-dir={}", cluster.root().join("second").display()));
    command.args([format!("--listen-client-urls={client_url}"), format!("--advertise-client-urls={client_url}")]);
    command.args([format!("--listen-peer-urls={peer_url}"), "--heartbeat-interval=50".into(), "--election-timeout=500".into()]);
    for line in added.stdout.lines().filter(|line| line.starts_with("ETCD_")) {
        let (name, value) = line.split_once('=').expect("NAME=\"VALUE\"");
        command.env(name, value.trim_matches('"'));
    }
    let mut second = Process::spawn(command, &cluster.root().join("second.log"));
    second.wait_line(READY).await;
    // It serves everything from now on, with its vote or without.
    let client = Client::new(&client_url);
    assert_eq!(client.get("alone").await.expect("it reads at once"), Some(b"yes".to_vec()));
    client.put("by", "second").await.expect("it writes at once");
    operator::wait_votes(&cluster, 0, new.id).await;
    assert_eq!(client.get("alone").await.expect("it reads"), Some(b"yes".to_vec()));
    let shown = members(&client).await.expect("it lists");
    assert!(shown.iter().any(|member| member.name == "second" && member.client_ur_ls == [client_url.clone()]), "{shown:?}");
    // Now both votes count.
    cluster.kill(0);
    eventually("no quorum", || async { client.put("x", "y").await.err() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_promoted_when_it_is_ready() {
    let mut cluster = Cluster::running(1, &QUICK).await;
    for number in 0..20 {
        cluster.client(0).put(format!("k{number}"), "v").await.expect("a put");
    }
    let learner = newcomer(&mut cluster, &QUICK);
    let id = add(&cluster, 0, learner, true).await.expect("added");
    let refused = promote(&cluster, 0, id).await.expect_err("it has nothing yet");
    assert_eq!(refused.message(), "etcdserver: can only promote a learner member which is in sync with leader");
    let second = newcomer(&mut cluster, &QUICK);
    let refused = add(&cluster, 0, second, true).await.expect_err("one learner is the most");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: too many learner members in cluster"));

    start_joining(&mut cluster, learner, &[0]);
    cluster.wait_ready(learner).await;
    let client = cluster.client(learner);
    assert!(client.status().await.expect("a learner tells its status").is_learner);
    eventually("the learner has the keys", || async { client.read("k19", true).await.ok().flatten() }).await;
    for refused in [client.get("k1").await.err(), client.put("k1", "x").await.err(), members(&client).await.err()] {
        assert_eq!(refused.expect("a learner refuses").message(), "etcdserver: rpc not supported for learner");
    }
    insist("promotion", || promote(&cluster, 0, id)).await;
    let refused = promote(&cluster, 0, id).await.expect_err("it votes already");
    assert_eq!(refused.message(), "etcdserver: can only promote a learner member");
    insist("a write through the new voter", || async { client.put("k1", "new").await }).await;
    assert!(!client.status().await.expect("a status").is_learner);
}

/// The same sequence of wrong requests gets the same answers from a real etcd, asked on a leader and on a follower.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_etcds() {
    let mut cluster = Cluster::running(1, &QUICK).await;
    let other = grow(&mut cluster, 0, &QUICK, &[0]).await;
    let etcd = RealEtcd::start().await;
    for asked in [0, other] {
        let url = cluster.members[asked].client_url();
        let ours = misuse(&url, &cluster.members[0].peer_url());
        let theirs = misuse(&etcd.client_url, &etcd.peer_url);
        assert_eq!(ours, theirs, "asked {}", cluster.members[asked].name);
    }
}

fn misuse(endpoint: &str, taken: &str) -> Vec<String> {
    let call = |arguments: &[&str]| {
        let ended = crate::harness::client::etcdctl(&[endpoint.to_string()], arguments);
        assert_ne!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        error_of(&ended)
    };
    vec![
        call(&["member", "add", "x", &format!("--peer-urls={taken}")]),
        call(&["member", "add", "x", "--learner", &format!("--peer-urls={taken}")]),
        call(&["member", "add", "x", "--peer-urls=127.0.0.1:1"]),
        call(&["member", "add", "x", "--peer-urls=http://127.0.0.1:1/path"]),
        call(&["member", "add", "x", "--peer-urls=ftp://127.0.0.1:1"]),
        call(&["member", "remove", "1234"]),
        call(&["member", "update", "1234", "--peer-urls=http://127.0.0.1:1"]),
        call(&["member", "promote", "1234"]),
    ]
}

/// One real etcd.
struct RealEtcd {
    client_url: String,
    peer_url: String,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl RealEtcd {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = || format!("http://127.0.0.1:{}", crate::harness::ports::free());
        let (client_url, peer_url) = (url(), url());
        let mut command = Command::new(tool("etcd"));
        command
            .args(["--name=real", &format!("--data-dir={}", directory.path().join("data").display()), "--strict-reconfig-check=false"])
            .args([format!("--listen-client-urls={client_url}"), format!("--advertise-client-urls={client_url}")])
            .args([format!("--listen-peer-urls={peer_url}"), format!("--initial-advertise-peer-urls={peer_url}")])
            .arg(format!("--initial-cluster=real={peer_url}"));
        let mut process = Process::spawn(command, &directory.path().join("log"));
        process.wait_line(READY).await;
        Self { client_url, peer_url, _process: process, _directory: directory }
    }
}

/// etcd's rules about what a cluster can bear, with its five seconds: three members, then one of them dead.
#[tokio::test(flavor = "multi_thread")]
async fn the_strict_check_protects_the_quorum() {
    let begin = Instant::now();
    let mut cluster = Cluster::running(3, &["--heartbeat-interval=50", "--election-timeout=500"]).await;
    let young = Instant::now();
    let fourth = newcomer(&mut cluster, &[]);
    match add(&cluster, 0, fourth, false).await {
        Err(refused) => {
            assert!(young.elapsed() >= Duration::from_secs(4) || refused.message() == "etcdserver: unhealthy cluster", "{refused}");
        }
        // Only if it took so long to found the cluster.
        Ok(id) => {
            assert!(begin.elapsed() >= Duration::from_secs(5), "links must have been up for five seconds");
            insist_removed(&cluster, 0, id).await;
        }
    }
    // After five seconds of health.
    let id = insist_added(&cluster, 1, fourth, false).await;
    remove(&cluster, 2, id).await.expect("what has never been up may go");

    let ids = [id_of(&cluster, 0, 0).await, id_of(&cluster, 0, 1).await, id_of(&cluster, 0, 2).await];
    cluster.kill(2);
    for learner in [false, true] {
        let refused = eventually("the dead member is noticed", || async {
            let refused = match add(&cluster, 0, fourth, learner).await {
                Err(status) => Some(status),
                Ok(id) => remove(&cluster, 0, id).await.err(),
            };
            // Who was added and removed in this second can't come back in it: its id would be the same.
            refused.filter(|status| status.message() != "etcdserver: member ID already exist")
        })
        .await;
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: unhealthy cluster"));
    }
    let refused = remove(&cluster, 0, ids[1]).await.expect_err("it keeps the quorum");
    assert_eq!(refused.message(), "etcdserver: unhealthy cluster");
    insist_removed(&cluster, 0, ids[2]).await;
    let gone = remove(&cluster, 0, ids[2]).await.expect_err("it is gone");
    assert_eq!((gone.code(), gone.message()), (Code::NotFound, "etcdserver: member not found"));
}

/// A single voter stays, with the strict check or without.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_stays() {
    for flags in [&QUICK[..], &QUICK[..2]] {
        let cluster = Cluster::running(1, flags).await;
        let id = id_of(&cluster, 0, 0).await;
        let refused = remove(&cluster, 0, id).await.expect_err("nobody would be left");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        );
        cluster.client(0).put("still", "here").await.expect("it goes on");
    }
}

/// `--initial-cluster` must name the members as they are.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_with_a_wrong_list_is_turned_away() {
    let mut cluster = Cluster::running(1, &QUICK).await;
    let joiner = newcomer(&mut cluster, &QUICK);
    let first = format!("m0={}", cluster.members[0].peer_url());
    let own = format!("m1={}", cluster.members[joiner].peer_url());
    for (list, added, sentence) in [
        (format!("{first},{own}"), false, "member count is unequal"),
        (format!("{first},{own},m9=http://127.0.0.1:9"), true, "member count is unequal"),
        (format!("m0=http://127.0.0.1:9,{own}"), true, "cannot fetch cluster info from peer urls"),
        (format!("{first},m1=http://127.0.0.1:9"), true, "PeerURLs: no match found for existing member"),
    ] {
        if added && members(&cluster.client(0)).await.expect("it lists").len() == 1 {
            add(&cluster, 0, joiner, false).await.expect("added");
        }
        cluster.initial_cluster = list.clone();
        cluster.start(joiner);
        let status = cluster.members[joiner].process().wait().await;
        assert_eq!(status.code(), Some(1), "{list}");
        let log = cluster.log(joiner);
        assert!(log.contains(sentence), "{list}: no {sentence:?} in {log}");
        cluster.kill(joiner);
        assert!(!cluster.members[joiner].data_dir.join("member/identity.json").exists(), "nothing is left behind");
    }
    start_joining(&mut cluster, joiner, &[0]);
    cluster.wait_ready(joiner).await;
}

/// etcd shows the names of founders that have never been up.
#[tokio::test(flavor = "multi_thread")]
async fn founders_have_their_names_before_they_come() {
    let mut cluster = Cluster::prepare(3, &QUICK);
    cluster.start(0);
    cluster.start(1);
    cluster.wait_all().await;
    let member = eventually("the name of the third", || async {
        members(&cluster.client(0)).await.ok()?.into_iter().find(|member| member.name == "m2")
    })
    .await;
    assert!(member.client_ur_ls.is_empty());
    cluster.start(2);
    cluster.wait_ready(2).await;
    let listed = ctl(&cluster, &[2], &["member", "list"]);
    assert_eq!(listed.stdout.lines().filter(|line| line.contains("started")).count(), 3, "{listed:?}");
}
