//! Who may ask what.

use super::error::{Code, Failure};

/// The keys that clients bring, in the header `authorization: Bearer KEY`.
#[derive(Clone)]
pub struct Keys {
    clients: Vec<String>,
    admin: Option<String>,
}

impl Keys {
    /// Without keys of clients everybody may ask, and without an administrator's nobody may administer.
    pub fn new(clients: Vec<String>, admin: Option<String>) -> Self {
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

    /// Whether the bearer may ask for predictions and for what is served.
    ///
    /// # Errors
    /// The header has no key, or none that is known.
    pub fn may_ask(&self, authorization: Option<&[u8]>) -> Result<(), Failure> {
        if self.clients.is_empty() {
            return Ok(());
        }
        let known = self.clients.iter().chain(&self.admin);
        check(authorization, known)
    }

    /// Whether the bearer may load and unload models.
    ///
    /// # Errors
    /// The header has not the administrator's key, or there is none.
    pub fn may_administer(&self, authorization: Option<&[u8]>) -> Result<(), Failure> {
        if self.admin.is_none() {
            let message =
                "loading and unloading models is switched off; `admin_key` in [server] switches it on";
            return Err(Failure::new(Code::Forbidden, message));
        }
        check(authorization, self.admin.iter())
    }
}

fn check<'a>(
    authorization: Option<&[u8]>,
    mut known: impl Iterator<Item = &'a String>,
) -> Result<(), Failure> {
    let refused = |message: &str| Err(Failure::new(Code::Unauthorized, message));
    let bearer = authorization.and_then(|value| value.split_at_checked("bearer ".len()));
    match bearer {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            if known.any(|known| same(known.as_bytes(), key.trim_ascii())) {
                Ok(())
            } else {
                refused("the key in the header authorization is not one of this server's")
            }
        }
        _ => refused("expected a key in the header authorization: `Bearer KEY`"),
    }
}

/// Compares without telling by its time where the first difference is.
fn same(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(vec!["client-key".to_owned()], Some("admin-key".to_owned()))
    }

    #[test]
    fn a_key_opens_what_it_is_for() {
        let code = |result: Result<(), Failure>| result.err().map(|failure| failure.code);
        let keys = keys();
        for header in [
            &b"Bearer client-key"[..],
            b"bearer client-key ",
            b"BEARER admin-key",
        ] {
            assert_eq!(code(keys.may_ask(Some(header))), None);
        }
        for header in [
            &b"Bearer client"[..],
            b"Bearer ",
            b"Basic client-key",
            b"client-key",
            b"",
        ] {
            assert_eq!(code(keys.may_ask(Some(header))), Some(Code::Unauthorized));
        }
        assert_eq!(code(keys.may_ask(None)), Some(Code::Unauthorized));
        assert_eq!(code(keys.may_administer(Some(b"Bearer admin-key"))), None);
        assert_eq!(
            code(keys.may_administer(Some(b"Bearer client-key"))),
            Some(Code::Unauthorized)
        );
    }

    #[test]
    fn without_keys_everybody_may_ask_and_nobody_may_administer() {
        let keys = Keys::new(Vec::new(), None);
        assert_eq!(keys.may_ask(None), Ok(()));
        let failure = keys
            .may_administer(Some(b"Bearer "))
            .expect_err("there is no key");
        assert_eq!(failure.code, Code::Forbidden);
    }
}
