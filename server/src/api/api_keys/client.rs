//! The client of one request, as its key identifies it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::named_key::{NamedKey, model};
use super::rate_limit::{LIMIT_FIELD, POLICY_FIELD, Remaining, Unit};
use crate::api::failure::{Code, Failure};
use crate::clock;
use crate::digest::Digest;
use crate::metrics::KeyOutcome;
use crate::routes::Access;

/// The client of a request. Clones stand for the same request. The request of a named key is counted when the last of them is
/// dropped.
///
/// The default is a client without a key, of a server that requires one.
#[derive(Clone, Default)]
pub struct Client {
    requirements: Requirements,
    identity: Identity,
}

/// What a client may see. Clients with equal rights see the same models and reasons.
#[derive(Clone)]
pub struct Rights {
    is_admin: bool,
    /// The key, if it has permissions. A reload replaces the keys, because their permissions can have changed.
    key: Option<Arc<NamedKey>>,
}

impl PartialEq for Rights {
    fn eq(&self, other: &Self) -> bool {
        let same_key = match (&self.key, &other.key) {
            (Some(key), Some(other)) => Arc::ptr_eq(key, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.is_admin == other.is_admin && same_key
    }
}

/// Which keys the server requires.
#[derive(Clone, Copy)]
pub(super) struct Requirements {
    /// Whether clients must send a key.
    pub(super) client_key: bool,
    /// Whether a key for administration can exist.
    pub(super) has_admin: bool,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            client_key: true,
            has_admin: false,
        }
    }
}

/// What a key without a name allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Client,
    Admin,
}

#[derive(Clone, Default)]
pub(super) enum Identity {
    /// The request has no key.
    #[default]
    Missing,
    /// Its key is not one of the server's.
    Invalid,
    /// A key of the configuration, and its digest.
    Unnamed(KeyKind, Digest),
    /// A key of the file of named keys.
    Named(Arc<Request>),
}

impl Identity {
    pub(super) fn named(key: Arc<NamedKey>) -> Self {
        Self::Named(Arc::new(Request {
            key,
            outcome: AtomicU8::new(NOT_COUNTED),
            requests: AtomicU64::new(NOTHING_TAKEN),
            items: AtomicU64::new(NOTHING_TAKEN),
        }))
    }
}

/// The request of a named key.
pub(super) struct Request {
    key: Arc<NamedKey>,
    /// A [`KeyOutcome`], or `NOT_COUNTED`.
    outcome: AtomicU8,
    /// What was left of each limit after this request, or `NOTHING_TAKEN`.
    requests: AtomicU64,
    items: AtomicU64,
}

/// The outcome of a request to a route that requires no key.
const NOT_COUNTED: u8 = u8::MAX;

/// The state of a limit that this request has not counted for.
const NOTHING_TAKEN: u64 = u64::MAX;

impl Request {
    fn set_outcome(&self, outcome: KeyOutcome) {
        self.outcome.store(outcome as u8, Ordering::Relaxed);
    }

    fn outcome(&self) -> Option<KeyOutcome> {
        let number = self.outcome.load(Ordering::Relaxed);
        KeyOutcome::ALL
            .into_iter()
            .find(|outcome| *outcome as u8 == number)
    }

    fn remaining(&self, unit: Unit) -> &AtomicU64 {
        match unit {
            Unit::Requests => &self.requests,
            Unit::Items => &self.items,
        }
    }

    fn take(&self, unit: Unit, count: NonZeroU32) -> Result<(), Failure> {
        let (remaining, result) = match self.key.take(unit, count) {
            Ok(remaining) => (remaining, Ok(())),
            Err((failure, remaining)) => {
                if failure.code == Code::RateLimited {
                    self.set_outcome(KeyOutcome::RateLimited);
                }
                (remaining, Err(failure))
            }
        };
        if let Some(Remaining { count, seconds }) = remaining {
            let word = (u64::from(count) << 32) | u64::from(seconds);
            self.remaining(unit).store(word, Ordering::Relaxed);
        }
        result
    }

    fn taken(&self, unit: Unit) -> Option<Remaining> {
        let word = self.remaining(unit).load(Ordering::Relaxed);
        (word != NOTHING_TAKEN).then_some(Remaining {
            count: (word >> 32) as u32,
            seconds: word as u32,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome() {
            self.key.counters().count(outcome);
        }
    }
}

impl Client {
    pub(super) fn new(requirements: Requirements, identity: Identity) -> Self {
        Self {
            requirements,
            identity,
        }
    }

    fn named(&self) -> Option<&Request> {
        match &self.identity {
            Identity::Named(request) => Some(request),
            Identity::Missing | Identity::Invalid | Identity::Unnamed(..) => None,
        }
    }

    /// Whether it has a key of the server, which may have expired.
    pub fn has_key(&self) -> bool {
        matches!(self.identity, Identity::Unnamed(..) | Identity::Named(_))
    }

    /// The name of its key, if it has one.
    pub fn key_name(&self) -> Option<&str> {
        self.named().map(|request| request.key.name())
    }

    /// Identifies the holder of its key, to compare with other requests: the name of the key, or a digest from which the key
    /// cannot be found. `None` if the server requires no key.
    pub fn holder(&self) -> Option<String> {
        if !self.requirements.client_key {
            return None;
        }
        match &self.identity {
            Identity::Missing | Identity::Invalid => None,
            Identity::Named(request) => Some(format!("name {}", request.key.name())),
            Identity::Unnamed(_, digest) => {
                // The digest of a key identifies it, so another one is derived.
                let derived = Digest::of(format!("holder {digest}").as_bytes());
                Some(format!("key {derived}"))
            }
        }
    }

    /// Whether its key allows administration.
    pub fn is_admin(&self) -> bool {
        match &self.identity {
            Identity::Unnamed(kind, _) => *kind == KeyKind::Admin,
            Identity::Named(request) => {
                request.key.is_admin() && request.key.check_expiry(clock::unix_seconds()).is_ok()
            }
            Identity::Missing | Identity::Invalid => false,
        }
    }

    /// What it may see.
    pub fn rights(&self) -> Rights {
        let named = self.named().map(|request| &request.key);
        Rights {
            is_admin: self.is_admin(),
            key: named.filter(|key| key.permissions().is_some()).cloned(),
        }
    }

    /// Checks its key against the access that a route requires.
    ///
    /// # Errors
    /// `Unauthorized` if it has no valid key; `Forbidden` if it has a client key but administration is required, or if no key
    /// for administration is configured.
    pub fn check(&self, access: Access) -> Result<(), Failure> {
        match access {
            Access::Open => Ok(()),
            Access::Client if !self.requirements.client_key => Ok(()),
            Access::Client => self.check_client(),
            Access::Admin => self.check_admin(),
        }
    }

    /// Checks that its key is valid, even if none is required. Unlike [`check`](Self::check), it does not count the request.
    ///
    /// # Errors
    /// `Unauthorized` if it has no valid key.
    pub fn check_key(&self) -> Result<(), Failure> {
        let unauthorized = |message: &str| Err(Failure::new(Code::Unauthorized, message));
        match &self.identity {
            Identity::Missing => {
                unauthorized("missing API key: expected the header `authorization: Bearer KEY`")
            }
            Identity::Invalid => unauthorized("invalid API key"),
            Identity::Unnamed(..) => Ok(()),
            Identity::Named(request) => request.key.check_expiry(clock::unix_seconds()),
        }
    }

    /// Whether it may read what clients may read. Does not count the request.
    pub fn may_read(&self) -> bool {
        !self.requirements.client_key || self.check_key().is_ok()
    }

    fn check_client(&self) -> Result<(), Failure> {
        let valid = self.check_key();
        if let Some(request) = self.named() {
            // A request that is dropped before its reply has failed.
            request.set_outcome(match valid {
                Ok(()) => KeyOutcome::Error,
                Err(_) => KeyOutcome::Expired,
            });
        }
        valid
    }

    fn check_admin(&self) -> Result<(), Failure> {
        let forbidden = |message: &str| {
            if let Some(request) = self.named() {
                request.set_outcome(KeyOutcome::Forbidden);
            }
            Err(Failure::new(Code::Forbidden, message))
        };
        self.check(Access::Client)?;
        if !self.requirements.has_admin {
            return forbidden(
                "loading and unloading models is disabled; set `admin_key` in [server] to enable it",
            );
        }
        self.check_client()?;
        match self.is_admin() {
            true => Ok(()),
            false => forbidden("loading and unloading models requires the admin key, got a client key"),
        }
    }

    /// Checks that it may know whether there is a model of this name, which can be `model` or `model.task`.
    ///
    /// # Errors
    /// `Forbidden` if no model that it may use can have the name.
    pub fn check_name(&self, name: &str) -> Result<(), Failure> {
        self.check_permission(|key| {
            let permissions = key.permissions()?;
            (!permissions.may_name(name)).then(|| key.forbidden(permissions, &model(name)))
        })
    }

    /// Checks that it may use at least one task of a model.
    ///
    /// # Errors
    /// `Forbidden` if it may not.
    pub fn check_model(&self, name: &str) -> Result<(), Failure> {
        self.check_permission(|key| {
            let permissions = key.permissions()?;
            (!permissions.allows_model(name)).then(|| key.forbidden(permissions, &model(name)))
        })
    }

    /// Checks that it may use a task.
    ///
    /// # Errors
    /// `Forbidden` if it may not.
    pub fn check_task(&self, model_name: &str, task: &str) -> Result<(), Failure> {
        self.check_permission(|key| {
            let permissions = key.permissions()?;
            let what = || format!("task `{task}` of {}", model(model_name));
            (!permissions.allows_task(model_name, task)).then(|| key.forbidden(permissions, &what()))
        })
    }

    fn check_permission(&self, violation: impl FnOnce(&NamedKey) -> Option<Failure>) -> Result<(), Failure> {
        let Some(request) = self.named() else {
            return Ok(());
        };
        match violation(&request.key) {
            None => Ok(()),
            Some(failure) => {
                request.set_outcome(KeyOutcome::Forbidden);
                Err(failure)
            }
        }
    }

    /// Whether it may use at least one task of a model, for lists of models.
    pub fn sees_model(&self, name: &str) -> bool {
        let permissions = self.named().and_then(|request| request.key.permissions());
        permissions.is_none_or(|permissions| permissions.allows_model(name))
    }

    /// Whether a model that it may use can have this name, which can be `model` or `model.task`, for lists of names.
    pub fn sees_name(&self, name: &str) -> bool {
        let permissions = self.named().and_then(|request| request.key.permissions());
        permissions.is_none_or(|permissions| permissions.may_name(name))
    }

    /// Whether it may use a task, for lists of tasks.
    pub fn sees_task(&self, model: &str, task: &str) -> bool {
        let permissions = self.named().and_then(|request| request.key.permissions());
        permissions.is_none_or(|permissions| permissions.allows_task(model, task))
    }

    /// Counts a request that runs a task, before its body is received.
    ///
    /// # Errors
    /// `RateLimited` if the key allows no further request now.
    pub fn admit_request(&self) -> Result<(), Failure> {
        match self.named() {
            Some(request) => request.take(Unit::Requests, NonZeroU32::MIN),
            None => Ok(()),
        }
    }

    /// Counts the items of a request.
    ///
    /// # Errors
    /// `RateLimited` if the key does not allow that many items now; `Malformed` if it never allows them.
    pub fn admit_items(&self, count: usize) -> Result<(), Failure> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match (self.named(), NonZeroU32::new(count)) {
            (Some(request), Some(count)) => request.take(Unit::Items, count),
            _ => Ok(()),
        }
    }

    /// Records whether the request was answered without an error.
    pub fn finish(&self, succeeded: bool) {
        // Requests to routes that require no key are not counted.
        if let Some(request) = self.named()
            && succeeded
            && request.outcome().is_some()
        {
            request.set_outcome(KeyOutcome::Success);
        }
    }

    /// The header fields `RateLimit-Policy` and `RateLimit`, with their names in lower case. Empty if the request has not
    /// counted for a limit.
    pub fn rate_limit_fields(&self) -> Vec<(&'static str, String)> {
        const UNITS: [Unit; 2] = [Unit::Requests, Unit::Items];
        let Some(request) = self.named() else {
            return Vec::new();
        };
        let taken = |unit: Unit| Some(request.taken(unit)?.field(unit));
        let taken: Vec<String> = UNITS.into_iter().filter_map(taken).collect();
        if taken.is_empty() {
            return Vec::new();
        }
        let limits = UNITS.into_iter().filter_map(|unit| request.key.limit(unit));
        let policies: Vec<String> = limits.map(|limit| limit.policy()).collect();
        vec![
            (POLICY_FIELD, policies.join(", ")),
            (LIMIT_FIELD, taken.join(", ")),
        ]
    }
}
