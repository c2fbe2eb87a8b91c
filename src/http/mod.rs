//! What speaks HTTP: the client port, where gRPC and plain HTTP meet, the metrics port, and what the peer port adds.

mod beginning;
mod crowd;
pub mod health;
pub mod serve;

use crate::grpc::{self, Api};
use crate::metrics::Sources;
use crate::server::{Server, remote};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;

/// Everything on the client port that isn't gRPC (contract c.1).
pub fn client_router(api: Api) -> Router {
    let server = api.server.clone();
    let debug = Router::new().route("/debug/vars", get(vars)).with_state(server.clone());
    metrics_router(api).merge(version_router(server)).merge(debug).fallback(not_found)
}

/// For `--listen-metrics-urls`: health and metrics only.
pub fn metrics_router(api: Api) -> Router {
    let checks = health::Checks { timeout: api.server.config.request_timeout(), metrics: api.metrics.clone(), member: api.server.clone() };
    Router::new().route("/metrics", get(metrics)).with_state(api).merge(health::router(checks))
}

/// What the peer port tells over plain HTTP (contract c.2).
pub fn peer_router(server: Arc<Server>) -> Router {
    Router::new().route("/members", get(members)).with_state(server.clone()).merge(version_router(server))
}

fn version_router(server: Arc<Server>) -> Router {
    Router::new().route("/version", get(version)).with_state(server).layer(axum::middleware::from_fn(only_get))
}

/// As Go's servers say that there is nothing.
async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// Lets GET pass, and HEAD not even for it.
async fn only_get(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")], "Method Not Allowed\n").into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics.render(Sources { server: &api.server, hub: &api.hub, leases: &api.leases });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn version(State(server): State<Arc<Server>>) -> Response {
    let storage = Some(server.state.cluster_version()).filter(|version| !version.is_empty()).unwrap_or_else(|| "unknown".into());
    // Written out: the order of the fields is etcd's.
    let text =
        format!(r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{storage}"}}"#, grpc::ETCD_VERSION, grpc::cluster_version(&server));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn members(State(server): State<Arc<Server>>) -> Response {
    let members: Vec<_> = server
        .state
        .members()
        .into_iter()
        .map(|member| {
            let mut json = json!({"id": member.id, "peerURLs": member.peer_urls, "name": member.name});
            if member.is_learner && !member.pending_voter {
                json["isLearner"] = true.into();
            }
            if !member.client_urls.is_empty() {
                json["clientURLs"] = member.client_urls.into();
            }
            json
        })
        .collect();
    let mut response = axum::Json(members).into_response();
    if let Ok(id) = HeaderValue::try_from(format!("{:x}", server.identity.cluster_id)) {
        response.headers_mut().insert("X-Etcd-Cluster-ID", id);
    }
    // A joining rusd must not wait for ever in a cluster that it can't understand.
    if let Ok(range) = HeaderValue::try_from(remote::protocol_header()) {
        response.headers_mut().insert(remote::PROTOCOL_HEADER, range);
    }
    response
}

async fn vars(State(server): State<Arc<Server>>) -> Response {
    let raft = server.consensus.status();
    let voters: Vec<_> = server.consensus.voters().into_iter().map(|id| format!("{id:x}")).collect();
    axum::Json(json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "raft.status": {"id": format!("{:x}", server.identity.member_id), "term": raft.term, "lead": format!("{:x}", raft.leader),
            "commit": raft.committed, "applied": raft.applied, "voters": voters},
        "memstats": {},
    }))
    .into_response()
}
