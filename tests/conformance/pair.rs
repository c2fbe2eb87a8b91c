//! Both servers, each a cluster of its own with the same flags.

use crate::call::{Call, Outcome};
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::{rusd, tool};

/// Remaining times of a lease may differ by so much, also on a slow machine.
const APART_MAX_SECS: i64 = 30;

/// etcd and rusd with the same history.
pub struct Pair {
    pub etcd: Cluster,
    pub rusd: Cluster,
    clients: [Client; 2],
}

impl Pair {
    /// One member each, serving.
    pub async fn start(flags: &[&str]) -> Self {
        Self::with_members(1, flags).await
    }

    /// So many members each, serving.
    pub async fn with_members(count: usize, flags: &[&str]) -> Self {
        let cluster = |program: std::path::PathBuf| {
            let mut cluster = Cluster::prepare(count, flags);
            cluster.members.iter_mut().for_each(|member| member.program = program.clone());
            cluster.start_all();
            cluster
        };
        let (mut etcd, mut rusd) = (cluster(tool("etcd")), cluster(rusd()));
        tokio::join!(etcd.wait_all(), rusd.wait_all());
        let clients = [&etcd, &rusd].map(|cluster| Client::patient(&cluster.members[0].client_url()));
        Self { etcd, rusd, clients }
    }

    /// Clients of the first members, etcd's first.
    pub fn clients(&self) -> &[Client; 2] {
        &self.clients
    }

    /// Sends a call to both; the outcomes, etcd's first.
    pub async fn send(&self, call: &Call) -> [Outcome; 2] {
        let [etcd, rusd] = self.clients();
        let (etcd, rusd) = tokio::join!(call.send(etcd), call.send(rusd));
        let rusd = if matches!(call, Call::TimeToLive(_)) { with_time_of(&etcd, rusd) } else { rusd };
        [etcd, rusd]
    }

    /// Sends a call to both and panics if they differ; answers what both said.
    pub async fn same(&self, call: impl Into<Call>) -> Outcome {
        let call = call.into();
        let [etcd, rusd] = self.send(&call).await;
        assert!(etcd == rusd, "{call:?}\n  etcd: {etcd:?}\n  rusd: {rusd:?}");
        rusd
    }

    /// Sends a call that both must accept.
    pub async fn accepted(&self, call: impl Into<Call>) {
        let outcome = self.same(call).await;
        assert!(matches!(outcome, Outcome::Answer(_)), "both refuse: {outcome:?}");
    }

    /// Sends a call that both must refuse with this text.
    pub async fn refused(&self, call: impl Into<Call>, text: &str) {
        match self.same(call).await {
            Outcome::Refusal(_, said) => assert_eq!(said, text),
            Outcome::Answer(answer) => panic!("both accept: {answer}"),
        }
    }
}

/// Time goes on between the two calls, and between the two grants: a remaining time near etcd's counts as the same.
fn with_time_of(etcd: &Outcome, rusd: Outcome) -> Outcome {
    let (Outcome::Answer(theirs), Outcome::Answer(ours)) = (etcd, &rusd) else { return rusd };
    let times = (number_after(theirs, " ttl: "), number_after(ours, " ttl: "), number_after(ours, " granted_ttl: "));
    let (Some(their_time), Some(our_time), Some(granted)) = times else { return rusd };
    let near = their_time > 0 && (1..=granted).contains(&our_time) && (their_time - our_time).abs() <= APART_MAX_SECS;
    if near { Outcome::Answer(ours.replacen(&format!(" ttl: {our_time},"), &format!(" ttl: {their_time},"), 1)) } else { rusd }
}

fn number_after(text: &str, name: &str) -> Option<i64> {
    text.split_once(name)?.1.split(',').next()?.parse().ok()
}
