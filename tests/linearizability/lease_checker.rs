//! Leases never end early, and never live for ever.
//!
//! | rule | seen how |
//! |---|---|
//! | no key of a lease vanishes before what was promised last, in real time, unless it was asked to be revoked | watchers heard of the deletion too early |
//! | no member says "gone" before that | tenants were told so |
//! | what is gone has taken its key with it | tenants looked |
//! | what nobody keeps alive ends | after the run, in peace, nothing is left |

use crate::checker::Violation;
use crate::clients::kv;
use crate::fault::world::World;
use crate::harness::PATIENCE;
use crate::tenants::{PREFIX, Tenancy};
use crate::watchers::Moment;
use rusd::pb::etcdserverpb::{LeaseLeasesRequest, RangeRequest};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Judges what tenants were told by when watchers heard of deletions.
pub fn check(tenancies: &[Tenancy], watchers: &[Vec<(u64, Moment)>]) -> Vec<Violation> {
    let deleted = deletions(watchers);
    let mut violations = Vec::new();
    for tenancy in tenancies {
        let mut bad = |what: String| violations.push(Violation(format!("{what}: {tenancy:?}")));
        let promised = tenancy.promises.iter().map(|promise| promise.1).max().unwrap_or(0);
        let early = |at: u64| at < promised && tenancy.revoked.is_none_or(|revoked| at < revoked);
        if let Some(at) = deleted.get(tenancy.key.as_str()).filter(|at| early(**at)) {
            bad(format!("its key was deleted by {at}, {} us early", promised - at));
        }
        if let Some(at) = tenancy.gone.filter(|at| early(*at)) {
            bad(format!("it was gone by {at}, {} us early", promised - at));
        }
        if let Some((at, revision)) = tenancy.undead {
            bad(format!("it was gone, but its key was there at {at}, revision {revision}"));
        }
    }
    violations
}

/// When the first watcher heard that a key of a tenant was deleted. Each is made once.
fn deletions(watchers: &[Vec<(u64, Moment)>]) -> HashMap<&str, u64> {
    let mut deleted: HashMap<&str, u64> = HashMap::new();
    for (time, moment) in watchers.iter().flatten() {
        let Moment::Events { events, .. } = moment else { continue };
        for event in events.iter().filter(|event| event.change.now.is_none() && event.change.key.starts_with(PREFIX)) {
            let first = deleted.entry(event.change.key.as_str()).or_insert(*time);
            *first = (*first).min(*time);
        }
    }
    deleted
}

/// Waits until no lease and no key of one is left on any member: the cluster is whole, and nobody keeps anything alive.
pub async fn ended(world: &World, violations: &mut Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    for member in world.members() {
        let url = world.cluster.members[member].client_url();
        loop {
            let left = left(world, member, &url).await;
            if left == Ok((0, 0)) {
                break;
            }
            if Instant::now() > deadline {
                violations.push(format!("member {member} still has (leases, keys of leases) after {PATIENCE:?} in peace: {left:?}"));
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn left(world: &World, member: usize, url: &str) -> Result<(usize, i64), String> {
    let request = RangeRequest { key: PREFIX.into(), range_end: "lease0".into(), count_only: true, ..Default::default() };
    let keys = kv(url, LIMIT).range(request).await.map_err(|status| status.to_string())?.into_inner().count;
    let leases = world.client(member, LIMIT).lease.lease_leases(LeaseLeasesRequest {}).await.map_err(|status| status.to_string())?;
    Ok((leases.into_inner().leases.len(), keys))
}
