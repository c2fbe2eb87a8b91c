//! The replicated state, its disk and its watches.

use super::Sources;
use super::page::Page;
use rusd_storage::engine::Engine;
use rusd_storage::measure::{Compactions, KINDS, Measures, Snapshots};
use std::time::SystemTime;

pub(super) fn read(page: &mut Page, sources: &Sources<'_>) {
    let measures = &sources.server.measures;
    keys(page, sources, measures);
    compactions(page, &measures.compactions);
    leases(page, sources, measures);
    applies(page, measures);
    watches(page, sources);
    disk(page, &sources.server.engine);
    snapshots(page, &measures.snapshots);
}

fn keys(page: &mut Page, sources: &Sources<'_>, measures: &Measures) {
    let (store, keys) = (sources.server.state.store(), &measures.keys);
    page.counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", &keys.puts);
    page.counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", &keys.ranges);
    page.counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", &keys.txns);
    page.counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", &keys.deletes);
    page.gauge(
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "The total size of put kv pairs seen by this member.",
        keys.put_bytes.get() as f64,
    );
    page.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", store.revision() as f64);
    page.gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", store.compact_revision() as f64);
    page.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", store.key_count() as f64);
    let reads = store.pin_count() as f64;
    page.gauge("etcd_mvcc_db_open_read_transactions", "The number of currently open read transactions", reads);
    let bytes = sources.server.engine.usage().frame_bytes as f64;
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", bytes);
    page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", bytes);
}

fn compactions(page: &mut Page, compactions: &Compactions) {
    page.counter("etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted.", &compactions.keys);
    page.gauge(
        "etcd_debugging_mvcc_db_compaction_last",
        "The unix time of the last db compaction. Resets to 0 on start.",
        compactions.since_last().and_then(|since| SystemTime::now().checked_sub(since)).map_or(0.0, unix_seconds),
    );
    page.histogram(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Bucketed histogram of db compaction total duration.",
        &compactions.total,
    );
    page.histogram(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "Bucketed histogram of db compaction pause duration.",
        &compactions.step,
    );
    page.histogram(
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "Bucketed histogram of index compaction pause duration.",
        &compactions.index_step,
    );
    page.histogram("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation.", &compactions.hash);
    page.histogram(
        "etcd_mvcc_hash_rev_duration_seconds",
        "The latency distribution of storage hash by revision operation.",
        &compactions.hash_revision,
    );
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64().round())
}

fn leases(page: &mut Page, sources: &Sources<'_>, measures: &Measures) {
    let leases = &measures.leases;
    page.counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", &leases.granted);
    page.counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", &leases.revoked);
    page.counter("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader.", &sources.leases.renewed);
    page.histogram("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", &leases.ttl);
    page.counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", &sources.leases.expired);
}

fn applies(page: &mut Page, measures: &Measures) {
    page.counter(
        "etcd_server_slow_apply_total",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        &measures.slow,
    );
    let mut family = page.histograms("etcd_server_apply_duration_seconds", "The latency distributions of v2 apply called by backend.");
    for (op, applies) in KINDS.iter().zip(&measures.applies) {
        for (success, histogram) in [("true", &applies.success), ("false", &applies.failure)] {
            family.add_used(&[("op", op), ("success", success), ("version", "v3")], histogram);
        }
    }
}

fn watches(page: &mut Page, sources: &Sources<'_>) {
    let counts = sources.hub.counts();
    page.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", counts.streams as f64);
    page.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", counts.watchers as f64);
    page.gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", counts.lagging as f64);
    page.gauge("etcd_debugging_mvcc_pending_events_total", "Total number of pending events to be sent.", counts.pending_events as f64);
    page.counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", &sources.hub.sent);
}

/// One fdatasync is for log and state alike: it is both etcd's fsync of the WAL and the end of its backend's commit.
fn disk(page: &mut Page, engine: &Engine) {
    let metrics = engine.metrics();
    page.histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", &metrics.syncs);
    page.histogram("etcd_disk_wal_write_duration_seconds", "The latency distributions of write called by WAL.", &metrics.log_writes);
    page.gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", metrics.log_bytes.get() as f64);
    page.histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", &metrics.commits);
}

fn snapshots(page: &mut Page, snapshots: &Snapshots) {
    for (name, help, histogram) in [
        (
            "etcd_debugging_snap_save_marshalling_duration_seconds",
            "The marshalling cost distributions of save called by snapshot.",
            &snapshots.framed,
        ),
        ("etcd_debugging_snap_save_total_duration_seconds", "The total latency distributions of save called by snapshot.", &snapshots.made),
        ("etcd_snap_fsync_duration_seconds", "The latency distributions of fsync called by snap.", &snapshots.synced),
        ("etcd_disk_backend_snapshot_duration_seconds", "The latency distribution of backend snapshots.", &snapshots.sent),
        ("etcd_snap_db_fsync_duration_seconds", "The latency distributions of fsyncing .snap.db file", &snapshots.received_synced),
        ("etcd_snap_db_save_total_duration_seconds", "The total latency distributions of v3 snapshot save", &snapshots.received),
    ] {
        page.histogram(name, help, histogram);
    }
}
