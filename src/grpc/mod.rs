//! etcd's services: one file each, thin; what they do is done elsewhere.
//!
//! ```text
//! connection -> front (method counters, learner and leader gates) -> service -> pb (check) -> server (propose, read) -> pb -> header
//! ```

mod auth;
mod cluster;
pub mod election;
pub mod front;
mod header;
mod health;
mod kv;
pub mod lease;
mod listing;
mod local_txn;
pub mod lock;
mod maintenance;
mod messages;
pub mod outflow;
mod range_stream;
pub mod recipe;
pub mod slow;
pub mod status;
mod transport;
pub mod watch;

use crate::metrics::Metrics;
use crate::server::leases::Leases;
use crate::server::{Error, Server};
use crate::watch::Hub;
use rusd_storage::command::{Response, proposal};
use std::sync::Arc;

/// The etcd version whose behaviour this is; told in Status, /version and metrics, for clients decide by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// What every service needs. Each service's trait is implemented for it, in a file of its own.
#[derive(Clone)]
pub struct Api {
    /// The member.
    pub server: Arc<Server>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Room for large answers.
    pub outflow: Arc<outflow::Outflow>,
    /// Watches.
    pub hub: Arc<Hub>,
    /// The clock of leases.
    pub leases: Arc<Leases>,
}

impl Api {
    /// An answer, once there is room for it while it is on its way. `bytes` is about its size; `otherwise` is told if there never is:
    /// what has been written by then must not sound as if it had been refused.
    async fn with_room<T>(&self, message: T, bytes: usize, otherwise: Error) -> Result<tonic::Response<T>, tonic::Status> {
        let large = self.outflow.claim(bytes, self.server.config.request_timeout()).await.map_err(|outflow::NoRoom| otherwise)?;
        let mut response = tonic::Response::new(message);
        if let Some(large) = large {
            response.extensions_mut().insert(large);
        }
        Ok(response)
    }

    /// Proposes and waits for the result on this member.
    pub async fn propose(&self, command: proposal::Command) -> Result<Response, Error> {
        self.server.propose.submit(command).await
    }
}

/// Cluster version as /version and metrics tell it.
pub fn cluster_version(server: &Server) -> String {
    let version = server.state.cluster_version();
    if version.is_empty() { "not_decided".into() } else { version }
}

/// An alarm's name.
pub fn alarm_name(number: i32) -> &'static str {
    match number {
        0 => "NONE",
        1 => "NOSPACE",
        2 => "CORRUPT",
        _ => "UNKNOWN",
    }
}

/// Runs what may read many frames or many keys where it can't hold up other requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, tonic::Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            tracing::error!(%error, "a read failed unexpectedly");
            Err(tonic::Status::internal("the read failed unexpectedly"))
        }
    }
}
