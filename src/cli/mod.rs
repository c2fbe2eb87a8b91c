//! The command line: what a process says and with which code it ends. Without a sub-command, so that `rusd --flags` stands in for
//! `etcd --flags`.
//!
//! | outcome | stdout | stderr | code |
//! |---|---|---|---|
//! | `--help`, `--version` | the text | usage, with `--help` | 0 |
//! | a flag or value that Go's `flag` refuses | | its sentence, a usage hint | 2 |
//! | flags that contradict each other, or can't be honoured | | a log line `failed to verify flags` | 1 |
//! | a member that can't start or go on | | a log line of level `fatal` | 1 |
//! | SIGTERM, SIGINT | | | 0 |

mod help;

use crate::config::{Config, Flags, ParseError, flags};
use crate::logging::{Logging, LoggingError};
use crate::server::boot::{self, BootError};
use crate::server::bootstrap::BootstrapError;
use std::process::ExitCode;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let environment: Vec<(String, String)> =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())).collect();
    if let Some(command @ ("gateway" | "grpc-proxy")) = arguments.first().map(String::as_str) {
        return refuse(&format!("the sub-command {command} is not built in rusd"));
    }
    match Flags::read(&arguments, &environment) {
        Ok(flags) => serve(&flags),
        Err(ParseError::Help) => {
            eprint!("{}", help::USAGE);
            print!("{}", help::flags());
            ExitCode::SUCCESS
        }
        Err(ParseError::Version) => {
            print!("{}", help::version());
            ExitCode::SUCCESS
        }
        Err(ParseError::Usage(sentence)) => {
            eprintln!("{sentence}\n{}", help::USAGE);
            ExitCode::from(MISUSED)
        }
        Err(ParseError::Config(sentence)) => refuse(&sentence),
        Err(ParseError::Bare(sentence)) => {
            eprintln!("{sentence}");
            ExitCode::from(FAILED)
        }
        Err(ref error @ ParseError::Conflict { ref variable }) => {
            Logging::early().install();
            tracing::error!(fatal = true, environment_variable = variable, "{error}");
            ExitCode::from(FAILED)
        }
    }
}

/// A configuration that can't be.
fn refuse(sentence: &str) -> ExitCode {
    Logging::early().install();
    tracing::warn!(error = sentence, "failed to verify flags");
    ExitCode::from(FAILED)
}

fn serve(flags: &Flags) -> ExitCode {
    match Logging::new(flags) {
        Ok(logging) => logging.install(),
        // The one bad value that etcd finds too late to call it one; its code is that of a bad value all the same.
        Err(error @ LoggingError::Level(_)) => {
            eprintln!("{error}");
            return ExitCode::from(MISUSED);
        }
        Err(error) => return refuse(&error.to_string()),
    }
    for notice in &flags.notices {
        match notice.warn {
            true => tracing::warn!(subject = notice.subject, "{}", notice.message),
            false => tracing::info!(subject = notice.subject, "{}", notice.message),
        }
    }
    let config = match Config::new(flags) {
        Ok(config) => config,
        Err(error) if error.ends_start() => {
            tracing::error!(fatal = true, %error, "discovery failed");
            return ExitCode::from(FAILED);
        }
        Err(error) => return refuse(&error.to_string()),
    };
    warn_of_defaults(flags, &config);
    raise_file_limit();
    match boot::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error {
                // etcd says so of everything that keeps a member from starting.
                BootError::Port(ref port) => tracing::error!(fatal = true, flag = port.flag, %error, "discovery failed"),
                BootError::Bootstrap(BootstrapError::Unreadable { ref path, .. }) => {
                    tracing::error!(fatal = true, dir = %path.display(), %error, "failed to list data directory");
                }
                BootError::Bootstrap(_) => tracing::error!(fatal = true, %error, "discovery failed"),
                _ => tracing::error!(fatal = true, %error, "the member can't go on"),
            }
            ExitCode::from(FAILED)
        }
    }
}

fn warn_of_defaults(flags: &Flags, config: &Config) {
    if Some(flags.text("name")) == flags::find("name").map(|flag| flag.default) {
        tracing::warn!(
            name = config.name,
            "it isn't recommended to use default name, please set a value for --name. \
             Note that etcd might run into issue when multiple members have the same default name"
        );
    }
    if flags.text("data-dir").is_empty() {
        tracing::warn!(data_dir = %config.data_dir.display(), "'data-dir' was empty; using default");
    }
}

/// Every client is a file to the system; the soft limit of many shells is 1024.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to an rlimit of ours and keep nothing.
    #[allow(unsafe_code)]
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::warn!(error = %std::io::Error::last_os_error(), "the limit of open files stays as it is");
    }
}
