//! A cluster with a network, disks and clocks that obey the test.

use crate::fault::disk::Disk;
use crate::fault::network::Network;
use crate::fault::shim::Shim;
use crate::harness::client::{Client, channel};
use crate::harness::cluster::Cluster;
use crate::harness::skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many members there are in the beginning.
    pub members: usize,
    /// Seats for more.
    pub spare: usize,
    /// Beside the times.
    pub flags: Vec<String>,
    /// Decides what is random.
    pub seed: u64,
    /// Whether packets can be lost.
    pub network: bool,
    /// Whether disks can be sick and clocks wrong.
    pub shim: bool,
    /// Size of a disk of its own for each member.
    pub disk_mib: Option<u32>,
}

/// Twice as fast as the defaults, so that a run sees many elections.
const TIMES: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

impl Spec {
    /// Members with neither network nor disks of their own.
    pub fn new(members: usize, seed: u64) -> Self {
        let flags = TIMES.into_iter().chain(["--watch-progress-notify-interval=200ms"]).map(String::from).collect();
        Self { members, spare: 0, flags, seed, network: false, shim: false, disk_mib: None }
    }

    /// With more flags.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// With a network of its own.
    pub fn network(self) -> Self {
        Self { network: true, ..self }
    }

    /// With room for so many more members.
    pub fn spare(self, spare: usize) -> Self {
        Self { spare, ..self }
    }

    /// With sick disks and wrong clocks.
    pub fn shim(self) -> Self {
        Self { shim: true, ..self }
    }

    /// With disks of their own.
    pub fn disks(self, mib: u32) -> Self {
        Self { disk_mib: Some(mib), ..self }
    }
}

/// See the module. What isn't possible here is missing, and was said loudly.
pub struct World {
    /// The members.
    pub cluster: Cluster,
    /// Between them.
    pub network: Option<Network>,
    /// One for each member, or none.
    pub shims: Vec<Shim>,
    /// Likewise.
    pub disks: Vec<Disk>,
    /// What it was made of.
    pub spec: Spec,
    /// The seats whose members belong to the cluster, as far as we know.
    pub joined: BTreeSet<usize>,
    /// The seats whose members were removed and have to end.
    pub leaving: BTreeSet<usize>,
    /// The seats whose removal was asked for and not answered, with their members' ids.
    pub doubted: BTreeMap<usize, u64>,
    /// The seats whose members were asked to be added, perhaps in vain, and haven't been started.
    pub late: BTreeSet<usize>,
    /// The peer URLs of the cluster as new members were told.
    pub given: BTreeMap<usize, BTreeSet<String>>,
}

/// Two worlds at once, whatever the machine: stories mostly wait, but more would measure the machine, not the store.
static ROOM: (Mutex<usize>, Condvar) = (Mutex::new(2), Condvar::new());

/// Room for one world, until it is dropped.
struct Room;

impl Room {
    fn wait() -> Self {
        let free = ROOM.0.lock().expect("no panic while held");
        *ROOM.1.wait_while(free, |free| *free == 0).expect("no panic while held") -= 1;
        Self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *ROOM.0.lock().expect("no panic while held") += 1;
        ROOM.1.notify_one();
    }
}

/// Makes a world, starts its members, waits until they serve, and tells the story on a runtime that lives where clients live.
pub fn with_world<F: Future<Output = ()>>(spec: Spec, story: impl FnOnce(World) -> F + Send) {
    let _room = Room::wait();
    println!("{spec:?}");
    let told = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let world = World::make(spec);
            let place = world.network.as_ref().map(|network| network.clients().clone());
            if let Some(place) = &place {
                place.enter().expect("it was made by us");
            }
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(2).enable_all().on_thread_start(move || {
                if let Some(place) = &place {
                    place.enter().expect("it was made by us");
                }
            });
            runtime.build().expect("a runtime").block_on(async {
                let mut world = world;
                world.members().into_iter().for_each(|member| world.cluster.start(member));
                world.cluster.wait_all().await;
                story(world).await;
            });
        });
        thread.join()
    });
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
}

/// A channel's limit ends with the first byte of the answer, and a process may be stopped right after it.
pub async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, tonic::Status>>) -> Option<T> {
    tokio::time::timeout(limit, call).await.ok()?.ok()
}

impl World {
    fn make(spec: Spec) -> Self {
        let flags: Vec<&str> = spec.flags.iter().map(String::as_str).collect();
        let seats = spec.members + spec.spare;
        let mut cluster = Cluster::prepare(seats, &flags);
        let network = spec.network.then(|| Network::new(seats, spec.seed)).and_then(|network| match network {
            Ok(network) => Some(network),
            Err(error) => {
                skipped("faults of the network", &format!("they need root, /dev/net/tun and ip: {error}"));
                None
            }
        });
        if let Some(network) = &network {
            for (number, member) in cluster.members.iter_mut().enumerate() {
                let space = network.space(number).clone();
                member.host = Network::address(number);
                member.setup = Some(std::sync::Arc::new(move |command| space.apply(command)));
            }
        }
        let founders = cluster.members[..spec.members].iter().map(|member| format!("{}={}", member.name, member.peer_url()));
        cluster.initial_cluster = founders.collect::<Vec<_>>().join(",");
        let disks = disks(&mut cluster, spec.disk_mib);
        let shims = if spec.shim { shims(&mut cluster) } else { Vec::new() };
        let joined = (0..spec.members).collect();
        let (leaving, late) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, network, shims, disks, spec, joined, leaving, doubted: BTreeMap::new(), late, given: BTreeMap::new() }
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.joined.len()
    }

    /// The seats of the members.
    pub fn members(&self) -> Vec<usize> {
        self.joined.iter().copied().collect()
    }

    /// A client of a member whose calls end soon.
    pub fn client(&self, member: usize, limit: Duration) -> Client {
        Client::over(channel(&self.cluster.members[member].client_url(), limit))
    }

    /// Who leads the newest term, of those that answer within a second.
    pub async fn leader(&self) -> Option<usize> {
        let asked = self.members().into_iter().map(|member| async move {
            let status = in_time(Duration::from_secs(1), self.client(member, Duration::from_secs(1)).status()).await?;
            let header = status.header?;
            (header.member_id == status.leader).then_some((header.raft_term, member))
        });
        futures::future::join_all(asked).await.into_iter().flatten().max().map(|(_, member)| member)
    }

    /// Waits until one leads.
    pub async fn wait_leader(&self) -> usize {
        crate::harness::eventually("a leader", || self.leader()).await
    }

    /// The revision of a linearizable read through this member.
    pub async fn wait_revision(&self, member: usize) -> i64 {
        let client = self.client(member, Duration::from_secs(3));
        crate::harness::eventually("a revision", || async {
            let request = rusd::pb::etcdserverpb::RangeRequest { key: "other/alive".into(), ..Default::default() };
            client.kv.clone().range(request).await.ok()?.into_inner().header.map(|header| header.revision)
        })
        .await
    }

    /// Another member than `this`, by number.
    pub fn other(&self, this: usize, number: usize) -> usize {
        (this + 1 + number % (self.len() - 1)) % self.len()
    }

    /// Until a linearizable write through this member is acknowledged; answers how long that took. Panics after a minute.
    pub async fn wait_writes(&self, member: usize) -> Duration {
        let begun = Instant::now();
        let client = self.client(member, Duration::from_secs(3));
        crate::harness::eventually(&format!("member {member} writes"), || {
            let client = client.clone();
            async move { client.put("other/alive", "yes").await.ok() }
        })
        .await;
        begun.elapsed()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Who uses a disk goes first.
        (0..self.cluster.len()).for_each(|member| self.cluster.kill(member));
        self.disks.clear();
    }
}

fn shims(cluster: &mut Cluster) -> Vec<Shim> {
    let mut shims = Vec::new();
    let root = cluster.root().to_path_buf();
    for (number, member) in cluster.members.iter_mut().enumerate() {
        match Shim::new(&root.join(format!("m{number}.faults"))) {
            Ok(shim) => {
                member.environment.extend(shim.environment(&member.data_dir));
                shims.push(shim);
            }
            Err(error) => {
                skipped("sick disks and wrong clocks", &format!("they need a C compiler: {error}"));
                return Vec::new();
            }
        }
    }
    shims
}

fn disks(cluster: &mut Cluster, mib: Option<u32>) -> Vec<Disk> {
    let Some(mib) = mib else { return Vec::new() };
    let mut disks = Vec::new();
    for number in 0..cluster.len() {
        match Disk::new(cluster.root(), &format!("m{number}"), mib) {
            Ok(disk) => disks.push(disk),
            Err(error) => {
                skipped("power cuts and full disks", &format!("they need root and loop devices: {error}"));
                return Vec::new();
            }
        }
    }
    for (member, disk) in cluster.members.iter_mut().zip(&disks) {
        member.data_dir = disk.path().join("member");
    }
    disks
}
