//! A member whose data dir isn't what it should be: it says so in one sentence that names the file and what to do, ends, and leaves alone
//! what it was given; what wasn't damaged is all there at the next start.
//!
//! | file | what is wrong |
//! |---|---|
//! | `control` | the small files beside the database: cut, flipped, of a later format, missing |
//! | `database` | sled's file: cut, flipped, gone |
//! | `owners` | another's: an etcd's, another member's, held by a process |
//! | `system` | what the system refuses: a file for a directory, no right to write, no room |

mod control;
mod database;
#[allow(dead_code)]
#[path = "../fault/disk.rs"]
mod disk;
#[path = "../harness/mod.rs"]
mod harness;
mod owners;
mod store;
mod system;
