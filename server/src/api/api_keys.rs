//! Which requests the keys of clients and of the administrator allow.

use super::failure::{Code, Failure};
use crate::routes::Access;
use crate::secret::Secret;

/// The keys that clients send in the header `authorization: Bearer KEY`.
#[derive(Clone)]
pub struct Keys {
    clients: Vec<Secret>,
    admin: Option<Secret>,
}

/// Whose key a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Client,
    Admin,
}

impl Keys {
    /// Without client keys, requests need no key, except those that need the admin key. Without an admin key, nobody may
    /// make those.
    pub fn new(clients: Vec<Secret>, admin: Option<Secret>) -> Self {
        Self { clients, admin }
    }

    /// Whether clients need a key.
    pub fn asks_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Whether there is an admin key.
    pub fn has_admin(&self) -> bool {
        self.admin.is_some()
    }

    /// Checks whether a request that needs this access may be made with this value of the header `authorization`.
    ///
    /// # Errors
    /// `Unauthorized` if the header carries no valid key, `Forbidden` if it carries a client key where the admin key is
    /// needed, or if there is no admin key.
    pub fn check(&self, access: Access, authorization: Option<&[u8]>) -> Result<(), Failure> {
        match access {
            Access::Open => Ok(()),
            Access::Client if self.clients.is_empty() => Ok(()),
            Access::Client => self.holder(authorization).map(|_| ()),
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
        match self.holder(authorization)? {
            Holder::Admin => Ok(()),
            Holder::Client => {
                forbidden("loading and unloading models requires the admin key, got a client key")
            }
        }
    }

    fn holder(&self, authorization: Option<&[u8]>) -> Result<Holder, Failure> {
        let unauthorized = |message: &str| Err(Failure::new(Code::Unauthorized, message));
        let Some(key) = authorization.and_then(bearer_token) else {
            return unauthorized("missing API key: expected the header `authorization: Bearer KEY`");
        };
        let is = |known: &Secret| same(known.expose().as_bytes(), key);
        if self.admin.iter().any(is) {
            return Ok(Holder::Admin);
        }
        if self.clients.iter().any(is) {
            return Ok(Holder::Client);
        }
        unauthorized("invalid API key")
    }
}

/// `KEY` of `Bearer KEY`.
fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that does not depend on where the first difference is.
fn same(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(vec![Secret::new("client-key")], Some(Secret::new("admin-key")))
    }

    fn code(result: Result<(), Failure>) -> Option<Code> {
        result.err().map(|failure| failure.code)
    }

    #[test]
    fn a_client_key_and_the_admin_key_give_access_to_what_clients_may_do() {
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
    fn a_client_key_is_forbidden_where_the_admin_key_is_needed() {
        let check = |header: &[u8]| code(keys().check(Access::Admin, Some(header)));
        assert_eq!(check(b"Bearer admin-key"), None);
        assert_eq!(check(b"Bearer client-key"), Some(Code::Forbidden));
    }

    #[test]
    fn without_client_keys_only_the_admin_key_is_asked_for() {
        let keys = Keys::new(Vec::new(), Some(Secret::new("admin-key")));
        assert_eq!(code(keys.check(Access::Client, None)), None);
        assert_eq!(code(keys.check(Access::Admin, None)), Some(Code::Unauthorized));
        assert_eq!(code(keys.check(Access::Admin, Some(b"Bearer admin-key"))), None);
    }

    #[test]
    fn without_an_admin_key_nobody_may_administer() {
        let keys = Keys::new(Vec::new(), None);
        assert_eq!(code(keys.check(Access::Client, None)), None);
        assert_eq!(
            code(keys.check(Access::Admin, Some(b"Bearer "))),
            Some(Code::Forbidden)
        );
    }
}
