//! Connections to the database.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::store_error;
use super::migration::migrate;
use super::session::Session;
use crate::clock;
use crate::jobs::StoreError;
use crate::secret::Secret;

/// Maximum number of connections that run transactions.
const CONNECTIONS: usize = 8;

/// Maximum time that a call waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest delay between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The database, and connections to it.
pub(super) struct Pool {
    config: Config,
    tls: MakeRustlsConnect,
    /// Names the database, without credentials.
    place: String,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    backoff: Mutex<Backoff>,
    /// Whether the schema is known to be up to date.
    migrated: AtomicBool,
}

/// When to connect again after a failure.
#[derive(Default)]
struct Backoff {
    delay: Duration,
    /// Until then, calls fail with this error.
    until: Option<(Instant, StoreError)>,
}

/// A connection that is returned to the pool.
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    session: Option<Session>,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    /// Does not connect yet.
    ///
    /// # Errors
    /// The address is malformed, or the system has no trusted certificates.
    pub(super) fn new(url: &Secret) -> Result<Self, StoreError> {
        let mut config = Config::from_str(url.expose()).map_err(|error| StoreError::Misconfigured {
            place: "of PostgreSQL".to_owned(),
            reason: crate::error::Chain(&error).to_string(),
            hint: "set `store` in `[jobs]` to postgres://USER:PASSWORD@HOST/DATABASE".to_owned(),
        })?;
        let place = place(&config);
        if config.get_application_name().is_none() {
            config.application_name("inference-server");
        }
        // A standby would reject every change.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(Duration::from_secs(15));
        config.keepalives_idle(Duration::from_secs(30));
        let roots = match config.get_ssl_mode() {
            SslMode::Disable => RootCertStore::empty(),
            _ => system_roots(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Misconfigured {
                place: place.clone(),
                reason: error.to_string(),
                hint: "add `sslmode=disable` to `store` to connect without TLS".to_owned(),
            })?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
            place,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(CONNECTIONS),
            backoff: Mutex::default(),
            migrated: AtomicBool::new(false),
        })
    }

    /// Names the database, without credentials.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A connection to a database with the current schema.
    ///
    /// # Errors
    /// All connections are in use, or the database cannot be used. After a failure, it is not tried again for a while.
    pub(super) async fn get(&self) -> Result<Lent<'_>, StoreError> {
        let permit = match tokio::time::timeout(WAIT, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => return Err(StoreError::Overloaded { waiting: CONNECTIONS }),
        };
        let session = match self.idle_session() {
            Some(session) => session,
            None => self.open_session().await?,
        };
        Ok(Lent {
            pool: self,
            session: Some(session),
            _permit: permit,
        })
    }

    /// Connects, without a limit on the number of connections. The caller drives the connection.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub(super) async fn connect(&self) -> Result<(Client, DatabaseConnection), StoreError> {
        let connected =
            tokio::time::timeout(CONNECT_TIMEOUT * 2, self.config.connect(self.tls.clone())).await;
        match connected {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(store_error(&error, &self.place)),
            Err(_) => Err(StoreError::Unavailable {
                reason: format!("{} does not answer", self.place),
            }),
        }
    }

    /// Lets later calls fail. Connections in use are closed when their calls end.
    pub(super) fn close(&self) {
        self.permits.close();
        self.lock_idle().clear();
    }

    fn idle_session(&self) -> Option<Session> {
        let mut idle = self.lock_idle();
        while let Some(session) = idle.pop() {
            if !session.client.is_closed() {
                return Some(session);
            }
        }
        None
    }

    async fn open_session(&self) -> Result<Session, StoreError> {
        if let Some((until, error)) = &self.lock_backoff().until
            && clock::now() < *until
        {
            return Err(error.clone());
        }
        let opened = self.try_open_session().await;
        let mut backoff = self.lock_backoff();
        match &opened {
            Ok(_) => *backoff = Backoff::default(),
            Err(error) => backoff.failed(error.clone()),
        }
        opened
    }

    async fn try_open_session(&self) -> Result<Session, StoreError> {
        let (mut client, connection) = self.connect().await?;
        let place = self.place.clone();
        // Ends when the client is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("lost a connection to the job store {place}: {error}");
            }
        });
        if !self.migrated.load(Ordering::Acquire) {
            migrate(&mut client, &self.place).await?;
            self.migrated.store(true, Ordering::Release);
        }
        Ok(Session::new(client))
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_backoff(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection as [`Pool::connect`] returns it.
pub(super) type DatabaseConnection =
    Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Backoff {
    fn failed(&mut self, error: StoreError) {
        self.delay = next_delay(self.delay);
        self.until = Some((clock::now() + self.delay, error));
    }
}

/// The delay after a failure, given the one before it: doubled, up to a limit, and with jitter, so that servers do not reconnect
/// at the same time.
pub(super) fn next_delay(delay: Duration) -> Duration {
    let doubled = (delay * 2).clamp(BACKOFF.0, BACKOFF.1);
    doubled.mul_f64(0.75 + fastrand::f64() / 4.0)
}

impl Lent<'_> {
    pub(super) fn session(&mut self) -> Result<&mut Session, StoreError> {
        self.session.as_mut().ok_or(StoreError::Closed)
    }

    /// Closes the connection instead of returning it to the pool.
    pub(super) fn discard(&mut self) {
        self.session = None;
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !session.client.is_closed()
            && !self.pool.permits.is_closed()
        {
            self.pool.lock_idle().push(session);
        }
    }
}

fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Without any, connections with TLS fail, and those without it still work.
    roots.add_parsable_certificates(loaded.certs);
    roots
}

/// Hosts and name of a database.
fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(position, host)| {
        let ports = config.get_ports();
        let port = ports.get(position).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            Host::Unix(directory) => format!("{}:{port}", directory.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{}/{database}", hosts.join(","))
}
