//! Who is calling: one token a role, derived from the cell's secret.
//!
//! The token of a role is HMAC-SHA256(cell secret, `"holdfast service token v1\0" + role`) in hex, sent as
//! `Authorization: Bearer TOKEN`. A listener accepts the roles it names and no others, so that a node cannot act
//! as the volume manager. Tokens travel only inside TLS.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use holdfast_libs_crypto::{MacKey, constant_time_eq};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use crate::ApiError;

/// A caller's part in the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A node daemon.
    Node,
    /// A frontend.
    Frontend,
    /// The volume manager.
    VolumeManager,
    /// The metadata tier.
    Metadata,
    /// An operator.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Node, Self::Frontend, Self::VolumeManager, Self::Metadata, Self::Admin];

    /// The role's name in messages and token derivation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Frontend => "frontend",
            Self::VolumeManager => "volume-manager",
            Self::Metadata => "metadata",
            Self::Admin => "admin",
        }
    }
}

/// Makes and checks service tokens: one for each role, made once, since every request is compared with them.
#[derive(Clone)]
pub struct ServiceTokens(Arc<[(Role, String)]>);

impl std::fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceTokens")
    }
}

impl ServiceTokens {
    /// Takes the cell's secret.
    pub fn new(cell_secret: &[u8; 32]) -> Self {
        let key = MacKey::new(cell_secret);
        let token =
            |role: Role| hex::encode(key.sign(format!("holdfast service token v1\0{}", role.name()).as_bytes()));
        Self(Role::ALL.map(|role| (role, token(role))).into())
    }

    /// The token that proves `role`.
    pub fn token(&self, role: Role) -> String {
        let found = self.0.iter().find(|(known, _)| *known == role);
        found.map(|(_, token)| token.clone()).unwrap_or_default()
    }

    /// Which of `accepted` the request proves.
    ///
    /// # Errors
    /// 401 `unauthorized` without a token or with a wrong one; 403 `forbidden` with the token of another role.
    pub fn check(&self, headers: &HeaderMap, accepted: &[Role]) -> Result<Role, ApiError> {
        let Some(given) = bearer(headers) else {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "no service token: send `Authorization: Bearer TOKEN`",
            ));
        };
        let proves = |(_, token): &&(Role, String)| constant_time_eq(token.as_bytes(), given.as_bytes());
        match self.0.iter().find(proves).map(|(role, _)| *role) {
            Some(role) if accepted.contains(&role) => Ok(role),
            Some(role) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                format!("the role `{}` may not call this", role.name()),
            )),
            None => Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the service token is not one of this cell",
            )),
        }
    }
}

/// The token in `Authorization: Bearer TOKEN`, if there is one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// Middleware state: which roles a router accepts.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Checks the tokens.
    pub tokens: ServiceTokens,
    /// The roles that may call.
    pub accepted: &'static [Role],
}

/// Middleware that lets only the guard's roles through and hands the proven [`Role`] on as a request extension:
/// `router.layer(axum::middleware::from_fn_with_state(guard, require_role))`.
pub async fn require_role(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.tokens.check(request.headers(), guard.accepted) {
        Ok(role) => {
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::{Role, ServiceTokens};

    fn with_token(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        headers
    }

    #[test]
    fn only_the_accepted_roles_of_the_same_cell_pass() {
        let tokens = ServiceTokens::new(&[1; 32]);
        let accepted = &[Role::Frontend];
        let check = |headers: &HeaderMap| tokens.check(headers, accepted).map_err(|error| error.status);
        assert_eq!(check(&with_token(&tokens.token(Role::Frontend))), Ok(Role::Frontend));
        assert_eq!(check(&with_token(&tokens.token(Role::Node))), Err(StatusCode::FORBIDDEN));
        let foreign = ServiceTokens::new(&[2; 32]).token(Role::Frontend);
        assert_eq!(check(&with_token(&foreign)), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(check(&HeaderMap::new()), Err(StatusCode::UNAUTHORIZED));
    }
}
