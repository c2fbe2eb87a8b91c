//! What a flag is: the one table ([`FLAGS`], its rows in `flags/`), those of older versions of etcd ([`Old`]), and how to find them.
//!
//! Everything else (the parser, the environment, the file, `--help`) is driven by it. clap doesn't fit: Go's `flag` accepts `-name`
//! and `--name`, takes a boolean's value only after `=`, lets the last of several win, and has error texts of its own that
//! scripts match; a parser for that is shorter than the bending of another one.

mod member;
mod old;
mod operation;
mod security;

pub use old::{BUILT_GATES, GATES, Old};
use old::{DEPRECATED, OLD};

/// What a value must look like; the names follow Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true`, `false`, `1`, `0`, `t`, `f`; alone it means true.
    Bool,
    /// Anything.
    Text,
    /// Unsigned, 64 bits, also `0x..`, `0b..`.
    Uint,
    /// Unsigned, 32 bits.
    Uint32,
    /// Signed, 64 bits.
    Int,
    /// Go's durations: `1h2m3.5s`, `10ms`.
    Duration,
    /// URLs separated by commas, or empty.
    Urls,
    /// `*` or URLs, separated by commas.
    Origins,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `Gate=true,Other=false`.
    Gates,
}

/// What rusd makes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Works.
    Built,
    /// About bbolt, the WAL or the Go runtime: there is nothing here for it to change. Accepted with a log line.
    NoMeaning,
    /// Accepted and checked, with a warning until this is built.
    Later(&'static str),
    /// To ignore it would be dangerous, so anything but its default is refused until this is built.
    Refused(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How its value is checked.
    pub kind: Kind,
    /// etcd's default.
    pub default: &'static str,
    /// What we make of it.
    pub class: Class,
    /// A line for `--help`.
    pub help: &'static str,
}

/// Finds a flag of [`FLAGS`].
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// Finds a flag of an older etcd.
pub fn find_old(name: &str) -> Option<Old> {
    OLD.iter().find(|(old, _)| *old == name).map(|(_, what)| *what)
}

/// What etcd says of whoever uses this flag.
pub fn deprecation(name: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(deprecated, _)| *deprecated == name).map(|(_, sentence)| *sentence)
}

/// All rows of [`FLAGS`].
pub fn all() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().flat_map(|(_, flags)| flags.iter())
}

/// `ETCD_DATA_DIR` for `data-dir`.
pub fn environment_name(name: &str) -> String {
    format!("ETCD_{}", name.to_uppercase().replace('-', "_"))
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, class: Class, help: &'static str) -> Flag {
    Flag { name, kind, default, class, help }
}

/// Every flag of etcd 3.7.1, in the groups of its help, and ours.
pub const FLAGS: &[(&str, &[Flag])] = &[
    ("Member", member::MEMBER),
    ("Clustering", member::CLUSTERING),
    ("Security", security::SECURITY),
    ("Auth", security::AUTH),
    ("Profiling and Monitoring", operation::MONITORING),
    ("Logging", operation::LOGGING),
    ("Distributed tracing", operation::TRACING),
    ("Features", operation::FEATURES),
    ("Unsafe feature", operation::UNSAFE),
    ("rusd", operation::OWN),
    ("Other", operation::OTHER),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_defaults_pass_their_own_check() {
        let mut seen = BTreeSet::new();
        for flag in all() {
            assert!(seen.insert(flag.name), "{} is there twice", flag.name);
            assert_eq!(crate::config::value::check(flag.kind, flag.default), Ok(()), "{}", flag.name);
        }
        assert_eq!(seen.len(), 116);
        for (name, old) in OLD {
            assert!(seen.insert(name), "{name} is there twice");
            match old {
                Old::Renamed(now) => assert!(find(now).is_some(), "{name} points to {now}"),
                Old::Gate(gate) => assert!(GATES.iter().any(|(known, _)| known == gate), "{name} points to {gate}"),
                Old::Gone(_) => {}
            }
        }
    }
}
