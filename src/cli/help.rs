//! The texts of `--help` and `--version`.

use crate::config::flags::{self, Class, Kind};
use crate::grpc::ETCD_VERSION;
use std::fmt::Write;

/// The hint below every wrong flag.
pub const USAGE: &str = "Usage:

  rusd [flags]
    Start a member: the flags and ETCD_* variables are those of etcd 3.7.

  rusd --version
    Show the version of rusd, and of the etcd it stands in for.

  rusd -h | --help
    Show the help information about rusd.

  rusd --config-file
    Path to the server configuration file. Note that if a configuration file is provided, other command line flags and environment variables will be ignored.
";

/// All flags, and what rusd makes of each.
pub fn flags() -> String {
    let mut text = String::new();
    for (group, flags) in flags::FLAGS {
        let _ = writeln!(text, "\n{group}:");
        for flag in *flags {
            let default = if flag.kind == Kind::Bool { flag.default.to_owned() } else { format!("'{}'", flag.default) };
            let _ = writeln!(text, "  --{} {default}\n    {}.{}", flag.name, flag.help, state(flag.class));
        }
    }
    text
}

fn state(class: Class) -> String {
    match class {
        Class::Built => String::new(),
        Class::NoMeaning => " [accepted, has no meaning for rusd]".into(),
        Class::Later(what) => format!(" [accepted, no effect until this is built: {what}]"),
        Class::Refused(what) => format!(" [refused until this is built: {what}]"),
    }
}

/// etcd's four lines, for whoever parses them, and ours. What has no counterpart says so.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {}\nGo Version: none (rusd is written in Rust)\nGo OS/Arch: {}/{arch}\nrusd Version: {}\n",
        option_env!("RUSD_GIT_SHA").unwrap_or("Not provided"),
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION"),
    )
}
