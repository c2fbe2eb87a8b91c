//! The crate `etcd-client` against a server it knows only by its endpoints, the arguments: what it promises to its users is tried, and
//! every step prints `ok NAME`.

mod kv;
mod services;
mod watch;

use etcd_client::Client;
use std::error::Error;
use std::time::Duration;

/// What a step ends with.
type Outcome = Result<(), Box<dyn Error>>;

/// Far above what a step takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Fails with a sentence.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}
pub(crate) use check;

/// Runs a step on a client of its own.
macro_rules! steps {
    ($endpoints:expr, $($step:path),+ $(,)?) => {$(
        let client = Client::connect($endpoints, None).await?;
        tokio::time::timeout(LIMIT, $step(client)).await.map_err(|_| format!("{} hangs", stringify!($step)))?
            .map_err(|error| format!("{}: {error}", stringify!($step)))?;
        println!("ok {}", stringify!($step));
    )+};
}

#[tokio::main]
async fn main() -> Outcome {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    steps!(
        &endpoints,
        kv::what_is_put_can_be_read,
        kv::ranges_are_sorted_and_limited,
        kv::old_revisions_are_kept_until_compaction,
        kv::deletes_tell_what_was_there,
        kv::transactions_branch,
        kv::errors_have_etcds_texts,
        watch::events_come_in_order_and_from_history,
        watch::filters_and_previous_values,
        watch::many_watches_share_a_stream,
        watch::compacted_history_cancels,
        services::leases_live_and_expire,
        services::locks_exclude_each_other,
        services::elections_have_one_leader,
        services::members_and_maintenance,
        services::every_endpoint_serves,
    );
    Ok(())
}
