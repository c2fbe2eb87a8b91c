//! The clock's promises, with a clock of our own (tokio's, paused) and a log of our own.

use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ELECTION: Duration = Duration::from_secs(1);

/// State, leadership and log in one.
#[derive(Default)]
struct Cluster {
    leases: Mutex<BTreeMap<i64, state::Lease>>,
    term: Mutex<Option<u64>>,
    /// (term, command) as proposed.
    log: Mutex<Vec<(u64, proposal::Command)>>,
    /// Proposals hang without an answer, applied or not.
    stuck: AtomicBool,
    /// The only member.
    alone: AtomicBool,
    confirmed: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

impl Cluster {
    fn grant(&self, id: i64, ttl_secs: i64) -> ApplyResult {
        self.leases.lock().insert(id, state::Lease { id, ttl_secs, remaining_ttl_secs: 0 });
        Ok(Response::LeaseGrant { revision: 1, id, ttl_secs })
    }
    fn lead(&self, term: u64) {
        *self.term.lock() = Some(term);
    }
    fn alive(&self, id: i64) -> bool {
        self.leases.lock().contains_key(&id)
    }
    fn apply(&self, command: &proposal::Command) -> Result<Response, Error> {
        let mut leases = self.leases.lock();
        match command {
            proposal::Command::LeaseRevoke(revoke) => {
                leases.remove(&revoke.id).ok_or(Rejection::LeaseNotFound)?;
            }
            proposal::Command::LeaseCheckpoint(checkpoint) => {
                for item in &checkpoint.items {
                    if let Some(lease) = leases.get_mut(&item.id) {
                        lease.remaining_ttl_secs = item.remaining_ttl_secs;
                    }
                }
            }
            other => panic!("unexpected {other:?}"),
        }
        Ok(Response::Empty { revision: 1 })
    }
}

impl LeaseState for Cluster {
    fn leases(&self) -> Vec<state::Lease> {
        self.leases.lock().values().copied().collect()
    }
    fn lease(&self, id: i64, _: bool) -> Option<(state::Lease, Vec<bytes::Bytes>)> {
        self.leases.lock().get(&id).map(|lease| (*lease, Vec::new()))
    }
}

impl Leadership for Cluster {
    fn leads(&self) -> Option<u64> {
        *self.term.lock()
    }
    fn leads_alone(&self) -> Option<u64> {
        self.leads().filter(|_| self.alone.load(Ordering::SeqCst))
    }
    fn confirm(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.confirmed.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { self.leads().map(|_| ()).ok_or(Error::NotLeader) })
    }
    fn submit_in_term(&self, command: proposal::Command, term: u64) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(async move {
            self.log.lock().push((term, command.clone()));
            if self.leads() != Some(term) {
                return Err(Error::NotLeader);
            }
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.in_flight_max.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            if self.stuck.load(Ordering::SeqCst) {
                return Err(Error::Timeout);
            }
            self.apply(&command)
        })
    }
}

struct Scene {
    cluster: Arc<Cluster>,
    leases: Arc<Leases>,
    cancel: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Scene {
    fn new(cluster: Arc<Cluster>) -> Self {
        let leases = Leases::new(cluster.clone(), cluster.clone(), ELECTION, Duration::from_secs(7));
        let cancel = CancellationToken::new();
        tokio::spawn(leases.clone().run(cancel.clone()));
        Self { cluster, leases, cancel }
    }
    fn leading() -> Self {
        let cluster = Arc::new(Cluster::default());
        cluster.lead(1);
        Self::new(cluster)
    }
    fn grant(&self, id: i64, ttl_secs: i64) {
        self.leases.observe(&self.cluster.grant(id, ttl_secs));
    }
    async fn renew(&self, id: i64) -> Result<i64, Error> {
        Ok(self.leases.renew(vec![id]).await?[0])
    }
}

async fn after(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 5);
    after(4.9).await;
    assert!(scene.cluster.alive(7));
    after(0.8).await;
    assert!(!scene.cluster.alive(7));
    assert_eq!(scene.renew(7).await.expect("leads"), 0);
    assert_eq!(scene.leases.time_to_live(7, false).await.expect("leads"), None);
}

#[tokio::test(start_paused = true)]
async fn the_first_grant_of_a_term_is_not_extended() {
    let scene = Scene::new(Arc::new(Cluster::default()));
    after(0.1).await;
    scene.cluster.lead(1);
    scene.grant(7, 2);
    after(2.6).await;
    assert!(!scene.cluster.alive(7), "two seconds and a tick are over");
}

#[tokio::test(start_paused = true)]
async fn the_list_holds_what_there_is_soonest_end_first() {
    let scene = Scene::leading();
    after(0.1).await;
    for (id, ttl_secs) in [(1, 30), (2, 10), (3, 20)] {
        scene.grant(id, ttl_secs);
    }
    // Revoked by a client: the clock isn't told.
    scene.cluster.leases.lock().remove(&3);
    assert_eq!(scene.leases.by_remaining(), Some(vec![2, 1]));
}

#[tokio::test(start_paused = true)]
async fn keep_alives_never_touch_the_log() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 5);
    for _ in 0..200 {
        after(4.0).await;
        assert_eq!(scene.renew(7).await.expect("leads"), 5);
    }
    assert!(scene.cluster.log.lock().is_empty());
    after(1.5).await;
    let asked = scene.leases.time_to_live(7, false).await.expect("leads").expect("exists");
    assert_eq!((asked.ttl_secs, asked.granted_ttl_secs), (3, 5));
    assert!(scene.leases.clock.lock().ends.len() < 100, "stale ends are swept");
}

#[tokio::test(start_paused = true)]
async fn alone_it_renews_at_once_what_waits_for_nothing() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 5);
    assert_eq!(scene.leases.renew_at_once(7), None, "there may be a newer leader");
    scene.cluster.alone.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        after(4.0).await;
        assert_eq!(scene.leases.renew_at_once(7), Some(5));
    }
    assert_eq!(scene.leases.renew_at_once(8), Some(0), "there is none");
    assert_eq!(scene.cluster.confirmed.load(Ordering::SeqCst), 0);
    scene.grant(9, 1000);
    scene.cluster.leases.lock().get_mut(&9).expect("granted").remaining_ttl_secs = 700;
    scene.cluster.lead(2);
    assert_eq!(scene.leases.renew_at_once(9), None, "the clock isn't set for this term");
    after(1.0).await;
    assert_eq!(scene.leases.renew_at_once(9), None, "its rest is in the log");
    scene.cluster.stuck.store(true, Ordering::SeqCst);
    after(8.0).await;
    assert_eq!(scene.leases.renew_at_once(7), None, "it ends");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_neither_expires_nor_answers() {
    let scene = Scene::new(Arc::new(Cluster::default()));
    scene.grant(7, 2);
    after(100.0).await;
    assert!(scene.cluster.alive(7));
    assert!(matches!(scene.renew(7).await, Err(Error::NotLeader)));
    assert_eq!(scene.leases.by_remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_extends_by_an_election_timeout() {
    let scene = Scene::new(Arc::new(Cluster::default()));
    scene.grant(7, 5);
    after(100.1).await;
    scene.cluster.lead(2);
    after(6.3).await;
    assert!(scene.cluster.alive(7), "its first tick is up to half a second away, then come 5 s and 1 s");
    after(1.0).await;
    assert!(!scene.cluster.alive(7));
    assert_eq!(scene.cluster.log.lock()[0].0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_proposes_nothing() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 5);
    after(4.0).await;
    *scene.cluster.term.lock() = None;
    after(20.0).await;
    assert!(scene.cluster.alive(7) && scene.cluster.log.lock().is_empty());
    scene.cluster.lead(3);
    after(1.0).await;
    assert_eq!(scene.renew(7).await.expect("leads again"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_decided_end_makes_keep_alives_wait_and_is_tried_again() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 5);
    scene.cluster.stuck.store(true, Ordering::SeqCst);
    after(5.6).await;
    assert!(scene.cluster.alive(7));
    assert!(matches!(scene.renew(7).await, Err(Error::Timeout)), "never renewed once decided");
    scene.cluster.stuck.store(false, Ordering::SeqCst);
    let renewed = scene.renew(7).await.expect("leads");
    assert_eq!(renewed, 0);
    assert!(!scene.cluster.alive(7));
    assert!(scene.cluster.log.lock().len() <= 4);
}

#[tokio::test(start_paused = true)]
async fn mass_expiry_is_paced() {
    let scene = Scene::leading();
    after(0.1).await;
    for id in 1..=3000 {
        scene.grant(id, 5);
    }
    after(6.0).await;
    let left = scene.cluster.leases.lock().len();
    assert!((1900..3000).contains(&left), "{left} left after a second");
    after(5.0).await;
    assert!(scene.cluster.leases.lock().is_empty());
    assert!(scene.cluster.in_flight_max.load(Ordering::SeqCst) <= REVOKES_IN_FLIGHT);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_spreads_many_ends() {
    let cluster = Arc::new(Cluster::default());
    for id in 1..=3000 {
        let _ = cluster.grant(id, 5);
    }
    let scene = Scene::new(cluster);
    scene.cluster.lead(1);
    assert!(scene.leases.by_remaining().is_some_and(|ids| ids.len() == 3000));
    let clock = scene.leases.clock.lock();
    let mut ends: Vec<Instant> = clock.leases.values().map(|deadline| deadline.at).collect();
    ends.sort_unstable();
    assert!(ends[0] >= Instant::now() + Duration::from_secs(6));
    assert!(ends.windows(752).all(|window| window[751] - window[0] >= Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn checkpoints_bound_what_leader_changes_add() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(7, 1000);
    after(301.0).await;
    let remaining = |scene: &Scene| scene.cluster.leases.lock()[&7].remaining_ttl_secs;
    assert_eq!(remaining(&scene), 700);
    // The next leader counts on from there.
    scene.cluster.lead(2);
    after(1.0).await;
    let asked = scene.leases.time_to_live(7, false).await.expect("leads").expect("exists");
    assert!((699..=701).contains(&asked.ttl_secs), "{asked:?}");
    // A keep-alive takes it out of the log before it is answered.
    let before = scene.cluster.log.lock().len();
    assert_eq!(scene.renew(7).await.expect("leads"), 1000);
    assert_eq!((remaining(&scene), scene.cluster.log.lock().len()), (0, before + 1));
    assert_eq!(scene.renew(7).await.expect("leads"), 1000);
    assert_eq!(scene.cluster.log.lock().len(), before + 1, "only the first one");
}

#[tokio::test(start_paused = true)]
async fn unannounced_grants_and_foreign_revokes_are_noticed() {
    let scene = Scene::leading();
    after(0.1).await;
    let _ = scene.cluster.grant(7, 5);
    scene.grant(8, 500);
    after(11.0).await;
    assert!(!scene.cluster.alive(7));
    scene.cluster.leases.lock().remove(&8);
    after(6.0).await;
    assert!(scene.leases.clock.lock().leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_ids_are_answered_in_order() {
    let scene = Scene::leading();
    after(0.1).await;
    scene.grant(1, 10);
    scene.grant(2, 20);
    assert_eq!(scene.leases.renew(vec![2, 9, 1, 2]).await.expect("leads"), [20, 0, 10, 20]);
    assert_eq!(scene.cluster.confirmed.load(Ordering::SeqCst), 1);
    assert_eq!(scene.leases.by_remaining(), Some(vec![1, 2]));
}
