//! Log lines: JSON with etcd's keys, or with `--log-format=console`, and on a terminal without any flag, something to read.
//!
//! etcd's tools and many collectors read `level`, `ts`, `caller`, `msg`; `tracing-subscriber`'s own JSON has other names, hence a
//! formatter of our own. An event field `fatal` makes the level `fatal`, which tracing lacks.

use crate::config::Flags;
use crate::config::value::system_text;
use serde_json::{Map, Value};
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Crates whose own notes say nothing to an operator.
const NOISY: &[&str] = &["openraft", "sled", "h2", "hyper", "hyper_util", "tonic", "tower", "axum", "rustls"];
/// Why logging can't be as asked; the texts are etcd's.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoggingError {
    #[error("--logger=capnslog is removed in v3.5")]
    Capnslog,
    #[error("unknown logger option {0:?}")]
    Logger(String),
    #[error("unrecognized level: {0:?}")]
    Level(String),
    #[error("unknown log format: {0}, supported values json, console")]
    Format(String),
    #[error("multi logoutput for \"default\" is not supported yet")]
    SeveralWithDefault,
    #[error("open sink {path:?}: open {path}: {}", system_text(.error))]
    Open { path: String, error: io::Error },
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationNeedsFile,
    #[error("improperly formatted log rotation config: {0}")]
    Rotation(String),
}

/// What the flags ask for.
pub struct Logging {
    level: LevelFilter,
    json: bool,
    sinks: Vec<Sink>,
}

impl Logging {
    /// Before flags are known, and where they are wrong.
    pub fn early() -> Self {
        Self { level: LevelFilter::INFO, json: true, sinks: vec![Sink::Stderr] }
    }

    /// Checks the flags and opens the files.
    pub fn new(flags: &Flags) -> Result<Self, LoggingError> {
        match flags.text("logger") {
            "zap" => {}
            "capnslog" => return Err(LoggingError::Capnslog),
            other => return Err(LoggingError::Logger(other.into())),
        }
        let level = level(flags.text("log-level"))?;
        let json = match flags.text("log-format") {
            "json" => !newcomer(flags, io::stderr().is_terminal()),
            "console" => false,
            other => return Err(LoggingError::Format(other.into())),
        };
        if flags.boolean("enable-log-rotation") {
            check_rotation(flags.text("log-outputs"), flags.text("log-rotation-config-json"))?;
        }
        Ok(Self { level, json, sinks: sinks(flags.text("log-outputs"))? })
    }

    /// As the subscriber of the whole process; only the first one counts.
    pub fn install(self) {
        let debug = self.level >= LevelFilter::DEBUG;
        let noise = self.level.min(if debug { LevelFilter::INFO } else { LevelFilter::WARN });
        let noisy = NOISY.iter().map(|target| (*target, noise));
        let repetitive = crate::server::consensus::REPETITIVE.iter().map(|target| (*target, LevelFilter::ERROR));
        let parting = crate::server::consensus::PARTING.iter().map(|target| (*target, LevelFilter::OFF));
        let filter = Targets::new().with_default(self.level).with_targets(noisy).with_targets(repetitive).with_targets(parting);
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Lines { json: self.json })
            .with_writer(Sinks(Arc::new(self.sinks)))
            .with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
}

/// Somebody who starts a member by hand, without a flag or a variable, reads what it says. Whoever configures one gets JSON on a terminal too,
/// as from etcd: programs that start members on a pseudo terminal take the lines apart, etcd's own tests among them.
fn newcomer(flags: &Flags, terminal: bool) -> bool {
    terminal && flags.none_is_set()
}

fn level(text: &str) -> Result<LevelFilter, LoggingError> {
    Ok(match text {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        other => return Err(LoggingError::Level(other.into())),
    })
}

fn check_rotation(outputs: &str, config: &str) -> Result<(), LoggingError> {
    if outputs.contains(',') || matches!(outputs, "" | "default" | "stderr" | "stdout" | "systemd/journal") {
        return Err(LoggingError::RotationNeedsFile);
    }
    let read = serde_json::from_str::<Map<String, Value>>(config);
    read.map(drop).map_err(|error| LoggingError::Rotation(error.to_string()))
}

fn sinks(outputs: &str) -> Result<Vec<Sink>, LoggingError> {
    let mut names: Vec<&str> = outputs.split(',').collect();
    names.dedup();
    if names.len() > 1 && names.contains(&"default") {
        return Err(LoggingError::SeveralWithDefault);
    }
    names.into_iter().map(Sink::open).collect()
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
}

impl Sink {
    fn open(name: &str) -> Result<Self, LoggingError> {
        match name {
            // systemd collects stderr into its journal.
            "default" | "stderr" | "systemd/journal" => Ok(Self::Stderr),
            "stdout" => Ok(Self::Stdout),
            path => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.map(Self::File).map_err(|error| LoggingError::Open { path: path.into(), error })
            }
        }
    }
}

#[derive(Clone)]
struct Sinks(Arc<Vec<Sink>>);

impl Write for Sinks {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for sink in self.0.iter() {
            match sink {
                Sink::Stderr => io::stderr().lock().write_all(line)?,
                Sink::Stdout => io::stdout().lock().write_all(line)?,
                Sink::File(file) => (&*file).write_all(line)?,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sinks {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct Lines {
    json: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Lines {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = if fields.fatal { "fatal" } else { level_name(*event.metadata().level()) };
        let now = chrono::Local::now();
        let caller = fields.caller.take().unwrap_or_else(|| caller(event));
        let line = if self.json { json(level, &timestamp(&now), &caller, fields) } else { console(level, &now, &caller, fields) };
        writeln!(writer, "{line}")
    }
}

/// `2006-01-02T15:04:05.000000Z0700`: Z for UTC, else the offset without a colon.
fn timestamp<T: chrono::TimeZone<Offset: fmt::Display>>(now: &chrono::DateTime<T>) -> String {
    use chrono::Offset;
    match now.offset().fix().local_minus_utc() {
        0 => now.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        _ => now.format("%Y-%m-%dT%H:%M:%S%.6f%z").to_string(),
    }
}

fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        _ => "debug",
    }
}

/// Directory and file, as etcd's `embed/etcd.go:65`.
fn caller(event: &Event<'_>) -> String {
    let (file, line) = (event.metadata().file().unwrap_or("unknown"), event.metadata().line().unwrap_or(0));
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{line}", &file[start..])
}

/// Written by hand, for the four keys come first and in etcd's order.
fn json(level: &str, ts: &str, caller: &str, fields: Fields) -> String {
    let string = |text: &str| Value::from(text).to_string();
    let mut line = format!(r#"{{"level":"{level}","ts":"{ts}","caller":{},"msg":{}"#, string(caller), string(&fields.message));
    for (name, value) in fields.others {
        // Writing to a String can't fail.
        let _ = write!(line, ",{}:{value}", string(&name));
    }
    line.push('}');
    line
}

fn console(level: &str, now: &chrono::DateTime<chrono::Local>, caller: &str, fields: Fields) -> String {
    let mut line = format!("{} {:<5} {}", now.format("%H:%M:%S%.3f"), level.to_uppercase(), fields.message.replace('\n', " "));
    for (name, value) in fields.others {
        let text = match &value {
            Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.clone(),
            other => other.to_string(),
        };
        let _ = write!(line, "  {name}={text}");
    }
    let _ = write!(line, "  ({caller})");
    line
}

#[derive(Default)]
struct Fields {
    message: String,
    fatal: bool,
    caller: Option<String>,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            ("fatal", Value::Bool(fatal)) => self.fatal = fatal,
            // What comes through the `log` crate brings its origin along as fields.
            ("log.file", Value::String(file)) => self.caller = Some(file),
            (_, _) if name.starts_with("log.") => {}
            // A field may not shadow one of the four keys; raw identifiers lose their mark; dashes are etcd's separator.
            ("level" | "ts" | "caller" | "msg", value) => drop(self.others.insert(format!("{name}_"), value)),
            (_, value) => drop(self.others.insert(name.trim_start_matches("r#").replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::String(value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn timestamps_are_etcds() {
        let utc = chrono::Utc.timestamp_opt(1_700_000_000, 123_456_000).single().expect("a time");
        assert_eq!(timestamp(&utc), "2023-11-14T22:13:20.123456Z");
        let zone = chrono::FixedOffset::east_opt(-5 * 3600 - 1800).expect("a zone");
        assert_eq!(timestamp(&utc.with_timezone(&zone)), "2023-11-14T16:43:20.123456-0530");
    }

    #[test]
    fn a_line_is_json_with_etcds_keys_first() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let logging = Logging {
            level: LevelFilter::INFO,
            json: true,
            sinks: vec![Sink::open(path.path().to_str().expect("UTF-8")).expect("it opens")],
        };
        let subscriber = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().event_format(Lines { json: logging.json }).with_writer(Sinks(Arc::new(logging.sinks))));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(fatal = true, data_dir = "a\n\"b\"", size = 3, level = 1, "it broke");
        });
        let text = std::fs::read_to_string(path.path()).expect("it reads");
        let line: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        assert!(text.starts_with("{\"level\":\"fatal\",\"ts\":\"") && text.contains(",\"caller\":\"src/logging.rs:"), "{text}");
        assert_eq!(
            (&line["msg"], &line["data-dir"], &line["size"], &line["level_"]),
            (&"it broke".into(), &"a\n\"b\"".into(), &3.into(), &1.into())
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn only_who_configures_nothing_reads_lines_for_people() {
        let none = Flags::read(&[], &[]).expect("flags");
        let some = Flags::read(&["--name=a".into()], &[]).expect("flags");
        assert_eq!([newcomer(&none, true), newcomer(&none, false), newcomer(&some, true)], [true, false, false]);
    }

    #[test]
    fn wrong_flags_are_refused_in_etcds_words() {
        let refusal = |argument: &str| {
            let flags = Flags::read(&[argument.to_owned()], &[]).expect("they parse");
            Logging::new(&flags).map(|_| ()).expect_err("refused").to_string()
        };
        assert_eq!(refusal("--logger=capnslog"), "--logger=capnslog is removed in v3.5");
        assert_eq!(refusal("--log-level=foo"), "unrecognized level: \"foo\"");
        assert_eq!(refusal("--log-format=foo"), "unknown log format: foo, supported values json, console");
        assert_eq!(refusal("--log-outputs=default,stdout"), "multi logoutput for \"default\" is not supported yet");
        assert_eq!(refusal("--log-outputs=/nowhere/at"), "open sink \"/nowhere/at\": open /nowhere/at: no such file or directory");
        assert_eq!(refusal("--log-outputs="), "open sink \"\": open : no such file or directory");
    }
}
