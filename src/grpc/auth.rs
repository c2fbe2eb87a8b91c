//! The Auth service: off, and not to be switched on yet.

use super::{Api, status};
use crate::pb::etcdserverpb as pb;
use crate::server::Error;
use pb::auth_server::Auth;
use rusd_storage::{AuthRejection, Rejection};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Auth for Api {
    async fn auth_status(&self, _: Request<pb::AuthStatusRequest>) -> Result<Response<pb::AuthStatusResponse>, Status> {
        Ok(Response::new(pb::AuthStatusResponse { header: self.header(0), enabled: false, auth_revision: 1 }))
    }

    async fn auth_enable(&self, _: Request<pb::AuthEnableRequest>) -> Result<Response<pb::AuthEnableResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn auth_disable(&self, _: Request<pb::AuthDisableRequest>) -> Result<Response<pb::AuthDisableResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn authenticate(&self, _: Request<pb::AuthenticateRequest>) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(Error::from(Rejection::from(AuthRejection::AuthNotEnabled)).into())
    }

    async fn user_add(&self, _: Request<pb::AuthUserAddRequest>) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_get(&self, _: Request<pb::AuthUserGetRequest>) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_list(&self, _: Request<pb::AuthUserListRequest>) -> Result<Response<pb::AuthUserListResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_delete(&self, _: Request<pb::AuthUserDeleteRequest>) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_change_password(
        &self,
        _: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_grant_role(&self, _: Request<pb::AuthUserGrantRoleRequest>) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn user_revoke_role(
        &self,
        _: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_add(&self, _: Request<pb::AuthRoleAddRequest>) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_get(&self, _: Request<pb::AuthRoleGetRequest>) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_list(&self, _: Request<pb::AuthRoleListRequest>) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_delete(&self, _: Request<pb::AuthRoleDeleteRequest>) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_grant_permission(
        &self,
        _: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        Err(status::not_yet("authentication"))
    }

    async fn role_revoke_permission(
        &self,
        _: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        Err(status::not_yet("authentication"))
    }
}
