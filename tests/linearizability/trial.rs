//! One trial: clients and watchers on a cluster while something happens to it; then peace, and a judgement of all that was seen.

use crate::checker::{self, Violation};
use crate::clients::{self, Shared};
use crate::fault::nemesis::Tally;
use crate::fault::world::World;
use crate::history::{Answer, Log, Operation, render};
use crate::search::{self, SLOTS, key};
use crate::tenants::{self, Register};
use crate::watch_checker::{self, Facts, until};
use crate::watchers::{Moment, Watcher};
use crate::wire::Range;
use crate::workload::GROUPS;
use crate::{lease_checker, owners, settle, workload};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How much is asked of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Concurrent clients.
    pub clients: usize,
    /// Now and then a value is up to so large.
    pub value_bytes_max: usize,
    /// Who take leases.
    pub tenants: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations of clients.
    pub operations: usize,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Events that watchers heard.
    pub events: usize,
    /// Leases, and promises to keep them.
    pub leases: (usize, usize),
    /// Packets between members and from clients that arrived, and that didn't.
    pub packets: (u64, u64),
    /// What was done to the cluster.
    pub tally: Tally,
    /// All of it.
    pub violations: Vec<String>,
    /// Groups of keys on which the search gave up.
    pub undecided: usize,
}

impl Report {
    /// Takes in another one.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.events += other.events;
        self.leases = (self.leases.0 + other.leases.0, self.leases.1 + other.leases.1);
        self.packets = (self.packets.0 + other.packets.0, self.packets.1 + other.packets.1);
        self.tally.add(other.tally);
        self.violations.extend(other.violations);
        self.undecided += other.undecided;
    }
}

impl Report {
    /// Panics with the first violations, if there are any.
    pub fn assert_clean(&self) {
        let first: Vec<String> = self.violations.iter().take(5).map(|violation| short(violation)).collect();
        assert!(first.is_empty(), "{} violations, the first: {}", self.violations.len(), first.join("\n"));
    }
}

fn short(text: &str) -> String {
    text.chars().take(600).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults = self.tally.count();
        write!(
            f,
            "{} operations, {} acknowledged writes, {} of unknown outcome, {} events, {} leases promised {} times, {faults} faults, {} packets of which {} lost, \
             {} violations, slowest recovery {:?} after {:?}, {} groups undecided by search",
            self.operations,
            self.acknowledged,
            self.unknown,
            self.events,
            self.leases.0,
            self.leases.1,
            self.packets.0 + self.packets.1,
            self.packets.1,
            self.violations.len(),
            self.tally.slowest_recovery.0,
            self.tally.slowest_recovery.1,
            self.undecided
        )
    }
}

/// Clients and watchers at work.
pub struct Trial {
    /// What they share.
    pub shared: Arc<Shared>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    register: Arc<Register>,
    watchers: Vec<Arc<Watcher>>,
    watching: Vec<tokio::task::JoinHandle<()>>,
}

/// Watchers of everything: together they write the log.
const CHRONICLERS: usize = 2;

impl Trial {
    /// Begins.
    pub fn begin(world: &World, load: Load) -> Self {
        let shared = Shared::new(world.cluster.endpoints());
        let seed = world.spec.seed;
        let clients = (0..load.clients).map(|number| tokio::spawn(clients::client(shared.clone(), number, seed, load.value_bytes_max)));
        let mut clients: Vec<_> = clients.collect();
        let register = Arc::new(Register::default());
        clients.extend((0..load.tenants).map(|number| tokio::spawn(tenants::tenant(shared.clone(), register.clone(), number, seed))));
        let mut watchers: Vec<_> = (0..CHRONICLERS).map(|_| Watcher::of_everything()).collect();
        watchers.push(Watcher::new(Range { from: key(0, 0), to: key(0, SLOTS) }, false, 0));
        watchers.push(Watcher::new(Range { from: key(1, 1), to: format!("{}\0", key(1, 1)) }, true, 0));
        watchers.push(Watcher::new(Range { from: key(1, 0), to: workload::after_prefix() }, true, 2));
        let watching = watchers.iter().zip(seed + 1000..).map(|(watcher, seed)| tokio::spawn(watcher.clone().run(shared.clone(), seed)));
        let mut watching: Vec<_> = watching.collect();
        watching.push(tokio::spawn(release(shared.clone(), watchers[..CHRONICLERS].to_vec())));
        Self { shared, clients, register, watchers, watching }
    }

    /// Ends the run after a while: whoever makes faults looks at `shared`.
    pub fn end_after(&self, time: Duration) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            shared.stop.store(true, Ordering::Relaxed);
        });
    }

    /// Ends clients and watchers and judges what they saw. The cluster must be whole again.
    pub async fn judge(self, world: &mut World, tally: Tally) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client doesn't panic");
        }
        let packets = world.network.as_ref().map_or((0, 0), |network| network.counts());
        let mut report = Report { violations: tally.violations.clone(), tally, packets, ..Report::default() };
        lease_checker::ended(world, &mut report.violations).await;
        let newest = settle::newest(world, &mut report.violations).await;
        settle::watched(&self.watchers, newest, &mut report.violations).await;
        self.watching.iter().for_each(tokio::task::JoinHandle::abort);
        let moments: Vec<Vec<(u64, Moment)>> = self.watchers.iter().map(|watcher| until(newest, watcher.moments())).collect();
        let mut violations = Vec::new();
        let log = watch_checker::merge(&moments[..CHRONICLERS], &mut violations);
        let operations = self.shared.history();
        settle::compare(world, &log, newest, &mut report.violations).await;
        violations.extend(checker::check(&operations, &log));
        let owners = owners::find(&operations, &log, &mut Vec::new());
        let facts = Facts::new(&operations, &log, &owners);
        for (number, (watcher, moments)) in self.watchers.iter().zip(&moments).enumerate() {
            violations.extend(watch_checker::check(number, &watcher.range, watcher.prev_kv, moments, &facts));
        }
        let tenancies = self.register.all();
        report.leases = (tenancies.len(), tenancies.iter().map(|tenancy| tenancy.promises.len()).sum());
        violations.extend(lease_checker::check(&tenancies, &moments));
        let opinion = search::judge(&operations, &log, &owners, GROUPS);
        report.violations.extend(violations.into_iter().map(|violation: Violation| violation.0));
        report.violations.extend(opinion.illegal.iter().map(|group| format!("no order of the operations on group {group} explains them")));
        report.undecided = opinion.undecided;
        count(&mut report, &operations, &moments);
        report.violations.iter().take(20).for_each(|violation| println!("  VIOLATION {}", short(violation)));
        if !report.violations.is_empty() {
            keep(world, &operations, &log, &moments, &report);
        }
        report
    }
}

/// Says from time to time how far history has been written down by all chroniclers.
async fn release(shared: Arc<Shared>, chroniclers: Vec<Arc<Watcher>>) {
    loop {
        let known = chroniclers.iter().map(|watcher| watcher.next.load(Ordering::Relaxed) - 1).min().unwrap_or(0);
        shared.compactable.fetch_max(known, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn count(report: &mut Report, operations: &[Operation], moments: &[Vec<(u64, Moment)>]) {
    report.operations = operations.len();
    report.acknowledged = operations.iter().filter(|operation| operation.answer.changed()).count();
    report.unknown = operations.iter().filter(|operation| operation.answer == Answer::Unknown).count();
    let events = |moment: &(u64, Moment)| match &moment.1 {
        Moment::Events { events, .. } => events.len(),
        _ => 0,
    };
    report.events = moments.iter().flatten().map(events).sum();
    if report.acknowledged == 0 {
        report.violations.push("nothing was ever acknowledged".into());
    }
}

fn keep(world: &mut World, operations: &[Operation], log: &Log, moments: &[Vec<(u64, Moment)>], report: &Report) {
    let kept = world.cluster.keep();
    let mut text = format!("{:?}\n{report}\n", world.spec);
    report.violations.iter().for_each(|violation| text.push_str(&format!("VIOLATION {violation}\n")));
    text.push_str(&render(operations, log));
    for (number, moments) in moments.iter().enumerate() {
        moments.iter().for_each(|(time, moment)| text.push_str(&format!("{time:>10} watcher {number} {moment:?}\n")));
    }
    std::fs::write(kept.join("history.txt"), text).expect("the history can be kept");
    println!("history and logs are kept in {}", kept.display());
}
