//! The same requests go to the real etcd and to rusd, and the answers must be the same: codes, texts, headers, order, empty fields.
//!
//! ```text
//! pair      both servers, and what makes their answers comparable: ids and terms are their own, everything else isn't
//! call      one request of any kind, sent to both                 build     short ways to write requests
//! range, write, txn, compact, lease, watch, ...    told by hand   random    seeded; CONFORM_SEED and CONFORM_STEPS repeat or lengthen it
//! ```
//!
//! A difference panics with the call, both answers and, in a random run, the seed and what came before.

#[path = "../harness/mod.rs"]
mod harness;

mod build;
mod call;
mod compact;
mod generate;
mod http;
mod large;
mod lease;
mod limits;
mod maintenance;
mod metrics;
mod no_leader;
mod pair;
mod random;
mod range;
mod txn;
mod unknown;
mod watch;
mod watching;
mod write;
