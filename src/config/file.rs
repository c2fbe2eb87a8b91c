//! `--config-file`: YAML or JSON with flag names as keys. Where it differs from the command line: durations are integer nanoseconds,
//! `log-outputs` is a list, TLS has blocks of its own, unknown keys are ignored.

use super::flags::{self, Flag, Kind};
use super::parse::{Flags, ParseError};
use super::value::system_text;
use serde_json::{Map, Value};
use std::path::Path;

/// Keys that etcd's file doesn't know, though they are flags: whatever they say is ignored.
const NOT_IN_FILES: &[&str] = &[
    "config-file",
    "version",
    "discovery",
    "discovery-fallback",
    "discovery-proxy",
    "raft-read-timeout",
    "raft-write-timeout",
    "v2-deprecation",
];

/// Why a file can't be used; the texts are etcd's (and those of Go's JSON).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("open {0}: {1}")]
    Open(String, String),
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    #[error("error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type embed.configYAML")]
    NoMap { found: &'static str },
    #[error("error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go struct field {field} of type {kind}")]
    Kind { found: String, field: String, kind: &'static str },
    #[error("unexpected error setting up {flag}: {error}")]
    Url { flag: &'static str, error: String },
    #[error("unexpected clusterState {0:?}")]
    ClusterState(String),
    #[error("{error}")]
    Value { error: String },
    #[error("discovery-config: Discovery is not built yet in this version of rusd")]
    Discovery,
}

impl From<FileError> for ParseError {
    /// etcd finds wrong URLs in a way of its own, and prints them bare.
    fn from(error: FileError) -> Self {
        match &error {
            FileError::Url { .. } => Self::Bare(error.to_string()),
            _ => Self::Config(error.to_string()),
        }
    }
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Flags, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Open(path.display().to_string(), system_text(&error)))?;
    let mut flags = parse(&text)?;
    flags.note(
        false,
        "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        &path.display().to_string(),
    );
    Ok(flags)
}

fn parse(text: &str) -> Result<Flags, FileError> {
    let document: Value = serde_saphyr::from_str::<Option<Value>>(text)
        .map_err(|error| FileError::Yaml(error.to_string().lines().next().unwrap_or_default().to_owned()))?
        .unwrap_or_default();
    let document = match document {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        other => return Err(FileError::NoMap { found: found(&other) }),
    };
    let mut flags = Flags::default();
    flags.from_file = true;
    for (key, value) in document {
        match key.as_str() {
            "client-transport-security" => read_security(&mut flags, &key, &value, "")?,
            "peer-transport-security" => read_security(&mut flags, &key, &value, "peer-")?,
            "discovery-config" if !is_empty(&value) => return Err(FileError::Discovery),
            name if NOT_IN_FILES.contains(&name) => {}
            name => read_flag(&mut flags, name, &value, None)?,
        }
    }
    Ok(flags)
}

fn read_security(flags: &mut Flags, key: &str, block: &Value, prefix: &str) -> Result<(), FileError> {
    let block = match block {
        Value::Null => return Ok(()),
        Value::Object(block) => block,
        other => {
            let field = format!("configYAML.configJSON.{key}");
            return Err(FileError::Kind { found: found(other).into(), field, kind: "embed.securityConfig" });
        }
    };
    for (name, value) in block {
        let flag = match name.as_str() {
            "allowed-cn" => format!("{prefix}cert-allowed-cn"),
            "allowed-hostname" if prefix.is_empty() => "client-cert-allowed-hostname".into(),
            "allowed-hostname" => format!("{prefix}cert-allowed-hostname"),
            other => format!("{prefix}{other}"),
        };
        read_flag(flags, &flag, value, Some(format!("securityConfig.configJSON.{key}.{name}")))?;
    }
    Ok(())
}

/// `field` is what Go would call it, if the key isn't at the top.
fn read_flag(flags: &mut Flags, name: &str, value: &Value, field: Option<String>) -> Result<(), FileError> {
    let Some(flag) = flags::find(name) else {
        flags.note(true, "this key of the configuration file is not known, it is ignored", name);
        return Ok(());
    };
    // An empty key is an unset one, as in etcd's sample file.
    let Some(text) = text(flag, value).map_err(|found| FileError::Kind {
        found,
        field: field.unwrap_or_else(|| go_field(flag)),
        kind: go_type(flag),
    })?
    else {
        return Ok(());
    };
    flags.set(flag.name, &text).map_err(|error| match flag.kind {
        Kind::Urls => FileError::Url { flag: flag.name, error },
        Kind::OneOf(_) if flag.name == "initial-cluster-state" => FileError::ClusterState(text),
        _ => FileError::Value { error },
    })
}

/// The value as a flag's text, `None` if it is empty. The error is Go's word for what was found in its place.
fn text(flag: &Flag, value: &Value) -> Result<Option<String>, String> {
    let wrong = || found(value).to_owned();
    let text = match (flag.kind, value) {
        (_, Value::Null) => return Ok(None),
        (Kind::Bool, Value::Bool(on)) => on.to_string(),
        (Kind::Bool, _) => return Err(wrong()),
        (Kind::Uint | Kind::Uint32 | Kind::Int | Kind::Duration, Value::Number(number)) => {
            let whole = whole(number).filter(|whole| fits(flag.kind, *whole)).ok_or_else(|| format!("number {number}"))?;
            let unit = if flag.kind == Kind::Duration { "ns" } else { "" };
            format!("{whole}{unit}")
        }
        (Kind::Uint | Kind::Uint32 | Kind::Int | Kind::Duration, _) => return Err(wrong()),
        (_, Value::Array(items)) if is_list(flag) => {
            let items = items.iter().map(|item| item.as_str().ok_or_else(|| found(item).to_owned()));
            items.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        (_, Value::String(text)) if !is_list(flag) => text.clone(),
        _ => return Err(wrong()),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// YAML writes large numbers also as `1e9`.
fn whole(number: &serde_json::Number) -> Option<i128> {
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e18).map(|float| float as i128);
    number.as_i128().or_else(float)
}

fn fits(kind: Kind, number: i128) -> bool {
    match kind {
        Kind::Uint => u64::try_from(number).is_ok(),
        Kind::Uint32 => u32::try_from(number).is_ok(),
        _ => i64::try_from(number).is_ok(),
    }
}

fn is_list(flag: &Flag) -> bool {
    matches!(flag.name, "log-outputs" | "cipher-suites") || flag.name.ends_with("-allowed-cn") || flag.name.ends_with("-allowed-hostname")
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_field(flag: &Flag) -> String {
    let texts_of_others = matches!(flag.kind, Kind::Urls | Kind::Origins | Kind::Gates) || flag.name == "host-whitelist";
    format!("configYAML.{}.{}", if texts_of_others { "configJSON" } else { "Config" }, flag.name)
}

fn go_type(flag: &Flag) -> &'static str {
    match flag.kind {
        _ if is_list(flag) => "[]string",
        Kind::Bool => "bool",
        Kind::Uint if flag.name.starts_with("snapshot-") => "uint64",
        Kind::Uint => "uint",
        Kind::Uint32 => "uint32",
        Kind::Int if flag.name == "quota-backend-bytes" => "int64",
        Kind::Int => "int",
        Kind::Duration => "time.Duration",
        Kind::Text | Kind::Urls | Kind::Origins | Kind::OneOf(_) | Kind::Gates => "string",
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_read() {
        let flags = parse(
            "name: 'x y'\nheartbeat-interval: 50\npre-vote: false\nlog-outputs: [stderr]\nwatch-progress-notify-interval: 5000000000\n\
             listen-peer-urls: http://127.0.0.1:1,http://127.0.0.1:2\nwhat: ever\ndata-dir:\nclient-transport-security:\n  cert-file:\n",
        )
        .expect("YAML");
        assert_eq!((flags.text("name"), flags.uint("heartbeat-interval"), flags.boolean("pre-vote")), ("x y", 50, false));
        assert_eq!(flags.duration("watch-progress-notify-interval").as_secs(), 5);
        assert_eq!((flags.urls("listen-peer-urls").len(), flags.is_set("data-dir"), flags.refusal()), (2, false, None));
        assert_eq!(parse("{\"name\": \"j\"}").expect("JSON").text("name"), "j");
        assert_eq!(parse("").expect("nothing").text("name"), "default");
    }

    #[test]
    fn a_bad_file_is_refused_in_gos_words() {
        let refusal = |text: &str| parse(text).expect_err(text).to_string();
        let json = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
        assert!(refusal("name: [").starts_with("error converting YAML to JSON: yaml: "));
        for (text, rest) in [
            ("heartbeat-interval: soon", "string into Go struct field configYAML.Config.heartbeat-interval of type uint"),
            ("heartbeat-interval: \"100\"", "string into Go struct field configYAML.Config.heartbeat-interval of type uint"),
            ("name: 5", "number into Go struct field configYAML.Config.name of type string"),
            ("snapshot-count: 1.5", "number 1.5 into Go struct field configYAML.Config.snapshot-count of type uint64"),
            ("snapshot-count: -3", "number -3 into Go struct field configYAML.Config.snapshot-count of type uint64"),
            ("log-outputs: stderr", "string into Go struct field configYAML.Config.log-outputs of type []string"),
            ("corrupt-check-time: 5s", "string into Go struct field configYAML.Config.corrupt-check-time of type time.Duration"),
            ("listen-peer-urls: 5", "number into Go struct field configYAML.configJSON.listen-peer-urls of type string"),
            (
                "client-transport-security: {client-cert-auth: x}",
                "string into Go struct field securityConfig.configJSON.client-transport-security.client-cert-auth of type bool",
            ),
            ("- a", "array into Go value of type embed.configYAML"),
        ] {
            assert_eq!(refusal(text), format!("{json} {rest}"));
        }
        assert_eq!(refusal("initial-cluster-state: foo"), "unexpected clusterState \"foo\"");
        assert_eq!(refusal("feature-gates: Nope=true"), "unrecognized feature gate: Nope");
        let url = "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo";
        assert_eq!(ParseError::from(parse("listen-peer-urls: foo").expect_err("no URL")), ParseError::Bare(url.into()));
        assert!(parse("peer-transport-security:\n  cert-file: x\n").expect("YAML").refusal().is_some());
        assert_eq!(parse("quota-backend-bytes: 1e9").expect("a whole number").int("quota-backend-bytes"), 1_000_000_000);
    }
}
