//! What happens to jobs as time passes. Rows that another server has locked are skipped: that server is changing them.

use super::Writing;
use crate::jobs::transition::Event;
use crate::jobs::{StoreError, Swept};

/// Maximum number of jobs of each kind in one transaction.
const BATCH: i64 = 500;

/// A part of a sweep.
pub(in crate::jobs::postgres) struct SweptPart {
    pub(in crate::jobs::postgres) swept: Swept,
    /// Whether there may be more to do.
    pub(in crate::jobs::postgres) unfinished: bool,
}

impl Writing<'_> {
    pub(in crate::jobs::postgres) async fn sweep(&mut self) -> Result<SweptPart, StoreError> {
        let now = self.now.to_stored();
        let mut swept = Swept::default();
        let mut unfinished = false;
        for condition in [
            "lease_until <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED",
            "state = 'queued' AND expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED",
        ] {
            let mut jobs = self.statements().jobs_where(condition, &[&now, &BATCH]).await?;
            unfinished |= jobs.len() as i64 == BATCH;
            let verdicts = self.change_all(&mut jobs, |job, now| job.apply(Event::Tick, now));
            for verdict in verdicts.await? {
                swept.count(verdict);
            }
        }
        let sql = "DELETE FROM inference_server.jobs WHERE seq IN (SELECT seq FROM inference_server.jobs \
                   WHERE retained_since <= $1 AND webhook_due_at IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let until = self.now.minus(self.limits.retention).to_stored();
        swept.removed = self.statements().execute(sql, &[&until, &BATCH]).await?;
        unfinished |= swept.removed == BATCH.unsigned_abs();
        Ok(SweptPart { swept, unfinished })
    }
}
