//! Work that many callers share: one round at a time, and who arrives during a round waits for the next one, for a round must begin
//! after all whom it serves have arrived.
//!
//! The first caller runs the round itself, in its own task, so that a lone caller pays for no hop. When a round ends, one of those who
//! wait for the next one is woken to run it. A caller that is dropped while it runs a round sends the others of that round to the next.

use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// See the module.
pub struct Rounds<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    running: bool,
    /// Collects those who come too late for the running one.
    next: Option<Arc<Round<T>>>,
}

struct Round<T> {
    /// `None` inside: the round was abandoned.
    result: OnceLock<Option<T>>,
    wake: Notify,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { running: false, next: None }) }
    }
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { result: OnceLock::new(), wake: Notify::new() }
    }
}

/// Ends the round it runs, even if its future is dropped.
struct Running<'a, T> {
    rounds: &'a Rounds<T>,
    round: Arc<Round<T>>,
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let mut state = self.rounds.state.lock();
        state.running = false;
        if let Some(next) = &state.next {
            // If the one woken is being dropped, Notify wakes another.
            next.wake.notify_one();
        }
        drop(state);
        let _ = self.round.result.set(None);
        self.round.wake.notify_waiters();
    }
}

impl<T: Clone> Rounds<T> {
    /// The result of a round that began after this call.
    pub async fn join<F: Future<Output = T>>(&self, run: impl Fn() -> F) -> T {
        'join: loop {
            let mine = {
                let mut state = self.state.lock();
                let round = state.next.get_or_insert_default().clone();
                if state.running { Err(round) } else { self.claim(&mut state, &round).ok_or(round) }
            };
            let round = match mine {
                Ok(running) => return running.run(run()).await,
                Err(round) => round,
            };
            loop {
                let mut woken = std::pin::pin!(round.wake.notified());
                woken.as_mut().enable();
                match round.result.get() {
                    Some(Some(result)) => return result.clone(),
                    Some(None) => continue 'join,
                    None => {}
                }
                let running = {
                    let mut state = self.state.lock();
                    if state.running { None } else { self.claim(&mut state, &round) }
                };
                if let Some(running) = running {
                    return running.run(run()).await;
                }
                woken.await;
            }
        }
    }

    /// Makes `round` the running one, if it is still the one being collected.
    fn claim(&self, state: &mut State<T>, round: &Arc<Round<T>>) -> Option<Running<'_, T>> {
        state.next.take_if(|next| Arc::ptr_eq(next, round))?;
        state.running = true;
        Some(Running { rounds: self, round: round.clone() })
    }
}

impl<T: Clone> Running<'_, T> {
    async fn run(self, work: impl Future<Output = T>) -> T {
        let result = work.await;
        let _ = self.round.result.set(Some(result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::Semaphore;

    /// Counts rounds; each waits for a permit.
    struct Gate {
        begun: AtomicU64,
        permits: Semaphore,
    }

    impl Gate {
        fn new() -> Arc<Self> {
            Arc::new(Self { begun: AtomicU64::new(0), permits: Semaphore::new(0) })
        }
        async fn round(self: Arc<Self>) -> u64 {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.permits.acquire().await.expect("is never closed").forget();
            number
        }
    }

    #[tokio::test]
    async fn late_comers_share_the_next_round() {
        let (rounds, gate) = (Rounds::<u64>::default(), Gate::new());
        let join = || Box::pin(rounds.join(|| gate.clone().round()));
        let mut first = join();
        assert!(futures::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..5).map(|_| join()).collect();
        for other in &mut others {
            assert!(futures::poll!(other).is_pending());
        }
        gate.permits.add_permits(2);
        assert_eq!(first.await, 1);
        for number in futures::future::join_all(others).await {
            assert_eq!(number, 2);
        }
        assert_eq!(gate.begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_dropped_runner_leaves_nobody_behind() {
        let (rounds, gate) = (Rounds::<u64>::default(), Gate::new());
        let join = || Box::pin(rounds.join(|| gate.clone().round()));
        let (mut first, mut second, mut third) = (join(), join(), join());
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        // The second runs now, the third waits for it; then the second goes, too.
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(second);
        gate.permits.add_permits(1);
        assert_eq!(third.await, 3);
        let mut last = join();
        assert!(futures::poll!(&mut last).is_pending());
        gate.permits.add_permits(1);
        assert_eq!(last.await, 4);
    }

    #[tokio::test]
    async fn a_woken_heir_may_vanish() {
        let (rounds, gate) = (Rounds::<u64>::default(), Gate::new());
        let join = || Box::pin(rounds.join(|| gate.clone().round()));
        let (mut first, mut heir) = (join(), join());
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut heir).is_pending());
        gate.permits.add_permits(2);
        assert_eq!(first.await, 1);
        drop(heir);
        assert_eq!(join().await, 2);
    }
}
