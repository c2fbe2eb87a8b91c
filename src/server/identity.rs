//! Member and cluster ids by etcd's SHA-1 rule, persisted at first boot; the stored ones win over flags.
//!
//! The file is written before anything else of a member, and whole: a temporary file, fsync, then a link that never replaces, fsync
//! of the directory. So a crash leaves a directory without it (nothing was promised yet) or with all of it. It also keeps the
//! cluster that the member was to be initialized with, for a crash may fall between this file and Raft's first entry.

use crate::config::value::system_text;
use rand::Rng;
use rusd_storage::error::advice;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE: &str = "identity.json";
const FORMAT: u32 = 1;

/// Who this member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Member id.
    pub member_id: u64,
    /// Cluster id.
    pub cluster_id: u64,
    /// Random id of this data dir.
    pub data_dir_id: u64,
}

/// A member that the cluster begins with, or that this member found when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Member id.
    pub id: u64,
    /// `--name` of it.
    pub name: String,
    /// Sorted peer URLs.
    pub peer_urls: Vec<String>,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Version of this format.
    pub format: u32,
    /// Member id.
    pub member_id: u64,
    /// Cluster id.
    pub cluster_id: u64,
    /// Random id of this data dir.
    pub data_dir_id: u64,
    /// Whether the member joins a running cluster; it is never initialized then.
    pub joins: bool,
    /// The first members, of a new cluster; of a running one those that were there when this member joined, to call upon.
    pub founders: Vec<Founder>,
    /// Whether this start has asked the peers already if they know the member as started.
    #[serde(skip)]
    pub peers_were_asked: bool,
}

/// The file: its content with a checksum over the content's text.
#[derive(Serialize, Deserialize)]
struct Sealed {
    identity: Stored,
    sha1: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system failed.
    #[error("{action} {}: {}{}", path.display(), system_text(.error), advice(.error))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// No directory to write it to.
    #[error("cannot access data directory: mkdir {}: {}{}", path.display(), system_text(.error), advice(.error))]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file isn't what was written.
    #[error("{} is damaged: {detail}. Remove this member and add it again with an empty data dir, or restore from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A later version wrote it.
    #[error("{} has format {found}, this rusd knows {FORMAT}. Start it with the version of rusd that wrote it", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

/// etcd's rule: the first 8 bytes of SHA-1 over the sorted URLs, the token, and for a member added at run time the time in seconds.
pub fn member_id(peer_urls: &[String], token: &str, added_unix_secs: Option<u64>) -> u64 {
    let mut sorted = peer_urls.to_vec();
    sorted.sort();
    let mut hash = Sha1::new();
    sorted.iter().for_each(|url| hash.update(url));
    hash.update(token);
    if let Some(secs) = added_unix_secs {
        hash.update(secs.to_string());
    }
    first_eight(hash)
}

/// The same over the sorted member ids, 8 bytes each, big-endian.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    sorted.iter().for_each(|id| hash.update(id.to_be_bytes()));
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes"))
}

impl Stored {
    /// A member of a new cluster made of `cluster`; `None` if `name` isn't in it.
    pub fn of_new_cluster(name: &str, cluster: &[(String, Vec<String>)], token: &str) -> Option<Self> {
        let founder = |(name, urls): &(String, Vec<String>)| Founder {
            id: member_id(urls, token, None),
            name: name.clone(),
            peer_urls: urls.clone(),
        };
        let mut founders: Vec<Founder> = cluster.iter().map(founder).collect();
        founders.sort_by_key(|founder| founder.id);
        let member_id = founders.iter().find(|founder| founder.name == name)?.id;
        let cluster_id = cluster_id(&founders.iter().map(|founder| founder.id).collect::<Vec<_>>());
        Some(Self { format: FORMAT, member_id, cluster_id, data_dir_id: random_id(), joins: false, founders, peers_were_asked: false })
    }

    /// A member that was added to a running cluster under this id; `known` are the members now.
    pub fn of_running_cluster(member_id: u64, cluster_id: u64, known: Vec<Founder>) -> Self {
        Self { format: FORMAT, member_id, cluster_id, data_dir_id: random_id(), joins: true, founders: known, peers_were_asked: false }
    }

    /// The ids.
    pub fn identity(&self) -> Identity {
        Identity { member_id: self.member_id, cluster_id: self.cluster_id, data_dir_id: self.data_dir_id }
    }
}

/// Never 0, which means unknown on the wire.
fn random_id() -> u64 {
    rand::rng().next_u64().max(1)
}

/// Reads the file; `None` if there is none.
pub fn load(member_dir: &Path) -> Result<Option<Stored>, IdentityError> {
    let path = member_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return none_or_lost(member_dir, path),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(IdentityError::Damaged { path, detail: error.to_string() }),
        Err(error) => return Err(IdentityError::Io { action: "read", path, error }),
    };
    let damaged = |detail: String| IdentityError::Damaged { path: path.clone(), detail };
    // The format first: a later one may have other fields.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if let Some(found) = value["identity"]["format"].as_u64().filter(|found| *found != u64::from(FORMAT)) {
        return Err(IdentityError::UnknownFormat { path, found: u32::try_from(found).unwrap_or(u32::MAX) });
    }
    let sealed: Sealed = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    let sum = checksum(&sealed.identity);
    if sum != sealed.sha1 {
        return Err(damaged(format!("its checksum is {sum}, it says {}", sealed.sha1)));
    }
    Ok(Some(sealed.identity))
}

/// It is written first and never removed, so that a store without it has lost it; under a new one it would be a member that forgets.
fn none_or_lost(member_dir: &Path, path: PathBuf) -> Result<Option<Stored>, IdentityError> {
    match ["FORMAT", "CURRENT"].iter().find(|name| member_dir.join(name).exists()) {
        Some(name) => Err(IdentityError::Damaged { path, detail: format!("it is missing, but {name} is there") }),
        None => Ok(None),
    }
}

/// Writes the file durably, directories included. What another process wrote meanwhile is kept and refused here.
pub fn save(member_dir: &Path, stored: &Stored) -> Result<(), IdentityError> {
    make_directory(member_dir)?;
    let (path, partial) = (member_dir.join(FILE), member_dir.join(format!("{FILE}.{}", std::process::id())));
    let sealed = Sealed { identity: stored.clone(), sha1: checksum(stored) };
    let text = serde_json::to_vec_pretty(&sealed).expect("numbers and strings always encode");
    let written = write_synced(&partial, &text).and_then(|()| fs::hard_link(&partial, &path));
    let _ = fs::remove_file(&partial);
    written.map_err(|error| IdentityError::Io { action: "write", path, error })?;
    sync_directory(member_dir)
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Makes the directory and what is missing above it, 0700, each durable in its parent.
fn make_directory(directory: &Path) -> Result<(), IdentityError> {
    let mut missing = Vec::new();
    let mut at = Some(directory);
    while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
        missing.push(path);
        at = path.parent();
    }
    for path in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(IdentityError::Directory { path: path.into(), error });
            }
            _ => sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?,
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), IdentityError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| IdentityError::Io {
        action: "sync the directory",
        path: path.into(),
        error,
    })
}

fn checksum(stored: &Stored) -> String {
    let text = serde_json::to_vec(stored).expect("numbers and strings always encode");
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn ids_are_those_of_etcd() {
        for (url, token, member, cluster) in [
            ("http://localhost:2380", "etcd-cluster", 0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32),
            ("https://localhost:20001", "new", 0x00a8_f345_8387_986d, 0x34c2_1a2d_427d_b393),
        ] {
            let id = member_id(&[url.to_owned()], token, None);
            assert_eq!((id, cluster_id(&[id])), (member, cluster), "{url}");
        }
        let urls = |list: [&str; 2]| list.map(str::to_owned);
        assert_eq!(member_id(&urls(["http://a:1", "http://b:1"]), "", None), member_id(&urls(["http://b:1", "http://a:1"]), "", None));
        assert_ne!(member_id(&urls(["http://a:1", "http://b:1"]), "", Some(1)), member_id(&urls(["http://a:1", "http://b:1"]), "", None));
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }

    fn sample() -> Stored {
        let cluster = [("a".to_owned(), vec!["http://a:1".to_owned()]), ("b".to_owned(), vec!["http://b:1".to_owned()])];
        Stored::of_new_cluster("b", &cluster, "t").expect("b is in it")
    }

    #[test]
    fn what_was_saved_comes_back_and_is_never_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let member = directory.path().join("x.etcd/member");
        assert_eq!(load(&member).expect("nothing there"), None);
        let first = sample();
        save(&member, &first).expect("it saves");
        assert_eq!(load(&member).expect("it loads"), Some(first.clone()));
        assert!(save(&member, &sample()).is_err());
        assert_eq!(load(&member).expect("it loads"), Some(first));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&member), mode(&member.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&member).expect("it lists").count(), 1, "no partial file stays");
    }

    #[test]
    fn damage_is_refused_with_a_sentence() {
        let directory = tempfile::tempdir().expect("a directory");
        save(directory.path(), &sample()).expect("it saves");
        let path = directory.path().join(FILE);
        let good = fs::read(&path).expect("it reads");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("it writes");
            if let Ok(Some(stored)) = load(directory.path()) {
                assert_eq!(stored, load_from(&good), "a flip at {at} changed the identity unseen");
            }
        }
        for end in [0, 1, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..end]).expect("it writes");
            let error = load(directory.path()).expect_err("it is torn").to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
        let later = String::from_utf8(good).expect("JSON").replace("\"format\": 1", "\"format\": 9");
        fs::write(&path, later).expect("it writes");
        assert!(load(directory.path()).expect_err("unknown").to_string().contains("has format 9, this rusd knows 1"));
    }

    fn load_from(text: &[u8]) -> Stored {
        serde_json::from_slice::<Sealed>(text).expect("JSON").identity
    }
}
