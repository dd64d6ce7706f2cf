//! Opens the configured store.

use std::sync::Arc;

#[cfg(feature = "jobs")]
use super::StoreClock;
#[cfg(feature = "jobs")]
use super::postgres::PostgresStore;
#[cfg(feature = "jobs")]
use super::sqlite::SqliteStore;
use super::{JobStore, StoreError, StoreLimits};
use crate::config::JobStoreSetting;

/// Opens the store.
#[cfg(feature = "jobs")]
pub(super) async fn open(
    setting: &JobStoreSetting,
    limits: StoreLimits,
) -> Result<Arc<dyn JobStore>, StoreError> {
    match setting {
        JobStoreSetting::Sqlite(path) => {
            let store = SqliteStore::open(path, limits, StoreClock::default()).await?;
            Ok(Arc::new(store))
        }
        JobStoreSetting::Postgres(url) => {
            let store = PostgresStore::open(url, limits, StoreClock::default()).await?;
            Ok(Arc::new(store))
        }
    }
}

/// Opens no store: this build omits them.
#[cfg(not(feature = "jobs"))]
pub(super) async fn open(_: &JobStoreSetting, _: StoreLimits) -> Result<Arc<dyn JobStore>, StoreError> {
    Err(StoreError::Misconfigured {
        place: "of this server".to_owned(),
        reason: "this build of the server omits the feature `jobs`".to_owned(),
        hint: "use a build with the feature `jobs`, or set `enabled = false` in `[jobs]`".to_owned(),
    })
}
