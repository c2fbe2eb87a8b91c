//! Who may talk to us. Judged by applied state (openraft.md section 12, 5).

use crate::Caller;
use rusd_storage::types::LogPosition;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::{Code, Status};

/// How a caller is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A member, or someone of whom we may just not know yet.
    Welcome,
    /// It belongs to another cluster.
    OtherCluster,
    /// It was removed for ever.
    Removed,
    /// Not in a membership that is at least as new as the one it knows.
    Stranger,
    /// A member with another data dir: it was wiped and has forgotten its votes and entries.
    Wiped,
    /// The caller knows *this* member with another data dir: we are the ones that were wiped.
    WipedHere,
    /// No protocol version in common.
    OtherVersion,
    /// It meant somebody else.
    WrongTarget,
}

impl Verdict {
    /// Its word in the metadata of a refusal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::OtherCluster => "cluster",
            Self::Wiped => "wiped",
            Self::WipedHere => "wiped-here",
            Self::OtherVersion => "version",
            Self::WrongTarget => "target",
            Self::Stranger | Self::Welcome => "stranger",
        }
    }
}

/// The view of the membership that calls are judged by.
pub trait Directory: Send + Sync + 'static {
    /// Who we are, with the current membership position; goes out with every call.
    fn caller(&self) -> Caller;
    /// Changes whenever a verdict may change. Cheap: asked per message of a long stream.
    fn generation(&self) -> u64;
    /// Whether the id was removed for ever.
    fn is_removed(&self, id: u64) -> bool;
    /// The member's data dir id (0 = not known), or `None` if it is no member.
    fn data_dir_of(&self, id: u64) -> Option<u64>;

    /// The judgement; the order of its rules matters.
    fn judge(&self, caller: &Caller) -> Verdict {
        let me = self.caller();
        if caller.cluster_id != me.cluster_id {
            return Verdict::OtherCluster;
        }
        if !me.understands(caller) {
            return Verdict::OtherVersion;
        }
        if caller.target_id != 0 && caller.target_id != me.member_id {
            return Verdict::WrongTarget;
        }
        if self.is_removed(caller.member_id) {
            return Verdict::Removed;
        }
        match self.data_dir_of(caller.member_id) {
            Some(known) if known != 0 && known != caller.data_dir_id => Verdict::Wiped,
            None if knows_as_much(me.membership, caller.membership) => Verdict::Stranger,
            _ if caller.target_id != 0 && caller.target_data_dir_id != 0 && caller.target_data_dir_id != me.data_dir_id => {
                Verdict::WipedHere
            }
            _ => Verdict::Welcome,
        }
    }
}

/// Only who knows at least the caller's membership may call it a stranger; else it is itself behind, and refusing would wedge it for ever.
fn knows_as_much(mine: Option<LogPosition>, theirs: Option<LogPosition>) -> bool {
    mine.is_some() && mine >= theirs
}

/// Metadata key of a refusal, so that the refused can tell it from other failures.
const REFUSAL_KEY: &str = "rusd-refusal";

/// The status a refused caller gets.
pub fn refusal(verdict: Verdict) -> Status {
    let text = match verdict {
        Verdict::Removed => "the member has been permanently removed from the cluster",
        Verdict::OtherCluster => "etcdserver: cluster ID mismatch",
        Verdict::Wiped => "this member's data dir is not the one it joined with",
        Verdict::WipedHere => "the called member's data dir is not the one it joined with",
        Verdict::OtherVersion => "no peer protocol version in common",
        Verdict::WrongTarget => "the call was meant for another member",
        Verdict::Stranger | Verdict::Welcome => "not a member of this cluster",
    };
    let mut status = Status::new(Code::FailedPrecondition, text);
    status.metadata_mut().insert(REFUSAL_KEY, verdict.word().parse().expect("a word is ASCII"));
    status
}

/// Which refusal a status is, if it is one.
pub fn refused(status: &Status) -> Option<Verdict> {
    Some(match status.metadata().get(REFUSAL_KEY)?.to_str().ok()? {
        "removed" => Verdict::Removed,
        "cluster" => Verdict::OtherCluster,
        "wiped" => Verdict::Wiped,
        "wiped-here" => Verdict::WipedHere,
        "version" => Verdict::OtherVersion,
        "target" => Verdict::WrongTarget,
        "stranger" => Verdict::Stranger,
        _ => return None,
    })
}

/// Why this member may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expulsion {
    /// It was removed for ever.
    Removed,
    /// Its data dir isn't the one that it published.
    Wiped,
}

/// Set once a peer, or our own applied state, says that this member is none (any more). The first reason stays.
#[derive(Clone, Debug)]
pub struct Expelled(watch::Sender<Option<Expulsion>>);

impl Default for Expelled {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Expelled {
    /// Notes it.
    pub fn set(&self, why: Expulsion) {
        self.0.send_if_modified(|known| known.is_none() && known.replace(why).is_none());
    }
    /// For whoever stops the process.
    pub fn watch(&self) -> watch::Receiver<Option<Expulsion>> {
        self.0.subscribe()
    }
    /// What is known now.
    pub fn get(&self) -> Option<Expulsion> {
        *self.0.borrow()
    }
}

/// At most one log line per peer, reason and ten seconds.
#[derive(Debug, Default)]
pub struct RateLimit(parking_lot::Mutex<HashMap<(u64, &'static str), Instant>>);

impl RateLimit {
    /// Whether to log this about that caller now. Forgets everything when strangers make it grow.
    pub fn allow(&self, id: u64, what: &'static str) -> bool {
        const PERIOD: Duration = Duration::from_secs(10);
        const MOST_IDS: usize = 1024;
        let now = Instant::now();
        let mut last = self.0.lock();
        if last.len() >= MOST_IDS {
            last.clear();
        }
        match last.get(&(id, what)) {
            Some(at) if now.duration_since(*at) < PERIOD => false,
            _ => {
                last.insert((id, what), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known {
        me: Caller,
        members: HashMap<u64, u64>,
    }
    impl Directory for Known {
        fn caller(&self) -> Caller {
            self.me
        }
        fn generation(&self) -> u64 {
            0
        }
        fn is_removed(&self, id: u64) -> bool {
            id == 66
        }
        fn data_dir_of(&self, id: u64) -> Option<u64> {
            self.members.get(&id).copied()
        }
    }

    #[test]
    fn strangers_are_judged_by_the_newer_membership() {
        let at = |index| Some(LogPosition { term: 1, index });
        let known = Known { me: Caller { membership: at(5), ..Caller::new(1, 10, 100) }, members: [(11, 110), (12, 0)].into() };
        let call = |id, dir, index| Caller { membership: at(index), ..Caller::new(1, id, dir) };
        assert_eq!(known.judge(&call(11, 110, 0)), Verdict::Welcome);
        assert_eq!(known.judge(&call(12, 7, 0)), Verdict::Welcome, "data dir not published yet");
        assert_eq!(known.judge(&call(11, 111, 9)), Verdict::Wiped);
        assert_eq!(known.judge(&call(66, 1, 9)), Verdict::Removed);
        assert_eq!(known.judge(&call(13, 1, 5)), Verdict::Stranger);
        assert_eq!(known.judge(&call(13, 1, 6)), Verdict::Welcome, "we are the ones behind");
        assert_eq!(known.judge(&Caller::new(2, 11, 110)), Verdict::OtherCluster);
        assert_eq!(known.judge(&Caller { target_id: 99, ..call(11, 110, 5) }), Verdict::WrongTarget);
        let to = |target_data_dir_id| Caller { target_id: 10, target_data_dir_id, ..call(11, 110, 5) };
        assert_eq!((known.judge(&to(100)), known.judge(&to(0))), (Verdict::Welcome, Verdict::Welcome));
        assert_eq!(known.judge(&to(101)), Verdict::WipedHere);
        assert_eq!(known.judge(&Caller { version: 9, oldest_version: 8, ..call(11, 110, 5) }), Verdict::OtherVersion);
        for verdict in [Verdict::Removed, Verdict::Wiped, Verdict::WipedHere, Verdict::Stranger, Verdict::OtherCluster] {
            assert_eq!(refused(&refusal(verdict)), Some(verdict));
        }
    }
}
