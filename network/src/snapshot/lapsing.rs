//! Something that is kept for a limited time.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;

struct Kept<T> {
    value: T,
    timer: AbortHandle,
}

/// See the module. What lapses, or is taken the place of, is dropped where blocking does no harm.
pub struct Lapsing<T> {
    kept: Arc<Mutex<Option<Kept<T>>>>,
}

impl<T> Default for Lapsing<T> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

impl<T: Send + 'static> Lapsing<T> {
    /// Keeps `value` for so long.
    pub fn put(&self, value: T, lasts: Duration) {
        let slot = Arc::downgrade(&self.kept);
        let mut kept = self.kept.lock();
        // The timer can't look before it is known here.
        let timer = tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            // What was put since has a timer of its own.
            let lapsed = slot.upgrade().and_then(|slot| slot.lock().take_if(|kept| kept.timer.id() == tokio::task::id()));
            discard(lapsed);
        });
        let before = kept.replace(Kept { value, timer: timer.abort_handle() });
        drop(kept);
        end(before);
    }

    /// Takes it out, if it is still there.
    pub fn take(&self) -> Option<T> {
        let kept = self.kept.lock().take()?;
        kept.timer.abort();
        Some(kept.value)
    }

    /// Looks at it, if it is still there.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.kept.lock().as_ref().map(|kept| look(&kept.value))
    }
}

impl<T> Drop for Lapsing<T> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.lock().take() {
            kept.timer.abort();
        }
    }
}

fn end<T: Send + 'static>(kept: Option<Kept<T>>) {
    if let Some(kept) = kept {
        kept.timer.abort();
        discard(kept.value);
    }
}

/// Drops what may block in its end.
pub fn discard<T: Send + 'static>(value: T) {
    drop(tokio::task::spawn_blocking(move || drop(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_there_for_its_time_and_dropped_after_it() {
        let lapsing = Lapsing::default();
        let kept = Arc::new(());
        lapsing.put(kept.clone(), Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(lapsing.look(|_| ()), Some(()));
        lapsing.put(kept.clone(), Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(lapsing.take().is_some(), "the second time counts");
        lapsing.put(kept.clone(), Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(lapsing.take().is_none());
        while Arc::strong_count(&kept) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
