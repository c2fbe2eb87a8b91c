//! A member whose data dir is gone has forgotten what it promised: it may not come back as itself.

use crate::harness::cluster::Cluster;
use crate::operator::{QUICK, id_of, insist, insist_added, insist_removed, start_joining, wait_equal};
use std::fs;

const ADVICE: &str = "add it again (etcdctl member add NAME --peer-urls=URL), and start it with an empty data dir";
const FOUND_OUT: &str = "has been started with another data dir before";

fn wipe(cluster: &mut Cluster, member: usize) {
    cluster.kill(member);
    fs::remove_dir_all(&cluster.members[member].data_dir).expect("it was there");
}

/// For one of these reasons.
async fn must_be_refused(cluster: &mut Cluster, member: usize, reasons: &[&str]) {
    let status = cluster.members[member].process().wait().await;
    let log = cluster.log(member);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(reasons.iter().any(|why| log.contains(why)) && log.contains(ADVICE), "none of {reasons:?} in {log}");
    cluster.kill(member);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_refused_and_told_what_to_do() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    cluster.client(0).put("k", "v").await.expect("a put");
    let id = id_of(&cluster, 0, 2).await;
    wipe(&mut cluster, 2);
    for state in ["new", "existing"] {
        cluster.members[2].flags.push(format!("--initial-cluster-state={state}"));
        let bootstrapped = format!("member {id:x} has already been bootstrapped");
        let told = |cluster: &Cluster| cluster.log(2).matches(&bootstrapped).count();
        let before = told(&cluster);
        cluster.start(2);
        must_be_refused(&mut cluster, 2, &[&bootstrapped, FOUND_OUT]).await;
        while told(&cluster) == before {
            // A founder asks its peers only for a second. If none has answered it is found out by the first call, with a data dir by then.
            assert!(state == "new" && cluster.log(2).contains(FOUND_OUT), "{}", cluster.log(2));
            fs::remove_dir_all(&cluster.members[2].data_dir).expect("it was there");
            cluster.start(2);
            must_be_refused(&mut cluster, 2, &[&bootstrapped, FOUND_OUT]).await;
        }
    }
    // The documented two commands heal it.
    insist_removed(&cluster, 0, id).await;
    insist_added(&cluster, 0, 2, false).await;
    start_joining(&mut cluster, 2, &[0, 1]);
    cluster.wait_ready(2).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
}

/// The others don't answer when the wiped member starts, so it takes itself for a founder; it is found out by the first call either way.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_that_could_ask_nobody_is_found_out() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    cluster.client(0).put("k", "v").await.expect("a put");
    wipe(&mut cluster, 2);
    cluster.stop(0);
    cluster.stop(1);
    cluster.start(2);
    // It serves its peers once it has given up asking them.
    let url = cluster.members[2].peer_url();
    crate::harness::eventually("a founder", || async { crate::operator::http(&url, "/members").await }).await;
    cluster.resume(0);
    cluster.resume(1);
    must_be_refused(&mut cluster, 2, &[FOUND_OUT]).await;
    insist("a write of the other two", || async { cluster.client(0).put("k", "w").await }).await;
}

/// What a damaged store says is the same advice.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_member_is_told_the_same() {
    let mut cluster = Cluster::running(3, &QUICK).await;
    for number in 0..200 {
        cluster.client(0).put(format!("k{number}"), "v".repeat(1000)).await.expect("a put");
    }
    let id = id_of(&cluster, 0, 2).await;
    cluster.kill(2);
    let db = fs::read_dir(cluster.members[2].data_dir.join("member")).expect("it lists");
    let db =
        db.flatten().map(|entry| entry.path()).find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("db-")));
    let file = db.expect("a Db").join("db");
    let mut bytes = fs::read(&file).expect("it reads");
    let middle = bytes.len() / 3;
    bytes[middle..middle + 4096].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&file, bytes).expect("it writes");
    cluster.start(2);
    let status = cluster.members[2].process().wait().await;
    let log = cluster.log(2);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("Remove this member and add it again with an empty data dir"), "{log}");
    wipe(&mut cluster, 2);
    insist_removed(&cluster, 0, id).await;
    insist_added(&cluster, 0, 2, false).await;
    cluster.members[2].flags.push("--initial-cluster-state=existing".into());
    start_joining(&mut cluster, 2, &[0, 1]);
    cluster.wait_ready(2).await;
    wait_equal(&cluster, &[0, 1, 2]).await;
}
