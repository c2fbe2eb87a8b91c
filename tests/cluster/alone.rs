//! A lost majority: one member goes on with all it has, and the cluster grows again. And what would be a mistake.

use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::operator::{QUICK, add, ctl, error_of, grow, id_of, insist, members, newcomer, start_joining, wait_equal};
use crate::writer::Writer;
use rusd::pb::etcdserverpb as pb;

const FORCE: &str = "--force-new-cluster";

async fn must_refuse(cluster: &mut Cluster, member: usize, why: &str) {
    let status = cluster.members[member].process().wait().await;
    let log = cluster.log(member);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(why), "no {why:?} in {log}");
    cluster.kill(member);
}

async fn revision(cluster: &Cluster, member: usize) -> i64 {
    let status = eventually("a status", || async { cluster.client(member).status().await.ok() }).await;
    status.header.expect("a header").revision
}

/// The last acknowledged writes are the dangerous ones: their commit may have reached nobody but the leader, and it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_with_all_that_was_acknowledged_and_grows_again() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    let lease = pb::LeaseGrantRequest { ttl: 3600, id: 77 };
    cluster.client(0).lease.clone().lease_grant(lease).await.expect("a lease");
    let put = pb::PutRequest { key: "leased".into(), value: "v".into(), lease: 77, ..Default::default() };
    cluster.client(0).kv.clone().put(put).await.expect("a put");
    let survivor = (cluster.wait_leader().await + 1) % 3;
    let lost: Vec<usize> = (0..3).filter(|member| *member != survivor).collect();
    let (id, lost_id) = (id_of(&cluster, survivor, survivor).await, id_of(&cluster, survivor, lost[0]).await);
    // With a third member away from the start, everything acknowledged is at the survivor.
    cluster.kill(lost[1]);
    let writer = Writer::start(&cluster);
    eventually("many writes", || async { cluster.client(survivor).read("w/00000200", true).await.ok().flatten() }).await;
    cluster.kill(lost[0]);
    cluster.kill(survivor);
    let written = writer.stop().await;

    cluster.members[survivor].flags.push(FORCE.into());
    cluster.start(survivor);
    cluster.wait_ready(survivor).await;
    let client = cluster.client(survivor);
    written.must_be_at(&client).await;
    let known = members(&client).await.expect("it lists");
    assert_eq!(known.iter().map(|member| member.id).collect::<Vec<_>>(), [id]);
    let before = revision(&cluster, survivor).await;
    assert_eq!(client.put("after", "v").await.expect("a put"), before + 1);
    let question = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
    let answer = client.lease.clone().lease_time_to_live(question).await.expect("an answer").into_inner();
    assert_eq!((answer.granted_ttl, answer.keys), (3600, vec!["leased".into()]));

    // Once more, as a unit file that nobody cleaned up would do it.
    cluster.kill(survivor);
    cluster.start(survivor);
    cluster.wait_ready(survivor).await;
    assert_eq!(cluster.client(survivor).get("after").await.expect("it reads").as_deref(), Some(&b"v"[..]));

    // Who was lost and comes back is told, and leaves for good.
    cluster.start(lost[0]);
    let status = cluster.members[lost[0]].process().wait().await;
    assert_eq!(status.code(), Some(0), "{}", cluster.log(lost[0]));
    assert!(cluster.log(lost[0]).contains("the member has been permanently removed from the cluster"));
    cluster.kill(lost[0]);
    let refused = ctl(&cluster, &[survivor], &["member", "remove", &format!("{lost_id:x}")]);
    assert!(error_of(&refused).ends_with("etcdserver: member not found"), "{refused:?}");

    let second = grow(&mut cluster, survivor, &QUICK, &[survivor]).await;
    let third = grow(&mut cluster, survivor, &QUICK, &[survivor, second]).await;
    for member in [second, third] {
        wait_equal(&cluster, &[survivor, member]).await;
        written.must_be_at(&cluster.client(member)).await;
    }
    // With its two new members it has a majority: the flag that is still there is a mistake now.
    cluster.kill(survivor);
    insist("a majority is left", || async { cluster.client(second).put("two", "of three").await }).await;
    cluster.start(survivor);
    must_refuse(&mut cluster, survivor, "the majority isn't lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forcing_by_mistake_is_refused() {
    let mut cluster = Cluster::running(1, &QUICK).await;
    let empty = newcomer(&mut cluster, &[&QUICK[..], &[FORCE]].concat());
    start_joining(&mut cluster, empty, &[0]);
    must_refuse(&mut cluster, empty, "--force-new-cluster needs the data of a member").await;
    assert!(!cluster.members[empty].data_dir.join("member").exists(), "nothing was founded");

    cluster.members[empty].flags.retain(|flag| flag != FORCE);
    let id = add(&cluster, 0, empty, true).await.expect("added");
    start_joining(&mut cluster, empty, &[0]);
    cluster.wait_ready(empty).await;
    cluster.kill(0);
    cluster.kill(empty);
    cluster.members[empty].flags.push(FORCE.into());
    cluster.start(empty);
    must_refuse(&mut cluster, empty, &format!("member {id:x} has no vote")).await;

    // The voter may: it drops the learner.
    cluster.members[0].flags.push(FORCE.into());
    cluster.start(0);
    cluster.wait_ready(0).await;
    assert_eq!(members(&cluster.client(0)).await.expect("it lists").len(), 1);
}
