//! Claims of jobs and of deliveries.

use std::time::Duration;

use super::Writing;
use crate::jobs::sqlite::errors::corrupt;
use crate::jobs::sqlite::rows;
use crate::jobs::stored::StoredJob;
use crate::jobs::transition::Event;
use crate::jobs::{Claim, ClaimedJob, Delivery, DeliveryReport, Fence, JobId, JobState, StoreError, Verdict};

/// Maximum number of jobs of a model that one call claims.
const MAX_CLAIMS: u32 = 256;

impl Writing<'_> {
    pub(in crate::jobs::sqlite) fn claim(&mut self, claim: &Claim) -> Result<Vec<ClaimedJob>, StoreError> {
        let now = self.now.to_stored();
        self.execute("UPDATE jobs SET due_at = NULL WHERE due_at <= ?1", [now])?;
        let mut claimed = Vec::new();
        let mut bytes = 0;
        for room in &claim.room {
            let condition = "model = ?1 AND state = 'queued' AND lease_until IS NULL AND due_at IS NULL \
                             ORDER BY priority, seq LIMIT ?2";
            let limit = room.items.min(MAX_CLAIMS);
            let candidates = rows::jobs_where(self.connection, self.path, condition, (&room.model, limit))?;
            let mut items = 0;
            for mut job in candidates {
                if items >= room.items {
                    break;
                }
                let size = self.request_bytes(job.seq)?;
                if !claimed.is_empty() && bytes + size > claim.max_bytes {
                    return Ok(claimed);
                }
                let verdict = self.change(&mut job, Event::Claim { lease: claim.lease })?;
                if verdict != Verdict::Applied(JobState::Queued) {
                    continue;
                }
                self.execute(
                    "UPDATE jobs SET worker = ?2 WHERE seq = ?1",
                    (job.seq, claim.worker.as_str()),
                )?;
                bytes += size;
                items = items.saturating_add(job.items.max(1));
                claimed.push(self.claimed(&job)?);
            }
        }
        Ok(claimed)
    }

    pub(in crate::jobs::sqlite) fn renew(
        &mut self,
        claims: &[(JobId, Fence)],
        lease: Duration,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut lost = Vec::new();
        for (id, fence) in claims {
            let event = Event::Renew { fence: *fence, lease };
            if let Verdict::Rejected(_) = self.apply(*id, event)? {
                lost.push(*id);
            }
        }
        Ok(lost)
    }

    pub(in crate::jobs::sqlite) fn claim_deliveries(
        &mut self,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Delivery>, StoreError> {
        let condition = "webhook_due_at <= ?1 ORDER BY webhook_due_at LIMIT ?2";
        let due = rows::jobs_where(
            self.connection,
            self.path,
            condition,
            (self.now.to_stored(), limit),
        )?;
        let mut deliveries = Vec::new();
        for mut job in due {
            job.claim_delivery(lease, self.now);
            self.save(&job)?;
            deliveries.extend(job.delivery(self.now));
        }
        Ok(deliveries)
    }

    pub(in crate::jobs::sqlite) fn record_delivery(
        &mut self,
        id: JobId,
        fence: Fence,
        report: DeliveryReport,
    ) -> Result<(), StoreError> {
        if let Some(mut job) = self.job(id)?
            && job.record_delivery(fence, report, self.now)
        {
            self.save(&job)?;
        }
        Ok(())
    }

    fn request_bytes(&self, seq: i64) -> Result<u64, StoreError> {
        let sql = "SELECT request_bytes FROM jobs WHERE seq = ?1";
        let statement = self.connection.prepare_cached(sql);
        let bytes =
            statement.and_then(|mut statement| statement.query_row([seq], |row| row.get::<_, i64>(0)));
        Ok(bytes.map_err(|error| self.error(&error))?.unsigned_abs())
    }

    fn claimed(&self, job: &StoredJob) -> Result<ClaimedJob, StoreError> {
        let request = rows::request(self.connection, self.path, job.seq)?;
        Ok(ClaimedJob {
            record: job.record(),
            request: request
                .ok_or_else(|| corrupt(self.path, format!("the request of job {} is missing", job.id)))?,
            fence: job.lifecycle.fence,
        })
    }
}
