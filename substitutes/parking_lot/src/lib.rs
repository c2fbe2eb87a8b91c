//! Takes the place of parking_lot 0.11, which only sled 0.34 asks for: the locks of 0.12, and a condition variable of its own.
//!
//! sled hands every write of its log to a pool of seven threads, and wakes all of them for one task: six find nothing, one after the
//! other, for each holds the queue's lock meanwhile. Those wake-ups were more than half of all futex calls of a put, and on a busy machine
//! the one thread that has work waits behind them. Its threads are the only ones in sled that wait with a deadline
//! ([`Condvar::wait_until`]), and each of them takes any task; so if nobody else waits, waking one of them is enough.
//!
//! And sled forgets to wake who waits for a flush if a write fails that another thread's insertion began: its waits end by themselves after
//! a while (`LOOK_AGAIN`), and everybody in sled who waits looks again, also for an error.

pub use current::{
    MappedMutexGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard, WaitTimeoutResult,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After so long a wait ends without having been told to.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// See the crate.
#[derive(Debug, Default)]
pub struct Condvar {
    condvar: current::Condvar,
    /// Those who wait for something of their own: all are woken. Counted while their lock is held, so that whoever changes what they wait
    /// for sees them.
    particular: AtomicUsize,
}

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { condvar: current::Condvar::new(), particular: AtomicUsize::new(0) }
    }

    /// Wakes one; whether somebody waited.
    pub fn notify_one(&self) -> bool {
        self.condvar.notify_one()
    }

    /// Wakes all, or one if all that wait are of one kind; how many.
    pub fn notify_all(&self) -> usize {
        if self.particular.load(Ordering::SeqCst) == 0 { usize::from(self.condvar.notify_one()) } else { self.condvar.notify_all() }
    }

    /// Waits, not for ever: whoever waits must look whether it has what it waited for, as after any wait.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        self.particular.fetch_add(1, Ordering::SeqCst);
        let _ = self.condvar.wait_for(guard, LOOK_AGAIN);
        self.particular.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits so long at most.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
        self.particular.fetch_add(1, Ordering::SeqCst);
        let result = self.condvar.wait_for(guard, timeout);
        self.particular.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Waits for anything that one of several alike can do.
    pub fn wait_until<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        self.condvar.wait_until(guard, deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// Seven that take tasks as sled's pool does, and give back what they took.
    #[test]
    fn no_task_is_left_lying() {
        let pool = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let (done, results) = std::sync::mpsc::sync_channel(20_000);
        let threads: Vec<_> = (0..7)
            .map(|_| {
                let (pool, done) = (pool.clone(), done.clone());
                std::thread::spawn(move || {
                    loop {
                        let mut queue = pool.0.lock();
                        while queue.is_empty() {
                            pool.1.wait_until(&mut queue, Instant::now() + Duration::from_secs(600));
                        }
                        let task: u32 = queue.pop_front().expect("looked");
                        drop(queue);
                        if task == 0 {
                            return;
                        }
                        done.send(task).expect("somebody listens");
                    }
                })
            })
            .collect();
        let tasks: Vec<u32> = (1..=20_000).chain([0; 7]).collect();
        for task in tasks {
            pool.0.lock().push_back(task);
            pool.1.notify_all();
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let mut taken: Vec<u32> = results.try_iter().collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(1..=20_000));
    }

    #[test]
    fn who_was_forgotten_looks_again() {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let waits = state.clone();
        let thread = std::thread::spawn(move || {
            let mut guard = waits.0.lock();
            while !*guard {
                waits.1.wait(&mut guard);
            }
        });
        while state.1.particular.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        *state.0.lock() = true;
        thread.join().expect("no panic");
    }

    #[test]
    fn all_are_woken_that_wait_for_something_of_their_own() {
        let state = Arc::new((Mutex::new((0, false)), Condvar::new()));
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let state = state.clone();
                std::thread::spawn(move || {
                    let mut guard = state.0.lock();
                    guard.0 += 1;
                    while !guard.1 {
                        if number % 2 == 0 {
                            state.1.wait(&mut guard);
                        } else {
                            state.1.wait_for(&mut guard, Duration::from_secs(600));
                        }
                    }
                })
            })
            .collect();
        while state.0.lock().0 < 8 {
            std::thread::yield_now();
        }
        state.0.lock().1 = true;
        assert!(state.1.notify_all() > 1);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}
