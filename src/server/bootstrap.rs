//! Which member this is: from its data dir, else from the flags and what its peers say.
//!
//! | data dir | `--initial-cluster-state` | peers are asked | then |
//! |---|---|---|---|
//! | has an identity | ignored | no | restart |
//! | empty | new | all: does one know this id as started? then refuse | identity from the flags |
//! | empty | existing | who are the members? | identity from the one with our URLs |
//! | holds an etcd's database | | no | refuse, touch nothing |
//!
//! `--force-new-cluster` (`alone.rs`) needs an identity and data.

use super::identity::{self, Founder, IdentityError, Stored};
use super::remote::{self, Remote};
use crate::config::value::system_text;
use crate::config::{Config, urls};
use crate::grpc::ETCD_VERSION;
use rusd_storage::error::advice;
use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one peer may take to tell its members, if a new member asks (etcd's BootstrapTimeout at its default election timeout).
const ASK_NEW: Duration = Duration::from_secs(1);
/// The same for one that joins.
const ASK_EXISTING: Duration = Duration::from_secs(10);

/// Why this member can't be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BootstrapError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("open {}: {}{}", path.display(), system_text(.error), advice(.error))]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("cannot access data directory: open {}: {}{}", path.display(), system_text(.error), advice(.error))]
    Unwritable { path: PathBuf, error: std::io::Error },
    #[error("{} holds the data of an etcd; importing it is to come, nothing was touched. Choose another --data-dir", .0.display())]
    Foreign(PathBuf),
    #[error("invalid datadir {}; a v2 proxy directory exists", .0.display())]
    Proxy(PathBuf),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NoLocalName(String),
    #[error("--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({detail})")]
    NotAdvertised { missing: String, advertised: String, detail: String },
    #[error("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}")]
    NotInCluster { missing: String, cluster: String },
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error("initial cluster unset and no discovery endpoints found")]
    NoCluster,
    #[error("{}", bootstrapped(*.0))]
    AlreadyBootstrapped(u64),
    #[error("the member has been permanently removed from the cluster; data-dir used by this member must be removed: {}", .0.display())]
    Removed(PathBuf),
    #[error("--force-new-cluster needs the data of a member, and {} holds none; without the flag this member founds or joins a cluster", .0.display())]
    NothingToForce(PathBuf),
    #[error(
        "--force-new-cluster: member {0:x} has no vote, so writes that were acknowledged may be missing here; \
         take the data dir of a member that voted"
    )]
    ForcedLearner(u64),
    #[error(
        "--force-new-cluster: the majority isn't lost, {alive} of {voters} voters answer beside this one; start without the flag. \
         If they are not to go on, stop them first"
    )]
    MajorityLives { alive: String, voters: usize },
    #[error("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")]
    NoPeerAnswers,
    #[error("error validating peerURLs {0}: member count is unequal")]
    CountUnequal(String),
    #[error("error validating peerURLs {peers}: PeerURLs: no match found for existing member ({id:x}, [{urls}])")]
    Unmatched { peers: String, id: u64, urls: String },
    #[error("incompatible with current running cluster")]
    Incompatible,
    #[error("incompatible with current running cluster: its members don't speak rusd's peer protocol (perhaps they are etcds)")]
    NotRusd,
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    #[error("{} belongs to member {stored:x}, whose peer URLs were {theirs}, but these flags are those of {name:?} ({ours}). \
         Give it the --data-dir of its own", path.display())]
    AnotherMembers { path: PathBuf, stored: u64, theirs: String, name: String, ours: String },
}

/// What to do about a member whose data dir is gone.
fn again(id: u64) -> String {
    format!(
        "If its data dir was lost, this member has forgotten what it promised the others and must not vote under its old id: remove it \
         (etcdctl member remove {id:x}), add it again (etcdctl member add NAME --peer-urls=URL), and start it with an empty data dir and \
         --initial-cluster-state=existing"
    )
}

/// etcd's sentence, and what to do.
fn bootstrapped(id: u64) -> String {
    format!("member {id:x} has already been bootstrapped. {}", again(id))
}

/// The sentence for a member whose data dir isn't the one that the others know it with.
pub fn wiped(id: u64) -> String {
    format!("member {id:x} has been started with another data dir before. {}", again(id))
}

/// What to do about a member whose history isn't that of the others.
pub fn corrupt(id: u64) -> String {
    format!(
        "{id:x} found data inconsistency with peers. Its history can't be trusted: remove it (etcdctl member remove {id:x}) and add it \
         again with an empty data dir"
    )
}

const REMOVED: &str = "REMOVED";

/// Marks the data dir as that of a member that was removed, so that the next start needs no peer to find out.
pub fn mark_removed(config: &Config) {
    let path = member_dir(config).join(REMOVED);
    let marked =
        std::fs::write(&path, "this member was removed from the cluster for ever\n").and_then(|()| std::fs::File::open(&path)?.sync_all());
    if let Err(error) = marked {
        tracing::warn!(path = %path.display(), %error, "the data dir wasn't marked; peers will tell at the next start");
    }
}

/// The directory of all that is ours below the data dir.
pub fn member_dir(config: &Config) -> PathBuf {
    config.data_dir.join("member")
}

/// Who this member is; persisted when this returns.
pub async fn identify(config: &Config) -> Result<Stored, BootstrapError> {
    let directory = member_dir(config);
    refuse_foreign(config)?;
    if let Some(stored) = identity::load(&directory)? {
        if directory.join(REMOVED).exists() {
            return Err(BootstrapError::Removed(config.data_dir.clone()));
        }
        refuse_another(config, &directory, &stored)?;
        warn_of_loose_mode(&config.data_dir);
        return Ok(stored);
    }
    if config.force_new_cluster {
        return Err(BootstrapError::NothingToForce(directory));
    }
    let stored = if config.join_existing { join(config).await? } else { found(config).await? };
    identity::save(&directory, &stored)?;
    warn_of_loose_mode(&config.data_dir);
    Ok(stored)
}

/// Asks the peers whether one of them knows this member as started: then it has been wiped, and has forgotten what it promised.
/// To be asked as long as this member was never initialized.
pub async fn refuse_bootstrapped(config: &Config, stored: &Stored) -> Result<(), BootstrapError> {
    let remotes = remote::all(&other_urls(config), ASK_NEW).await;
    let mut known = remotes.iter().flat_map(|remote| &remote.members).filter(|member| member.id == stored.member_id);
    match known.any(|member| !member.client_urls.is_empty()) {
        true => Err(BootstrapError::AlreadyBootstrapped(stored.member_id)),
        false => Ok(()),
    }
}

async fn found(config: &Config) -> Result<Stored, BootstrapError> {
    check_local(config)?;
    check_advertised(config)?;
    check_duplicates(config)?;
    if config.initial_cluster.is_empty() {
        return Err(BootstrapError::NoCluster);
    }
    let mut stored = Stored::of_new_cluster(&config.name, &config.initial_cluster, &config.initial_cluster_token)
        .ok_or_else(|| BootstrapError::NoLocalName(config.name.clone()))?;
    refuse_bootstrapped(config, &stored).await?;
    stored.peers_were_asked = true;
    Ok(stored)
}

/// One peer after the other is asked. etcd believes the first that answers; but a member behind the others may not have heard of us yet, or
/// know our URL as another's who was removed since. So who refuses us for what its list says is only believed if nobody else takes us,
/// and a list in which we have started already is never overruled by another that knows us by the same id.
async fn join(config: &Config) -> Result<Stored, BootstrapError> {
    check_local(config)?;
    check_duplicates(config)?;
    let (mut refusal, mut started) = (None, BTreeSet::new());
    for url in other_urls(config) {
        let Some(remote) = remote::first(&[url], ASK_EXISTING).await else { continue };
        let error = match admitted(config, remote).await {
            Ok(stored) if !started.contains(&stored.member_id) => return Ok(stored),
            Ok(_) => continue,
            Err(error) => error,
        };
        match &error {
            BootstrapError::AlreadyBootstrapped(id) => drop(started.insert(*id)),
            BootstrapError::CountUnequal(_) | BootstrapError::Unmatched { .. } => {}
            _ => return Err(error),
        }
        refusal.get_or_insert(error);
    }
    Err(refusal.unwrap_or(BootstrapError::NoPeerAnswers))
}

/// Who we are in the cluster as one of its members sees it.
async fn admitted(config: &Config, remote: Remote) -> Result<Stored, BootstrapError> {
    let id = our_id(config, &remote)?;
    check_compatible(&remote, id).await?;
    if remote.members.iter().filter(|member| member.is_learner).count() > config.max_learners {
        return Err(BootstrapError::TooManyLearners);
    }
    let started = remote.members.iter().any(|member| member.id == id && !member.client_urls.is_empty());
    if started {
        return Err(BootstrapError::AlreadyBootstrapped(id));
    }
    let known = remote.members.into_iter().map(|member| Founder { id: member.id, name: member.name, peer_urls: member.peer_urls });
    Ok(Stored::of_running_cluster(id, remote.cluster_id, known.collect()))
}

/// The id under which the cluster knows our URLs; every member of the cluster must be in `--initial-cluster` with its own.
fn our_id(config: &Config, remote: &Remote) -> Result<u64, BootstrapError> {
    let peers = || remote.members.iter().flat_map(|member| member.peer_urls.clone()).collect::<Vec<_>>().join(",");
    if remote.members.len() != config.initial_cluster.len() {
        return Err(BootstrapError::CountUnequal(peers()));
    }
    let mut ours = None;
    for member in &remote.members {
        let unmatched = || BootstrapError::Unmatched { peers: peers(), id: member.id, urls: member.peer_urls.join(" ") };
        let (name, _) = config.initial_cluster.iter().find(|(_, urls)| same_urls(&member.peer_urls, urls)).ok_or_else(unmatched)?;
        if *name == config.name {
            ours = Some(member.id);
        }
    }
    ours.ok_or_else(|| BootstrapError::NoLocalName(config.name.clone()))
}

/// The peers must be rusds with a protocol that we speak, at a cluster version not above ours, nor more than one below.
async fn check_compatible(remote: &Remote, id: u64) -> Result<(), BootstrapError> {
    let (oldest, newest) = remote.protocol.ok_or(BootstrapError::NotRusd)?;
    let (our_oldest, our_newest) = rusd_network::protocol();
    if oldest.max(our_oldest) > newest.min(our_newest) {
        return Err(BootstrapError::Incompatible);
    }
    let others = remote.members.iter().filter(|member| member.id != id);
    let urls: Vec<String> = others.flat_map(|member| member.peer_urls.clone()).collect();
    let (major, minor) = remote::major_minor(ETCD_VERSION).expect("our own version is one");
    match tokio::time::timeout(ASK_EXISTING, decided_version(&urls)).await {
        Ok(found) if found <= (major, minor) && found >= (major, minor - 1) => Ok(()),
        _ => Err(BootstrapError::Incompatible),
    }
}

/// A cluster that has just begun decides its version in a moment.
async fn decided_version(urls: &[String]) -> (u64, u64) {
    loop {
        if let Some(version) = remote::cluster_version(urls, ASK_EXISTING).await {
            return version;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn other_urls(config: &Config) -> Vec<String> {
    config.initial_cluster.iter().filter(|(name, _)| *name != config.name).flat_map(|(_, urls)| urls.clone()).collect()
}

fn check_local(config: &Config) -> Result<(), BootstrapError> {
    match config.initial_cluster.iter().any(|(name, _)| *name == config.name) {
        true => Ok(()),
        false => Err(BootstrapError::NoLocalName(config.name.clone())),
    }
}

fn check_duplicates(config: &Config) -> Result<(), BootstrapError> {
    match urls::has_duplicate_url(&config.initial_cluster) {
        true => Err(BootstrapError::DuplicateUrl(urls::cluster_text(&config.initial_cluster))),
        false => Ok(()),
    }
}

/// What we advertise must be what the others expect of us, as text or after resolution.
fn check_advertised(config: &Config) -> Result<(), BootstrapError> {
    let advertised = &config.advertise_peer_urls;
    let cluster: Vec<String> =
        config.initial_cluster.iter().filter(|(name, _)| *name == config.name).flat_map(|(_, urls)| urls.clone()).collect();
    if same_urls(advertised, &cluster) {
        return Ok(());
    }
    let without = |these: &[String], those: &[String]| these.iter().filter(|url| !those.contains(url)).cloned().collect::<Vec<_>>();
    let missing = without(&cluster, advertised);
    if !missing.is_empty() {
        let missing = missing.iter().map(|url| format!("{}={url}", config.name)).collect::<Vec<_>>().join(",");
        return Err(BootstrapError::NotAdvertised { missing, advertised: advertised.join(","), detail: difference(advertised, &cluster) });
    }
    let ours = urls::cluster_text(&[(config.name.clone(), advertised.clone())]);
    Err(BootstrapError::NotInCluster { missing: without(advertised, &cluster).join(","), cluster: ours })
}

/// As etcd tells it, where Go prints a list with blanks between quoted texts.
fn difference(advertised: &[String], cluster: &[String]) -> String {
    if advertised.len() != cluster.len() {
        let list = |urls: &[String]| urls.iter().map(|url| format!("{url:?}")).collect::<Vec<_>>().join(" ");
        return format!("len([{}]) != len([{}])", list(advertised), list(cluster));
    }
    let different = advertised.iter().zip(cluster).find(|(ours, theirs)| ours != theirs);
    different.map_or_else(String::new, |(ours, theirs)| format!("resolved urls: {ours:?} != {theirs:?}"))
}

fn same_urls(these: &[String], those: &[String]) -> bool {
    let sorted = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
    if sorted(these) == sorted(those) {
        return true;
    }
    these.len() == those.len() && resolved(these).is_some_and(|these| Some(these) == resolved(those))
}

/// All addresses with their schemes; `None` if one can't be resolved.
fn resolved(list: &[String]) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for text in list {
        let url = urls::parse(text).ok()?.url;
        let target = (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?);
        all.extend(target.to_socket_addrs().ok()?.map(|address| format!("{}://{address}", url.scheme())));
    }
    Some(all)
}

/// An etcd's directory is recognized by its database or log, and left as it is.
fn refuse_foreign(config: &Config) -> Result<(), BootstrapError> {
    let member = member_dir(config);
    let wal = config.wal_dir.iter().cloned().chain([member.join("wal")]);
    if let Some(found) = [member.join("snap/db")].into_iter().chain(wal.filter(|path| holds_wal(path))).find(|path| path.exists()) {
        return Err(BootstrapError::Foreign(found));
    }
    if config.data_dir.join("proxy").is_dir() {
        return Err(BootstrapError::Proxy(config.data_dir.clone()));
    }
    match std::fs::read_dir(&config.data_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BootstrapError::Unreadable { path: config.data_dir.clone(), error })
        }
        Err(_) => Ok(()),
        Ok(_) => refuse_unwritable(&config.data_dir),
    }
}

/// Tried with a file, as etcd does: modes don't tell of a read-only file system.
fn refuse_unwritable(directory: &Path) -> Result<(), BootstrapError> {
    let path = directory.join(".touch");
    let tried = std::fs::write(&path, b"").and_then(|()| std::fs::remove_file(&path));
    tried.map_err(|error| BootstrapError::Unwritable { path, error })
}

fn holds_wal(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"))
}

/// Flags are ignored at a restart, but when they name *another* founder with its URLs, the directory is the wrong one.
fn refuse_another(config: &Config, directory: &Path, stored: &Stored) -> Result<(), BootstrapError> {
    let mut others = stored.founders.iter().filter(|founder| founder.id != stored.member_id);
    if !others.any(|other| other.name == config.name && other.peer_urls == config.advertise_peer_urls) {
        return Ok(());
    }
    let own = stored.founders.iter().find(|founder| founder.id == stored.member_id);
    Err(BootstrapError::AnotherMembers {
        path: directory.into(),
        stored: stored.member_id,
        theirs: own.map(|own| own.peer_urls.join(",")).unwrap_or_default(),
        name: config.name.clone(),
        ours: config.advertise_peer_urls.join(","),
    })
}

fn warn_of_loose_mode(directory: &Path) {
    if let Ok(mode) = std::fs::metadata(directory).map(|metadata| metadata.permissions().mode() & 0o777)
        && mode != 0o700
    {
        let mode = format!("{mode:03o}");
        tracing::warn!(dir = %directory.display(), mode, "directory exists without desired file permission 0700");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn config(directory: &Path, arguments: &[&str]) -> Config {
        let data_dir = format!("--data-dir={}", directory.join("data").display());
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).chain([data_dir]).collect();
        Config::new(&Flags::read(&arguments, &[]).expect("they parse")).expect("a config")
    }

    async fn refusal(arguments: &[&str]) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let error = identify(&config(directory.path(), arguments)).await.expect_err("refused").to_string();
        assert_eq!(std::fs::read_dir(directory.path()).expect("it lists").count(), 0, "nothing may be left behind");
        error
    }

    #[tokio::test]
    async fn contradictions_are_refused_in_etcds_words_and_leave_nothing() {
        assert_eq!(
            refusal(&["--name=x", "--initial-cluster=y=http://localhost:2380"]).await,
            "couldn't find local name \"x\" in the initial cluster configuration"
        );
        assert_eq!(
            refusal(&["--initial-cluster=default=http://localhost:1"]).await,
            "--initial-cluster has default=http://localhost:1 but missing from --initial-advertise-peer-urls=http://localhost:2380 \
             (resolved urls: \"http://localhost:2380\" != \"http://localhost:1\")"
        );
        assert_eq!(
            refusal(&["--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2381"]).await,
            "--initial-advertise-peer-urls has http://localhost:2381 but missing from \
             --initial-cluster=default=http://localhost:2380,default=http://localhost:2381"
        );
        assert_eq!(
            refusal(&["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"]).await,
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
        );
        assert!(
            refusal(&["--initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:1", "--initial-cluster-state=existing"])
                .await
                .starts_with("cannot fetch cluster info from peer urls")
        );
    }

    #[tokio::test]
    async fn a_restart_ignores_the_initial_flags_but_not_another_members_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2";
        let a = ["--name=a", "--initial-advertise-peer-urls=http://127.0.0.1:1", cluster];
        let first = identify(&config(directory.path(), &a)).await.expect("a new member");
        assert!(first.peers_were_asked);
        let first = Stored { peers_were_asked: false, ..first };
        let again = identify(&config(directory.path(), &["--name=a", "--initial-cluster-state=existing"])).await.expect("a restart");
        assert_eq!(first, again);
        let b = ["--name=b", "--initial-advertise-peer-urls=http://127.0.0.1:2", cluster];
        let error = identify(&config(directory.path(), &b)).await.expect_err("a's directory").to_string();
        assert!(error.contains("belongs to member"), "{error}");
    }

    #[tokio::test]
    async fn an_etcds_directory_is_left_alone() {
        for file in ["member/snap/db", "member/wal/0000000000000000-0000000000000000.wal"] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("data").join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it makes");
            std::fs::write(&path, b"x").expect("it writes");
            let error = identify(&config(directory.path(), &[])).await.expect_err("refused").to_string();
            assert!(error.contains("importing it is to come"), "{error}");
            assert!(!directory.path().join("data/member/identity.json").exists());
        }
    }

    #[test]
    fn a_joining_member_takes_the_id_its_url_was_added_under() {
        let directory = tempfile::tempdir().expect("a directory");
        let flags = ["--name=b", "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2", "--initial-cluster-state=existing"];
        let config = config(directory.path(), &flags);
        let member = |id, url: &str| remote::Member { id, peer_urls: vec![url.into()], ..remote::Member::default() };
        let members = vec![member(5, "http://127.0.0.1:1"), member(7, "http://127.0.0.1:2")];
        let mut remote = Remote { cluster_id: 9, members, protocol: Some((1, 1)) };
        assert_eq!(our_id(&config, &remote).expect("it is there"), 7);
        remote.members[1].peer_urls = vec!["http://127.0.0.1:3".into()];
        assert!(
            our_id(&config, &remote)
                .expect_err("it isn't")
                .to_string()
                .contains("PeerURLs: no match found for existing member (7, [http://127.0.0.1:3])")
        );
        remote.members.pop();
        assert!(our_id(&config, &remote).expect_err("too few").to_string().ends_with("member count is unequal"));
    }

    /// Answers as a member that knows these members: (id, peer URL, started).
    async fn peer(listener: tokio::net::TcpListener, members: Vec<(u64, String, bool)>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let record = |(id, url, started): &(u64, String, bool)| serde_json::json!({ "id": id, "peerURLs": [url], "clientURLs": if *started { vec!["http://127.0.0.1:1"] } else { vec![] } });
        let list = serde_json::Value::from(members.iter().map(record).collect::<Vec<_>>()).to_string();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let body = if request[..read].starts_with(b"GET /version") { r#"{"etcdcluster":"3.7.0"}"# } else { &list };
            let (protocol, length) = (remote::protocol_header(), body.len());
            let head = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 9\r\nConnection: close\r\n";
            let answer = format!("{head}{}: {protocol}\r\nContent-Length: {length}\r\n\r\n{body}", remote::PROTOCOL_HEADER);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    /// Joins as `c` with two peers that answer so.
    async fn joined(lists: [&[(u64, usize, bool)]; 2]) -> Result<u64, String> {
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let mut urls: Vec<String> = listeners.iter().map(|it| format!("http://{}", it.local_addr().expect("bound"))).collect();
        urls.push("http://127.0.0.1:1".into());
        for (listener, list) in listeners.into_iter().zip(lists) {
            listener.set_nonblocking(true).expect("it can");
            let listener = tokio::net::TcpListener::from_std(listener).expect("it can");
            tokio::spawn(peer(listener, list.iter().map(|(id, url, started)| (*id, urls[*url].clone(), *started)).collect()));
        }
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = format!("--initial-cluster=a={},b={},c={}", urls[0], urls[1], urls[2]);
        let flags = ["--name=c", "--initial-advertise-peer-urls=http://127.0.0.1:1", "--initial-cluster-state=existing", &cluster];
        join(&config(directory.path(), &flags)).await.map(|stored| stored.member_id).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn who_lags_behind_does_not_turn_a_joining_member_away() {
        let newest = [(1, 0, true), (2, 1, true), (7, 2, false)];
        assert_eq!(joined([&newest, &newest]).await, Ok(7));
        assert_eq!(joined([&[(1, 0, true), (2, 1, true)], &newest]).await, Ok(7), "it doesn't know of us yet");
        assert_eq!(joined([&[(1, 0, true), (2, 1, true), (5, 2, true)], &newest]).await, Ok(7), "nor that another was removed");
        let started = [(1, 0, true), (2, 1, true), (7, 2, true)];
        for lists in [[&started, &newest], [&started, &started]] {
            assert!(joined(lists.map(|list| &list[..])).await.expect_err("wiped").starts_with("member 7 has already been bootstrapped"));
        }
        let unknown = [(1, 0, true), (2, 1, true)];
        assert!(joined([&unknown, &unknown]).await.expect_err("never added").ends_with("member count is unequal"));
    }
}
