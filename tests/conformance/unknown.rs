//! Calls of what isn't there.

use crate::harness::client::channel;
use crate::pair::Pair;
use rusd::pb::etcdserverpb::{RangeRequest, RangeResponse};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};

#[tokio::test]
async fn unknown_services_and_methods() {
    let pair = Pair::start(&[]).await;
    for path in [
        "/etcdserverpb.KV/Nonsense",
        "/nonsense.Service/Method",
        "/etcdserverpb.Watch/watch",
        "/grpc.health.v1.Health/X",
        "/etcdserverpb.KV",
        "/x",
    ] {
        let mut refusals = Vec::new();
        for cluster in [&pair.etcd, &pair.rusd] {
            let mut grpc = Grpc::new(channel(&cluster.members[0].client_url(), crate::harness::PATIENCE));
            grpc.ready().await.expect("it serves");
            let codec = tonic_prost::ProstCodec::<RangeRequest, RangeResponse>::default();
            let answer = grpc.unary(Request::new(RangeRequest::default()), PathAndQuery::from_static(path), codec).await;
            let status = answer.expect_err("nobody serves it");
            refusals.push((status.code(), status.message().to_string()));
        }
        assert_eq!(refusals[0].0, Code::Unimplemented, "{path}");
        assert_eq!(refusals[0], refusals[1], "{path}");
    }
}
