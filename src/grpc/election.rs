//! The Election service: the oldest key of `name/` leads, and says what it proclaims.

use super::recipe::{self, Recipe, Waiting, delete, first_created, get, inner, member_key, prefix, put};
use super::watch::{encode_kv, header};
use crate::pb::v3electionpb as pb;
use crate::watch::WatchStream;
use bytes::Bytes;
use futures::Stream;
use rusd_storage::KeyValue;
use std::collections::VecDeque;
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub struct ElectionService {
    /// The inner client.
    pub recipe: Recipe,
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn leader_required<T>(leader: Option<T>) -> Result<T, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

impl ElectionService {
    /// Sets the value of a key that leads, or waits to.
    async fn set(&self, key: &Bytes, created: i64, lease: i64, value: Bytes) -> Result<i64, Status> {
        let done = self.recipe.if_created(key, created, vec![put(key, value, lease)], Vec::new()).await.map_err(inner)?;
        if done.succeeded { Ok(done.revision) } else { Err(not_leader()) }
    }
}

type Leaders = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::election_server::Election for ElectionService {
    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let recipe = &self.recipe;
        let lease = recipe.session(lease).await.map_err(inner)?;
        let key = member_key(&name, lease);
        let success = vec![put(&key, value.clone(), lease)];
        let done = recipe.if_created(&key, 0, success, vec![get(&key)]).await.map_err(inner)?;
        let own = done.found.first().and_then(Option::as_ref);
        let created = own.map_or(done.revision, |kv| kv.create_revision);
        let waiting = Waiting::new(recipe, &key, created);
        if own.is_some_and(|kv| kv.value != value) {
            self.set(&key, created, lease, value).await?;
        }
        recipe.wait_deletes(&prefix(&name), created - 1).await?;
        waiting.keep();
        let leader = Some(pb::LeaderKey { name, key, rev: created, lease });
        Ok(Response::new(pb::CampaignResponse { header: Some(header(&recipe.server, done.revision)), leader }))
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Result<Response<pb::ProclaimResponse>, Status> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader_required(leader)?;
        let revision = self.set(&leader.key, leader.rev, leader.lease, value).await?;
        Ok(Response::new(pb::ProclaimResponse { header: Some(header(&self.recipe.server, revision)) }))
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Result<Response<pb::LeaderResponse>, Status> {
        let prefix = prefix(&request.into_inner().name);
        let found = self.recipe.read(&first_created(&prefix)).await.map_err(inner)?;
        let Some(kv) = found.kvs.first() else { return Err(Status::unknown("election: no leader")) };
        Ok(Response::new(pb::LeaderResponse { header: Some(header(&self.recipe.server, found.revision)), kv: Some(encode_kv(kv)) }))
    }

    type ObserveStream = Leaders;

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Result<Response<Leaders>, Status> {
        let prefix = prefix(&request.into_inner().name);
        let observer = Observer { recipe: self.recipe.clone(), prefix, leading: None, ready: VecDeque::new() };
        let leaders = futures::stream::unfold(Some(observer), |observer| async move {
            let mut observer = observer?;
            match observer.next().await {
                Ok(response) => Some((Ok(response), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Result<Response<pb::ResignResponse>, Status> {
        let leader = leader_required(request.into_inner().leader)?;
        let done = self.recipe.if_created(&leader.key, leader.rev, vec![delete(&leader.key)], Vec::new()).await.map_err(inner)?;
        Ok(Response::new(pb::ResignResponse { header: Some(header(&self.recipe.server, done.revision)) }))
    }
}

/// Follows who leads: each leader, and each of its proclamations.
struct Observer {
    recipe: Recipe,
    prefix: Bytes,
    /// Watches the key that leads.
    leading: Option<WatchStream>,
    ready: VecDeque<(i64, KeyValue)>,
}

impl Observer {
    async fn next(&mut self) -> Result<pb::LeaderResponse, Status> {
        loop {
            if let Some((revision, kv)) = self.ready.pop_front() {
                return Ok(pb::LeaderResponse { header: Some(header(&self.recipe.server, revision)), kv: Some(encode_kv(&kv)) });
            }
            match &mut self.leading {
                None => self.find_leader().await?,
                Some(watch) => {
                    let response = recipe::next(watch).await?;
                    for event in response.events() {
                        if event.record.tombstone {
                            self.leading = None;
                            break;
                        }
                        self.ready.push_back((response.revision, event.record.kv.clone()));
                    }
                }
            }
        }
    }

    /// Finds the oldest key, waiting for one if there is none, and begins to watch it.
    async fn find_leader(&mut self) -> Result<(), Status> {
        let found = self.recipe.read(&first_created(&self.prefix)).await.map_err(inner)?;
        let (revision, kv) = match found.kvs.into_iter().next() {
            Some(kv) => (found.revision, kv),
            None => self.first_put(found.revision + 1).await?,
        };
        self.leading = Some(self.recipe.watch(kv.key.clone(), Bytes::new(), revision + 1));
        self.ready.push_back((revision, kv));
        Ok(())
    }

    async fn first_put(&self, from: i64) -> Result<(i64, KeyValue), Status> {
        let mut watch = self.recipe.watch_prefix(&self.prefix, from);
        loop {
            let response = recipe::next(&mut watch).await?;
            if let Some(event) = response.events().iter().find(|event| !event.record.tombstone) {
                // Its own revision: what follows in this response must be seen again by the watch of the key.
                return Ok((event.revision(), event.record.kv.clone()));
            }
        }
    }
}
