//! Leases when leaders sleep or are cut off: who was replaced may neither end nor prolong anything.

use crate::fault::partitions::isolate;
use crate::fault::world::{Spec, World, with_world};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::trial::{Load, Trial};
use rusd::pb::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest};
use std::time::{Duration, Instant};

const LOAD: Load = Load { clients: 4, value_bytes_max: 0, tenants: 3 };
const SHORT: Duration = Duration::from_secs(2);
const TTL_SECS: i64 = 3;
const KEY: &str = "other/leased";

async fn grant(client: &Client, id: i64) {
    let lease = || async { client.lease.clone().lease_grant(LeaseGrantRequest { id, ttl: TTL_SECS }).await.ok() };
    eventually("a lease", lease).await;
    let request = || PutRequest { key: KEY.into(), value: "here".into(), lease: id, ..Default::default() };
    eventually("its key", || async { client.kv.clone().put(request()).await.ok() }).await;
}

/// Renews; the TTL answered, 0 if it is gone, `None` without an answer.
async fn renew(client: &Client, id: i64) -> Option<i64> {
    let mut lease = client.lease.clone();
    let asked = async {
        let mut responses = lease.lease_keep_alive(tokio_stream::once(LeaseKeepAliveRequest { id })).await.ok()?.into_inner();
        responses.message().await.ok()?.map(|response| response.ttl)
    };
    tokio::time::timeout(SHORT, asked).await.ok()?
}

/// Renews through `client` for so long, as a client does: three times a TTL. It must never be gone.
async fn keep(world: &World, member: usize, id: i64, time: Duration) {
    let (client, begun) = (world.client(member, SHORT), Instant::now());
    while begun.elapsed() < time {
        let told = renew(&client, id).await;
        assert_ne!(told, Some(0), "a lease that was renewed all the time is gone");
        let seen = client.get(KEY).await;
        assert!(!matches!(seen, Ok(None)), "the key of a lease that was renewed all the time is gone");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn successor(world: &World, old: usize) -> usize {
    eventually("another leader", || async { world.leader().await.filter(|leader| *leader != old) }).await
}

/// By the sleeper's clock the lease is long over when it wakes up; by everybody else's it was renewed.
#[test]
#[ignore = "takes half a minute"]
fn a_leader_that_slept_does_not_end_what_the_next_one_renewed() {
    with_world(Spec::new(3, 1), |mut world| async move {
        let trial = Trial::begin(&world, LOAD);
        for id in 1_000_001..1_000_003 {
            let old = world.wait_leader().await;
            grant(&world.client(old, SHORT), id).await;
            world.cluster.stop(old);
            let new = successor(&world, old).await;
            keep(&world, new, id, Duration::from_secs(5)).await;
            world.cluster.resume(old);
            keep(&world, new, id, Duration::from_secs(2)).await;
            eventually("its end", || async { world.client(new, SHORT).get(KEY).await.ok()?.is_none().then_some(()) }).await;
        }
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}

/// It hears its clients but no quorum: it may not tell them that their lease is renewed.
#[test]
fn a_leader_that_is_cut_off_renews_nothing() {
    with_world(Spec::new(3, 2).network(), |mut world| async move {
        if world.network.is_none() {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let (old, id) = (world.wait_leader().await, 2_000_001);
        grant(&world.client(old, SHORT), id).await;
        isolate(world.network.as_ref().expect("it is there"), old, &world.members());
        let new = successor(&world, old).await;
        let cut_off = world.client(old, SHORT);
        for _ in 0..3 {
            assert_eq!(renew(&cut_off, id).await.filter(|ttl| *ttl > 0), None, "renewed by a leader that was replaced");
        }
        // Nobody who leads was asked to renew it.
        eventually("its end", || async { world.client(new, SHORT).get(KEY).await.ok()?.is_none().then_some(()) }).await;
        world.network.as_ref().expect("it is there").heal();
        world.wait_writes(old).await;
        assert_eq!(eventually("the truth", || renew(&cut_off, id)).await, 0);
        trial.judge(&mut world, Default::default()).await.assert_clean();
    });
}
