//! Clusters that grow, shrink and heal, as an operator does it: real processes, the real `etcdctl`, and now and then a `kill -9`.

#[path = "../harness/mod.rs"]
mod harness;

mod alone;
mod bridge;
mod changes;
mod corruption;
mod crashes;
mod dead_leaders;
mod leaving;
mod metrics;
mod moving;
mod operator;
mod partial;
mod peers;
mod resumed;
mod versions;
mod wiped;
mod writer;
