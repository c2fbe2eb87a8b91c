//! The member itself: who it is, its place in the cluster, its process.

use super::page::Page;
use crate::server::Server;

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
    names(page, server);
    let (used, limit) = file_descriptors();
    page.gauge("os_fd_used", "The number of used file descriptors.", used);
    page.gauge("os_fd_limit", "The file descriptor limit.", limit);
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
    let mut alarms =
        page.gauges("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID.");
    for alarm in server.state.alarms() {
        let labels = [("alarm_type", crate::grpc::alarm_name(alarm.r#type)), ("server_id", &format!("{:x}", alarm.member_id))];
        alarms.add(&labels, 1.0);
    }
}

/// Used and allowed; zero where the system doesn't tell.
fn file_descriptors() -> (f64, f64) {
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = std::fs::read_to_string("/proc/self/limits").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse::<f64>().ok()
    });
    (used as f64, limit.unwrap_or(0.0))
}
