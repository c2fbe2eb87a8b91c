//! The Cluster service. Its headers say nothing of revisions (contract b.8).

use super::Api;
use crate::pb::etcdserverpb as pb;
use pb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Cluster for Api {
    async fn member_list(&self, request: Request<pb::MemberListRequest>) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.server.read.linearizable().await?;
        }
        let members = crate::pb::members(self.server.state.members());
        Ok(Response::new(pb::MemberListResponse { header: self.header_exactly(0), members }))
    }

    async fn member_add(&self, request: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let (member, members) = self.server.members.add(&request.peer_ur_ls, request.is_learner).await?;
        let members = crate::pb::members(members);
        Ok(Response::new(pb::MemberAddResponse { header: self.header_exactly(0), member: Some(member.into()), members }))
    }

    async fn member_remove(&self, request: Request<pb::MemberRemoveRequest>) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let members = crate::pb::members(self.server.members.remove(request.into_inner().id).await?);
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header_exactly(0), members }))
    }

    async fn member_update(&self, request: Request<pb::MemberUpdateRequest>) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let members = crate::pb::members(self.server.members.update(request.id, &request.peer_ur_ls).await?);
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header_exactly(0), members }))
    }

    async fn member_promote(&self, request: Request<pb::MemberPromoteRequest>) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let members = crate::pb::members(self.server.members.promote(request.into_inner().id).await?);
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header_exactly(0), members }))
    }
}
