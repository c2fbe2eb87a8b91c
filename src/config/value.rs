//! Values of flags as Go's `flag` and `strconv` read them, with their error texts.

use super::flags::{GATES, Kind};
use super::urls;
use std::collections::BTreeMap;
use std::time::Duration;

const SYNTAX: &str = "parse error";
const RANGE: &str = "value out of range";

/// Whether `text` may be given to a flag of this kind; the error is what Go prints after the colon.
pub fn check(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Text => Ok(()),
        Kind::Bool => boolean(text).map(drop).ok_or_else(|| SYNTAX.into()),
        Kind::Uint => uint(text).map(drop).map_err(String::from),
        Kind::Uint32 => match uint(text) {
            Ok(number) if u32::try_from(number).is_ok() => Ok(()),
            Err(SYNTAX) => Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text))),
            _ => Err(format!("strconv.ParseUint: parsing {}: {RANGE}", quote(text))),
        },
        Kind::Int => int(text).map(drop).map_err(String::from),
        Kind::Duration => duration_nanos(text).map(drop).map_err(|_| SYNTAX.into()),
        Kind::Urls => urls::parse_list(text).map(drop).map_err(|error| error.to_string()),
        Kind::Origins => {
            let mut origins = text.split(',').filter(|origin| *origin != "*");
            origins.try_for_each(|origin| urls::parse(origin).map(drop)).map_err(|error| error.to_string())
        }
        Kind::OneOf(words) => {
            if words.contains(&text) {
                Ok(())
            } else {
                Err("invalid value".into())
            }
        }
        Kind::Gates => gates(text).map(drop),
    }
}

/// Go's `%q`, near enough for what stands on a command line.
pub fn quote(text: &str) -> String {
    format!("{text:?}")
}

/// Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.ParseUint` with base 0.
pub fn uint(text: &str) -> Result<u64, &'static str> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // An underscore stands between two digits, or after the prefix.
    let digits = digits.strip_prefix('_').filter(|_| radix != 10).unwrap_or(digits);
    let groups = digits.split('_');
    if groups.clone().any(|group| group.is_empty() || !group.chars().all(|digit| digit.is_digit(radix))) {
        return Err(SYNTAX);
    }
    u64::from_str_radix(&groups.collect::<String>(), radix).map_err(|_| RANGE)
}

/// Go's `strconv.ParseInt` with base 0.
pub fn int(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let size = i128::from(uint(digits)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| RANGE)
}

/// What Go's `time.ParseDuration` says to a text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DurationError {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    NoUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(.0), quote(.1))]
    UnknownUnit(String, String),
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub fn duration_nanos(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.into());
    let (sign, mut rest) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(end_of_number(rest));
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number = number.parse::<f64>().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(DurationError::NoUnit(text.into()));
        }
        nanos += number * unit_nanos(unit).ok_or_else(|| DurationError::UnknownUnit(unit.into(), text.into()))?;
        rest = tail;
    }
    // Exact below 2^53 ns (104 days), far beyond what any flag means.
    if nanos < i64::MAX as f64 { Ok(sign * nanos.round() as i64) } else { Err(invalid()) }
}

/// Digits with at most one point among them.
fn end_of_number(text: &str) -> usize {
    let mut points = 0;
    let ends = |c: char| match c {
        '.' => {
            points += 1;
            points > 1
        }
        _ => !c.is_ascii_digit(),
    };
    text.find(ends).unwrap_or(text.len())
}

fn unit_nanos(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// As [`duration_nanos`]; what is negative counts as none, as where etcd uses it.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    duration_nanos(text).map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// A failure of the system in Go's words, `no such file or directory`: etcd's sentences end so.
pub fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// `Gate=true,Other=false`; unknown ones are refused, as etcd does.
pub fn gates(text: &str) -> Result<BTreeMap<&'static str, bool>, String> {
    let mut found = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("missing bool value for {pair}"))?;
        let (name, value) = (name.trim(), value.trim());
        let on = boolean(value)
            .ok_or_else(|| format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {}: invalid syntax", quote(value)))?;
        let (known, _) = GATES.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
        found.insert(*known, on);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, nanos) in
            [("0", 0), ("10ms", 10_000_000), ("1h2m3.5s", 3_723_500_000_000), ("-1s", -1_000_000_000), (".5s", 500_000_000)]
        {
            assert_eq!(duration_nanos(text), Ok(nanos), "{text}");
        }
        let error = |text: &str| duration_nanos(text).expect_err(text).to_string();
        for text in ["", "s", "-", "x", ".s", "9999999h"] {
            assert_eq!(error(text), format!("time: invalid duration {text:?}"));
        }
        for text in ["3", "1s2", "-1", "1.2.3s"] {
            assert_eq!(error(text), format!("time: missing unit in duration {text:?}"));
        }
        assert_eq!(error("1d"), "time: unknown unit \"d\" in duration \"1d\"");
    }

    #[test]
    fn the_system_speaks_as_with_go() {
        assert_eq!(system_text(&std::io::Error::from_raw_os_error(libc::ENOENT)), "no such file or directory");
        assert_eq!(system_text(&std::io::Error::from_raw_os_error(libc::EADDRINUSE)), "address already in use");
    }

    #[test]
    fn numbers_are_read_as_go_does() {
        assert_eq!(uint("0x10"), Ok(16));
        assert_eq!(uint("010"), Ok(8));
        assert_eq!((uint("1_000"), uint("0x_1f")), (Ok(1000), Ok(31)));
        assert_eq!((uint("1__0"), uint("_1"), uint("1_"), uint("")), (Err(SYNTAX), Err(SYNTAX), Err(SYNTAX), Err(SYNTAX)));
        assert_eq!(uint("-1"), Err(SYNTAX));
        assert_eq!(uint("+1"), Err(SYNTAX));
        assert_eq!(uint("99999999999999999999"), Err(RANGE));
        assert_eq!(int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int("9223372036854775808"), Err(RANGE));
        assert_eq!(check(Kind::Uint32, "99999999999"), Err("strconv.ParseUint: parsing \"99999999999\": value out of range".into()));
    }

    #[test]
    fn unknown_gates_are_refused() {
        assert_eq!(gates("InitialCorruptCheck=true, LeaseCheckpoint=0").map(|gates| gates.len()), Ok(2));
        assert_eq!(gates("Nope=true"), Err("unrecognized feature gate: Nope".into()));
        assert_eq!(gates("LeaseCheckpoint"), Err("missing bool value for LeaseCheckpoint".into()));
    }
}
