//! The Maintenance service (contract b.10, b.11).

use super::{Api, alarm_name, blocking, kv, status};
use crate::pb::etcdserverpb as pb;
use crate::server::Error;
use pb::alarm_request::AlarmAction;
use pb::maintenance_server::Maintenance;
use rusd_storage::command::{self, alarm, proposal::Command, state};
use rusd_storage::measure::Stopwatch;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Maintenance for Api {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let action = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => alarm::Action::Activate,
            Ok(AlarmAction::Deactivate) => alarm::Action::Deactivate,
            _ => {
                let mut alarms = self.server.state.alarms();
                alarms.retain(|alarm| request.alarm == pb::AlarmType::None as i32 || alarm.r#type == request.alarm);
                return Ok(Response::new(self.alarms(0, alarms)));
            }
        };
        let command = command::Alarm { action: action as i32, member_id: request.member_id, r#type: request.alarm };
        match self.propose(Command::Alarm(command)).await? {
            command::Response::Alarms { revision, alarms } => Ok(Response::new(self.alarms(revision, alarms))),
            command::Response::Empty { revision } => Ok(Response::new(self.alarms(revision, Vec::new()))),
            other => Err(kv::unexpected(&other)),
        }
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let server = &self.server;
        let (raft, alarms, bytes) = (server.consensus.status(), server.state.alarms(), server.engine.usage().frame_bytes);
        let size = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if raft.leader == 0 {
            errors.push("etcdserver: no leader".to_string());
        }
        errors.extend(alarms.iter().map(|alarm| format!("memberID:{} alarm:{}", alarm.member_id, alarm_name(alarm.r#type))));
        Ok(Response::new(pb::StatusResponse {
            header: self.header(0),
            version: super::ETCD_VERSION.into(),
            db_size: size,
            leader: raft.leader,
            raft_index: raft.committed,
            raft_term: raft.term,
            raft_applied_index: raft.applied,
            errors,
            db_size_in_use: size,
            is_learner: raft.is_learner,
            // The storage follows the cluster version at once.
            storage_version: server.state.cluster_version(),
            db_size_quota: server.config.quota_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    /// Nothing is ever fragmented for long: space is reclaimed as compaction goes. No header, as etcd's.
    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Result<Response<pb::DefragmentResponse>, Status> {
        let (_running, watch) = (self.server.requests.defragmenting.begin(), Stopwatch::start());
        self.compact_physically().await?;
        self.server.requests.defragment.took(watch.elapsed());
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let store = self.server.state.store();
        let hash = blocking(move || Ok(store.hash()?)).await?;
        Ok(Response::new(pb::HashResponse { header: self.header(0), hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let (hash, compact_revision, hash_revision) = self.hash_at(request.into_inner().revision).await?;
        Ok(Response::new(pb::HashKvResponse { header: self.header(0), hash, compact_revision, hash_revision }))
    }

    type SnapshotStream = Empty<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(status::not_yet("the snapshot download"))
    }

    async fn move_leader(&self, request: Request<pb::MoveLeaderRequest>) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let server = &self.server;
        if server.consensus.status().leader != server.identity.member_id {
            return Err(Error::NotLeader.into());
        }
        let patience = server.config.election_timeout;
        server.members.hand_over().to(request.into_inner().target_id, patience).await?;
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(&self, request: Request<pb::DowngradeRequest>) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction;
        match DowngradeAction::try_from(request.into_inner().action) {
            // There is never a job; etcd's answers the same then.
            Ok(DowngradeAction::Cancel) => {
                let version = self.server.state.cluster_version();
                let version = version.rsplit_once('.').map_or("", |(minor, _)| minor).to_string();
                Ok(Response::new(pb::DowngradeResponse { header: self.header(0), version }))
            }
            Ok(_) => Err(status::not_yet("downgrading")),
            Err(_) => Err(Status::unknown("etcdserver: unknown method")),
        }
    }
}

impl Api {
    fn alarms(&self, revision: i64, alarms: Vec<state::AlarmMember>) -> pb::AlarmResponse {
        let alarms = alarms.into_iter().map(|alarm| pb::AlarmMember { member_id: alarm.member_id, alarm: alarm.r#type }).collect();
        pb::AlarmResponse { header: self.header(revision), alarms }
    }

    /// Hash, compact revision, hash revision.
    async fn hash_at(&self, revision: i64) -> Result<(u32, i64, i64), Status> {
        let store = self.server.state.store();
        blocking(move || Ok(store.hash_kv(revision)?)).await
    }
}
