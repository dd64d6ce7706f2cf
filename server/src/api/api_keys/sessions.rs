//! Sessions of browsers, which stand for the API key that a user has entered once.
//!
//! A session is identified by a random token, which the browser keeps in a cookie. The server keeps only the digests of the token and
//! of the key. A session never grants more than its key: each request looks up the key again, so that a key that was removed or has
//! expired ends its sessions.
//!
//! # Bounds
//! A session ends after [`MAX_AGE`]. A key has at most `MAX_PER_KEY` sessions; a further one replaces its oldest. All keys together
//! have at most `MAX_SESSIONS`; further ones are rejected, so that the holder of one key cannot end the sessions of others.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{ApiKeys, Client};
use crate::api::failure::{Code, Failure};
use crate::clock;
use crate::digest::Digest;

/// How long a session lasts.
pub const MAX_AGE: Duration = Duration::from_secs(12 * 60 * 60);

/// Maximum number of sessions of a key.
const MAX_PER_KEY: usize = 16;

/// Maximum number of sessions.
const MAX_SESSIONS: usize = 1024;

/// Size of a token in bytes.
const TOKEN_BYTES: usize = 32;

/// The sessions of all browsers.
pub struct Sessions {
    keys: ApiKeys,
    /// Oldest first. Locked only by threads that serve requests, which all have the same scheduling priority.
    open: Mutex<Vec<Session>>,
}

struct Session {
    token: Digest,
    key: Digest,
    opened: Instant,
}

impl Sessions {
    /// No sessions.
    pub fn new(keys: ApiKeys) -> Self {
        Self {
            keys,
            open: Mutex::default(),
        }
    }

    /// Opens a session for a key, and returns its token.
    ///
    /// # Errors
    /// `Unauthorized` if the key is invalid or has expired; `Unavailable` if there are too many sessions.
    pub fn open(&self, key: &[u8]) -> Result<String, Failure> {
        let key = Digest::of(key.trim_ascii());
        let client = self.keys.identify_digest(&key);
        client.check_key()?;
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|_| Failure::new(Code::Internal, "the system returns no random numbers"))?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let now = clock::now();
        let mut open = self.lock();
        open.retain(|session| session.is_valid(now));
        let of_key = |session: &Session| bool::from(session.key.ct_eq(&key));
        if open.iter().filter(|session| of_key(session)).count() >= MAX_PER_KEY
            && let Some(oldest) = open.iter().position(of_key)
        {
            open.remove(oldest);
        }
        if open.len() >= MAX_SESSIONS {
            let message = format!("too many sessions: at most {MAX_SESSIONS} are open at the same time");
            return Err(Failure::new(Code::Unavailable, message));
        }
        open.push(Session {
            token: Digest::of(token.as_bytes()),
            key,
            opened: now,
        });
        Ok(token)
    }

    /// The client of a session, as its key identifies it now. `None` if there is no such session, or its key was removed.
    pub fn client(&self, token: &[u8]) -> Option<Client> {
        let key = self.key(&Digest::of(token), clock::now())?;
        Some(self.keys.identify_digest(&key)).filter(Client::has_key)
    }

    /// Ends a session.
    pub fn close(&self, token: &[u8]) {
        let token = Digest::of(token);
        self.lock()
            .retain(|session| !bool::from(session.token.ct_eq(&token)));
    }

    /// The digest of the key of a session. The duration depends neither on the token nor on which session it is: the token is compared
    /// with all of them.
    fn key(&self, token: &Digest, now: Instant) -> Option<Digest> {
        let open = self.lock();
        let mut found = u32::MAX;
        for (index, session) in (0..).zip(open.iter()) {
            found.conditional_assign(&index, session.token.ct_eq(token));
        }
        let session = open.get(usize::try_from(found).ok()?)?;
        session.is_valid(now).then_some(session.key)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) < MAX_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::api_keys::tests::{ADMIN, CLIENT, keys, metrics, named, secret, with_file};
    use crate::routes::Access;

    fn sessions() -> Sessions {
        Sessions::new(keys(&format!(
            "api_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""
        )))
    }

    fn open(sessions: &Sessions, key: &str) -> String {
        sessions.open(key.as_bytes()).expect("the key is valid")
    }

    #[test]
    fn a_session_grants_what_its_key_grants() {
        let sessions = sessions();
        for (key, is_admin) in [(CLIENT, false), (ADMIN, true)] {
            let token = open(&sessions, key);
            let client = sessions.client(token.as_bytes()).expect("the session is open");
            assert!(client.check(Access::Client).is_ok());
            assert_eq!(client.check(Access::Admin).is_ok(), is_admin);
            assert!(!token.contains(key), "a token must not contain the key");
        }
    }

    #[test]
    fn an_invalid_key_opens_no_session_and_an_unknown_token_has_none() {
        let sessions = sessions();
        for key in ["", "another-key", "Bearer "] {
            let failure = sessions.open(key.as_bytes()).expect_err(key);
            assert_eq!(failure.code, Code::Unauthorized, "{key}");
        }
        let token = open(&sessions, CLIENT);
        for token in ["", CLIENT, &token[1..], &Digest::of(token.as_bytes()).to_string()] {
            assert!(sessions.client(token.as_bytes()).is_none(), "{token}");
        }
        // Even if requests require no key.
        assert!(Sessions::new(keys("")).open(b"a-key").is_err());
    }

    #[test]
    fn a_closed_session_has_ended() {
        let sessions = sessions();
        let (closed, other) = (open(&sessions, CLIENT), open(&sessions, CLIENT));
        sessions.close(closed.as_bytes());
        assert!(sessions.client(closed.as_bytes()).is_none());
        assert!(sessions.client(other.as_bytes()).is_some());
    }

    #[test]
    fn a_session_ends_after_its_maximum_age() {
        let sessions = sessions();
        let token = Digest::of(open(&sessions, CLIENT).as_bytes());
        let now = clock::now();
        assert!(
            sessions
                .key(&token, now + MAX_AGE - Duration::from_secs(60))
                .is_some()
        );
        assert!(sessions.key(&token, now + MAX_AGE).is_none());
    }

    #[test]
    fn a_key_that_is_removed_on_reload_or_has_expired_ends_its_sessions() {
        let metrics = metrics();
        let keys = with_file("[[key]]\nname = \"search\"\n", &metrics);
        let sessions = Sessions::new(keys.clone());
        let (named_token, unnamed) = (open(&sessions, &secret("search")), open(&sessions, CLIENT));
        let client = |token: &String| sessions.client(token.as_bytes());
        assert_eq!(
            client(&named_token)
                .and_then(|client| client.key_name().map(str::to_owned))
                .as_deref(),
            Some("search")
        );
        keys.replace(&named("[[key]]\nname = \"search\"\nexpires = 2001-01-01\n"));
        let expired = client(&named_token).expect("the key is known");
        assert!(expired.check(Access::Client).is_err());
        assert!(sessions.open(secret("search").as_bytes()).is_err());
        keys.replace(&[]);
        assert!(client(&named_token).is_none());
        assert!(client(&unnamed).is_some());
    }

    #[test]
    fn a_further_session_of_a_key_replaces_its_oldest_one() {
        let sessions = sessions();
        let admin = open(&sessions, ADMIN);
        let tokens: Vec<String> = (0..=MAX_PER_KEY).map(|_| open(&sessions, CLIENT)).collect();
        let is_open = |token: &String| sessions.client(token.as_bytes()).is_some();
        assert!(!is_open(&tokens[0]));
        assert!(tokens[1..].iter().chain([&admin]).all(is_open));
    }
}
