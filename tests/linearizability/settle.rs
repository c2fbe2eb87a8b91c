//! After the storm: all members must come to the same end, and it must be the one that clients were told of.

use crate::clients::kv;
use crate::fault::world::World;
use crate::harness::PATIENCE;
use crate::history::{Log, Version};
use crate::model::{self, State};
use crate::perform::version;
use crate::watch_checker::merge;
use crate::watchers::{Moment, Watcher, heard};
use crate::wire::{Range, WatchRequests};
use rusd::pb::etcdserverpb::{HashKvRequest, RangeRequest};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Linearizable reads of all members that find the same revision: writes of unknown outcome may still be on their way.
const QUIET_ROUNDS: usize = 4;

/// Waits until all members serve linearizable reads and nothing changes any more; answers the revision.
pub async fn newest(world: &mut World, violations: &mut Vec<String>) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    let mut rounds: Vec<Vec<i64>> = Vec::new();
    loop {
        let mut round = Vec::new();
        for url in world.members().into_iter().map(|member| world.cluster.members[member].client_url()) {
            let request = RangeRequest { key: "any".into(), ..Default::default() };
            let answer = kv(&url, LIMIT).range(request).await;
            round.push(answer.map(|response| response.into_inner().header.map_or(0, |header| header.revision)));
        }
        if let Ok(revisions) = round.iter().cloned().collect::<Result<Vec<i64>, _>>() {
            rounds.push(revisions);
            let last: &[Vec<i64>] = &rounds[rounds.len().saturating_sub(QUIET_ROUNDS)..];
            let first = last[0][0];
            if last.len() == QUIET_ROUNDS && last.iter().flatten().all(|revision| *revision == first) {
                return first;
            }
        } else {
            rounds.clear();
        }
        if Instant::now() > deadline {
            let states: Vec<String> = round.iter().map(|answer| format!("{answer:?}")).collect();
            violations.push(format!("members don't come to the same end within {PATIENCE:?}: {states:?}"));
            return round.into_iter().flatten().max().unwrap_or(1);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every watcher that ever got through knows that it has heard everything.
pub async fn watched(watchers: &[Arc<Watcher>], newest: i64, violations: &mut Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    for (number, watcher) in watchers.iter().enumerate() {
        loop {
            let next = watcher.next.load(Ordering::Relaxed);
            if next > newest {
                break;
            }
            if Instant::now() > deadline {
                violations.push(format!("watcher {number} knows only what is below {next}, of {newest}"));
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Compares contents, history and hash of all members, as of a revision, with the log up to there.
pub async fn compare(world: &mut World, log: &Log, newest: i64, violations: &mut Vec<String>) {
    let mut state = State::new();
    log.revisions.iter().for_each(|changes| model::advance(&mut state, changes));
    for member in world.members() {
        let url = &world.cluster.members[member].client_url();
        match contents(url, newest).await {
            Ok((revision, contents)) if revision < newest || contents != state => {
                violations.push(format!("member {member} holds {contents:?} at revision {revision}, the log says {state:?} at {newest}"));
            }
            Ok(_) => {}
            Err(error) => violations.push(format!("member {member} can't be read: {error}")),
        }
        match history(url, newest).await {
            Ok(told) => violations.extend(differences(member, &told, log)),
            Err(error) => violations.push(format!("member {member} doesn't tell its history: {error}")),
        }
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let hashes = hashes(world, newest).await;
        if hashes.iter().all(|hash| hash.is_ok() && *hash == hashes[0]) {
            return;
        }
        // A compaction that nobody waits for any more may reach one after the other.
        if Instant::now() > deadline {
            violations.push(format!("hashes differ: {hashes:?}"));
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Everything there is.
async fn contents(url: &str, revision: i64) -> Result<(i64, State), String> {
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), serializable: true, revision, ..Default::default() };
    let response = kv(url, LIMIT).range(request).await.map_err(|status| status.to_string())?.into_inner();
    let pair = |kv: rusd::pb::mvccpb::KeyValue| -> (String, Version) { (String::from_utf8_lossy(&kv.key).into_owned(), version(kv)) };
    Ok((response.header.map_or(0, |header| header.revision), response.kvs.into_iter().map(pair).collect()))
}

/// A member's own log, as far as it isn't compacted.
async fn history(url: &str, newest: i64) -> Result<Log, String> {
    let mut start = 2;
    'attempt: loop {
        let channel = crate::clients::channel(url, PATIENCE);
        let mut client = rusd::pb::etcdserverpb::watch_client::WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, incoming) = WatchRequests::new(&Range::everything(), start, false);
        let mut responses = client.watch(incoming).await.map_err(|status| status.to_string())?.into_inner();
        let mut moments = vec![(0, Moment::Asked { member: 0, start })];
        let deadline = Instant::now() + PATIENCE;
        loop {
            requests.ask_progress();
            let next = tokio::time::timeout(Duration::from_millis(200), responses.message()).await;
            let response = match next {
                Err(_) if Instant::now() < deadline => continue,
                Err(_) => return Err("it falls silent".into()),
                Ok(message) => message.map_err(|status| status.to_string())?.ok_or("the watch ended")?,
            };
            if response.canceled && response.compact_revision > start {
                start = response.compact_revision;
                continue 'attempt;
            }
            let header = response.header.map_or(0, |header| header.revision);
            if response.events.is_empty() && !response.created && header >= newest {
                return Ok(Log { first: start, ..merge(&[moments], &mut Vec::new()) });
            }
            let events = response.events.into_iter().map(heard).collect();
            moments.push((0, Moment::Events { header, events, fragment: response.fragment }));
        }
    }
}

/// Where a member's own log differs from what was heard meanwhile. At the compacted revision only what still lives is left.
fn differences(member: usize, told: &Log, log: &Log) -> Option<String> {
    let from = if told.first > log.first { told.first + 1 } else { log.first };
    let mut revisions = from..=log.last();
    let odd = revisions.find(|revision| told.at(*revision) != log.at(*revision))?;
    Some(format!("member {member} tells {:?} of revision {odd}, the log {:?}", told.at(odd), log.at(odd)))
}

/// HashKV of each member, with the compacted revision it was made over.
async fn hashes(world: &World, revision: i64) -> Vec<Result<(u32, i64), String>> {
    let mut hashes = Vec::new();
    for member in world.members() {
        let mut client = world.client(member, LIMIT).maintenance;
        let answer = client.hash_kv(HashKvRequest { revision }).await.map(tonic::Response::into_inner);
        hashes.push(answer.map(|response| (response.hash, response.compact_revision)).map_err(|status| status.to_string()));
    }
    hashes
}
