//! Claims of jobs and of deliveries. Rows that another server has locked are skipped.

use std::collections::HashMap;
use std::time::Duration;

use super::Writing;
use crate::jobs::postgres::errors::{corrupt, store_error};
use crate::jobs::postgres::rows;
use crate::jobs::stored::{FollowUp, StoredJob};
use crate::jobs::transition::Event;
use crate::jobs::{
    Claim, ClaimedJob, Delivery, DeliveryReport, Fence, JobId, JobState, ModelRoom, StoreError,
    StoredRequest, Verdict,
};

/// Maximum number of jobs of a model that one call claims.
const MAX_CLAIMS: u32 = 256;

impl Writing<'_> {
    pub(in crate::jobs::postgres) async fn claim(
        &mut self,
        claim: &Claim,
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let now = self.now.to_stored();
        let sql = "UPDATE inference_server.jobs SET due_at = NULL WHERE seq IN \
                   (SELECT seq FROM inference_server.jobs WHERE due_at <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)";
        self.statements().execute(sql, &[&now]).await?;
        let mut claimed: Vec<StoredJob> = Vec::new();
        let mut bytes = claim.max_bytes;
        for room in &claim.room {
            claimed.extend(
                self.claim_of_model(room, claim, claimed.is_empty(), &mut bytes)
                    .await?,
            );
        }
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let seqs: Vec<i64> = claimed.iter().map(|job| job.seq).collect();
        let sql = "UPDATE inference_server.jobs SET worker = $2 WHERE seq = ANY($1)";
        self.statements()
            .execute(sql, &[&seqs, &claim.worker.as_str()])
            .await?;
        let mut requests = self.requests(&seqs).await?;
        let place = self.open.place().to_owned();
        let claimed = claimed.into_iter().map(|job| {
            let request = requests.remove(&job.seq);
            Ok(ClaimedJob {
                record: job.record(),
                request: request
                    .ok_or_else(|| corrupt(&place, format!("the request of job {} is missing", job.id)))?,
                fence: job.lifecycle.fence,
            })
        });
        claimed.collect()
    }

    /// Claims jobs of one model. `first`: a job is claimed even if it has more bytes than are left.
    async fn claim_of_model(
        &mut self,
        room: &ModelRoom,
        claim: &Claim,
        mut first: bool,
        bytes: &mut u64,
    ) -> Result<Vec<StoredJob>, StoreError> {
        let limit = i64::from(room.items.min(MAX_CLAIMS));
        let sizes = "SELECT seq, request_bytes FROM inference_server.jobs WHERE model = $1 AND state = 'queued' \
                     AND lease_until IS NULL AND due_at IS NULL ORDER BY priority, seq LIMIT $2 FOR UPDATE SKIP LOCKED";
        let mut statements = self.open.statements();
        let rows = statements.query(sizes, &[&room.model, &limit]).await?;
        let sizes: HashMap<i64, u64> = rows
            .iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()))
            .collect();
        let seqs: Vec<i64> = sizes.keys().copied().collect();
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let candidates = statements
            .jobs_where("seq = ANY($1) ORDER BY priority, seq", &[&seqs])
            .await?;
        let mut items = 0_u32;
        let mut taken = Vec::new();
        for job in candidates {
            let size = sizes.get(&job.seq).copied().unwrap_or_default();
            if items >= room.items || !first && size > *bytes {
                break;
            }
            items = items.saturating_add(job.items.max(1));
            *bytes = bytes.saturating_sub(size);
            first = false;
            taken.push(job);
        }
        let event = Event::Claim { lease: claim.lease };
        let verdicts = self
            .change_all(&mut taken, |job, now| job.apply(event, now))
            .await?;
        let claimed = taken.into_iter().zip(verdicts);
        let claimed = claimed.filter(|(_, verdict)| *verdict == Verdict::Applied(JobState::Queued));
        Ok(claimed.map(|(job, _)| job).collect())
    }

    pub(in crate::jobs::postgres) async fn renew(
        &mut self,
        claims: &[(JobId, Fence)],
        lease: Duration,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut lost = Vec::new();
        // In one order, so that servers do not wait for each other in a circle.
        let mut sorted = claims.to_vec();
        sorted.sort_unstable();
        for (id, fence) in sorted {
            let verdict = self.apply(id, Event::Renew { fence, lease }).await?;
            if let Verdict::Rejected(_) = verdict {
                lost.push((id, fence));
            }
        }
        // In the order of the claims.
        let lost = claims.iter().filter(|claim| lost.contains(claim));
        Ok(lost.map(|(id, _)| *id).collect())
    }

    pub(in crate::jobs::postgres) async fn claim_deliveries(
        &mut self,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Delivery>, StoreError> {
        let now = self.now;
        let condition = "webhook_due_at <= $1 ORDER BY webhook_due_at LIMIT $2 FOR UPDATE SKIP LOCKED";
        let params = &[&now.to_stored() as _, &i64::from(limit) as _];
        let mut due = self.statements().jobs_where(condition, params).await?;
        for job in &mut due {
            job.claim_delivery(lease, now);
        }
        let claimed: Vec<_> = due.iter().map(|job| (job, FollowUp::default())).collect();
        self.save(&claimed).await?;
        Ok(due.iter().filter_map(|job| job.delivery(now)).collect())
    }

    pub(in crate::jobs::postgres) async fn record_delivery(
        &mut self,
        id: JobId,
        fence: Fence,
        report: DeliveryReport,
    ) -> Result<(), StoreError> {
        if let Some(mut job) = self.locked(id).await?
            && job.record_delivery(fence, report, self.now)
        {
            self.save(&[(&job, FollowUp::default())]).await?;
        }
        Ok(())
    }

    async fn requests(&mut self, seqs: &[i64]) -> Result<HashMap<i64, StoredRequest>, StoreError> {
        let sql = format!(
            "SELECT {} FROM inference_server.requests WHERE seq = ANY($1)",
            rows::REQUEST
        );
        let rows = self.statements().query(&sql, &[&seqs]).await?;
        let requests: Result<_, _> = rows.iter().map(rows::request).collect();
        requests.map_err(|error| store_error(&error, self.open.place()))
    }
}
