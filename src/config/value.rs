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
        Kind::Duration => duration_nanos(text).map(drop).ok_or_else(|| SYNTAX.into()),
        Kind::Urls => urls::parse_list(text).map(drop).map_err(|error| error.to_string()),
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
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(SYNTAX);
    }
    u64::from_str_radix(digits, radix).map_err(|_| RANGE)
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

/// Go's `time.ParseDuration`, in nanoseconds; `None` where that fails.
pub fn duration_nanos(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanos += number.parse::<f64>().ok()? * unit_nanos(unit)?;
        rest = tail;
    }
    // Exact below 2^53 ns (104 days), far beyond what any flag means.
    (nanos < i64::MAX as f64).then_some(sign * nanos.round() as i64)
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
pub fn duration(text: &str) -> Option<Duration> {
    duration_nanos(text).map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
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
            assert_eq!(duration_nanos(text), Some(nanos), "{text}");
        }
        for text in ["", "3", "s", "1x", "1.2.3s", "-", "1s2"] {
            assert_eq!(duration_nanos(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_go_does() {
        assert_eq!(uint("0x10"), Ok(16));
        assert_eq!(uint("010"), Ok(8));
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
