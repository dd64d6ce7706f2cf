//! What happens to jobs as time passes.

use super::Writing;
use crate::jobs::sqlite::rows;
use crate::jobs::transition::Event;
use crate::jobs::{StoreError, Swept};

/// Maximum number of jobs of each kind in one transaction.
const BATCH: u32 = 500;

/// Maximum number of pages that one transaction returns to the disk.
const PAGES: i64 = 2000;

/// A part of a sweep.
#[derive(Default)]
pub(in crate::jobs::sqlite) struct SweptPart {
    pub(in crate::jobs::sqlite) swept: Swept,
    /// Whether there may be more to do.
    pub(in crate::jobs::sqlite) unfinished: bool,
}

impl Writing<'_> {
    /// Ends the claims of the process that used the file before.
    pub(in crate::jobs::sqlite) fn recover(&mut self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let claimed = rows::jobs_where(self.connection, self.path, "lease_until IS NOT NULL", [])?;
        for mut job in claimed {
            swept.count(self.change(&mut job, Event::HolderLost)?);
        }
        Ok(swept)
    }

    pub(in crate::jobs::sqlite) fn sweep(&mut self) -> Result<SweptPart, StoreError> {
        let now = self.now.to_stored();
        let mut swept = Swept::default();
        let mut unfinished = false;
        for condition in [
            "lease_until <= ?1 LIMIT ?2",
            "state = 'queued' AND expires_at <= ?1 LIMIT ?2",
        ] {
            let jobs = rows::jobs_where(self.connection, self.path, condition, (now, BATCH))?;
            unfinished |= jobs.len() == BATCH as usize;
            for mut job in jobs {
                swept.count(self.change(&mut job, Event::Tick)?);
            }
        }
        let sql = "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE retained_since <= ?1 AND webhook_due_at IS NULL \
                   LIMIT ?2)";
        let until = self.now.minus(self.limits.retention).to_stored();
        let statement = self.connection.prepare_cached(sql);
        let removed = statement.and_then(|mut statement| statement.execute((until, BATCH)));
        swept.removed = removed.map_err(|error| self.error(&error))? as u64;
        unfinished |= swept.removed == u64::from(BATCH);
        self.return_space()?;
        Ok(SweptPart { swept, unfinished })
    }

    /// Shrinks the file if a quarter of it is free.
    fn return_space(&self) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| self.error(&error);
        let sql = "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let (free, pages): (i64, i64) = statement
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed)?;
        if free > PAGES && free > pages / 4 {
            // Each step frees one page.
            let mut vacuum = self
                .connection
                .prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))
                .map_err(failed)?;
            let mut steps = vacuum.query([]).map_err(failed)?;
            while steps.next().map_err(failed)?.is_some() {}
        }
        Ok(())
    }
}
