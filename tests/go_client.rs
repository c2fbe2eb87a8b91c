//! etcd's official Go client against real processes: the tests of `tests/go`, which know nothing of the server behind the endpoints.

mod harness;

use harness::cluster::Cluster;
use harness::process::run;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// Long enough for a first build without any cache, on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// The compiled tests. Go's own cache makes a second build short.
static TESTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-client.test");
    let mut build = Command::new("go");
    build.args(["test", "-c", "-o"]).arg(&binary).arg(".").current_dir(sources());
    let ended = run(build, LIMIT);
    assert_eq!(ended.code, Some(0), "the Go tests don't build:\n{}{}", ended.stdout, ended.stderr);
    binary
});

fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/go")
}

fn drive(cluster: &Cluster) {
    let mut tests = Command::new(&*TESTS);
    tests.args(["-test.v", "-test.timeout=600s", "-test.parallel=16"]).env("RUSD_ENDPOINTS", cluster.endpoints().join(","));
    let ended = run(tests, LIMIT);
    let failed = ended.stdout.lines().filter(|line| !line.starts_with("===") && !line.starts_with("--- PASS"));
    assert_eq!(ended.code, Some(0), "{}\n{}", failed.collect::<Vec<_>>().join("\n"), ended.stderr);
    let passed = ended.stdout.lines().filter(|line| line.starts_with("--- PASS")).count();
    assert!(passed >= 35, "only {passed} tests ran:\n{}", ended.stdout);
}

#[tokio::test]
async fn etcd_and_its_stand_in_meet_the_expectations() {
    Cluster::for_clients(drive).await;
}
