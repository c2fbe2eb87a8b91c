//! Bad input on both ports of a live member: whatever comes in, the member goes on, answers others meanwhile, and its memory stays bounded.
//!
//! | file | what comes in |
//! |---|---|
//! | `calls` | calls that are well-formed HTTP/2 and bad gRPC: answered in etcd's words, told by etcd itself where it is built |
//! | `floods` | more than anybody needs: resets, pings, headers, streams |
//! | `garbage` | random bytes, broken frames, half a preface |
//! | `slow` | clients that don't read, don't write, or say nothing; thousands of them |

mod calls;
mod floods;
mod garbage;
#[path = "../harness/mod.rs"]
mod harness;
mod slow;
mod victim;
mod wire;
