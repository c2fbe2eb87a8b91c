//! The rusd binary.
fn main() {}
