//! Watch: a watcher is a *cursor over history*.
//!
//! ```text
//!  apply ──publishes──> revision ──> Hub::follow: reads new events once, matches them through `interest`
//!                                        │ offers one shared round per stream, never waits
//!                                        v
//!   Hub::catch_up: reads history  ──> Outlet (bounded queue) ──> WatchStream ──> client
//!   for all who lag, chunk by chunk
//! ```
//!
//! A watcher is *joined* while the follower hands it every event. When its stream's queue is full, or when it starts in the past, it has a
//! *cursor* instead: every event below the cursor has been offered, none at or above it. The catch-up task moves cursors forward over
//! history, many watchers per read, until they can join again. Both hand over under one lock and into one queue per stream, so nothing is
//! lost, doubled or reordered, and "progress R" is true when it is said while all are joined and the hub stands behind R.
//!
//! | what | bound |
//! |---|---|
//! | an idle watcher | about 300 bytes and its key range, here and in the index |
//! | a stream's queue | [`hub::QUEUE_ITEMS`] rounds; no more are taken from [`hub::QUEUE_BYTES`] of distinct event bytes on, so at most that and one round of [`hub::ROUND_BYTES`] (or one revision, if larger) |
//! | a stream's outbox | one round taken from the queue |
//! | the hub | [`recent::RECENT_BYTES`] of recent events, one round, one catch-up chunk |
//!
//! A client that never reads costs that much and nobody else's time: its watchers leave the index at the first round that finds the queue
//! full, and come back when half of the queue is free.

pub mod event;
pub mod history;
pub mod hub;
pub mod interest;
pub mod range;
pub mod recent;
pub mod stream;
pub mod watcher;

pub use event::Event;
pub use history::History;
pub use hub::Hub;
pub use range::KeyRange;
pub use stream::{Create, Response, WatchStream};

#[cfg(test)]
mod tests;
