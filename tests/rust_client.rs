//! The crate `etcd-client` against real processes: the program of `tests/rust-client`, which knows nothing of the server behind the endpoints.

mod harness;

use harness::cluster::Cluster;
use harness::process::run;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// Long enough for a first build on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// How many steps the program has.
const STEPS: usize = 15;

/// The program. Its crate calls protoc when it is built, so something that answers to that is built before.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rust-client");
    let protoc = target.join("debug/protoc");
    for package in ["protoc", "rust-client"] {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", package, "--target-dir"]).arg(&target).env("PROTOC", &protoc);
        build.current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/rust-client"));
        let ended = run(build, LIMIT);
        assert_eq!(ended.code, Some(0), "{package} doesn't build:\n{}{}", ended.stdout, ended.stderr);
    }
    target.join("debug/rust-client")
});

fn drive(cluster: &Cluster) {
    let mut program = Command::new(&*PROGRAM);
    program.args(cluster.endpoints());
    let ended = run(program, LIMIT);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout.lines().filter(|line| line.starts_with("ok ")).count(), STEPS, "{}", ended.stdout);
}

#[tokio::test]
async fn etcd_and_its_stand_in_meet_the_expectations() {
    Cluster::for_clients(drive).await;
}
