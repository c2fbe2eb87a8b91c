//! Do all members have the same history? Asked by whoever leads, all the time, and by a member that starts.
//!
//! | check | when | costs |
//! |---|---|---|
//! | hashes that compactions left | `--compact-hash-check-time`, always on | nothing: every compaction makes one |
//! | hash of all history at one revision | `--corrupt-check-time`; by default so rarely that it takes a thousandth of a core | reads everything, in small steps |
//! | the same at start, against the peers | feature gate `InitialCorruptCheck` | reads everything once |
//!
//! Hashes are compared only at one revision and one compact revision, since both decide what is hashed (contract b.11). Who differs from
//! a majority of all members gets etcd's CORRUPT alarm; where nothing has a majority the alarm has no member (id 0), and is raised only
//! after those that gave nothing to compare had a while to do so. A difference counts once it has been found twice.

use super::Server;
use futures::future::join_all;
use rusd_network::{Purpose, pb};
use rusd_storage::apply::State;
use rusd_storage::command::{self, AlarmType, alarm::Action, proposal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks whether this member leads and something is due.
const LOOK: Duration = Duration::from_millis(250);
/// The least time between two full checks when no flag says how often.
const OWN_PACE_MIN: Duration = Duration::from_secs(300);
/// And its multiple of what the last one took: with [`STEP_REST`] a thousandth of a core.
const OWN_PACE: u32 = 200;
/// A paced hash rests so many times as long as it works.
const STEP_REST: u32 = 4;
/// How long a member may take to reach the revision it is asked for.
const REACH: Duration = Duration::from_secs(5);
/// How long a peer may take in all. A paced hash of a full store is slow on purpose.
const ANSWER: Duration = Duration::from_secs(600);
/// The same for one whose start waits for it.
const ANSWER_INITIAL: Duration = Duration::from_secs(60);

/// One member's answer: (hash, compact revision).
type Hashed = (u32, i64);

/// This member's hash at a revision, once it has reached it. `None` if it doesn't soon, or if the revision is compacted.
pub async fn own(state: &Arc<State>, question: pb::HashQuestion) -> Option<Hashed> {
    let (revision, paced) = (question.revision, question.paced);
    if revision <= 0 {
        return None;
    }
    if question.of_compaction {
        return state.store().compaction_hash(revision);
    }
    let mut published = state.revision();
    tokio::time::timeout(REACH, published.wait_for(|now| *now >= revision)).await.ok()?.ok()?;
    let store = state.store();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut began = Instant::now();
        store.hash_kv_in_steps(revision, &mut || {
            if paced {
                std::thread::sleep(began.elapsed() * STEP_REST);
            }
            began = Instant::now();
        })
    });
    match hashed.await.ok()? {
        Ok((hash, compact_revision, _)) => Some((hash, compact_revision)),
        Err(error) => {
            tracing::debug!(%error, revision, "no hash at this revision");
            None
        }
    }
}

/// For a peer.
pub async fn answer(state: &Arc<State>, question: pb::HashQuestion) -> pb::HashAnswer {
    match own(state, question).await {
        Some((hash, compact_revision)) => pb::HashAnswer { known: true, hash, compact_revision },
        None => pb::HashAnswer::default(),
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// So many members, this one included, have the same. `waiting` as below.
    Equal { members: usize, waiting: bool },
    /// These differ from a majority of all members.
    Different(Vec<u64>),
    /// There are differences, and a majority for nothing. `waiting`: somebody gave nothing to compare, and may yet decide it.
    Undecided { waiting: bool },
}

impl Found {
    /// The members that differ, as logged.
    fn names(&self) -> String {
        match self {
            Self::Different(whose) => whose.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(","),
            Self::Equal { .. } => String::new(),
            Self::Undecided { .. } => "0".into(),
        }
    }
}

/// Among members whose answers can be compared with `own`, who differs? A majority is one of all that were asked, as etcd's.
fn compare(me: u64, own: Hashed, others: &[(u64, Option<Hashed>)]) -> Found {
    let comparable = others.iter().filter_map(|(id, answer)| Some((*id, answer.filter(|answer| answer.1 == own.1)?.0)));
    let all: Vec<(u64, u32)> = comparable.chain([(me, own.0)]).collect();
    let same = |hash: u32| all.iter().filter(|(_, other)| *other == hash).count();
    let members = others.len() + 1;
    let waiting = all.len() < members;
    if same(own.0) == all.len() {
        return Found::Equal { members: all.len(), waiting };
    }
    match all.iter().find(|(_, hash)| same(*hash) * 2 > members) {
        Some((_, right)) => Found::Different(all.iter().filter(|(_, hash)| hash != right).map(|(id, _)| *id).collect()),
        None => Found::Undecided { waiting },
    }
}

async fn ask(server: &Server, id: u64, question: pb::HashQuestion, patience: Duration) -> Option<Hashed> {
    let links = server.consensus.links();
    let mut client = links.client(id, Purpose::Forward).ok()?;
    let request = links.request(id, question);
    match tokio::time::timeout(patience, client.hash(request)).await {
        Ok(Ok(response)) => {
            let answer = response.into_inner();
            answer.known.then_some((answer.hash, answer.compact_revision))
        }
        Ok(Err(status)) => {
            links.note_failure(id, &status);
            None
        }
        Err(_) => None,
    }
}

async fn others(server: &Server, question: pb::HashQuestion, patience: Duration) -> Vec<(u64, Option<Hashed>)> {
    let me = server.identity.member_id;
    // Who never came has no history.
    let came = server.state.members().into_iter().filter(|member| member.data_dir_id != 0);
    let others = came.map(|member| member.id).filter(|id| *id != me);
    join_all(others.map(|id| async move { (id, ask(server, id, question, patience).await) })).await
}

/// Asks everybody for the hash at `revision`; `None` if this member has none itself.
async fn round(server: &Server, question: pb::HashQuestion) -> Option<Found> {
    let (own, others) = tokio::join!(own(&server.state, question), others(server, question, ANSWER));
    Some(compare(server.identity.member_id, own?, &others))
}

/// A check that is done again and again.
struct Due {
    every: Duration,
    next: Instant,
}

impl Due {
    fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every }
    }
    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }
    fn done(&mut self) {
        self.next = Instant::now() + self.every;
    }
}

/// Checks whenever this member leads, until `stop`.
pub async fn watch(server: &Server, stop: &CancellationToken) {
    let by_flag = server.config.corrupt_check_time;
    let mut full = Due::new(if by_flag.is_zero() { OWN_PACE_MIN } else { by_flag });
    let mut compactions = Due::new(server.config.compact_hash_check_time);
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        if server.consensus.status().leader != server.identity.member_id {
            continue;
        }
        if compactions.is_due() {
            if stop.run_until_cancelled(check(server, Kind::Compaction)).await.is_none() {
                return;
            }
            compactions.done();
        }
        if full.is_due() {
            let began = Instant::now();
            if stop.run_until_cancelled(check(server, Kind::Full { paced: by_flag.is_zero() })).await.is_none() {
                return;
            }
            if by_flag.is_zero() {
                full.every = OWN_PACE_MIN.max(began.elapsed() * OWN_PACE);
            }
            full.done();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Compaction,
    Full { paced: bool },
}

impl Kind {
    fn question(self, state: &State) -> Option<pb::HashQuestion> {
        let store = state.store();
        Some(match self {
            Self::Compaction => {
                // One at 0, which etcd accepts once, says nothing.
                let revision = store.newest_compaction_hash().filter(|revision| *revision > 0)?;
                pb::HashQuestion { revision, of_compaction: true, ..Default::default() }
            }
            Self::Full { paced } => pb::HashQuestion { revision: store.revision(), paced, ..Default::default() },
        })
    }
}

/// One check, and a second one when the first has found something. As long as somebody who gave nothing to compare may decide it, and at
/// most for [`REACH`], it is done again: a compaction reaches the members one after the other. What differed once is equal only when all
/// say so.
async fn check(server: &Server, kind: Kind) {
    let deadline = Instant::now() + REACH;
    let Some(mut question) = kind.question(&server.state) else { return };
    let (mut before, mut differed) = (None, false);
    loop {
        let Some(found) = round(server, question).await else { return };
        let revision = question.revision;
        let waits = match found {
            Found::Equal { members, waiting } if !differed || !waiting => {
                tracing::debug!(?kind, members, revision, "the members have the same history");
                return;
            }
            Found::Equal { waiting, .. } | Found::Undecided { waiting } => waiting && Instant::now() < deadline,
            Found::Different(_) => false,
        };
        if !differed {
            tracing::warn!(?kind, whose = found.names(), revision, waits, "members have different histories");
            differed = true;
        }
        if waits {
            before = None;
            tokio::time::sleep(LOOK).await;
        } else if before.replace(found).is_some() {
            break;
        }
        // That of a compaction stays answerable for the next ten.
        if let Kind::Full { .. } = kind {
            let Some(newer) = kind.question(&server.state) else { return };
            question = newer;
        }
    }
    match before {
        Some(Found::Different(whose)) => {
            for id in whose {
                raise(server, id).await;
            }
        }
        Some(Found::Undecided { .. }) => raise(server, 0).await,
        Some(Found::Equal { .. }) | None => tracing::warn!(?kind, "the difference can't be seen any more: not everybody answers"),
    }
}

async fn raise(server: &Server, id: u64) {
    if server.state.is_alarmed(id, AlarmType::Corrupt) {
        return;
    }
    let member = format!("{id:x}");
    tracing::error!(
        member,
        "this member's history differs from the others': raising the CORRUPT alarm, nothing can be written until it is disarmed"
    );
    let alarm = command::Alarm { action: Action::Activate as i32, member_id: id, r#type: AlarmType::Corrupt as i32 };
    if let Err(error) = server.propose.submit(proposal::Command::Alarm(alarm)).await {
        tracing::warn!(member, %error, "the CORRUPT alarm wasn't raised, the next check will");
    }
}

/// Whether a member that starts may serve: not if more of its peers have another history than have the same one.
pub async fn initial_is_fine(server: &Server) -> bool {
    let revision = server.state.store().revision();
    let question = pb::HashQuestion { revision, ..Default::default() };
    let (own, others) = tokio::join!(own(&server.state, question), others(server, question, ANSWER_INITIAL));
    let Some(own) = own else { return true };
    let comparable = || others.iter().filter_map(|(id, answer)| Some((*id, answer.filter(|answer| answer.1 == own.1)?.0)));
    let different: Vec<String> = comparable().filter(|(_, hash)| *hash != own.0).map(|(id, _)| format!("{id:x}")).collect();
    let same = comparable().count() - different.len();
    if different.is_empty() {
        tracing::info!(peers = same, revision, "initial corruption checking passed; no corruption");
    } else {
        tracing::warn!(different = different.join(","), same, revision, "found different hash values from remote peers");
    }
    different.len() <= same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_minority_differs() {
        let of = |own: u32, others: &[(u64, u32, i64)]| {
            let others: Vec<_> = others.iter().map(|(id, hash, compacted)| (*id, Some((*hash, *compacted)))).collect();
            compare(1, (own, 5), &others)
        };
        assert_eq!(of(7, &[(2, 7, 5), (3, 7, 5)]), Found::Equal { members: 3, waiting: false });
        assert_eq!(of(7, &[(2, 7, 5), (3, 8, 5)]), Found::Different(vec![3]));
        assert_eq!(of(8, &[(2, 7, 5), (3, 7, 5)]), Found::Different(vec![1]), "the leader itself");
        assert_eq!(of(7, &[(2, 7, 5), (3, 8, 4)]), Found::Equal { members: 2, waiting: true }, "another compact revision says nothing");
        assert_eq!(of(7, &[(2, 8, 5)]), Found::Undecided { waiting: false });
        assert_eq!(of(7, &[(2, 8, 5), (3, 9, 5)]), Found::Undecided { waiting: false });
        assert_eq!(of(7, &[(2, 8, 5), (3, 7, 4)]), Found::Undecided { waiting: true }, "the third is about to compact");
        assert_eq!(of(7, &[(2, 7, 5), (3, 8, 5), (4, 7, 4), (5, 8, 4)]), Found::Undecided { waiting: true }, "two of five");
        assert_eq!(of(7, &[(2, 7, 5), (3, 7, 5), (4, 9, 5), (5, 8, 5)]), Found::Different(vec![4, 5]));
        assert_eq!(compare(1, (7, 5), &[(2, None), (3, None)]), Found::Equal { members: 1, waiting: true }, "nobody to compare with");
    }
}
