//! Membership changes: asked on any member, made by the leader, one at a time.
//!
//! ```text
//! asked member: may it be (strict check, by its own links)? -> register a waiter, encode -> leader here?  leader::make
//!                                                                                           elsewhere?   ChangeMember
//! leader:       another change under way? wait -> check against what is applied -> one entry: command and membership
//! asked member: answers when it has itself applied the entry, or the leader says that it is made and we are the one removed
//! ```
//!
//! A proposal whose fate is unknown is handed over again, marked so, for ids are used once: what has been added, promoted or removed
//! already stays so, and doing it again does nothing. Not so new peer URLs: they are never handed over twice.

mod check;
mod leader;
mod pending;

use super::Error;
use super::consensus::Consensus;
use super::hand_over::HandOver;
use super::identity;
use super::membership::AppendFailure;
use super::propose::Propose;
use super::waiters::{Failure, Waiter, Waiters};
use crate::config::{Config, urls};
use bytes::Bytes;
use check::View;
use rusd_network::{Presence, Purpose, pb};
use rusd_storage::Rejection;
use rusd_storage::apply::State;
use rusd_storage::command::change_member::Change;
use rusd_storage::command::{ChangeMember, MemberRecord, Response, proposal};
use rusd_storage::measure::Counter;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A link younger than this doesn't count as healthy (etcd's HealthInterval).
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// Before a refused change is tried again, if no other leader shows up earlier.
const RETRY: Duration = Duration::from_millis(20);
/// How long the asked member waits for its own apply once the leader has said that the change is made.
const APPLY_PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Members {
    state: Arc<State>,
    consensus: Arc<Consensus>,
    propose: Propose,
    waiters: Arc<Waiters>,
    presence: Arc<Presence>,
    hand_over: HandOver,
    me: u64,
    strict: bool,
    learners_max: usize,
    request_timeout: Duration,
    election_timeout: Duration,
    /// Held while a change is made here.
    changing: tokio::sync::Mutex<()>,
    /// What became of learners while this member led.
    pub promotions: Promotions,
}

/// Learners that clients wanted to vote.
#[derive(Debug, Default)]
pub struct Promotions {
    /// Those that do.
    pub made: Counter,
    /// There is none of the id.
    pub unknown: Counter,
    /// It votes already.
    pub no_learner: Counter,
    /// It has to catch up.
    pub not_ready: Counter,
    /// Not enough of the others are there.
    pub unhealthy: Counter,
}

/// What the leader's answer means to the asked member.
enum Answer {
    /// It is in the log for good; these are the members after it.
    Made(Vec<MemberRecord>),
    /// Certainly not made.
    Refused(Error),
    /// Certainly not appended, and worth another try.
    TryAgain,
    /// It may be appended or not.
    Unknown,
}

impl Members {
    /// Over a running consensus.
    pub fn new(
        config: &Config,
        state: Arc<State>,
        consensus: Arc<Consensus>,
        propose: Propose,
        waiters: Arc<Waiters>,
        presence: Arc<Presence>,
    ) -> Arc<Self> {
        let hand_over = HandOver::new(consensus.clone(), state.clone(), presence.clone());
        Arc::new(Self {
            me: consensus.member_id(),
            state,
            consensus,
            propose,
            waiters,
            presence,
            hand_over,
            strict: config.strict_reconfig_check,
            learners_max: config.max_learners,
            request_timeout: config.request_timeout(),
            election_timeout: config.election_timeout,
            changing: tokio::sync::Mutex::new(()),
            promotions: Promotions::default(),
        })
    }

    /// Adds a member under a new id. A voter takes a learner's seat until it has caught up; its record says so.
    pub async fn add(&self, peer_urls: &[String], learner: bool) -> Result<(MemberRecord, Vec<MemberRecord>), Error> {
        let peer_urls = parse(peer_urls)?;
        self.strictly(|view| view.may_add(learner))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = identity::member_id(&peer_urls, "", Some(now));
        let record = MemberRecord { id, peer_urls, is_learner: true, pending_voter: !learner, ..MemberRecord::default() };
        let members = self.change(Change::Add(record.clone())).await?;
        Ok((record, members))
    }

    /// Removes a member for ever.
    pub async fn remove(&self, id: u64) -> Result<Vec<MemberRecord>, Error> {
        self.strictly(|view| view.may_remove(id, self.me))?;
        self.change(Change::Remove(id)).await
    }

    /// Gives a member new peer URLs.
    pub async fn update(&self, id: u64, peer_urls: &[String]) -> Result<Vec<MemberRecord>, Error> {
        let peer_urls = parse(peer_urls)?;
        self.change(Change::Update(MemberRecord { id, peer_urls, ..MemberRecord::default() })).await
    }

    /// Makes a learner a voter. Only the leader knows whether it is ready.
    pub async fn promote(&self, id: u64) -> Result<Vec<MemberRecord>, Error> {
        self.change(Change::Promote(id)).await
    }

    /// How leadership moves.
    pub fn hand_over(&self) -> &HandOver {
        &self.hand_over
    }

    /// Who can be reached.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    fn strictly(&self, rule: impl Fn(View<'_>) -> Result<(), Error>) -> Result<(), Error> {
        if !self.strict {
            return Ok(());
        }
        let healthy = |id| self.linked_for(id).is_some_and(|linked| linked >= HEALTHY_AFTER);
        self.judge(&healthy, rule)
    }

    fn judge<T>(&self, connected: &dyn Fn(u64) -> bool, rule: impl Fn(View<'_>) -> T) -> T {
        let linked = |id| self.linked_for(id).is_some();
        rule(View { members: &self.state.members(), connected, linked: &linked })
    }

    /// How long the link to a member has been up; for ever to ourselves.
    fn linked_for(&self, id: u64) -> Option<Duration> {
        if id == self.me { Some(Duration::MAX) } else { self.presence.seen(id).map(|seen| seen.since.elapsed()) }
    }

    async fn change(&self, change: Change) -> Result<Vec<MemberRecord>, Error> {
        let begin = Instant::now();
        let change = ChangeMember { change: Some(change) };
        let (mut waiter, bytes) = self.propose.prepare(proposal::Command::ChangeMember(change.clone()))?;
        let mut handed_over = false;
        let driven = self.drive(&change, &mut waiter, bytes, &mut handed_over);
        match tokio::time::timeout(self.request_timeout, driven).await {
            Ok(result) => result,
            Err(_) if handed_over => Err(self.propose.timeout(begin)),
            Err(_) => Err(Error::DeadlineExceeded),
        }
    }

    /// Until it is settled. `handed_over` stays set once somebody may have appended it.
    async fn drive(
        &self,
        change: &ChangeMember,
        waiter: &mut Waiter,
        bytes: Bytes,
        handed_over: &mut bool,
    ) -> Result<Vec<MemberRecord>, Error> {
        let idempotent = !matches!(change.change, Some(Change::Update(_)));
        loop {
            let leader = self.consensus.believed_leader();
            let answer = if *handed_over && !idempotent {
                std::future::pending().await
            } else if leader == 0 {
                Answer::TryAgain
            } else {
                let again = *handed_over;
                *handed_over = true;
                let asked = self.ask(leader, change, bytes.clone(), again);
                let answer = tokio::select! {
                    biased;
                    outcome = waiter.outcome() => return applied(outcome),
                    answer = asked => answer,
                };
                *handed_over = again || matches!(answer, Answer::Unknown | Answer::Made(_));
                answer
            };
            match answer {
                Answer::Made(members) => return self.after(change, waiter, members).await,
                Answer::Refused(error) => return Err(error),
                Answer::TryAgain | Answer::Unknown => {}
            }
            let mut watch = self.consensus.watch_leader();
            tokio::select! {
                outcome = waiter.outcome() => return applied(outcome),
                _ = tokio::time::timeout(RETRY, watch.wait_for(|now| *now != leader)) => {}
            }
        }
    }

    async fn ask(&self, leader: u64, change: &ChangeMember, bytes: Bytes, again: bool) -> Answer {
        if leader == self.me {
            return Answer::of(self.make(change, bytes, again).await);
        }
        let links = self.consensus.links();
        let Ok(mut client) = links.client(leader, Purpose::Forward) else { return Answer::TryAgain };
        let request = links.request(leader, pb::ChangeMemberRequest { proposal: bytes, again });
        match client.change_member(request).await {
            Ok(response) if !links.table.is_blocked(leader) => Answer::from_wire(response.into_inner()),
            Ok(_) => Answer::Unknown,
            Err(status) => {
                links.note_failure(leader, &status);
                let certain = rusd_network::never_sent(&status) || rusd_network::directory::refused(&status).is_some();
                if certain { Answer::TryAgain } else { Answer::Unknown }
            }
        }
    }

    /// The change is made; this member's own state should say so before its client asks again. The removed member may never see it.
    async fn after(&self, change: &ChangeMember, waiter: &mut Waiter, members: Vec<MemberRecord>) -> Result<Vec<MemberRecord>, Error> {
        if change.change == Some(Change::Remove(self.me)) {
            return Ok(members);
        }
        match tokio::time::timeout(APPLY_PATIENCE, waiter.outcome()).await {
            Ok(Ok(result)) => applied(Ok(result)),
            _ => Ok(members),
        }
    }
}

impl Answer {
    fn of(result: Result<Vec<MemberRecord>, leader::Failure>) -> Self {
        use leader::Failure;
        match result {
            Ok(members) => Self::Made(members),
            Err(Failure::Refused(error)) => Self::Refused(error),
            Err(Failure::Append(AppendFailure::NotLeader | AppendFailure::Busy)) => Self::TryAgain,
            Err(Failure::Append(AppendFailure::Unknown)) => Self::Unknown,
            Err(Failure::Append(AppendFailure::Stopped)) => Self::Refused(Error::Stopped),
        }
    }

    fn from_wire(response: pb::ChangeMemberResponse) -> Self {
        use pb::ChangeRefusal as R;
        Self::Refused(match response.refusal() {
            R::ChangeMade => return Self::Made(response.members),
            R::ChangeNotLeader | R::ChangeBusy => return Self::TryAgain,
            R::ChangeUnknown => return Self::Unknown,
            R::ChangeMemberExists => Rejection::MemberExists.into(),
            R::ChangePeerUrlExists => Rejection::PeerUrlExists.into(),
            R::ChangeMemberNotFound => Rejection::MemberNotFound.into(),
            R::ChangeMemberNotLearner => Rejection::MemberNotLearner.into(),
            R::ChangeTooManyLearners => Rejection::TooManyLearners.into(),
            R::ChangeLearnerNotReady => Error::LearnerNotReady,
            R::ChangeNotEnoughStarted => Error::NotEnoughStarted,
            R::ChangeUnhealthy => Error::Unhealthy,
        })
    }
}

fn applied(outcome: Result<Result<Response, Rejection>, Failure>) -> Result<Vec<MemberRecord>, Error> {
    match outcome {
        Ok(Ok(Response::Members { members, .. })) => Ok(members),
        Ok(Ok(_)) => Ok(Vec::new()),
        Ok(Err(rejection)) => Err(rejection.into()),
        Err(_) => Err(Error::Stopped),
    }
}

/// As etcd takes them: at least one, each with scheme and port and without a path; sorted.
fn parse(peer_urls: &[String]) -> Result<Vec<String>, Error> {
    let parsed: Result<Vec<_>, _> = peer_urls.iter().map(|url| urls::parse(url)).collect();
    let mut texts = urls::texts(&parsed.map_err(|_| Error::BadMemberUrls)?);
    if texts.is_empty() {
        return Err(Error::BadMemberUrls);
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_checked_as_etcds() {
        let parsed = |urls: &[&str]| parse(&urls.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parsed(&["http://b:1", " http://a:2"]).expect("good"), ["http://a:2", "http://b:1"]);
        for bad in [&[][..], &["http://a"], &["ftp://a:1"], &["http://a:1/x"], &["a:1"], &["http://a:1", ""]] {
            assert!(matches!(parsed(bad), Err(Error::BadMemberUrls)), "{bad:?}");
        }
    }
}
