//! Writes: from a command to its result on this member.
//!
//! ```text
//! admit (backlog) -> register a waiter -> encode once -> leader here?  openraft
//!                                                        elsewhere?   forward stream
//! the result comes through the waiter, when *this* member has applied the entry.
//! ```
//! A refusal ("not leader") says that nothing was appended: the proposal may be made again. Anything else that goes wrong after it was
//! handed over leaves its fate unknown, until it is proven: each proposal names the term of the leader it was made for and counts in no
//! other, so once this member has applied an entry of a later term, all entries of that term that ever will be are applied here, too. If
//! the proposal isn't among them it is lost for good, and is made anew for the next leader.

use super::Error;
use super::consensus::Consensus;
use super::requests::Requests;
use super::waiters::{Failure, Waiter, Waiters};
use bytes::Bytes;
use openraft::errors::ClientWriteError;
use parking_lot::Mutex;
use prost::Message;
use rusd_network::{Forwarder, Refusals, pb};
use rusd_storage::command::{ApplyResult, Proposal, Response, proposal};
use rusd_storage::raft::Responder;
use rusd_storage::raft::types::{Command, CommittedLeaderId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// etcd's bound on committed entries that wait to be applied (contract a.3).
const BACKLOG_MAX: u64 = 5000;
/// Revoking makes room, so it has its own (contract a.3).
const BACKLOG_MAX_PRIORITY: u64 = 10_000;
/// Requests that wait on this member.
const WAITERS_MAX: usize = 100_000;
/// Before a refused proposal is made again, if no other leader shows up earlier.
const RETRY: Duration = Duration::from_millis(20);

/// Submits commands and waits until this member has applied them. Cheap to clone.
#[derive(Clone)]
pub struct Propose(Arc<Parts>);

struct Parts {
    consensus: Arc<Consensus>,
    waiters: Arc<Waiters>,
    forwarder: Forwarder,
    broken: Arc<Broken>,
    requests: Arc<Requests>,
    request_bytes_max: usize,
    request_timeout: Duration,
    election_timeout: Duration,
}

/// When the stream to the leader last broke; and refusals go to the waiters.
struct Broken {
    waiters: Arc<Waiters>,
    at: Mutex<Option<Instant>>,
}

impl Refusals for Broken {
    fn refused(&self, sequence: u64, refusal: pb::Refusal, _leader: u64) {
        let failure = match refusal {
            pb::Refusal::NotLeader => Failure::NotLeader,
            pb::Refusal::TooManyRequests => Failure::TooManyRequests,
            // Nothing is certain yet: the waiter goes on listening.
            _ => return,
        };
        self.waiters.fail(sequence, failure);
    }
    fn broken(&self) {
        *self.at.lock() = Some(Instant::now());
    }
}

impl Propose {
    /// Starts the forwarding task on the current runtime.
    pub fn start(config: &crate::config::Config, consensus: Arc<Consensus>, waiters: Arc<Waiters>, requests: Arc<Requests>) -> Self {
        let broken = Arc::new(Broken { waiters: waiters.clone(), at: Mutex::new(None) });
        let forwarder = Forwarder::spawn(
            &tokio::runtime::Handle::current(),
            consensus.links().clone(),
            consensus.watch_leader(),
            broken.clone(),
            consensus.stopping().clone(),
        );
        Self(Arc::new(Parts {
            consensus,
            waiters,
            forwarder,
            broken,
            requests,
            request_bytes_max: config.max_request_bytes,
            request_timeout: config.request_timeout(),
            election_timeout: config.election_timeout,
        }))
    }

    /// Proposes on the leader, or through it; answers once this member has applied the entry. Made again only if it is proven lost.
    pub async fn submit(&self, command: proposal::Command) -> Result<Response, Error> {
        self.submit_as(command, String::new(), 0).await
    }

    /// As [`Self::submit`], for a command that changes nothing when it is applied once more: made again at once if a snapshot is installed
    /// here meanwhile, for the result may be in it, and would be waited for in vain.
    pub async fn submit_idempotent(&self, command: proposal::Command) -> Result<Response, Error> {
        loop {
            let era = self.0.waiters.era();
            tokio::select! {
                biased;
                result = self.submit(command.clone()) => return result,
                () = self.0.waiters.installed_since(era) => {}
            }
        }
    }

    /// As [`Self::submit`], on behalf of a user authorized at an auth revision.
    pub async fn submit_as(&self, command: proposal::Command, user: String, auth_revision: u64) -> Result<Response, Error> {
        let parts = &*self.0;
        let begin = Instant::now();
        let (mut waiter, mut proposal) = parts.draft(command, user, auth_revision)?;
        let proposing = parts.requests.propose(proposal.command.as_ref());
        let handed_over = AtomicBool::new(false);
        let result = tokio::time::timeout(parts.request_timeout, parts.drive(&mut waiter, &mut proposal, &handed_over)).await;
        proposing.ended(match result {
            Ok(Ok(result)) => result.map_err(Error::from),
            Ok(Err(error)) => Err(error),
            Err(_) if handed_over.load(Ordering::Relaxed) => Err(parts.timeout(begin)),
            Err(_) => Err(Error::DeadlineExceeded),
        })
    }

    /// Proposes only while this member leads `term`, else NotLeader; never forwarded, never made again.
    pub async fn submit_in_term(&self, command: proposal::Command, term: u64) -> Result<Response, Error> {
        let parts = &*self.0;
        let begin = Instant::now();
        let (mut waiter, proposal) = parts.draft(command, String::new(), 0)?;
        let bytes = encoded(&proposal);
        let measured = parts.requests.propose(proposal.command.as_ref());
        let proposing = async {
            let responder = Responder::new(parts.waiters.clone(), waiter.sequence());
            let write = parts.consensus.raft().write(Command(bytes)).responder(responder).with_leader(CommittedLeaderId::new(term));
            write.await.map_err(|_| Failure::Stopped)?;
            waiter.outcome().await
        };
        measured.ended(match tokio::time::timeout(parts.request_timeout, proposing).await {
            Ok(Ok(result)) => result.map_err(Error::from),
            Ok(Err(failure)) => Err(failed(failure)),
            Err(_) => Err(parts.timeout(begin)),
        })
    }

    /// Registers and encodes without proposing: for a membership change, which openraft takes another way.
    pub(super) fn prepare(&self, command: proposal::Command) -> Result<(Waiter, Bytes), Error> {
        let (waiter, proposal) = self.0.draft(command, String::new(), 0)?;
        Ok((waiter, encoded(&proposal)))
    }

    /// What a proposal that was handed over answers when its time is up; it was begun at `begin`.
    pub(super) fn timeout(&self, begin: Instant) -> Error {
        self.0.timeout(begin)
    }

    /// For another member: proposes its encoded proposals, answers with those that were refused or lost.
    pub async fn submit_encoded(&self, batch: Vec<pb::ForwardedProposal>) -> Vec<pb::ForwardRefusal> {
        let parts = &*self.0;
        let (leader, term) = parts.consensus.believed_leadership();
        let refuse = |sequence, refusal: pb::Refusal| pb::ForwardRefusal { sequence, refusal: refusal as i32, leader };
        // In the log of another term it would count for nothing, and its proposer would wait in vain.
        let (batch, strangers): (Vec<_>, Vec<_>) = batch.into_iter().partition(|proposal| proposal.term == term);
        let mut refused: Vec<_> = strangers.iter().map(|proposal| refuse(proposal.sequence, pb::Refusal::NotLeader)).collect();
        if batch.is_empty() {
            return refused;
        }
        let results = if parts.consensus.backlog() > BACKLOG_MAX {
            Err(pb::Refusal::TooManyRequests)
        } else {
            let commands: Vec<_> = batch.iter().map(|proposal| Command(proposal.proposal.clone())).collect();
            parts.consensus.raft().client_write_many(commands).await.map_err(|_| pb::Refusal::Stopped)
        };
        let results = match results {
            Ok(results) => results,
            Err(refusal) => {
                refused.extend(batch.iter().map(|proposal| refuse(proposal.sequence, refusal)));
                return refused;
            }
        };
        let mut results = std::pin::pin!(results);
        for proposal in &batch {
            let refusal = match futures::StreamExt::next(&mut results).await {
                Some(Ok(Ok(_))) => continue,
                Some(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => pb::Refusal::NotLeader,
                Some(Ok(Err(_))) => pb::Refusal::Discarded,
                Some(Err(_)) | None => pb::Refusal::Stopped,
            };
            refused.push(refuse(proposal.sequence, refusal));
        }
        refused
    }
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::NotLeader => Error::NotLeader,
        Failure::TooManyRequests => Error::TooManyRequests,
        Failure::Stopped => Error::Stopped,
    }
}

fn encoded(proposal: &Proposal) -> Bytes {
    let mut bytes = Vec::with_capacity(proposal.encoded_len());
    proposal.encode_raw(&mut bytes);
    bytes.into()
}

impl Parts {
    fn draft(&self, command: proposal::Command, user: String, auth_revision: u64) -> Result<(Waiter, Proposal), Error> {
        let backlog_max = if matches!(command, proposal::Command::LeaseRevoke(_)) { BACKLOG_MAX_PRIORITY } else { BACKLOG_MAX };
        if self.waiters.len() >= WAITERS_MAX || self.consensus.backlog() > backlog_max {
            return Err(Error::TooManyRequests);
        }
        let waiter = self.waiters.register();
        let (origin, sequence) = (self.waiters.origin(), waiter.sequence());
        let proposal = Proposal { origin, sequence, user, auth_revision, term: 0, command: Some(command) };
        if proposal.encoded_len() > self.request_bytes_max {
            return Err(Error::RequestTooLarge);
        }
        Ok((waiter, proposal))
    }

    /// Until the proposal is settled; without a leader it waits for one. `handed_over` says whether somebody may have appended it.
    async fn drive(&self, waiter: &mut Waiter, proposal: &mut Proposal, handed_over: &AtomicBool) -> Result<ApplyResult, Error> {
        let mut bytes = Bytes::new();
        loop {
            let era = self.waiters.era();
            let (leader, term) = self.consensus.believed_leadership();
            handed_over.store(leader != 0, Ordering::Relaxed);
            if bytes.is_empty() || proposal.term != term {
                proposal.term = term;
                bytes = encoded(proposal);
            }
            let settled = tokio::select! {
                biased;
                settled = self.attempt((leader, term), waiter, bytes.clone()) => settled?,
                () = self.waiters.lost(era, term), if leader != 0 => {
                    // Between the two looks of this select it may have been applied, and the later entry after it.
                    if let Some(Ok(result)) = waiter.outcome_by_now() {
                        return Ok(result);
                    }
                    // A late answer to the lost one must not be taken for one to the next.
                    *waiter = self.waiters.register();
                    proposal.sequence = waiter.sequence();
                    bytes = Bytes::new();
                    handed_over.store(false, Ordering::Relaxed);
                    if self.consensus.believed_leadership().1 == term {
                        // Who leads now isn't known yet.
                        let mut watch = self.consensus.watch_leader();
                        let _ = tokio::time::timeout(RETRY, watch.wait_for(|now| *now != leader)).await;
                    }
                    continue;
                }
            };
            match settled {
                Ok(result) => return Ok(result),
                Err(Failure::NotLeader) => {
                    handed_over.store(false, Ordering::Relaxed);
                    waiter.rearm();
                    let mut watch = self.consensus.watch_leader();
                    let _ = tokio::time::timeout(RETRY, watch.wait_for(|now| *now != leader)).await;
                }
                Err(failure) => return Err(failed(failure)),
            }
        }
    }

    async fn attempt(&self, (leader, term): (u64, u64), waiter: &mut Waiter, bytes: Bytes) -> Result<Result<ApplyResult, Failure>, Error> {
        if leader == 0 {
            return Ok(Err(Failure::NotLeader));
        }
        if leader != self.consensus.member_id() {
            self.forwarder.send(waiter.sequence(), term, bytes).await.map_err(|_| Error::Stopped)?;
            return Ok(waiter.outcome().await);
        }
        Ok(self.write_here(waiter, bytes).await)
    }

    async fn write_here(&self, waiter: &mut Waiter, bytes: Bytes) -> Result<ApplyResult, Failure> {
        let responder = Responder::new(self.waiters.clone(), waiter.sequence());
        match self.consensus.raft().client_write_ff(Command(bytes), Some(responder)).await {
            Ok(()) => waiter.outcome().await,
            Err(_) => Err(Failure::Stopped),
        }
    }

    /// What a proposal that was handed over answers (contract a.3, 49-51): its fate is unknown, so never the raw deadline, after which the
    /// Go client would write again. That one is for proposals that found no leader to take them.
    fn timeout(&self, begin: Instant) -> Error {
        let elected = self.consensus.leader_since();
        if begin < elected && begin + 2 * self.election_timeout > elected {
            return Error::TimeoutLeaderFail;
        }
        let leader = self.consensus.status().leader;
        let broke = self.broken.at.lock().is_some_and(|at| at >= begin);
        if leader != 0 && leader != self.consensus.member_id() && broke { Error::TimeoutConnectionLost } else { Error::Timeout }
    }
}
