//! rusd: how clients talk to us, and when.

pub mod cli;
pub mod config;
pub mod grpc;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod pb;
pub mod server;
pub mod watch;
