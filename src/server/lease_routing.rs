//! Keep-alives on their way to the leader: answered here if this member leads, else carried there, many in one call.
//!
//! While a call is under way, new keep-alives collect and make up the next one. Renewing twice is harmless, so that a call that failed
//! is made again, to whoever leads then, until the request's time is up.

use super::Error;
use super::leases::{LeaderLeases, TimeToLive};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Ids in one call.
const BATCH_MAX: usize = 4096;
/// Calls under way; beyond the first one only because it takes long (one lease of it may wait for its revoke).
const CALLS_MAX: usize = 8;
/// From then on a call takes long.
const SLOW: Duration = Duration::from_millis(50);
/// Keep-alives that wait; more are refused.
const WAITING_MAX: usize = 65_536;
/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(50);

/// Routes to the leader: `here` answers [`Error::NotLeader`] unless this member leads, `there` asks the member that does.
pub struct LeaseRouting {
    here: Arc<dyn LeaderLeases>,
    there: Arc<dyn LeaderLeases>,
    request_timeout: Duration,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    waiting: Vec<(i64, oneshot::Sender<Result<i64, Failure>>)>,
    calls: usize,
    last_call: Option<Instant>,
}

/// What a failed call tells each of its keep-alives.
#[derive(Clone, Copy)]
enum Failure {
    /// Worth another attempt.
    Again,
    Timeout,
}

impl LeaseRouting {
    /// See the type.
    pub fn new(here: Arc<dyn LeaderLeases>, there: Arc<dyn LeaderLeases>, request_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { here, there, request_timeout, gathered: Mutex::default() })
    }

    /// The faces clients of this use; `self` must live in an `Arc` for its calls outlive the one who made them.
    pub fn leader_leases(self: &Arc<Self>) -> Arc<dyn LeaderLeases> {
        Arc::new(Routed(self.clone()))
    }

    async fn renew_one(self: &Arc<Self>, id: i64) -> Result<i64, Error> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            match self.here.renew(vec![id]).await {
                Err(Error::NotLeader) => {}
                Ok(answers) => return Ok(answers.first().copied().unwrap_or(0)),
                Err(error) => return Err(error),
            }
            match tokio::time::timeout_at(deadline, self.gather(id)?).await {
                Ok(Ok(Ok(ttl_secs))) => return Ok(ttl_secs),
                Ok(Ok(Err(Failure::Timeout))) => return Err(Error::Timeout),
                Ok(Ok(Err(Failure::Again)) | Err(_)) => {}
                Err(_) => return Err(Error::NoLeader),
            }
            if Instant::now() + RETRY >= deadline {
                return Err(Error::NoLeader);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn gather(self: &Arc<Self>, id: i64) -> Result<oneshot::Receiver<Result<i64, Failure>>, Error> {
        let (sender, receiver) = oneshot::channel();
        let mut gathered = self.gathered.lock();
        if gathered.waiting.len() >= WAITING_MAX {
            return Err(Error::TooManyRequests);
        }
        gathered.waiting.push((id, sender));
        let slow = gathered.last_call.is_some_and(|last| last.elapsed() >= SLOW);
        if gathered.calls == 0 || (slow && gathered.calls < CALLS_MAX) {
            gathered.calls += 1;
            tokio::spawn(self.clone().call());
        }
        Ok(receiver)
    }

    /// Carries what has gathered, until nothing has.
    async fn call(self: Arc<Self>) {
        loop {
            let batch: Vec<(i64, oneshot::Sender<_>)> = {
                let mut gathered = self.gathered.lock();
                let count = gathered.waiting.len().min(BATCH_MAX);
                if count == 0 {
                    gathered.calls -= 1;
                    return;
                }
                gathered.last_call = Some(Instant::now());
                gathered.waiting.drain(..count).collect()
            };
            let ids = batch.iter().map(|(id, _)| *id).collect();
            let result = match tokio::time::timeout(self.request_timeout, self.there.renew(ids)).await {
                Ok(Ok(answers)) if answers.len() == batch.len() => Ok(answers),
                Ok(Err(Error::Timeout)) | Err(_) => Err(Failure::Timeout),
                Ok(_) => Err(Failure::Again),
            };
            for (at, (_, sender)) in batch.into_iter().enumerate() {
                // Who no longer waits doesn't care.
                let _ = sender.send(result.as_ref().map(|answers| answers[at]).map_err(|failure| *failure));
            }
        }
    }

    async fn ask(&self, id: i64, keys: bool) -> Result<Option<TimeToLive>, Error> {
        let attempts = async {
            loop {
                match self.here.time_to_live(id, keys).await {
                    Err(Error::NotLeader) => {}
                    answer => return answer,
                }
                match self.there.time_to_live(id, keys).await {
                    Err(Error::NotLeader | Error::NoLeader | Error::LeaderChanged) => tokio::time::sleep(RETRY).await,
                    answer => return answer,
                }
            }
        };
        tokio::time::timeout(self.request_timeout, attempts).await.unwrap_or(Err(Error::NoLeader))
    }
}

struct Routed(Arc<LeaseRouting>);

impl LeaderLeases for Routed {
    fn renew(&self, ids: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
        Box::pin(async move { futures::future::try_join_all(ids.into_iter().map(|id| self.0.renew_one(id))).await })
    }
    fn renew_at_once(&self, id: i64) -> Option<i64> {
        self.0.here.renew_at_once(id)
    }
    fn time_to_live(&self, id: i64, keys: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
        Box::pin(self.0.ask(id, keys))
    }
}

/// For a member that has no way to the leader: says so.
pub struct NoLink;

impl LeaderLeases for NoLink {
    fn renew(&self, _: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
        Box::pin(async { Err(Error::NoLeader) })
    }
    fn time_to_live(&self, _: i64, _: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
        Box::pin(async { Err(Error::NoLeader) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers twice the id after a while; id 13 takes for ever, and the first `fail` calls fail.
    #[derive(Default)]
    struct Leader {
        calls: Mutex<Vec<usize>>,
        fail: usize,
    }

    impl LeaderLeases for Leader {
        fn renew(&self, ids: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
            let number = {
                let mut calls = self.calls.lock();
                calls.push(ids.len());
                calls.len()
            };
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if ids.contains(&13) {
                    std::future::pending::<()>().await;
                }
                if number <= self.fail { Err(Error::NotLeader) } else { Ok(ids.iter().map(|id| id * 2).collect()) }
            })
        }
        fn time_to_live(&self, _: i64, _: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
            Box::pin(async { Ok(Some(TimeToLive::default())) })
        }
    }

    struct Follower;

    impl LeaderLeases for Follower {
        fn renew(&self, _: Vec<i64>) -> BoxFuture<'_, Result<Vec<i64>, Error>> {
            Box::pin(async { Err(Error::NotLeader) })
        }
        fn time_to_live(&self, _: i64, _: bool) -> BoxFuture<'_, Result<Option<TimeToLive>, Error>> {
            Box::pin(async { Err(Error::NotLeader) })
        }
    }

    fn routing(there: Arc<dyn LeaderLeases>) -> Arc<dyn LeaderLeases> {
        LeaseRouting::new(Arc::new(Follower), there, Duration::from_secs(7)).leader_leases()
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alives_travel_together() {
        let leader = Arc::new(Leader::default());
        let routed = routing(leader.clone());
        let all = (0..1000).map(|n| n + 100).map(|id| routed.renew(vec![id]));
        let answers = futures::future::join_all(all).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.expect("the leader answers"), [2 * (n as i64 + 100)]);
        }
        assert!(leader.calls.lock().len() <= 2, "{:?}", leader.calls.lock());
        assert!(routed.time_to_live(1, false).await.expect("the leader answers").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_does_not_hold_up_the_others() {
        let routed = routing(Arc::new(Leader::default()));
        let stuck = tokio::spawn({
            let routed = routed.clone();
            async move { routed.renew(vec![13]).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(routed.renew(vec![1]).await.expect("the leader answers"), [2]);
        assert!(matches!(stuck.await.expect("no panic"), Err(Error::Timeout | Error::NoLeader)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_leader_is_sought_until_time_is_up() {
        let routed = routing(Arc::new(Leader { fail: 20, ..Leader::default() }));
        assert_eq!(routed.renew(vec![1]).await.expect("found at last"), [2]);
        let start = Instant::now();
        assert!(matches!(routing(Arc::new(NoLink)).renew(vec![1]).await, Err(Error::NoLeader)));
        assert!(start.elapsed() <= Duration::from_secs(7));
    }
}
