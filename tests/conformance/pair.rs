//! Both servers, each a cluster of its own with the same flags.

use crate::call::{Call, Outcome};
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::{rusd, tool};

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
