//! `--auto-compaction-retention`, whose meaning hangs on `--auto-compaction-mode`.

use super::value::{self, DurationError};
use std::time::Duration;

/// What auto compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing is compacted.
    Off,
    /// Revisions younger than this.
    Periodic(Duration),
    /// So many of the last revisions.
    Revisions(i64),
}

/// Reads it as etcd does: a bare number means hours or revisions. A duration where revisions are counted means its nanoseconds, for
/// there one number holds both. "", 0 and what is negative turn it off.
pub fn parse(by_revision: bool, text: &str) -> Result<Retention, DurationError> {
    if text.is_empty() {
        return Ok(Retention::Off);
    }
    let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
    let (revisions, period) = match number {
        Some(number) => (number, Duration::from_secs(number.unsigned_abs().saturating_mul(3600))),
        None => (value::duration_nanos(text)?, value::duration(text)?),
    };
    Ok(match by_revision {
        true if revisions > 0 => Retention::Revisions(revisions),
        false if !period.is_zero() => Retention::Periodic(period),
        _ => Retention::Off,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcds() {
        let periodic = |millis| Ok(Retention::Periodic(Duration::from_millis(millis)));
        for (text, periodic, by_revision) in [
            ("0", Ok(Retention::Off), Ok(Retention::Off)),
            ("", Ok(Retention::Off), Ok(Retention::Off)),
            ("-1h", Ok(Retention::Off), Ok(Retention::Off)),
            ("3", periodic(3 * 3_600_000), Ok(Retention::Revisions(3))),
            ("1h30m500ms", periodic(5_400_500), Ok(Retention::Revisions(5_400_500_000_000))),
        ] {
            assert_eq!((parse(false, text), parse(true, text)), (periodic, by_revision), "{text}");
        }
        for (text, error) in [("soon", "invalid duration \"soon\""), ("-1", "missing unit in duration \"-1\"")] {
            assert_eq!(parse(true, text).expect_err("no duration").to_string(), format!("time: {error}"));
        }
    }
}
