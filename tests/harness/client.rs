//! A client made of the crate's own stubs, and the real `etcdctl`.

use super::process::{Ended, run};
use super::{PATIENCE, POLL, tool};
use rusd::pb::etcdserverpb::auth_client::AuthClient;
use rusd::pb::etcdserverpb::cluster_client::ClusterClient;
use rusd::pb::etcdserverpb::kv_client::KvClient;
use rusd::pb::etcdserverpb::lease_client::LeaseClient;
use rusd::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd::pb::etcdserverpb::watch_client::WatchClient;
use rusd::pb::etcdserverpb::{PutRequest, RangeRequest, StatusRequest, StatusResponse};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const LEADER_CHANGED: &str = "etcdserver: leader changed";

/// All services over one channel, which connects when it is first used and again when it breaks. Clones share it.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Client {
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub auth: AuthClient<Channel>,
}

impl Client {
    /// With short time limits, for calls that are repeated.
    pub fn new(url: &str) -> Self {
        Self::over(channel(url, Duration::from_secs(4)))
    }

    /// With [`PATIENCE`], for calls that must succeed, and for streams.
    pub fn patient(url: &str) -> Self {
        Self::over(channel(url, PATIENCE))
    }

    /// Over a channel of the caller's.
    pub fn over(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            auth: AuthClient::new(channel),
        }
    }

    /// Puts; answers the revision.
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<i64, Status> {
        let request = PutRequest { key: key.into().into(), value: value.into().into(), ..Default::default() };
        let answer = self.kv.clone().put(request).await?.into_inner();
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Reads one key linearizably.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>, Status> {
        self.read(key, false).await
    }

    /// Reads one key, linearizably or locally. A linearizable read that meets a change of leaders is refused, and repeated here, as etcd's
    /// clients do.
    pub async fn read(&self, key: impl Into<Vec<u8>>, serializable: bool) -> Result<Option<Vec<u8>>, Status> {
        let request = RangeRequest { key: key.into().into(), serializable, ..Default::default() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.kv.clone().range(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner().kvs.into_iter().next().map(|kv| kv.value.to_vec())),
                Err(status) if status.message() == LEADER_CHANGED && !serializable && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// The member's status.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        self.maintenance.clone().status(StatusRequest {}).await.map(tonic::Response::into_inner)
    }
}

/// A channel that connects when it is first used. `limit` bounds each call; of a stream its beginning.
pub fn channel(url: &str, limit: Duration) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_string()).expect("a valid URL");
    endpoint.connect_timeout(limit.min(Duration::from_secs(1))).timeout(limit).connect_lazy()
}

/// Runs the real `etcdctl` against these endpoints (all of them in one client).
pub fn etcdctl(endpoints: &[String], arguments: &[&str]) -> Ended {
    let mut command = Command::new(tool("etcdctl"));
    command.arg(format!("--endpoints={}", endpoints.join(","))).args(arguments);
    run(command, PATIENCE)
}
