//! Linearizability under faults: concurrent clients and watchers on all members of real clusters, random faults, a recorded history, and
//! checkers that are themselves checked.
//!
//! ```text
//! workload, clients, perform     what is asked, of whom, over the wire
//! watchers                       who listens, and so writes the log
//! history, model                 what was seen, and what a correct store does
//! checker, owners, order         judge by revisions: everything must be explained
//! search                         judges by values alone, with no belief in revisions
//! watch_checker                  etcd's watch guarantees
//! tenants, lease_checker         leases neither end early nor live for ever
//! settle, trial                  the end of a run, and the whole of one
//! fault/                         what can go wrong
//! ```
//!
//! `FAULT_SEED` repeats a run's choices as far as real processes allow (`make fault SEED=`).

mod checked;
mod checker;
mod clients;
#[path = "../fault/mod.rs"]
mod fault;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod lease_checked;
mod lease_checker;
mod mixture;
mod model;
mod order;
mod owners;
mod perform;
mod search;
mod settle;
mod tenants;
mod trial;
mod watch_checked;
mod watch_checker;
mod watchers;
mod wire;
mod workload;
