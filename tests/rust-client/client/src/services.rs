//! Leases, locks, elections, members, maintenance.

use crate::{Outcome, check};
use etcd_client::{Client, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, PutOptions, ResignOptions};
use std::time::Duration;

pub async fn leases_live_and_expire(mut client: Client) -> Outcome {
    let lease = client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(77_001))).await?;
    check!(lease.id() == 77_001 && lease.ttl() == 600, "{lease:?}");
    client.put("l/a", "1", Some(PutOptions::new().with_lease(77_001))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(77_001).await?;
    keeper.keep_alive().await?;
    let answer = answers.message().await?.ok_or("the stream ended")?;
    check!(answer.ttl() == 600, "{answer:?}");
    let told = client.lease_time_to_live(77_001, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    check!(told.keys() == [b"l/a".to_vec()] && told.granted_ttl() == 600 && told.ttl() > 500, "{told:?}");
    check!(client.leases().await?.leases().iter().any(|lease| lease.id() == 77_001), "it isn't listed");
    client.lease_revoke(77_001).await?;
    check!(client.get("l/a", None).await?.kvs().is_empty(), "a key outlived its lease");

    let short = client.lease_grant(1, None).await?.id();
    client.put("l/b", "1", Some(PutOptions::new().with_lease(short))).await?;
    while !client.get("l/b", None).await?.kvs().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check!(client.lease_time_to_live(short, None).await?.ttl() == -1, "it lives");
    Ok(())
}

pub async fn locks_exclude_each_other(mut client: Client) -> Outcome {
    let lease = client.lease_grant(60, None).await?.id();
    let held = client.lock("lock", Some(LockOptions::new().with_lease(lease))).await?;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("lock", None).await });
    // The second in line has written its key.
    let prefix = || Some(etcd_client::GetOptions::new().with_prefix());
    while client.get("lock/", prefix()).await?.kvs().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check!(!waiting.is_finished(), "two hold the lock");
    client.unlock(held.key()).await?;
    let second = waiting.await??;
    check!(second.key() != held.key(), "{second:?}");
    client.unlock(second.key()).await?;
    Ok(())
}

pub async fn elections_have_one_leader(mut client: Client) -> Outcome {
    let lease = client.lease_grant(60, None).await?.id();
    let won = client.campaign("post", "me", lease).await?;
    let leader = client.leader("post").await?;
    check!(leader.kv().is_some_and(|kv| kv.value() == b"me"), "{leader:?}");
    let mut observed = client.observe("post").await?;
    check!(observed.message().await?.is_some_and(|told| told.kv().is_some_and(|kv| kv.value() == b"me")), "nothing is observed");
    let leader = won.leader().ok_or("no leader key")?.clone();
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    check!(client.leader("post").await.is_err(), "a leader after it resigned");
    Ok(())
}

pub async fn members_and_maintenance(mut client: Client) -> Outcome {
    let members = client.member_list().await?;
    check!(!members.members().is_empty() && members.members().iter().all(|member| !member.client_urls().is_empty()), "{members:?}");
    let status = client.status().await?;
    check!(status.version().starts_with("3.") && status.leader() != 0 && status.raft_index() > 0 && status.db_size() > 0, "{status:?}");
    check!(client.hash().await?.hash() != 0 && client.hash_kv(0).await?.hash() != 0, "no hash");
    Ok(())
}

pub async fn every_endpoint_serves(mut client: Client) -> Outcome {
    client.put("e/a", "1", None).await?;
    for endpoint in std::env::args().skip(1) {
        let mut one = Client::connect([&endpoint], None).await?;
        let got = one.get("e/a", None).await?;
        check!(got.kvs().first().is_some_and(|kv| kv.value() == b"1"), "{endpoint} doesn't know of a write that was answered");
        one.put("e/a", "1", None).await?;
    }
    Ok(())
}
