//! How many connections there may be at once. A file is kept back for whatever the member itself has to open: its store, a snapshot, its
//! peers. At the bound nobody is refused; who comes next waits in the kernel's backlog, as with etcd.

use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files that connections never take (etcd keeps back as many).
const KEPT_BACK: usize = 150;

/// One for the process, as the limit of open files is.
static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::of(open_files_max()));

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A client: an eighth of the room isn't for it, so that members always reach each other.
    Client,
    /// A peer, or who collects metrics.
    Other,
}

/// A connection's place; free again when it is dropped.
pub struct Place(#[allow(dead_code)] Vec<OwnedSemaphorePermit>);

struct Crowd {
    all: Arc<Semaphore>,
    clients: Arc<Semaphore>,
}

impl Crowd {
    fn of(files: usize) -> Self {
        let room = files.saturating_sub(KEPT_BACK).max(files / 2).clamp(8, Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(room)), clients: Arc::new(Semaphore::new(room - room / 8)) }
    }

    async fn place(&self, guest: Guest) -> Place {
        let mut permits = Vec::with_capacity(2);
        let wanted = if guest == Guest::Client { &[&self.clients, &self.all][..] } else { &[&self.all] };
        for semaphore in wanted {
            permits.push(Arc::clone(semaphore).acquire_owned().await.expect("never closed"));
        }
        Place(permits)
    }
}

/// Waits until there is room for one more.
pub async fn place(guest: Guest) -> Place {
    CROWD.place(guest).await
}

fn open_files_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call gets a valid pointer to an rlimit of ours and keeps nothing.
    #[allow(unsafe_code)]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if known { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 1024 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// Outside of a runtime, which would interrupt so many waits that are over at once.
    #[test]
    fn clients_leave_room_for_peers() {
        let crowd = Crowd::of(KEPT_BACK + 160);
        let mut clients = Vec::new();
        while let Some(place) = crowd.place(Guest::Client).now_or_never() {
            clients.push(place);
        }
        assert_eq!(clients.len(), 140);
        let peers: Vec<_> = std::iter::from_fn(|| crowd.place(Guest::Other).now_or_never()).collect();
        assert_eq!(peers.len(), 20);
        clients.pop();
        assert!(crowd.place(Guest::Client).now_or_never().is_some(), "a place that was left is free again");
    }
}
