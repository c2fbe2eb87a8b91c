//! One log line with the settings in force: what an operator compares with what was meant, whatever mix of flags, variables, file and
//! defaults it came from. Names are the flags'; what has no effect isn't listed.

use super::{Config, Retention, urls};
use url::Url;

impl Config {
    /// Logs them; `etcd_version` is the one whose behaviour this member has.
    pub fn announce(&self, etcd_version: &str) {
        let gates = self.gates.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",");
        tracing::info!(
            etcd_version,
            rusd_version = env!("CARGO_PKG_VERSION"),
            name = self.name,
            data_dir = %self.data_dir.display(),
            force_new_cluster = self.force_new_cluster,
            heartbeat_interval = ?self.heartbeat_interval,
            election_timeout = ?self.election_timeout,
            pre_vote = self.pre_vote,
            snapshot_count = self.snapshot_count,
            snapshot_catchup_entries = self.snapshot_catchup_entries,
            listen_peer_urls = list(&self.listen_peer_urls),
            initial_advertise_peer_urls = self.advertise_peer_urls.join(","),
            listen_client_urls = list(&self.listen_client_urls),
            listen_client_http_urls = list(&self.listen_client_http_urls),
            advertise_client_urls = self.advertise_client_urls.join(","),
            listen_metrics_urls = list(&self.listen_metrics_urls),
            initial_cluster = urls::cluster_text(&self.initial_cluster),
            initial_cluster_state = if self.join_existing { "existing" } else { "new" },
            initial_cluster_token = self.initial_cluster_token,
            max_request_bytes = self.max_request_bytes,
            max_txn_ops = self.max_txn_ops,
            max_concurrent_streams = self.max_concurrent_streams,
            max_learners = self.max_learners,
            strict_reconfig_check = self.strict_reconfig_check,
            feature_gates = gates,
            corrupt_check_time = ?self.corrupt_check_time,
            compact_hash_check_time = ?self.compact_hash_check_time,
            auto_compaction = compaction(self.auto_compaction),
            "starting a member"
        );
    }
}

fn list(all: &[Url]) -> String {
    all.iter().map(|url| url.as_str().trim_end_matches('/')).collect::<Vec<_>>().join(",")
}

fn compaction(retention: Retention) -> String {
    match retention {
        Retention::Off => "off".into(),
        Retention::Periodic(age) => format!("{age:?}"),
        Retention::Revisions(count) => format!("{count} revisions"),
    }
}
