//! Members of different releases in one cluster: by what they announce of the peer protocol, and by what they find in the log.

use crate::corruption::alter;
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{QUICK, grow, insist, newcomer, start_joining, wait_equal};

/// What a member announces: its oldest and its newest peer protocol.
fn announce(cluster: &mut Cluster, member: usize, versions: &str) {
    cluster.members[member].environment.push(("RUSD_TEST_PROTOCOL".into(), versions.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_mixes_two_protocol_versions() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    for member in 0..3 {
        cluster.terminate(member).await;
        announce(&mut cluster, member, "1-2");
        cluster.start(member);
        cluster.wait_ready(member).await;
        for asked in 0..3 {
            let client = cluster.client(asked);
            insist("a write", || async { client.put(format!("k{member}"), asked.to_string()).await }).await;
        }
        wait_equal(&cluster, &[0, 1, 2]).await;
    }
    // One of the old release may still join, since version 1 is spoken by all.
    let old = grow(&mut cluster, 0, &QUICK, &[0, 1, 2]).await;
    wait_equal(&cluster, &[0, 1, 2, old]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_common_version_nothing_is_said() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    cluster.kill(2);
    announce(&mut cluster, 2, "2-3");
    cluster.start(2);
    let client = cluster.client(0);
    eventually("a refusal", || async { cluster.log(0).contains("verdict\":\"OtherVersion").then_some(()) }).await;
    insist("a write of the other two", || async { client.put("k", "v").await }).await;
    assert!(cluster.client(2).status().await.is_err(), "it serves nobody");
    cluster.kill(2);

    let joining = newcomer(&mut cluster, &QUICK);
    insist("added", || crate::operator::add(&cluster, 0, joining, true)).await;
    announce(&mut cluster, joining, "2-3");
    start_joining(&mut cluster, joining, &[0, 1, 2]);
    let status = cluster.members[joining].process().wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(cluster.log(joining).contains("incompatible with current running cluster"), "{}", cluster.log(joining));
}

/// A later release has put something into the log that this one can't apply. To pass over it would make the members differ.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_of_entry_stops_the_member() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let client = Client::patient(&cluster.members[0].client_url());
    for number in 0..5 {
        client.put(format!("k{number}"), "v").await.expect("a put");
    }
    wait_equal(&cluster, &[0, 1, 2]).await;
    cluster.kill(1);
    // Field 200, of length 1: no kind of proposal that is known.
    alter(&cluster.members[1].data_dir, |_| vec![0xc2, 0x0c, 0x01, 0x00]);
    cluster.start(1);
    let status = cluster.members[1].process().wait().await;
    let log = cluster.log(1);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("holds a command unknown to this version"), "{log}");
    insist("a write of the other two", || async { client.put("k", "v").await }).await;
}
