//! etcd's services: one file each.

pub mod lease;
pub mod watch;

impl From<crate::server::Error> for tonic::Status {
    fn from(error: crate::server::Error) -> Self {
        Self::unavailable(format!("etcdserver: {error}"))
    }
}
