//! What the real process says to wrong flags, and with which code it ends. Texts and codes are those of etcd 3.7.1, tried side by side.

mod harness;

use harness::PATIENCE;
use harness::process::{Ended, run};
use std::net::TcpListener;
use std::process::Command;

/// In an empty directory of its own, without the caller's ETCD_* variables.
fn rusd(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(harness::rusd());
    command.args(arguments).current_dir(directory.path()).envs(environment.iter().copied());
    run(command, PATIENCE)
}

/// The log line with this message; every line must be JSON.
fn line(ended: &Ended, message: &str) -> serde_json::Value {
    ended.stderr.lines().for_each(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}"));
    ended.line(message)
}

#[test]
fn a_wrong_flag_or_value_ends_with_2_and_a_hint() {
    for (arguments, sentence) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["--heartbeat-interval=x"], "invalid value \"x\" for flag -heartbeat-interval: parse error"),
        (&["--heartbeat-interval"], "flag needs an argument: -heartbeat-interval"),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (&["--initial-cluster-state", "foo"], "invalid value \"foo\" for flag -initial-cluster-state: invalid value"),
        (&["--feature-gates=Nope=true"], "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope"),
        (
            &["--listen-peer-urls=127.0.0.1:1"],
            "invalid value \"127.0.0.1:1\" for flag -listen-peer-urls: parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
        ),
        (
            &["--max-concurrent-streams=99999999999"],
            "invalid value \"99999999999\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"99999999999\": value out of range",
        ),
        (&["-=3"], "bad flag syntax: -=3"),
    ] {
        let ended = rusd(arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert_eq!(ended.stderr.lines().next(), Some(sentence), "{arguments:?}");
        assert!(ended.stderr.contains("Usage:"), "{arguments:?}");
    }
}

#[test]
fn flags_that_can_not_be_ends_with_1_and_one_log_line() {
    for (arguments, sentence) in [
        (&["extra"][..], "\"extra\" is not a valid flag"),
        (&["--listen-client-urls=http://foo:1"], "expected IP in URL for binding (http://foo:1)"),
        (&["--listen-client-urls=http://127.0.0.1:1"], "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (
            &["--election-timeout=100", "--heartbeat-interval=100"],
            "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--client-cert-auth"],
            "TLS is not built yet in this version of rusd, so --client-cert-auth can't be honoured; please remove it",
        ),
        (
            &["--discovery-srv", "example.com"],
            "Discovery is not built yet in this version of rusd, so --discovery-srv can't be honoured; please remove it",
        ),
    ] {
        let ended = rusd(arguments, &[]);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        let line = line(&ended, "failed to verify flags");
        assert_eq!((&line["level"], &line["error"]), (&"warn".into(), &sentence.into()), "{arguments:?}");
    }
}

#[test]
fn a_variable_beside_its_flag_is_fatal() {
    let message = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
    for value in ["y", ""] {
        let ended = rusd(&["--name=x"], &[("ETCD_NAME", value)]);
        let line = line(&ended, message);
        assert_eq!((ended.code, &line["level"], &line["environment-variable"]), (Some(1), &"fatal".into(), &"ETCD_NAME".into()));
    }
    let ended = rusd(&[], &[("ETCD_HEARTBEAT_INTERVAL", "zz")]);
    let line = line(&ended, "failed to verify flags");
    assert_eq!((ended.code, &line["error"]), (Some(1), &"invalid value \"zz\" for ETCD_HEARTBEAT_INTERVAL: parse error".into()));
}

#[test]
fn version_and_help_are_told() {
    let ended = rusd(&["--version"], &[]);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!((ended.code, lines[0], lines.len()), (Some(0), "etcd Version: 3.7.1", 5));
    for (line, start) in lines.iter().zip(["etcd Version: ", "Git SHA: ", "Go Version: ", "Go OS/Arch: linux/", "rusd Version: "]) {
        assert!(line.starts_with(start), "{line}");
    }
    let ended = rusd(&["-h"], &[]);
    assert_eq!(ended.code, Some(0));
    for flag in rusd::config::flags::all() {
        assert!(ended.stdout.contains(&format!("  --{} ", flag.name)), "--help lacks {}", flag.name);
    }
}

#[test]
fn an_occupied_port_is_fatal_and_leaves_no_data() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let directory = tempfile::tempdir().expect("a directory");
    let (peer, data) = (format!("http://{}", taken.local_addr().expect("it is bound")), directory.path().join("data"));
    let ended = rusd(&["--listen-peer-urls", &peer, "--data-dir", data.to_str().expect("UTF-8")], &[]);
    let line = line(&ended, "discovery failed");
    assert_eq!((ended.code, &line["level"]), (Some(1), &"fatal".into()));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("--listen-peer-urls") && error.contains("in use")), "{line}");
    assert!(!data.exists());
}
