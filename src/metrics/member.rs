//! The member itself: who it is, its place in the cluster, its process.

use super::page::Page;
use crate::config::flags::GATES;
use crate::server::Server;
use crate::server::members::Promotions;

pub(super) fn read(page: &mut Page, server: &Server) {
    let status = server.consensus.status();
    let mut flag = |name, help, on: bool| page.gauge(name, help, f64::from(u8::from(on)));
    flag("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", status.leader != 0);
    let leads = status.leader == server.identity.member_id;
    flag("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", leads);
    flag("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", status.is_learner);
    let changes = server.consensus.leader_changes();
    page.count("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", changes);
    page.gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", status.committed as f64);
    page.gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", status.applied as f64);
    let quota = server.config.quota_bytes.unwrap_or(0);
    page.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quota as f64);
    page.gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.",
        server.measures.installing.get() as f64,
    );
    promotions(page, &server.members.promotions);
    names(page, server);
    super::process::read(page);
}

/// By etcd's reasons.
fn promotions(page: &mut Page, promotions: &Promotions) {
    page.counter(
        "etcd_server_learner_promote_successes",
        "The total number of successful learner promotions while this member is leader.",
        &promotions.made,
    );
    let mut failures = page.counters(
        "etcd_server_learner_promote_failures",
        "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
    );
    for (reason, counter) in [
        ("membership: ID not found", &promotions.unknown),
        ("membership: can only promote a learner member", &promotions.no_learner),
        ("etcdserver: can only promote a learner member which is in sync with leader", &promotions.not_ready),
        ("etcdserver: re-configuration failed due to not enough started members", &promotions.unhealthy),
    ] {
        if counter.get() > 0 {
            failures.add(&[("Reason", reason)], counter.get());
        }
    }
}

/// What is told by a label.
fn names(page: &mut Page, server: &Server) {
    page.gauges("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.")
        .add(&[("server_version", crate::grpc::ETCD_VERSION)], 1.0);
    // "3.7": etcd leaves out the patch, and the family until there is a version.
    if let Some((minor, _)) = server.state.cluster_version().rsplit_once('.') {
        page.gauges("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version")
            .add(&[("cluster_version", minor)], 1.0);
    }
    let id = format!("{:x}", server.identity.member_id);
    page.gauges("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.")
        .add(&[("server_id", &id)], 1.0);
    features(page, server);
    let mut alarms =
        page.gauges("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID.");
    for alarm in server.state.alarms() {
        let labels = [("alarm_type", crate::grpc::alarm_name(alarm.r#type)), ("server_id", &format!("{:x}", alarm.member_id))];
        alarms.add(&labels, 1.0);
    }
}

/// Gates as the flags say; which of them do anything is told at the start.
fn features(page: &mut Page, server: &Server) {
    let mut family = page.gauges("etcd_server_feature_enabled", "Whether or not a feature is enabled. 1 is enabled, 0 is not.");
    for (name, enabled) in &server.config.gates {
        let ripe = GATES.iter().any(|(known, default)| known == name && (*default || *name == "AllBeta"));
        let stage = if ripe { "BETA" } else { "ALPHA" };
        family.add(&[("name", name), ("stage", stage)], f64::from(u8::from(*enabled)));
    }
}
