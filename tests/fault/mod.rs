//! Faults of real processes, networks, disks and clocks.
//!
//! ```text
//! World      a cluster whose network, disks and clocks obey the test                        (world)
//!   Network  namespaces, and packets that pass through the test                             (network, namespace)
//!   Shim     a library between the server and libc: sick disks, wrong clocks, sudden ends   (shim)
//!   Disk     a loop device: power cuts, no room                                             (disk)
//! Nemesis    draws faults from a seed, heals, measures recovery                             (nemesis, kinds)
//!   families what happens: processes, partitions, disks, membership
//! Stories    one fault each, told from begin to end                                         (leaders, sick_disks, interrupted, leases)
//! ```

pub mod disk;
pub mod disks;
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
