//! gRPC's health check: whoever gets an answer is served.

use super::Api;
use crate::pb::health as pb;
use futures::{Stream, StreamExt};
use pb::health_check_response::ServingStatus;
use pb::health_server::Health;
use std::pin::Pin;
use tonic::{Request, Response, Status};

fn answer(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for Api {
    async fn check(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<pb::HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(answer(ServingStatus::Serving))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let statuses = [(String::new(), answer(ServingStatus::Serving))].into();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

    /// The status never changes: one message, then silence until the client or the member goes.
    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let stream = futures::stream::once(async move { Ok(answer(status)) }).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }
}
