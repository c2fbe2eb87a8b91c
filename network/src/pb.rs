//! The generated peer protocol.
#![allow(missing_docs, clippy::all, clippy::pedantic)]
include!(concat!(env!("OUT_DIR"), "/rusd.peer.rs"));
