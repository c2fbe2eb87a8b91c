//! What the real process says to wrong flags, and with which code it ends: one table, told by rusd and, where `tools/bin/etcd` is built,
//! by etcd 3.7.1 itself, so that the table can't drift from the truth.

mod harness;

use harness::process::{Ended, run};
use harness::{PATIENCE, ports};
use std::path::Path;
use std::process::Command;

/// A command line and how it ends. `{peer}`, `{client}` and `{other}` stand for free ports.
struct Row {
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// `c.yml`, if there is one.
    file: &'static str,
    code: i32,
    /// The error of its last line, or the first line where that isn't JSON.
    sentence: &'static str,
}

const fn row(arguments: &'static [&'static str], code: i32, sentence: &'static str) -> Row {
    Row { arguments, environment: &[], file: "", code, sentence }
}

const fn variable(arguments: &'static [&'static str], environment: &'static [(&'static str, &'static str)], sentence: &'static str) -> Row {
    Row { arguments, environment, file: "", code: 1, sentence }
}

const fn file(file: &'static str, sentence: &'static str) -> Row {
    Row { arguments: &["--config-file=c.yml"], environment: &[], file, code: 1, sentence }
}

/// Ports of its own, and a name: with what stands after it in a row, a bootable member.
const MEMBER: &str = "--name=x --listen-peer-urls=http://127.0.0.1:{peer} --initial-advertise-peer-urls=http://127.0.0.1:{peer} \
                      --listen-client-urls=http://127.0.0.1:{client} --advertise-client-urls=http://127.0.0.1:{client}";

/// Go's `flag` refuses: 2 and a usage hint.
const BAD_VALUES: &[Row] = &[
    row(&["--nope"], 2, "flag provided but not defined: -nope"),
    row(&["--nope=1"], 2, "flag provided but not defined: -nope"),
    row(&["-x"], 2, "flag provided but not defined: -x"),
    row(&["--name"], 2, "flag needs an argument: -name"),
    row(&["-=3"], 2, "bad flag syntax: -=3"),
    row(&["---name=x"], 2, "bad flag syntax: ---name=x"),
    row(&["--version", "--nope"], 2, "flag provided but not defined: -nope"),
    row(&["--heartbeat-interval=x"], 2, "invalid value \"x\" for flag -heartbeat-interval: parse error"),
    row(&["--heartbeat-interval=-1"], 2, "invalid value \"-1\" for flag -heartbeat-interval: parse error"),
    row(&["--heartbeat-interval", "1s"], 2, "invalid value \"1s\" for flag -heartbeat-interval: parse error"),
    row(
        &["--election-timeout=99999999999999999999"],
        2,
        "invalid value \"99999999999999999999\" for flag -election-timeout: value out of range",
    ),
    row(&["--snapshot-count=+5"], 2, "invalid value \"+5\" for flag -snapshot-count: parse error"),
    row(&["--quota-backend-bytes="], 2, "invalid value \"\" for flag -quota-backend-bytes: parse error"),
    row(&["--pre-vote=maybe"], 2, "invalid boolean value \"maybe\" for -pre-vote: parse error"),
    row(&["--pre-vote="], 2, "invalid boolean value \"\" for -pre-vote: parse error"),
    row(&["--force-new-cluster=maybe"], 2, "invalid boolean value \"maybe\" for -force-new-cluster: parse error"),
    row(&["--grpc-keepalive-min-time=5"], 2, "invalid value \"5\" for flag -grpc-keepalive-min-time: parse error"),
    row(&["--initial-cluster-state", "foo"], 2, "invalid value \"foo\" for flag -initial-cluster-state: invalid value"),
    row(&["--initial-cluster-state="], 2, "invalid value \"\" for flag -initial-cluster-state: invalid value"),
    row(&["--discovery-fallback=x"], 2, "invalid value \"x\" for flag -discovery-fallback: invalid value"),
    row(&["--feature-gates=Nope=true"], 2, "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope"),
    row(
        &["--feature-gates=LeaseCheckpoint"],
        2,
        "invalid value \"LeaseCheckpoint\" for flag -feature-gates: missing bool value for LeaseCheckpoint",
    ),
    row(
        &["--max-concurrent-streams=99999999999"],
        2,
        "invalid value \"99999999999\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"99999999999\": value out of range",
    ),
    row(
        &["--max-concurrent-streams=x"],
        2,
        "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"x\": invalid syntax",
    ),
    row(
        &["--listen-peer-urls=127.0.0.1:1"],
        2,
        "invalid value \"127.0.0.1:1\" for flag -listen-peer-urls: parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
    ),
    row(
        &["--listen-peer-urls=ftp://127.0.0.1:1"],
        2,
        "invalid value \"ftp://127.0.0.1:1\" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1",
    ),
    row(
        &["--listen-client-urls=http://127.0.0.1:1/path"],
        2,
        "invalid value \"http://127.0.0.1:1/path\" for flag -listen-client-urls: URL must not contain a path: http://127.0.0.1:1/path",
    ),
    row(
        &["--listen-metrics-urls=http://127.0.0.1"],
        2,
        "invalid value \"http://127.0.0.1\" for flag -listen-metrics-urls: URL address does not have the form \"host:port\": http://127.0.0.1",
    ),
    row(&["--cors=foo"], 2, "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or unixs: foo"),
];

/// `failed to verify flags`.
const CONTRADICTIONS: &[Row] = &[
    row(&["extra"], 1, "\"extra\" is not a valid flag"),
    row(&["--name", "x", "extra"], 1, "\"extra\" is not a valid flag"),
    row(&["--strict-reconfig-check", "false"], 1, "\"false\" is not a valid flag"),
    row(&["--version", "extra"], 1, "\"extra\" is not a valid flag"),
    row(&["-"], 1, "\"-\" is not a valid flag"),
    row(&["help"], 1, "\"help\" is not a valid flag"),
    row(&["--listen-peer-urls=http://foo:1"], 1, "expected IP in URL for binding (http://foo:1)"),
    row(&["--listen-client-urls=http://foo:1"], 1, "expected IP in URL for binding (http://foo:1)"),
    row(&["--listen-metrics-urls=http://foo:1"], 1, "expected IP in URL for binding (http://foo:1)"),
    row(&["--listen-client-urls=http://127.0.0.1:1"], 1, "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
    row(&["--heartbeat-interval=0"], 1, "--heartbeat-interval must be >0 (set to 0ms)"),
    row(&["--election-timeout=0"], 1, "--election-timeout must be >0 (set to 0ms)"),
    row(&["--election-timeout=60000"], 1, "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
    row(&["--election-timeout=100"], 1, "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]"),
    row(&["--auto-compaction-mode=foo"], 1, "unknown auto-compaction-mode \"foo\""),
    row(&["--auto-compaction-mode="], 1, "undefined auto-compaction-mode"),
    row(&["--log-format=foo"], 1, "unknown log format: foo, supported values json, console"),
    row(&["--logger=foo"], 1, "unknown logger option \"foo\""),
    row(&["--logger=capnslog"], 1, "--logger=capnslog is removed in v3.5"),
    row(&["--log-outputs=default,stderr"], 1, "multi logoutput for \"default\" is not supported yet"),
    row(&["--log-outputs=/nope/x"], 1, "open sink \"/nope/x\": open /nope/x: no such file or directory"),
    row(&["--log-outputs="], 1, "open sink \"\": open : no such file or directory"),
    row(
        &["--enable-log-rotation", "--log-outputs=stderr"],
        1,
        "--log-outputs requires a single file path when --log-rotate-config-json is defined",
    ),
    row(
        &["--feature-gates=LeaseCheckpointPersist=true"],
        1,
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
    ),
    row(&["--discovery-fallback=proxy"], 1, "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""),
    row(&["--tls-min-version=TLS1.1"], 1, "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
    row(
        &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=2000000"],
        1,
        "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
    ),
    row(&["--config-file=nope.yml"], 1, "open nope.yml: no such file or directory"),
    variable(&[], &[("ETCD_HEARTBEAT_INTERVAL", "zz")], "invalid value \"zz\" for ETCD_HEARTBEAT_INTERVAL: parse error"),
    variable(&[], &[("ETCD_PRE_VOTE", "maybe")], "invalid value \"maybe\" for ETCD_PRE_VOTE: parse error"),
    variable(
        &[],
        &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ),
    variable(&["extra"], &[("ETCD_NAME", "y")], "\"extra\" is not a valid flag"),
    file(
        "heartbeat-interval: soon",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field \
         configYAML.Config.heartbeat-interval of type uint",
    ),
    file(
        "name: 5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.Config.name of type string",
    ),
    file("just text", "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go value of type embed.configYAML"),
    file("initial-cluster-state: foo", "unexpected clusterState \"foo\""),
    file("feature-gates: Nope=true", "unrecognized feature gate: Nope"),
    file("auto-compaction-mode: foo", "unknown auto-compaction-mode \"foo\""),
];

/// `discovery failed`: what is found only when the member starts.
const FAILED_STARTS: &[Row] = &[
    row(&[MEMBER, "--listen-client-urls=http://127.0.0.1:99999"], 1, "listen tcp: address 99999: invalid port"),
    row(&[MEMBER, "--listen-metrics-urls=http://127.0.0.1:65536"], 1, "listen tcp: address 65536: invalid port"),
    row(&[MEMBER, "--initial-cluster=y=http://127.0.0.1:{peer}"], 1, "couldn't find local name \"x\" in the initial cluster configuration"),
    row(&[MEMBER, "--initial-cluster="], 1, "couldn't find local name \"x\" in the initial cluster configuration"),
    row(
        &[MEMBER, "--initial-cluster=x=http://127.0.0.1:{peer},x=http://127.0.0.1:{other}"],
        1,
        "--initial-cluster has x=http://127.0.0.1:{other} but missing from --initial-advertise-peer-urls=http://127.0.0.1:{peer} \
         (len([\"http://127.0.0.1:{peer}\"]) != len([\"http://127.0.0.1:{peer}\" \"http://127.0.0.1:{other}\"]))",
    ),
    row(
        &[MEMBER, "--initial-cluster=x=http://127.0.0.1:{peer},y=http://127.0.0.1:{peer}"],
        1,
        "initial cluster x=http://127.0.0.1:{peer},y=http://127.0.0.1:{peer} has duplicate url",
    ),
    row(
        &[MEMBER, "--initial-cluster=x=http://127.0.0.1:{other}"],
        1,
        "--initial-cluster has x=http://127.0.0.1:{other} but missing from --initial-advertise-peer-urls=http://127.0.0.1:{peer} \
         (resolved urls: \"http://127.0.0.1:{peer}\" != \"http://127.0.0.1:{other}\")",
    ),
    row(
        &[
            MEMBER,
            "--initial-advertise-peer-urls=http://127.0.0.1:{peer},http://127.0.0.1:{other}",
            "--initial-cluster=x=http://127.0.0.1:{peer}",
        ],
        1,
        "--initial-advertise-peer-urls has http://127.0.0.1:{other} but missing from \
         --initial-cluster=x=http://127.0.0.1:{peer},x=http://127.0.0.1:{other}",
    ),
    row(&[MEMBER, "--initial-cluster=x"], 1, "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "),
    row(
        &[MEMBER, "--initial-cluster=x=ftp://127.0.0.1:1"],
        1,
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1",
    ),
    row(
        &[MEMBER, "--initial-cluster=x=http://127.0.0.1"],
        1,
        "error setting up initial cluster: URL address does not have the form \"host:port\": http://127.0.0.1",
    ),
    row(&[MEMBER, "--name=a,b"], 1, "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "),
    row(
        &[MEMBER, "--name=default"],
        1,
        "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:{peer} \
         (resolved urls: \"http://127.0.0.1:{peer}\" != \"http://localhost:2380\")",
    ),
    row(
        &[MEMBER, "--initial-cluster=x=http://127.0.0.1:{peer},y=http://127.0.0.1:{other}", "--initial-cluster-state=existing"],
        1,
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
    ),
    row(
        &[MEMBER, "--initial-cluster-state=existing"],
        1,
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
    ),
    row(&[MEMBER, "--auto-compaction-retention=soon"], 1, "error parsing CompactionRetention: time: invalid duration \"soon\""),
    row(&[MEMBER, "--auto-compaction-retention=-1"], 1, "error parsing CompactionRetention: time: missing unit in duration \"-1\""),
    row(&[MEMBER, "--auto-compaction-retention=1d"], 1, "error parsing CompactionRetention: time: unknown unit \"d\" in duration \"1d\""),
    row(
        &[MEMBER, "--listen-client-http-urls=http://127.0.0.1:{client}"],
        1,
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:{client}",
    ),
    row(&[MEMBER, "--listen-metrics-urls=http://127.0.0.1:{client}"], 1, "listen tcp 127.0.0.1:{client}: bind: address already in use"),
    row(&[MEMBER, "--data-dir=/proc/nope/x"], 1, "cannot access data directory: mkdir /proc/nope: no such file or directory"),
    row(&[MEMBER, "--max-learners=-1"], 1, "membership: too many learner members in cluster"),
];

/// A directory of its own, free ports in place of the words in brackets.
struct Place {
    directory: tempfile::TempDir,
    ports: [(&'static str, u16); 3],
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, ports: ["{peer}", "{client}", "{other}"].map(|word| (word, ports::free())) }
    }

    fn fill(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (word, port)| text.replace(word, &port.to_string()))
    }

    fn run(&self, binary: &Path, row: &Row) -> Ended {
        let mut command = Command::new(binary);
        command.current_dir(self.directory.path()).envs(row.environment.iter().copied());
        for argument in row.arguments {
            let words: Vec<String> =
                if *argument == MEMBER { argument.split(' ').map(Into::into).collect() } else { vec![(*argument).into()] };
            command.args(words.iter().filter(|word| !word.is_empty()).map(|word| self.fill(word)));
        }
        if !row.file.is_empty() {
            std::fs::write(self.directory.path().join("c.yml"), row.file).expect("it writes");
        }
        run(command, PATIENCE)
    }
}

/// The error in the last line that has one, or the first bare line.
fn sentence(ended: &Ended) -> String {
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    if let Some(bare) = ended.stderr.lines().find(|line| json(line).is_none()) {
        return bare.to_owned();
    }
    let mut errors = ended.stderr.lines().filter_map(json).filter_map(|line| line["error"].as_str().map(str::to_owned));
    errors.next_back().unwrap_or_default()
}

fn check(table: &[Row], message: Option<&str>) {
    let etcd = harness::find_tool("etcd");
    if etcd.is_none() {
        harness::skipped("the same words from etcd itself", "tools/bin/etcd is missing");
    }
    let mut wrong = Vec::new();
    for row in table {
        for binary in [Some(harness::rusd()), etcd.clone()].into_iter().flatten() {
            let place = Place::new();
            let ended = place.run(&binary, row);
            let (said, expected) = (sentence(&ended), place.fill(row.sentence));
            if ended.code != Some(row.code) || said != expected {
                wrong.push(format!(
                    "{} {:?} {:?} {}\n  says  {:?} {said}\n  not   {} {expected}",
                    binary.display(),
                    row.arguments,
                    row.environment,
                    row.file,
                    ended.code,
                    row.code
                ));
            }
            let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if let Some(message) = message
                && !lines.into_iter().any(|line| line["msg"] == message)
            {
                wrong.push(format!("{} {:?} has no line {message:?}", binary.display(), row.arguments));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_flag_or_value_ends_with_2_and_a_hint() {
    check(BAD_VALUES, None);
    let ended = Place::new().run(&harness::rusd(), &BAD_VALUES[0]);
    assert!(ended.stderr.contains("Usage:"), "{}", ended.stderr);
}

#[test]
fn flags_that_can_not_be_end_with_1_and_one_log_line() {
    check(CONTRADICTIONS, Some("failed to verify flags"));
}

#[test]
fn a_start_that_fails_ends_with_1_and_a_fatal_line() {
    check(FAILED_STARTS, Some("discovery failed"));
}

#[test]
fn a_variable_beside_its_flag_is_fatal() {
    let message = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
    for binary in [Some(harness::rusd()), harness::find_tool("etcd")].into_iter().flatten() {
        for environment in [&[("ETCD_NAME", "y")], &[("ETCD_NAME", "")]] {
            let ended = Place::new().run(&binary, &Row { environment, ..row(&["--name=x"], 1, "") });
            let line = ended.line(message);
            assert_eq!((ended.code, &line["level"], &line["environment-variable"]), (Some(1), &"fatal".into(), &"ETCD_NAME".into()));
        }
    }
}

/// Where etcd would do something that isn't built here, or panics, the sentence is ours.
#[test]
fn what_is_not_built_is_refused_and_never_ignored() {
    for (arguments, sentence) in [
        (
            &["--client-cert-auth"][..],
            "TLS is not built yet in this version of rusd, so --client-cert-auth can't be honoured; please remove it",
        ),
        (
            &["--discovery-srv", "example.com"],
            "Discovery is not built yet in this version of rusd, so --discovery-srv can't be honoured; please remove it",
        ),
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "--listen-peer-urls=https://127.0.0.1:1: TLS is not built yet in this version of rusd",
        ),
        (&["gateway", "start"], "the sub-command gateway is not built in rusd"),
    ] {
        let mut command = Command::new(harness::rusd());
        command.args(arguments);
        let ended = run(command, PATIENCE);
        assert_eq!((ended.code, ended.line("failed to verify flags")["error"].as_str()), (Some(1), Some(sentence)), "{}", ended.stderr);
    }
    let mut command = Command::new(harness::rusd());
    command.arg("--log-level=foo");
    let ended = run(command, PATIENCE);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), "unrecognized level: \"foo\"\n"));
}

#[test]
fn version_and_help_are_told() {
    let place = Place::new();
    let ended = place.run(&harness::rusd(), &row(&["--version"], 0, ""));
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!((ended.code, lines[0], lines.len()), (Some(0), "etcd Version: 3.7.1", 5));
    for (line, start) in lines.iter().zip(["etcd Version: ", "Git SHA: ", "Go Version: ", "Go OS/Arch: linux/", "rusd Version: "]) {
        assert!(line.starts_with(start), "{line}");
    }
    for spelling in [&["-h"], &["--help"]] {
        let ended = place.run(&harness::rusd(), &row(spelling, 0, ""));
        assert_eq!(ended.code, Some(0));
        assert!(ended.stderr.starts_with("Usage:"), "the usage goes to stderr, as with etcd: {}", ended.stderr);
        for flag in rusd::config::flags::all() {
            assert!(ended.stdout.contains(&format!("  --{} ", flag.name)), "--help lacks {}", flag.name);
        }
    }
}
