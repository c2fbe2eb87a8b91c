//! Directories that belong to somebody else.

use crate::harness::client::{Client, etcdctl};
use crate::harness::cluster::Cluster;
use crate::harness::process::run;
use crate::harness::{PATIENCE, eventually, find_tool, skipped};
use crate::store::{Store, copy, differences, refusal, tree};

/// Made by the real etcd, and still good for it afterwards.
#[tokio::test]
async fn an_etcds_database_is_left_alone() {
    let Some(etcd) = find_tool("etcd") else { return skipped("an etcd's data dir", "tools/bin/etcd is missing") };
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.members[0].program = etcd.clone();
    cluster.start(0);
    cluster.wait_ready(0).await;
    let url = [cluster.members[0].client_url()];
    assert_eq!(etcdctl(&url, &["put", "k", "etcd's"]).code, Some(0));
    cluster.terminate(0).await;
    let directory = cluster.members[0].data_dir.clone();
    let before = tree(&directory);
    cluster.members[0].program = crate::harness::rusd();
    let database = directory.join("member/snap/db").display().to_string();
    let ended = run(cluster.command(0), PATIENCE);
    refusal("an etcd's", &ended, &[&database, "holds the data of an etcd", "Choose another --data-dir"]);
    assert_eq!(differences(&before, &tree(&directory)), Vec::<String>::new());
    cluster.members[0].program = etcd;
    cluster.start(0);
    cluster.wait_ready(0).await;
    assert_eq!(cluster.client(0).get("k").await.expect("a read"), Some(b"etcd's".to_vec()));
}

/// Started with another member's directory, by mistake: neither of the two may be harmed.
#[tokio::test]
async fn another_members_directory_is_refused() {
    let mut cluster = Cluster::running(3, &[]).await;
    Client::patient(&cluster.members[0].client_url()).put("k", "v").await.expect("a put");
    for member in 0..3 {
        cluster.terminate(member).await;
    }
    let own = cluster.members[1].data_dir.clone();
    cluster.members[1].data_dir = cluster.members[0].data_dir.clone();
    let before = tree(&cluster.members[0].data_dir);
    let directory = cluster.members[0].data_dir.join("member").display().to_string();
    let ended = run(cluster.command(1), PATIENCE);
    let (m0, m1) = (cluster.members[0].peer_url(), cluster.members[1].peer_url());
    refusal("another member's", &ended, &[&directory, "belongs to member", &m0, &m1, "\"m1\"", "--data-dir"]);
    assert_eq!(differences(&before, &tree(&cluster.members[0].data_dir)), Vec::<String>::new());
    cluster.members[1].data_dir = own;
    cluster.start_all();
    cluster.wait_all().await;
    for member in 0..3 {
        assert_eq!(Client::patient(&cluster.members[member].client_url()).get("k").await.expect("a read"), Some(b"v".to_vec()));
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_its_holder_goes_on() {
    let mut store = Store::filled().await;
    store.cluster.start(0);
    store.cluster.wait_ready(0).await;
    let other = store.cluster.add(&[]);
    store.cluster.members[other].data_dir = store.data_dir().into();
    store.cluster.members[other].name = "m0".into();
    let ended = run(store.cluster.command(other), PATIENCE);
    let directory = store.file("").display().to_string();
    refusal("in use", &ended, &[directory.trim_end_matches('/'), "is in use by another process", "Stop it", "--data-dir"]);
    let client = store.cluster.client(0);
    eventually("the holder serves", || async { client.put("key-000", "new").await.ok() }).await;
    assert!(store.cluster.terminate(0).await.success());
    store.restore();
    store.whole("after the refusal").await;
}

/// A copy beside the original is nobody's while nobody runs: it serves, as a restored backup does.
#[tokio::test]
async fn a_copy_of_a_directory_serves() {
    let mut store = Store::filled().await;
    let elsewhere = store.cluster.root().join("elsewhere");
    copy(store.data_dir(), &elsewhere);
    store.cluster.members[0].data_dir = elsewhere;
    store.whole("a copy").await;
}
