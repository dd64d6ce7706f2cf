//! API keys: checks whether a request's key grants the access that its route requires.

use super::failure::{Code, Failure};
use crate::routes::Access;
use crate::secret::Secret;

/// The configured keys. Clients send one as `authorization: Bearer KEY`.
#[derive(Clone)]
pub struct ApiKeys {
    clients: Vec<Secret>,
    admin: Option<Secret>,
}

/// The kind of key that a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Client,
    Admin,
}

impl ApiKeys {
    /// Creates the set of keys. Without client keys, only administrative requests require a key. Without an admin
    /// key, administrative requests are disabled.
    pub fn new(clients: Vec<Secret>, admin: Option<Secret>) -> Self {
        Self { clients, admin }
    }

    /// Whether clients must send a key.
    pub fn requires_client_key(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Whether an admin key is configured.
    pub fn has_admin_key(&self) -> bool {
        self.admin.is_some()
    }

    /// Checks the value of the `authorization` header against the required access.
    ///
    /// # Errors
    /// `Unauthorized` if the header has no valid key; `Forbidden` if it has a client key but the admin key is
    /// required, or if no admin key is configured.
    pub fn check(&self, access: Access, authorization: Option<&[u8]>) -> Result<(), Failure> {
        match access {
            Access::Open => Ok(()),
            Access::Client if self.clients.is_empty() => Ok(()),
            Access::Client => self.kind_of(authorization).map(|_| ()),
            Access::Admin => self.check_admin(authorization),
        }
    }

    fn check_admin(&self, authorization: Option<&[u8]>) -> Result<(), Failure> {
        self.check(Access::Client, authorization)?;
        let forbidden = |message: &str| Err(Failure::new(Code::Forbidden, message));
        if self.admin.is_none() {
            return forbidden(
                "loading and unloading models is disabled; set `admin_key` in [server] to enable it",
            );
        }
        match self.kind_of(authorization)? {
            KeyKind::Admin => Ok(()),
            KeyKind::Client => {
                forbidden("loading and unloading models requires the admin key, got a client key")
            }
        }
    }

    fn kind_of(&self, authorization: Option<&[u8]>) -> Result<KeyKind, Failure> {
        let unauthorized = |message: &str| Err(Failure::new(Code::Unauthorized, message));
        let Some(key) = authorization.and_then(bearer_token) else {
            return unauthorized("missing API key: expected the header `authorization: Bearer KEY`");
        };
        let is = |known: &Secret| constant_time_eq(known.expose().as_bytes(), key);
        if self.admin.iter().any(is) {
            return Ok(KeyKind::Admin);
        }
        if self.clients.iter().any(is) {
            return Ok(KeyKind::Client);
        }
        unauthorized("invalid API key")
    }
}

/// Returns `KEY` from `Bearer KEY`.
fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares two keys in constant time: the duration does not depend on the position of the first difference.
fn constant_time_eq(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ApiKeys {
        ApiKeys::new(vec![Secret::new("client-key")], Some(Secret::new("admin-key")))
    }

    fn code(result: Result<(), Failure>) -> Option<Code> {
        result.err().map(|failure| failure.code)
    }

    #[test]
    fn a_client_key_and_the_admin_key_allow_client_requests() {
        for header in [
            &b"Bearer client-key"[..],
            b"bearer client-key ",
            b"BEARER admin-key",
        ] {
            assert_eq!(code(keys().check(Access::Client, Some(header))), None);
        }
    }

    #[test]
    fn a_request_without_a_valid_key_is_unauthorized() {
        let invalid = [
            Some(&b"Bearer client"[..]),
            Some(b"Bearer "),
            Some(b"Basic client-key"),
            Some(b"client-key"),
            Some(b""),
            None,
        ];
        for header in invalid {
            for access in [Access::Client, Access::Admin] {
                assert_eq!(code(keys().check(access, header)), Some(Code::Unauthorized));
            }
            assert_eq!(code(keys().check(Access::Open, header)), None);
        }
    }

    #[test]
    fn a_client_key_does_not_allow_administration() {
        let check = |header: &[u8]| code(keys().check(Access::Admin, Some(header)));
        assert_eq!(check(b"Bearer admin-key"), None);
        assert_eq!(check(b"Bearer client-key"), Some(Code::Forbidden));
    }

    #[test]
    fn without_client_keys_only_administration_requires_a_key() {
        let keys = ApiKeys::new(Vec::new(), Some(Secret::new("admin-key")));
        assert_eq!(code(keys.check(Access::Client, None)), None);
        assert_eq!(code(keys.check(Access::Admin, None)), Some(Code::Unauthorized));
        assert_eq!(code(keys.check(Access::Admin, Some(b"Bearer admin-key"))), None);
    }

    #[test]
    fn without_an_admin_key_administration_is_disabled() {
        let keys = ApiKeys::new(Vec::new(), None);
        assert_eq!(code(keys.check(Access::Client, None)), None);
        assert_eq!(
            code(keys.check(Access::Admin, Some(b"Bearer "))),
            Some(Code::Forbidden)
        );
    }
}
