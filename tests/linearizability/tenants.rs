//! Tenants: clients that take leases, attach a key to each, keep them alive for a while through any member, and then revoke or abandon
//! them. They write down every promise they get.
//!
//! A lease that was granted or renewed for T seconds by a call that was *sent* at t is promised until t + T at least, for the server decided
//! later than t. All times are of one monotonic clock, the test's.

use crate::clients::{Shared, channel, kv};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusd::pb::etcdserverpb::lease_client::LeaseClient;
use rusd::pb::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Keys of tenants are below this.
pub const PREFIX: &str = "lease/";
const LIMIT: Duration = Duration::from_millis(1500);
const NOT_FOUND: &str = "etcdserver: requested lease not found";

/// What a tenant was told of one lease. Times are microseconds of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// The lease's id.
    pub id: i64,
    /// The key attached to it.
    pub key: String,
    /// The revision of the put that attached it, if that was acknowledged.
    pub attached: Option<i64>,
    /// Promises: when asked for, and until when.
    pub promises: Vec<(u64, u64)>,
    /// When it was asked to be revoked.
    pub revoked: Option<u64>,
    /// When a member said that there is no such lease.
    pub gone: Option<u64>,
    /// When, after that, a linearizable read nevertheless found the key, and at which revision.
    pub undead: Option<(u64, i64)>,
}

/// All tenancies of a run.
#[derive(Default)]
pub struct Register(Mutex<Vec<Tenancy>>);

impl Register {
    /// What was told so far.
    pub fn all(&self) -> Vec<Tenancy> {
        self.0.lock().expect("no panic while held").clone()
    }

    fn add(&self, tenancy: Tenancy) {
        self.0.lock().expect("no panic while held").push(tenancy);
    }
}

/// What a call about a lease came to.
enum Told {
    /// The TTL promised, seconds.
    Alive(i64),
    Gone,
    Nothing,
}

struct Tenant {
    shared: Arc<Shared>,
    random: StdRng,
    channels: Vec<Channel>,
}

/// Runs one tenant until the run ends.
pub async fn tenant(shared: Arc<Shared>, register: Arc<Register>, number: usize, seed: u64) {
    let channels = shared.endpoints.iter().map(|url| channel(url, LIMIT)).collect();
    let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 * 104_729));
    let mut tenant = Tenant { shared, random, channels };
    for count in 0.. {
        if tenant.shared.stopped() {
            return;
        }
        let id = 1 + (i64::try_from(number).expect("few tenants") << 32) + count;
        let tenancy = tenant.live(id, format!("{PREFIX}{number}/{count}")).await;
        register.add(tenancy);
        tenant.pause(10..200).await;
    }
}

impl Tenant {
    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(milliseconds))).await;
    }

    fn anyone(&mut self) -> usize {
        self.random.random_range(0..self.channels.len())
    }

    /// A lease client of any member.
    fn lessor(&mut self) -> LeaseClient<Channel> {
        let member = self.anyone();
        LeaseClient::new(self.channels[member].clone())
    }

    /// One lease from its grant to its end.
    async fn live(&mut self, id: i64, key: String) -> Tenancy {
        let mut tenancy = Tenancy { id, key, ..Tenancy::default() };
        let ttl = self.random.random_range(2..5);
        let mut granter = self.lessor();
        let asked = self.shared.now();
        let granted = granter.lease_grant(LeaseGrantRequest { ttl, id }).await;
        // Without an answer it may exist all the same; nobody keeps it alive, so it has to end by itself.
        let Ok(granted) = granted else { return tenancy };
        self.note(&mut tenancy, asked, Told::Alive(granted.into_inner().ttl));
        self.attach(&mut tenancy).await;
        let until = self.shared.now() + self.random.random_range(0..6_000_000);
        while tenancy.gone.is_none() && self.shared.now() < until && !self.shared.stopped() {
            self.pause(100..700).await;
            let asked = self.shared.now();
            let told = self.keep_alive(id).await;
            self.note(&mut tenancy, asked, told);
        }
        if tenancy.gone.is_some() {
            self.look(&mut tenancy).await;
        } else if self.random.random_bool(0.2) {
            tenancy.revoked = Some(self.shared.now());
            let _ = self.lessor().lease_revoke(LeaseRevokeRequest { id }).await;
        }
        tenancy
    }

    fn note(&self, tenancy: &mut Tenancy, asked: u64, told: Told) {
        match told {
            Told::Alive(ttl) => tenancy.promises.push((asked, asked + u64::try_from(ttl).expect("a TTL is positive") * 1_000_000)),
            Told::Gone => tenancy.gone = tenancy.gone.or(Some(self.shared.now())),
            Told::Nothing => {}
        }
    }

    async fn attach(&mut self, tenancy: &mut Tenancy) {
        let request = PutRequest { key: tenancy.key.clone().into(), value: "here".into(), lease: tenancy.id, ..Default::default() };
        let member = self.anyone();
        match kv(&self.shared.endpoints[member], LIMIT).put(request).await {
            Ok(response) => tenancy.attached = response.into_inner().header.map(|header| header.revision),
            Err(status) if status.message() == NOT_FOUND => self.note(tenancy, 0, Told::Gone),
            Err(_) => {}
        }
    }

    async fn keep_alive(&mut self, id: i64) -> Told {
        let mut client = self.lessor();
        let asked = async {
            let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
            let mut responses = client.lease_keep_alive(requests).await?.into_inner();
            responses.message().await
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok::<_, Status>(Some(response))) if response.ttl > 0 => Told::Alive(response.ttl),
            Ok(Ok(Some(_))) => Told::Gone,
            _ => Told::Nothing,
        }
    }

    /// A lease that is gone has taken its key with it.
    async fn look(&mut self, tenancy: &mut Tenancy) {
        let member = self.anyone();
        let request = RangeRequest { key: tenancy.key.clone().into(), ..Default::default() };
        let Ok(response) = kv(&self.shared.endpoints[member], LIMIT).range(request).await else { return };
        let response = response.into_inner();
        if response.kvs.iter().any(|kv| kv.lease == tenancy.id) {
            tenancy.undead = Some((self.shared.now(), response.header.map_or(0, |header| header.revision)));
        }
    }
}
