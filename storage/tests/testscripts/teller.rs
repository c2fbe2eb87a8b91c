//! Tells a story to a member: applies what belongs into the log, answers what is only asked.

use crate::commands;
use crate::common::Member;
use crate::parse::Words;
use crate::script::{Command, Commands};
use crate::show;
use openraft::storage::RaftStateMachine;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::{ChangeMember, change_member::Change};
use rusd_storage::mvcc::ReadError;
use rusd_storage::raft::types::{Membership, Node, Payload};
use rusd_storage::snapshot::{Receiver, SnapshotData};
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

/// The member of a story.
pub struct Teller {
    directory: TempDir,
    member: Option<Member>,
    memory_bytes: u64,
    /// Voters and nodes, as openraft would have them.
    voters: BTreeSet<u64>,
    nodes: BTreeMap<u64, Node>,
}

impl Teller {
    /// A new member.
    pub fn new(memory_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let member = Member::open_with(directory.path(), memory_bytes);
        Self { directory, member: Some(member), memory_bytes, voters: BTreeSet::new(), nodes: BTreeMap::new() }
    }

    fn member(&mut self) -> &mut Member {
        self.member.as_mut().expect("there is always one between two steps")
    }

    /// Stops without framing what is open, and starts again.
    pub async fn restart(&mut self) {
        let member = self.member.take().expect("there is always one between two steps");
        self.member = Some(member.restart_with(self.directory.path(), self.memory_bytes).await);
    }

    /// Frames everything.
    pub async fn settle(&mut self) {
        self.member().settle().await;
    }

    /// The state goes on at a new member, as a snapshot.
    pub async fn moves(&mut self) {
        let snapshot = self.member().opened.state_machine.get_current_snapshot().await.expect("no error");
        let Some(snapshot) = snapshot else { return };
        let SnapshotData::Outgoing(mut outgoing) = snapshot.snapshot else { panic!("something to send") };
        let directory = tempfile::tempdir().expect("a directory");
        let mut member = Member::open_with(directory.path(), self.memory_bytes);
        let mut receiver = Receiver::begin(member.opened.engine.clone()).expect("a partial store");
        while let Some(chunk) = outgoing.next_chunk().expect("history is there") {
            receiver.chunk(chunk).expect("a good chunk");
        }
        let data = receiver.finish().expect("all of it");
        drop(outgoing);
        member.opened.state_machine.install_snapshot(&snapshot.meta, data).await.expect("a switch");
        member.next = member.opened.state.applied().expect("applied").index + 1;
        // The old one first, its directory after it.
        self.member = Some(member);
        self.directory = directory;
    }

    /// Runs a block; what it answered.
    pub async fn block(&mut self, commands: &Commands) -> String {
        let mut answer = String::new();
        for command in commands.iter() {
            answer += &self.command(command).await;
        }
        answer
    }

    async fn command(&mut self, told: &Command) -> String {
        let mut words = Words::of(&told.line);
        let name = words.next();
        let answer = if let Some(command) = commands::of(told, &mut words, name) {
            show::result(&self.member().apply(command).await)
        } else if name == "member" {
            self.change(commands::change(&mut words)).await
        } else if let Some(answer) = self.step(name, &mut words).await {
            answer
        } else {
            self.ask(name, &mut words).unwrap_or_else(|| panic!("{:?} is no command", told.line))
        };
        words.end();
        answer
    }

    /// What is done beside the log.
    async fn step(&mut self, name: &str, words: &mut Words<'_>) -> Option<String> {
        match name {
            "restart" => self.restart().await,
            "settle" => self.settle().await,
            "move" => self.moves().await,
            // Physical compaction, to its end.
            "erase" => while self.member().opened.state.store().compact_step().expect("no error") {},
            // Bytes of all frames, those of the log too.
            "frames" => {
                self.settle().await;
                return Some(format!("{} bytes\n", self.member().opened.engine.usage().frame_bytes));
            }
            "repeat" => return Some(self.repeat(words).await),
            "founders" => {
                while let Some(id) = words.optional() {
                    let id = id.parse().expect("a member id");
                    self.voters.insert(id);
                    self.nodes.insert(id, Node { peer_urls: vec![format!("http://m{id}")] });
                }
                let payload = Payload { command: None, membership: Some(self.membership()) };
                self.member().apply_payload(payload).await.expect("the node is well");
            }
            _ => return None,
        }
        Some(String::new())
    }

    /// `repeat TIMES KEY VALUE`: puts, with `%` the number of the round.
    async fn repeat(&mut self, words: &mut Words<'_>) -> String {
        let (times, key, value) = (words.number::<u64>(), words.next(), words.next());
        let mut last = String::new();
        for round in 0..times {
            let line = format!("{} {}", key.replace('%', &round.to_string()), value.replace('%', &round.to_string()));
            let put = commands::put(&mut Words::of(&line));
            last = show::result(&self.member().apply(Kind::Put(put)).await);
        }
        last
    }

    fn membership(&self) -> Membership {
        Membership::new(vec![self.voters.clone()], self.nodes.clone()).expect("every voter has a node")
    }

    /// Changes record and membership in one entry; a refused change leaves the membership as it was.
    async fn change(&mut self, change: Change) -> String {
        let before = (self.voters.clone(), self.nodes.clone());
        match &change {
            Change::Add(record) => drop(self.nodes.insert(record.id, Node { peer_urls: record.peer_urls.clone() })),
            Change::Update(record) => {
                self.nodes.entry(record.id).and_modify(|node| node.peer_urls.clone_from(&record.peer_urls));
            }
            Change::Promote(id) if self.nodes.contains_key(id) => drop(self.voters.insert(*id)),
            Change::KeepOnly(id) if self.nodes.contains_key(id) => {
                self.voters = [*id].into();
                self.nodes.retain(|node, _| node == id);
            }
            Change::Promote(_) | Change::KeepOnly(_) => {}
            Change::Remove(id) => {
                self.voters.remove(id);
                self.nodes.remove(id);
            }
        }
        let membership = self.membership();
        let command = Kind::ChangeMember(ChangeMember { change: Some(change) });
        let result = self.member().apply_with(command, membership).await;
        if result.is_err() {
            (self.voters, self.nodes) = before;
        }
        show::result(&result)
    }

    /// What is only asked.
    fn ask(&mut self, name: &str, words: &mut Words<'_>) -> Option<String> {
        let state = self.member().opened.state.clone();
        let store = state.store();
        Some(match name {
            "get" => answered(store.range(&commands::get(words)), |result| show::range(&result)),
            "history" => answered(store.history(words.number(), words.number(), usize::MAX), |(records, next)| {
                format!("{}next {next}\n", records.iter().map(show::record).collect::<String>())
            }),
            // All records that frames hold, dead ones too.
            "disk" => {
                let (records, _) = store.pinned_history(&store.pin(), 0, usize::MAX).expect("readable");
                records.iter().map(show::record).collect()
            }
            "hash" => answered(store.hash_kv(words.option("rev")), |(hash, compacted, revision)| {
                format!("{hash:08x} of revision {revision}, compacted at {compacted}\n")
            }),
            "state" => {
                let (revision, compacted, keys) = (store.revision(), store.compact_revision(), store.key_count());
                format!("revision {revision}, compacted at {compacted}, {keys} keys\n")
            }
            "leases" => state
                .leases()
                .iter()
                .map(|lease| {
                    let keys = state.lease(lease.id, true).expect("listed").1;
                    let keys: Vec<String> = keys.iter().map(|key| show::bytes(key)).collect();
                    let rest = if lease.remaining_ttl_secs == 0 { String::new() } else { format!(", {} s left", lease.remaining_ttl_secs) };
                    format!("{} of {} s{rest}: {}\n", lease.id, lease.ttl_secs, if keys.is_empty() { "-".into() } else { keys.join(" ") })
                })
                .collect(),
            "alarms" => show::alarms(&state.alarms()),
            "members" => state.members().iter().map(show::member).collect(),
            "removed" => format!("{}\n", if state.is_removed(words.number()) { "removed for ever" } else { "not removed" }),
            "cluster-version" => format!("{:?}\n", state.cluster_version()),
            _ => return None,
        })
    }
}

fn answered<T>(result: Result<T, impl Into<ReadError>>, show: impl FnOnce(T) -> String) -> String {
    match result.map_err(Into::into) {
        Ok(answer) => show(answer),
        Err(ReadError::Rejected(rejection)) => format!("refused: {rejection}\n"),
        Err(ReadError::Storage(error)) => panic!("{error}"),
    }
}
