//! How a member begins and ends: whose flags count, where it keeps and serves its data, and that it goes quietly when it is told to.
//!
//! | file | what |
//! |---|---|
//! | `begin` | restarts with other flags, another cluster's data dir, default data dir, all addresses, a config file |
//! | `end` | SIGTERM and SIGINT under open streams; a whole life without an error in the log |

mod begin;
mod end;
#[path = "../harness/mod.rs"]
mod harness;
