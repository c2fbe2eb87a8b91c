//! The judge of leases is judged.

use crate::history::Change;
use crate::lease_checker::check;
use crate::tenants::Tenancy;
use crate::watchers::{Heard, Moment};

const KEY: &str = "lease/0/0";

/// Promised until 5 s, by an answer to what was asked at 3 s.
fn tenancy() -> Tenancy {
    let promises = vec![(1_000_000, 3_000_000), (3_000_000, 5_000_000)];
    Tenancy { id: 1, key: KEY.into(), attached: Some(2), promises, ..Tenancy::default() }
}

fn deleted(at: u64) -> Vec<(u64, Moment)> {
    let event = Heard { revision: 3, change: Change { key: KEY.into(), now: None }, previous: None };
    vec![(at, Moment::Events { header: 3, events: vec![event], fragment: false })]
}

fn judge(tenancy: Tenancy, deleted_at: u64) -> usize {
    check(&[tenancy], &[deleted(9_000_000), deleted(deleted_at)]).len()
}

#[test]
fn a_lease_that_ends_in_time_passes() {
    assert_eq!(judge(tenancy(), 5_000_001), 0);
    assert_eq!(judge(Tenancy { gone: Some(6_000_000), ..tenancy() }, 5_500_000), 0);
    assert_eq!(judge(Tenancy { revoked: Some(3_500_000), ..tenancy() }, 3_600_000), 0, "it was asked to be revoked");
}

#[test]
fn a_lease_that_ends_early_is_caught() {
    assert_eq!(judge(tenancy(), 4_999_999), 1, "by its key");
    assert_eq!(judge(Tenancy { gone: Some(4_000_000), ..tenancy() }, 6_000_000), 1, "by what was said");
    assert_eq!(judge(Tenancy { revoked: Some(4_500_000), ..tenancy() }, 4_400_000), 1, "before it was asked to be revoked");
}

#[test]
fn a_key_that_outlives_its_lease_is_caught() {
    assert_eq!(judge(Tenancy { gone: Some(6_000_000), undead: Some((6_100_000, 3)), ..tenancy() }, 7_000_000), 1);
}
