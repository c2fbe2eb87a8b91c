//! What a member is made of.

use crate::harness::client::{Client, etcdctl};
use crate::harness::cluster::{Cluster, READY};
use crate::harness::process::Process;
use crate::harness::{eventually, ports, rusd};
use std::process::Command;

/// The stored identity and members win, whatever the flags say now.
#[tokio::test]
async fn a_restart_ignores_what_founded_the_cluster() {
    let mut cluster = Cluster::running(1, &["--initial-cluster-token=first"]).await;
    let client = Client::patient(&cluster.members[0].client_url());
    client.put("k", "v").await.expect("a put");
    let before = client.status().await.expect("a status").header.expect("a header");
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    for flags in [
        vec!["--initial-cluster-token=second".to_string()],
        vec!["--initial-cluster-state=existing".into()],
        vec![format!("--initial-cluster=m0={nobody},other={nobody}")],
        vec![format!("--initial-advertise-peer-urls={nobody}")],
        vec!["--initial-cluster=".into(), "--initial-cluster-token=".into()],
    ] {
        assert!(cluster.terminate(0).await.success());
        cluster.members[0].flags.clone_from(&flags);
        cluster.start(0);
        cluster.wait_ready(0).await;
        assert_eq!(client.get("k").await.expect("a read"), Some(b"v".to_vec()), "{flags:?}");
        let after = client.status().await.expect("a status").header.expect("a header");
        assert_eq!((after.cluster_id, after.member_id), (before.cluster_id, before.member_id), "{flags:?}");
        let members = etcdctl(&cluster.endpoints(), &["member", "list"]).stdout;
        assert!(members.contains(&cluster.members[0].peer_url()), "the cluster changes its URLs, not a restart: {members}");
    }
}

/// The data dir of a member of another cluster at the same URLs: neither side takes the other for a peer, and both say why.
#[tokio::test]
async fn another_clusters_member_is_refused_by_its_peers() {
    let mut cluster = Cluster::running(3, &["--initial-cluster-token=a"]).await;
    cluster.client(0).put("k", "a").await.expect("a put");
    for member in 0..3 {
        cluster.terminate(member).await;
    }
    let own = cluster.members[2].data_dir.clone();
    for it in &mut cluster.members {
        it.flags = vec!["--initial-cluster-token=b".into()];
        it.data_dir.set_extension("b");
    }
    cluster.start_all();
    cluster.wait_all().await;
    Client::patient(&cluster.members[0].client_url()).put("k", "b").await.expect("a put");
    cluster.terminate(2).await;
    let others = std::mem::replace(&mut cluster.members[2].data_dir, own);
    cluster.start(2);
    eventually("both sides say so", || async {
        let told = cluster.log(2).contains("cluster ID mismatch");
        let refused = (0..2).any(|member| cluster.log(member).contains("OtherCluster"));
        (told && refused).then_some(())
    })
    .await;
    assert_eq!(cluster.client(2).get("k").await.ok(), None, "it has no peers");
    // The right cluster goes on, and its own member comes back.
    assert_eq!(Client::patient(&cluster.members[1].client_url()).get("k").await.expect("a read"), Some(b"b".to_vec()));
    cluster.terminate(2).await;
    cluster.members[2].data_dir = others;
    cluster.start(2);
    cluster.wait_ready(2).await;
    assert_eq!(Client::patient(&cluster.members[2].client_url()).get("k").await.expect("a read"), Some(b"b".to_vec()));
}

/// Without `--data-dir` it is `NAME.etcd` in the working directory, for its owner only.
#[tokio::test]
async fn the_default_data_dir_is_named_after_the_member() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a directory");
    let (client, peer) = (url("127.0.0.1"), url("127.0.0.1"));
    let mut command = Command::new(rusd());
    command.current_dir(place.path()).args(["--name=someone", &format!("--initial-cluster=someone={peer}")]);
    command.args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")]);
    command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
    let mut process = Process::spawn(command, &place.path().join("log"));
    process.wait_line(READY).await;
    let mode = std::fs::metadata(place.path().join("someone.etcd")).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    assert!(process.line("'data-dir' was empty; using default").is_some());
    Client::patient(&client).put("k", "v").await.expect("a put");
    process.signal(libc::SIGTERM);
    assert!(process.wait().await.success());
}

fn url(host: &str) -> String {
    format!("http://{host}:{}", ports::free())
}

/// On all addresses, IPv4 and, where the machine has it, IPv6.
#[tokio::test]
async fn all_addresses_are_served() {
    let mut cluster = Cluster::prepare(1, &[]);
    let (client, peer) = (cluster.members[0].client_port, cluster.members[0].peer_port);
    cluster.members[0].flags =
        vec![format!("--listen-client-urls=http://0.0.0.0:{client}"), format!("--listen-peer-urls=http://0.0.0.0:{peer}")];
    cluster.start(0);
    cluster.wait_ready(0).await;
    for host in ["127.0.0.1", "127.0.0.2", "localhost"] {
        Client::patient(&format!("http://{host}:{client}")).put("k", host).await.unwrap_or_else(|status| panic!("{host}: {status}"));
        assert!(tokio::net::TcpStream::connect((host, peer)).await.is_ok(), "{host}");
    }
    // What it advertises stays what it was told.
    assert!(cluster.etcdctl(&["member", "list"]).stdout.contains(&format!("http://127.0.0.1:{client}")));
    assert!(cluster.terminate(0).await.success());
}

/// What is in force, what is out of date and what is slow: an operator finds it in the log, in etcd's words.
#[tokio::test]
async fn settings_and_their_consequences_are_told() {
    let flags = [
        "--snapshot-catchup-entries=1000",
        "--bootstrap-defrag-threshold-megabytes=1000",
        "--warning-unary-request-duration=1ns",
        "--max-snapshots=10",
        "--v2-deprecation=write-only-drop-data",
    ];
    let mut cluster = Cluster::running(1, &flags).await;
    let address = cluster.members[0].client_url().replace("http://", "");
    let process = cluster.members[0].process();
    assert_eq!(process.line("starting a member").expect("a line")["snapshot-catchup-entries"], 1000);
    let serving = process.line("serving client traffic insecurely; this is strongly discouraged!").expect("a line");
    assert_eq!((&serving["address"], &serving["traffic"]), (&address.into(), &"grpc+http".into()));
    assert_eq!(process.line("Skipping defragmentation").expect("a line")["bootstrap-defrag-threshold-bytes"], 1_048_576_000);
    let log = process.log();
    assert!(log.contains("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."), "{log}");
    assert!(log.contains("--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced"), "{log}");
    cluster.client(0).put("secret-key", "secret-value").await.expect("a put");
    let process = cluster.members[0].process();
    let slow = eventually("the put is told of", || async {
        let lines: Vec<serde_json::Value> = process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["msg"] == "request stats" && line["response-type"] == "/etcdserverpb.KV/Put")
    })
    .await;
    assert_eq!((&slow["level"], &slow["code"]), (&"warn".into(), &"Ok".into()));
    assert!(!process.log().contains("secret"), "no key and no value");
    assert!(cluster.terminate(0).await.success());
}

/// As etcd's sample file has them, with every section; what is off there is off here.
const CONFIG: &str = r"
name: 'sample'
data-dir: {directory}/data
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: {peer}
listen-client-urls: {client},{second}
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: {peer}
advertise-client-urls: {client}
discovery:
discovery-fallback: 'exit'
discovery-proxy:
discovery-srv:
initial-cluster: sample={peer}
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
log-level: debug
logger: zap
log-outputs: [stderr, {directory}/copy.log]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: '1'
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
";

/// With a file nothing else counts, neither flags nor variables.
#[tokio::test]
async fn a_complete_config_file_starts_a_member() {
    let place = tempfile::tempdir().expect("a directory");
    let (client, second, peer) = (url("127.0.0.1"), url("127.0.0.1"), url("127.0.0.1"));
    let directory = place.path().to_str().expect("UTF-8");
    let text = [("{directory}", directory), ("{client}", &client), ("{second}", &second), ("{peer}", &peer)]
        .iter()
        .fold(CONFIG.to_owned(), |text, (word, value)| text.replace(word, value));
    let file = place.path().join("etcd.conf.yml");
    std::fs::write(&file, text).expect("it writes");
    let mut command = Command::new(rusd());
    command.arg(format!("--config-file={}", file.display())).arg("--name=flag");
    let mut process = Process::spawn(command, &place.path().join("log"));
    process.wait_line(READY).await;
    for url in [&client, &second] {
        Client::patient(url).put("k", "v").await.expect("a put");
    }
    let members = etcdctl(std::slice::from_ref(&client), &["member", "list"]).stdout;
    assert!(members.contains(", sample, ") && members.contains(&peer), "{members}");
    assert!(place.path().join("data/member").is_dir());
    process.signal(libc::SIGTERM);
    assert!(process.wait().await.success());
    let copy = std::fs::read_to_string(place.path().join("copy.log")).expect("the second output");
    assert!(copy.contains(READY), "{copy}");
}
