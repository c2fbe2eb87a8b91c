//! Faults of real processes, networks, disks and clocks.
//!
//! ```text
//! World      a cluster whose network, disks and clocks obey the test                        (world)
//!   Network  namespaces, and packets that pass through the test                             (network, namespace)
//!   Shim     a library between the server and libc: sick disks, wrong clocks, sudden ends   (shim)
//!   Disk     a loop device: power cuts, no room                                             (disk)
//! Nemesis    draws faults from a seed, heals, measures recovery                             (nemesis, kinds)
//!   families what happens: processes, partitions, disks, membership
//!   each     every kind once                                                                (each_kind)
//! Stories    one fault each, told from begin to end                                         (leaders, leases, sick_disks, full_disks, interrupted)
//! ```
//! Tests that take long are ignored, and run by `make fault-stories`.

pub mod disk;
pub mod disks;
mod each_kind;
mod full_disks;
mod interrupted;
pub mod kinds;
mod leaders;
mod leases;
pub mod membership;
pub mod namespace;
pub mod nemesis;
pub mod network;
pub mod partitions;
pub mod processes;
pub mod shim;
mod sick_disks;
pub mod world;
