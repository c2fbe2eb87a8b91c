//! `--config-file`: YAML or JSON with flag names as keys. Where it differs from the command line: durations are integer nanoseconds,
//! `log-outputs` is a list, TLS has blocks of its own, unknown keys are ignored.

use super::flags::{self, Kind};
use super::parse::Flags;
use serde_json::{Map, Value};
use std::path::Path;

/// Reads the file; the error is a sentence.
pub(super) fn read(path: &Path) -> Result<Flags, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("can't read the configuration file {}: {error}", path.display()))?;
    let mut flags = parse(&text).map_err(|error| format!("can't use the configuration file {}: {error}", path.display()))?;
    flags.note(
        false,
        "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        &path.display().to_string(),
    );
    Ok(flags)
}

fn parse(text: &str) -> Result<Flags, String> {
    let document: Option<Map<String, Value>> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut flags = Flags::default();
    for (key, value) in document.unwrap_or_default() {
        match key.as_str() {
            "client-transport-security" => read_security(&mut flags, &value, "")?,
            "peer-transport-security" => read_security(&mut flags, &value, "peer-")?,
            "discovery-config" if !is_empty(&value) => return Err("discovery-config: Discovery is not built yet".into()),
            "config-file" | "version" => {}
            name => read_flag(&mut flags, name, &value)?,
        }
    }
    Ok(flags)
}

fn read_security(flags: &mut Flags, block: &Value, prefix: &str) -> Result<(), String> {
    for (key, value) in block.as_object().into_iter().flatten() {
        let name = match key.as_str() {
            "allowed-cn" => format!("{prefix}cert-allowed-cn"),
            "allowed-hostname" if prefix.is_empty() => "client-cert-allowed-hostname".into(),
            "allowed-hostname" => format!("{prefix}cert-allowed-hostname"),
            "client-cert-file" | "client-key-file" | "client-cert-auth" => format!("{prefix}{key}"),
            other => format!("{prefix}{other}"),
        };
        read_flag(flags, &name, value)?;
    }
    Ok(())
}

fn read_flag(flags: &mut Flags, name: &str, value: &Value) -> Result<(), String> {
    let Some(flag) = flags::find(name) else { return Ok(()) };
    let text = match value {
        // An empty key is an unset one, as in etcd's sample file.
        Value::Null => return Ok(()),
        Value::String(text) if text.is_empty() => return Ok(()),
        Value::Number(nanos) if flag.kind == Kind::Duration => format!("{nanos}ns"),
        Value::String(_) if flag.kind == Kind::Duration => {
            return Err(format!("{name}: a duration is given in integer nanoseconds here"));
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    flags.set(flag.name, &text).map_err(|error| format!("{name}: {error}"))
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
    fn a_bad_file_is_refused_with_a_sentence() {
        assert!(parse("name: [").is_err());
        assert!(parse("heartbeat-interval: soon").expect_err("no number").starts_with("heartbeat-interval: "));
        assert!(parse("peer-transport-security:\n  cert-file: x\n").expect("YAML").refusal().is_some());
    }
}
