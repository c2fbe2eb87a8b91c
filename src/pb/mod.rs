//! etcd's messages and services, generated from `proto/etcd`.

/// The client API.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// Keys and events.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Users and roles.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// Locks.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// Elections.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// gRPC's health check.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Encoded descriptors of all of the above, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.descriptors.bin"));

mod answer;
mod refusal;
mod request;

pub use answer::{members, txn_op};
pub use refusal::Refusal;
pub use request::txn;
