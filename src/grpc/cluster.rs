//! The Cluster service. Its headers say nothing of revisions (contract b.8).

use super::{Api, status};
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

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(status::not_yet("adding members"))
    }

    async fn member_remove(&self, _: Request<pb::MemberRemoveRequest>) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(status::not_yet("removing members"))
    }

    async fn member_update(&self, _: Request<pb::MemberUpdateRequest>) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(status::not_yet("updating members"))
    }

    async fn member_promote(&self, _: Request<pb::MemberPromoteRequest>) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(status::not_yet("promoting members"))
    }
}
