//! From the command line, the environment or a file to checked values, by the rules of Go's `flag` and etcd's precedence:
//! a file excludes all else; a flag and its variable together are an error; the last of several wins.

use super::flags::{self, Class, Flag, Kind, Old};
use super::value::{self, quote};
use std::collections::BTreeMap;
use std::time::Duration;

/// Something to log once logging is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A warning, else information.
    pub warn: bool,
    /// The message.
    pub message: String,
    /// Which flag or variable.
    pub subject: String,
}

/// Why there are no flags to start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `-h`: print the help, exit 0.
    #[error("flag: help requested")]
    Help,
    /// `--version`: print it, exit 0.
    #[error("version requested")]
    Version,
    /// Go's `flag` refuses: the text and the usage, exit 2.
    #[error("{0}")]
    Usage(String),
    /// A configuration error, exit 1.
    #[error("{0}")]
    Config(String),
    /// One that etcd prints bare, exit 1.
    #[error("{0}")]
    Bare(String),
    /// A flag and its variable, exit 1.
    #[error(
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"
    )]
    Conflict {
        /// `ETCD_X`.
        variable: String,
    },
}

/// Checked values of what was given; the rest has its default.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    given: BTreeMap<&'static str, String>,
    gates: BTreeMap<&'static str, bool>,
    /// Whether a file gave them.
    pub from_file: bool,
    /// To be logged.
    pub notices: Vec<Notice>,
}

impl Flags {
    /// Reads everything: `arguments` without the program's name, `environment` as the process has it.
    pub fn read(arguments: &[String], environment: &[(String, String)]) -> Result<Self, ParseError> {
        let mut flags = Self::default();
        if let Some(extra) = flags.read_arguments(arguments)? {
            return Err(ParseError::Config(format!("{} is not a valid flag", quote(&extra))));
        }
        if flags.boolean("version") {
            return Err(ParseError::Version);
        }
        let variable = environment.iter().find(|(name, value)| name == "ETCD_CONFIG_FILE" && !value.is_empty());
        let file = if flags.is_set("config-file") { Some(flags.text("config-file").to_owned()) } else { None };
        let file = file.filter(|path| !path.is_empty()).or_else(|| variable.map(|(_, path)| path.clone()));
        match file {
            Some(path) => flags = super::file::read(std::path::Path::new(&path))?,
            None => flags.read_environment(environment)?,
        }
        flags.note_classes();
        Ok(flags)
    }

    /// Go's `FlagSet.Parse`; answers the first argument that is no flag.
    fn read_arguments(&mut self, arguments: &[String]) -> Result<Option<String>, ParseError> {
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                return Ok(rest.next().cloned());
            }
            let body = match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
                Some(body) if argument != "-" => body,
                _ => return Ok(Some(argument.clone())),
            };
            if body.starts_with(['-', '=']) {
                return Err(ParseError::Usage(format!("bad flag syntax: {argument}")));
            }
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let kind = match kind(name) {
                Some(kind) => kind,
                None if matches!(name, "help" | "h") => return Err(ParseError::Help),
                None => return Err(ParseError::Usage(format!("flag provided but not defined: -{name}"))),
            };
            let value = match (inline, kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".into(),
                (None, _) => rest.next().cloned().ok_or_else(|| ParseError::Usage(format!("flag needs an argument: -{name}")))?,
            };
            self.set(name, &value).map_err(|error| ParseError::Usage(invalid(name, kind, &value, &error)))?;
        }
        Ok(None)
    }

    /// etcd's `SetFlagsFromEnv`: an empty variable counts as unset, unless its flag is given too.
    fn read_environment(&mut self, environment: &[(String, String)]) -> Result<(), ParseError> {
        let ours = environment.iter().filter(|(name, _)| name.starts_with("ETCD_"));
        for (name, text) in ours {
            let flag = flags::all().find(|flag| flags::environment_name(flag.name) == *name).filter(|flag| flag.name != "version");
            match flag {
                _ if matches!(name.as_str(), "ETCD_UNSUPPORTED_ARCH") => {}
                Some(flag) if self.given.contains_key(flag.name) => return Err(ParseError::Conflict { variable: name.clone() }),
                Some(_) if text.is_empty() => {}
                Some(flag) => self.set_from_environment(flag, name, text)?,
                None => self.set_old_from_environment(name, text)?,
            }
        }
        Ok(())
    }

    fn set_from_environment(&mut self, flag: &'static Flag, variable: &str, text: &str) -> Result<(), ParseError> {
        self.set(flag.name, text).map_err(|error| ParseError::Config(format!("invalid value {} for {variable}: {error}", quote(text))))?;
        self.note(false, "recognized and used environment variable", variable);
        Ok(())
    }

    fn set_old_from_environment(&mut self, variable: &str, text: &str) -> Result<(), ParseError> {
        let bare = variable["ETCD_".len()..].to_lowercase().replace('_', "-");
        if text.is_empty() || flags::find_old(&bare).is_none() {
            self.note(true, "unrecognized environment variable", variable);
            return Ok(());
        }
        self.set(&bare, text).map_err(|error| ParseError::Config(format!("invalid value {} for {variable}: {error}", quote(text))))
    }

    /// Checks and keeps one value. The error is Go's, without the flag's name.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        if let Some(flag) = flags::find(name) {
            value::check(flag.kind, text)?;
            if flag.kind == Kind::Gates {
                self.gates.extend(value::gates(text)?);
            }
            self.given.insert(flag.name, text.to_owned());
            return Ok(());
        }
        match flags::find_old(name) {
            Some(Old::Renamed(now)) => {
                self.set(now, text)?;
                self.note(true, &format!("this flag is called --{now} now"), name);
            }
            Some(Old::Gate(gate)) => {
                self.gates.insert(gate, value::boolean(text).ok_or("parse error")?);
                self.note(true, &format!("this flag is the feature gate {gate} now"), name);
            }
            Some(Old::Gone(kind)) => {
                if kind != Kind::Bool {
                    value::check(kind, text)?;
                }
                self.note(true, "flag is no longer supported - ignoring", name);
            }
            None => return Err("flag is not defined".into()),
        }
        Ok(())
    }

    /// One line for each flag that is accepted and yet does nothing.
    fn note_classes(&mut self) {
        for flag in flags::all() {
            if let Some(sentence) = flags::deprecation(flag.name).filter(|_| self.given.contains_key(flag.name)) {
                self.note(true, sentence, flag.name);
            }
            let differs = self.given.get(flag.name).is_some_and(|text| text != flag.default);
            match flag.class {
                Class::NoMeaning if self.given.contains_key(flag.name) => {
                    self.note(false, "this flag has no meaning for rusd, it is ignored", flag.name);
                }
                Class::Later(what) if differs => {
                    self.note(true, &format!("this flag is accepted, but has no effect until this is built: {what}"), flag.name);
                }
                _ => {}
            }
        }
        let idle = |gate: &str| !flags::BUILT_GATES.contains(&gate);
        let idle: Vec<String> = self.gates.keys().filter(|gate| idle(gate)).map(ToString::to_string).collect();
        for gate in idle {
            self.note(true, "this feature gate is accepted, but not built yet, so it has no effect", &gate);
        }
    }

    pub(super) fn note(&mut self, warn: bool, message: &str, subject: &str) {
        self.notices.push(Notice { warn, message: message.into(), subject: subject.into() });
    }

    /// Whether it was given, anywhere.
    pub fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Whether neither a flag nor a variable nor a file said anything.
    pub fn none_is_set(&self) -> bool {
        self.given.is_empty() && self.gates.is_empty() && !self.from_file
    }

    /// A flag's text, given or default.
    pub fn text(&self, name: &str) -> &str {
        let flag = flags::find(name).unwrap_or_else(|| panic!("--{name} is not in the table"));
        self.given.get(name).map_or(flag.default, String::as_str)
    }

    /// A boolean flag.
    pub fn boolean(&self, name: &str) -> bool {
        value::boolean(self.text(name)).expect("checked when it was set")
    }

    /// An unsigned flag.
    pub fn uint(&self, name: &str) -> u64 {
        value::uint(self.text(name)).expect("checked when it was set")
    }

    /// A signed flag.
    pub fn int(&self, name: &str) -> i64 {
        value::int(self.text(name)).expect("checked when it was set")
    }

    /// A duration; negative counts as none.
    pub fn duration(&self, name: &str) -> Duration {
        value::duration(self.text(name)).expect("checked when it was set")
    }

    /// A list of URLs, sorted; an empty text means the default, as with etcd.
    pub fn urls(&self, name: &str) -> Vec<super::urls::Address> {
        let text = Some(self.text(name)).filter(|text| !text.is_empty()).or_else(|| flags::find(name).map(|flag| flag.default));
        super::urls::parse_list(text.unwrap_or_default()).expect("checked when it was set")
    }

    /// A feature gate, given or default.
    pub fn gate(&self, name: &str) -> bool {
        let default = flags::GATES.iter().any(|(known, on)| *known == name && *on);
        self.gates.get(name).copied().unwrap_or(default)
    }

    /// Given flags whose silent loss would be dangerous: the sentence that refuses the first of them.
    pub fn refusal(&self) -> Option<String> {
        flags::all().find_map(|flag| match flag.class {
            Class::Refused(what) if self.given.get(flag.name).is_some_and(|text| text != flag.default && !means_default(flag, text)) => {
                Some(format!("{what} is not built yet in this version of rusd, so --{} can't be honoured; please remove it", flag.name))
            }
            _ => None,
        })
    }
}

/// A boolean may spell its default in several ways; `simple` tokens and an open whitelist in two.
fn means_default(flag: &Flag, text: &str) -> bool {
    match flag.kind {
        Kind::Bool => value::boolean(text) == value::boolean(flag.default),
        Kind::Duration => value::duration_nanos(text) == value::duration_nanos(flag.default),
        _ => matches!((flag.name, text), ("auth-token" | "host-whitelist", "")),
    }
}

fn kind(name: &str) -> Option<Kind> {
    if let Some(flag) = flags::find(name) {
        return Some(flag.kind);
    }
    flags::find_old(name).map(|old| match old {
        Old::Renamed(now) => flags::find(now).expect("the table's test follows every rename").kind,
        Old::Gate(_) => Kind::Bool,
        Old::Gone(kind) => kind,
    })
}

fn invalid(name: &str, kind: Kind, text: &str, error: &str) -> String {
    match kind {
        Kind::Bool => format!("invalid boolean value {} for -{name}: {error}", quote(text)),
        _ => format!("invalid value {} for flag -{name}: {error}", quote(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, ParseError> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let environment: Vec<_> = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Flags::read(&arguments, &environment)
    }

    fn usage(arguments: &[&str]) -> String {
        match read(arguments, &[]) {
            Err(ParseError::Usage(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_spellings_work_and_the_last_wins() {
        let flags = read(&["-name", "a b", "--data-dir=x", "--pre-vote=false", "--name=c=d", "--socket-reuse-port"], &[]).expect("flags");
        assert_eq!((flags.text("name"), flags.text("data-dir")), ("c=d", "x"));
        assert!(!flags.boolean("pre-vote") && flags.boolean("socket-reuse-port"));
        assert_eq!(flags.uint("heartbeat-interval"), 100);
        assert_eq!(flags.duration("compaction-sleep-interval"), Duration::from_millis(10));
    }

    #[test]
    fn refusals_have_gos_words() {
        assert_eq!(usage(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(usage(&["--heartbeat-interval=x"]), "invalid value \"x\" for flag -heartbeat-interval: parse error");
        assert_eq!(usage(&["--heartbeat-interval"]), "flag needs an argument: -heartbeat-interval");
        assert_eq!(usage(&["--pre-vote=maybe"]), "invalid boolean value \"maybe\" for -pre-vote: parse error");
        assert_eq!(usage(&["-=3"]), "bad flag syntax: -=3");
        assert_eq!(usage(&["---name"]), "bad flag syntax: ---name");
        assert_eq!(usage(&["--initial-cluster-state=foo"]), "invalid value \"foo\" for flag -initial-cluster-state: invalid value");
        assert_eq!(
            usage(&["--feature-gates=Nope=true"]),
            "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope"
        );
        for arguments in [&["extra"][..], &["--pre-vote", "extra"], &["--", "extra"]] {
            assert_eq!(read(arguments, &[]).expect_err("refused"), ParseError::Config("\"extra\" is not a valid flag".into()));
        }
        assert_eq!(read(&["-h"], &[]).expect_err("help"), ParseError::Help);
        assert_eq!(read(&["--version"], &[]).expect_err("version"), ParseError::Version);
    }

    #[test]
    fn the_environment_fills_in_but_never_beside_a_flag() {
        let flags = read(&[], &[("ETCD_NAME", "x"), ("ETCD_DATA_DIR", ""), ("ETCD_WHAT", "1"), ("HOME", "/")]).expect("flags");
        assert_eq!((flags.text("name"), flags.is_set("data-dir")), ("x", false));
        assert!(flags.notices.iter().any(|notice| notice.warn && notice.subject == "ETCD_WHAT"));
        for text in ["y", ""] {
            let error = read(&["--name=x"], &[("ETCD_NAME", text)]).expect_err("both");
            assert_eq!(error, ParseError::Conflict { variable: "ETCD_NAME".into() });
        }
        let error = read(&[], &[("ETCD_HEARTBEAT_INTERVAL", "zz")]).expect_err("no number");
        assert_eq!(error, ParseError::Config("invalid value \"zz\" for ETCD_HEARTBEAT_INTERVAL: parse error".into()));
    }

    #[test]
    fn old_flags_become_new_ones() {
        let flags = read(
            &["--experimental-initial-corrupt-check=true", "--experimental-max-learners", "3", "--enable-v2", "--force=what"],
            &[("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s")],
        )
        .expect("flags");
        assert!(flags.gate("InitialCorruptCheck") && !flags.gate("LeaseCheckpoint") && flags.gate("FastLeaseKeepAlive"));
        assert_eq!((flags.int("max-learners"), flags.text("watch-progress-notify-interval")), (3, "5s"));
    }

    #[test]
    fn what_protects_is_refused_rather_than_ignored() {
        assert_eq!(read(&["--client-cert-auth=false", "--cert-file=", "--auth-token=simple"], &[]).expect("flags").refusal(), None);
        let refusal = read(&["--cert-file", "x"], &[]).expect("flags").refusal().expect("refused");
        assert!(refusal.starts_with("TLS is not built yet") && refusal.contains("--cert-file"), "{refusal}");
        assert!(read(&["--auth-token=jwt,pub-key=x"], &[]).expect("flags").refusal().is_some());
    }
}
