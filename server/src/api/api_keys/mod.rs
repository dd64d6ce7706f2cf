//! API keys: which client sent a request, and which access its key grants.
//!
//! Keys come from the configuration (`api_keys`, `admin_key`), without names, and from the file `api_keys_file`, with names,
//! permissions and limits. The file is read again on a reload. All of them are compared by their digests.

mod client;
mod named_key;
mod permissions;
mod rate_limit;
mod sessions;

use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

pub use client::{Client, Rights};
use client::{Identity, KeyKind, Requirements};
use named_key::NamedKey;
pub use sessions::{MAX_AGE as SESSION_MAX_AGE, Sessions};

use crate::config::{KeySettings, ServerSettings};
use crate::digest::Digest;
use crate::metrics::{KeyMetrics, Metrics};

/// The keys of the server. Clones share them. Clients send one as `authorization: Bearer KEY` or, as clients of Azure do, as
/// `api-key: KEY`.
#[derive(Clone)]
pub struct ApiKeys(Arc<Shared>);

struct Shared {
    /// Read without a lock by the event loop.
    current: ArcSwap<KeySet>,
    requirements: Requirements,
    /// Whether there is a file of named keys.
    has_file: bool,
    unnamed: Vec<(Digest, KeyKind)>,
    metrics: KeyMetrics,
}

impl ApiKeys {
    /// Creates the keys of a configuration. Without client keys, only administrative requests require a key. Without a key for
    /// administration, administrative requests are disabled.
    ///
    /// # Errors
    /// The metrics are already registered.
    pub fn new(
        server: &ServerSettings,
        named: &[KeySettings],
        metrics: &Metrics,
    ) -> Result<Self, prometheus::Error> {
        let of_kind = |kind| move |key: &crate::secret::Secret| (Digest::of(key.expose().as_bytes()), kind);
        let clients = server.api_keys.iter().map(of_kind(KeyKind::Client));
        let admin = server.admin_key.iter().map(of_kind(KeyKind::Admin));
        let has_file = server.api_keys_file.is_some();
        let shared = Shared {
            requirements: Requirements {
                client_key: !server.api_keys.is_empty() || has_file,
                has_admin: server.admin_key.is_some() || has_file,
            },
            has_file,
            unnamed: clients.chain(admin).collect(),
            current: ArcSwap::default(),
            metrics: KeyMetrics::new(metrics)?,
        };
        let keys = Self(Arc::new(shared));
        keys.replace(named);
        Ok(keys)
    }

    /// Replaces the named keys. The state of a limit is kept if the limit of the key has not changed. Called by one thread.
    pub fn replace(&self, named: &[KeySettings]) {
        let shared = &self.0;
        let old = shared.current.load_full();
        let keys = named.iter().map(|settings| {
            let previous = old.named(&settings.name);
            Arc::new(NamedKey::new(settings, previous, &shared.metrics))
        });
        let named = keys.map(|key| (key.hash(), Holder::Named(key)));
        let unnamed = shared.unnamed.iter().copied();
        let unnamed = unnamed.map(|(hash, kind)| (hash, Holder::Unnamed(kind)));
        let new = KeySet(unnamed.chain(named).collect());
        for removed in old.all_named().filter(|key| new.named(key.name()).is_none()) {
            shared.metrics.remove(removed.name());
        }
        shared.current.store(Arc::new(new));
    }

    /// Whether clients must send a key.
    pub fn requires_client_key(&self) -> bool {
        self.0.requirements.client_key
    }

    /// Whether a key for administration can exist.
    pub fn has_admin_key(&self) -> bool {
        self.0.requirements.has_admin
    }

    /// Whether keys can have names, and with them permissions and limits.
    pub fn has_named_keys(&self) -> bool {
        self.0.has_file
    }

    /// Identifies the client of a request by the values of its headers `authorization`, which takes precedence, and `api-key`.
    pub fn identify(&self, authorization: Option<&[u8]>, api_key: Option<&[u8]>) -> Client {
        let api_key = || api_key.map(<[u8]>::trim_ascii);
        match authorization.and_then(bearer_token).or_else(api_key) {
            None => Client::new(self.0.requirements, Identity::Missing),
            Some(key) => self.identify_digest(&Digest::of(key)),
        }
    }

    /// Identifies the client whose key has this digest.
    pub fn identify_digest(&self, key: &Digest) -> Client {
        let identity = match self.0.current.load().find(key) {
            None => Identity::Invalid,
            Some(Holder::Unnamed(kind)) => Identity::Unnamed(*kind, *key),
            Some(Holder::Named(key)) => Identity::named(key.clone()),
        };
        Client::new(self.0.requirements, identity)
    }

    /// Warns about keys that expire soon or have expired, once for each.
    pub fn warn_of_expiry(&self, unix_seconds: u64) {
        for key in self.0.current.load().all_named() {
            key.warn_of_expiry(unix_seconds);
        }
    }
}

/// All keys, by their digests.
#[derive(Default)]
struct KeySet(Vec<(Digest, Holder)>);

/// Who holds a key.
enum Holder {
    Unnamed(KeyKind),
    Named(Arc<NamedKey>),
}

impl KeySet {
    /// Finds a key by its digest. The duration depends neither on the digest nor on which key it is: the digest is compared
    /// with all of them.
    fn find(&self, digest: &Digest) -> Option<&Holder> {
        let mut found = u32::MAX;
        for (index, (hash, _)) in (0..).zip(&self.0) {
            found.conditional_assign(&index, hash.ct_eq(digest));
        }
        let (_, holder) = self.0.get(usize::try_from(found).ok()?)?;
        Some(holder)
    }

    fn all_named(&self) -> impl Iterator<Item = &Arc<NamedKey>> {
        self.0.iter().filter_map(|(_, holder)| match holder {
            Holder::Named(key) => Some(key),
            Holder::Unnamed(_) => None,
        })
    }

    fn named(&self, name: &str) -> Option<&NamedKey> {
        self.all_named().find(|key| key.name() == name).map(Arc::as_ref)
    }
}

/// Returns `KEY` from `Bearer KEY`.
fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
