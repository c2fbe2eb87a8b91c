//! The Lock service: a lock is the oldest key of `name/`, and lives as long as its lease.

use super::recipe::{Recipe, Waiting, first_created, get, inner, member_key, prefix, put};
use super::watch::header;
use crate::pb::v3lockpb as pb;
use bytes::Bytes;
use rusd_storage::command::{Operation, Range, operation};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub struct LockService {
    /// The inner client.
    pub recipe: Recipe,
}

#[tonic::async_trait]
impl pb::lock_server::Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.into_inner();
        let recipe = &self.recipe;
        let lease = recipe.session(lease).await.map_err(inner)?;
        let (prefix, key) = (prefix(&name), member_key(&name, lease));
        let owner = Operation { operation: Some(operation::Operation::Range(first_created(&prefix))) };
        let success = vec![put(&key, Bytes::new(), lease), owner.clone()];
        let done = recipe.if_created(&key, 0, success, vec![get(&key), owner]).await.map_err(inner)?;
        let own = done.found.first().filter(|_| !done.succeeded).and_then(Option::as_ref);
        let created = own.map_or(done.revision, |kv| kv.create_revision);
        let waiting = Waiting::new(recipe, &key, created);
        let first = done.found.last().and_then(Option::as_ref).map(|kv| kv.create_revision);
        let revision = if first.is_none_or(|first| first == created) {
            done.revision
        } else {
            recipe.wait_deletes(&prefix, created - 1).await?;
            // The lease may have ended meanwhile, and the key with it.
            let found = recipe.read(&Range { key: key.clone(), ..Range::default() }).await.map_err(inner)?;
            if found.kvs.is_empty() {
                waiting.keep();
                return Err(Status::unknown("mutex: session is expired"));
            }
            found.revision
        };
        waiting.keep();
        Ok(Response::new(pb::LockResponse { header: Some(header(&recipe.server, revision)), key }))
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::UnlockResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(Status::unknown("etcdserver: key is not provided"));
        }
        let revision = self.recipe.delete(&key).await.map_err(inner)?;
        Ok(Response::new(pb::UnlockResponse { header: Some(header(&self.recipe.server, revision)) }))
    }
}
