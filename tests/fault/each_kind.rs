//! Each kind of fault once, under load: what a mixture draws by chance isn't missing here. One test per family.

use crate::fault::kinds::Kind;
use crate::fault::world::{Spec, World, with_world};
use crate::fault::{disks, membership, nemesis, partitions, processes};
use crate::trial::{Load, Trial};

const LOAD: Load = Load { clients: 6, value_bytes_max: 2000, tenants: 1 };
/// So small that whoever was away for a second needs a snapshot.
const SNAPSHOTS: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];

fn each(spec: Spec, possible: impl FnOnce(&World) -> bool + Send + Sync, kinds: &[Kind]) {
    with_world(spec, |mut world| async move {
        if !possible(&world) {
            return;
        }
        let trial = Trial::begin(&world, LOAD);
        let tally = nemesis::each(&mut world, &trial.shared, kinds).await;
        let report = trial.judge(&mut world, tally).await;
        println!("{report}\n  {:?}", report.tally.faults);
        report.assert_clean();
    });
}

#[test]
fn processes_that_end_and_stop() {
    use processes::Kind::*;
    let kinds = [Kill, Stop, KillWhileStarting, KillMajority, KillAll, StopAll, Terminate, MoveLeader];
    each(Spec::new(3, 11), |_| true, &kinds.map(Kind::Process));
}

#[test]
fn networks_that_are_cut_and_sick() {
    use partitions::Kind::*;
    let kinds = [Isolate, Deaf, Mute, Pair, Split, Bridge, Scatter, Lossy, Slow, Doubled];
    each(Spec::new(3, 12).network(), |world| world.network.is_some(), &kinds.map(Kind::Network));
}

#[test]
fn disks_that_are_sick_and_clocks_that_jump() {
    use disks::Kind::*;
    let kinds = [Slow, Stall, SyncError, NoSpace, DieAtCall, Clock];
    each(Spec::new(3, 13).flags(&SNAPSHOTS).shim(), |world| !world.shims.is_empty(), &kinds.map(Kind::Disk));
}

#[test]
fn disks_that_lose_power_and_fill_up() {
    use disks::Kind::*;
    let kinds = [PowerCut, PowerCutAll, Full];
    each(Spec::new(3, 14).disks(96), |world| !world.disks.is_empty(), &kinds.map(Kind::Disk));
}

#[test]
fn members_that_come_and_go() {
    use membership::Kind::*;
    let kinds = [Add, Remove, AddLearner, Promote, Replace];
    let spec = Spec::new(3, 15).spare(1).flags(&SNAPSHOTS).flags(&["--strict-reconfig-check=false"]);
    each(spec, |_| true, &kinds.map(Kind::Membership));
}
