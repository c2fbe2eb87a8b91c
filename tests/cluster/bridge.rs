//! A TCP bridge in front of a member's peer port, which breaks connections in their middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Default)]
struct State {
    /// A connection ends once so many bytes went to the member; 0 = none does.
    limit: AtomicU64,
    /// After such an end nobody gets through any more.
    once: AtomicBool,
    shut: AtomicBool,
    bytes: AtomicU64,
    cuts: AtomicU64,
}

/// See the module. Ends when it is dropped.
pub struct Bridge {
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Bridge {
    /// From a port that others are told to the one where the member listens.
    pub async fn open(port: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a reserved port");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if shared.shut.load(Relaxed) {
                    continue;
                }
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await {
                        carry(near, far, &shared).await;
                    }
                });
            }
        });
        Self { state, task }
    }

    /// From now on a connection ends once so many bytes went to the member.
    pub fn cut_after(&self, bytes: u64) {
        self.state.limit.store(bytes, Relaxed);
    }

    /// The same for one connection; then nobody gets through until `heal`.
    pub fn shut_after(&self, bytes: u64) {
        self.state.once.store(true, Relaxed);
        self.cut_after(bytes);
    }

    /// Everybody gets through.
    pub fn heal(&self) {
        self.state.limit.store(0, Relaxed);
        self.state.once.store(false, Relaxed);
        self.state.shut.store(false, Relaxed);
    }

    /// Bytes that went to the member.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Relaxed)
    }

    /// Connections that were broken.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Relaxed)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: TcpStream, far: TcpStream, state: &State) {
    let (mut from, mut back) = near.into_split();
    let (mut answers, mut to) = far.into_split();
    let forth = async {
        let (mut buffer, mut passed) = (vec![0; 32 << 10], 0);
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            passed += length as u64;
            state.bytes.fetch_add(length as u64, Relaxed);
            let limit = state.limit.load(Relaxed);
            if limit > 0 && passed >= limit {
                state.cuts.fetch_add(1, Relaxed);
                state.shut.store(state.once.load(Relaxed), Relaxed);
                return;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        _ = tokio::io::copy(&mut answers, &mut back) => {}
    }
}
