//! Lock and Election: answered, but not done yet.

use super::{Api, status};
use crate::pb::{v3electionpb as election, v3lockpb as lock};
use election::election_server::Election;
use lock::lock_server::Lock;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Lock for Api {
    async fn lock(&self, _: Request<lock::LockRequest>) -> Result<Response<lock::LockResponse>, Status> {
        Err(status::not_yet("the lock service"))
    }
    async fn unlock(&self, _: Request<lock::UnlockRequest>) -> Result<Response<lock::UnlockResponse>, Status> {
        Err(status::not_yet("the lock service"))
    }
}

#[tonic::async_trait]
impl Election for Api {
    async fn campaign(&self, _: Request<election::CampaignRequest>) -> Result<Response<election::CampaignResponse>, Status> {
        Err(status::not_yet("the election service"))
    }
    async fn proclaim(&self, _: Request<election::ProclaimRequest>) -> Result<Response<election::ProclaimResponse>, Status> {
        Err(status::not_yet("the election service"))
    }
    async fn leader(&self, _: Request<election::LeaderRequest>) -> Result<Response<election::LeaderResponse>, Status> {
        Err(status::not_yet("the election service"))
    }
    type ObserveStream = Empty<Result<election::LeaderResponse, Status>>;
    async fn observe(&self, _: Request<election::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        Err(status::not_yet("the election service"))
    }
    async fn resign(&self, _: Request<election::ResignRequest>) -> Result<Response<election::ResignResponse>, Status> {
        Err(status::not_yet("the election service"))
    }
}
