//! The stream of events of a page with jobs.
//!
//! The store is asked only for the jobs on the page, and only if one of them runs or any job has changed, so that a page costs
//! little however many jobs there are.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use maud::html;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::can_predict;
use super::cells::Cells;
use super::events::{Encoder, Events, Visitor, respond_with};
use super::job_cells::Shown;
use super::job_list::{Choice, JOBS};
use super::views::SentCell;
use crate::api::{Code, Failure};
use crate::clock;
use crate::http::jobs::handlers::{store, viewer};
use crate::http::jobs::of_store;
use crate::http::respond;
use crate::http::server::Shared;
use crate::jobs::{JobChange, JobFilter, JobId, JobRecord, JobState, JobStore, Timestamp, Viewer};

/// Interval at which the jobs are read even if no change of theirs was reported, such as after their retention, in seconds.
const REREAD_INTERVAL: u64 = 10;

/// The jobs of the page.
#[derive(Deserialize)]
pub(super) struct Listed {
    /// Their ids, separated by commas.
    ids: String,
}

/// `GET /ui/jobs/events`
pub(super) async fn stream(
    request: HttpRequest,
    shared: Data<Shared>,
    choice: Query<Choice>,
    listed: Query<Listed>,
) -> HttpResponse {
    match JobStream::open(&request, &shared, &choice, &listed.ids).await {
        Ok(events) => respond_with(events),
        Err(failure) => respond::failure(&request, &failure),
    }
}

struct JobStream {
    visitor: Visitor,
    encoder: Encoder,
    store: Arc<dyn JobStore>,
    changes: Receiver<JobChange>,
    jobs: FollowedJobs,
    has_results: bool,
    /// Of the last event.
    unix_seconds: Option<u64>,
}

/// The jobs of the page as they were read last.
struct FollowedJobs {
    ids: Vec<JobId>,
    found: HashMap<JobId, JobRecord>,
    /// Which further jobs would be on the page. `None` if it does not show the newest.
    filter: Option<JobFilter>,
    has_newer: bool,
}

impl JobStream {
    async fn open(
        request: &HttpRequest,
        shared: &Data<Shared>,
        choice: &Choice,
        ids: &str,
    ) -> Result<Self, Failure> {
        let ids = parse_ids(ids)?;
        let filter = choice.filter()?;
        let unavailable = || Failure::new(Code::NotFound, "this server has no jobs");
        let store = store(shared).await?.ok_or_else(unavailable)?;
        Ok(Self {
            visitor: Visitor::new(request, shared)?,
            encoder: Encoder::new(None),
            changes: store.changes(),
            store,
            jobs: FollowedJobs {
                ids,
                found: HashMap::new(),
                filter: choice.is_first_page().then_some(filter),
                has_newer: false,
            },
            has_results: can_predict(request),
            unix_seconds: None,
        })
    }
}

impl Events for JobStream {
    async fn next(&mut self) -> Option<String> {
        let is_first = self.unix_seconds.is_none();
        let unix_seconds = match is_first {
            true => clock::unix_seconds(),
            false => self.visitor.page.frames.next().await?.unix_seconds,
        };
        self.unix_seconds = Some(unix_seconds);
        let client = self.visitor.client()?;
        let has_changed = has_changed(&mut self.changes);
        let is_due = unix_seconds.is_multiple_of(REREAD_INTERVAL);
        if !(is_first || has_changed || is_due || self.jobs.are_running()) {
            return Some(self.encoder.event(unix_seconds, 0, None, &[]));
        }
        let mut cells = Cells::default();
        match self.jobs.read(&*self.store, &viewer(&client)).await {
            Ok(()) => {
                let shown = Shown {
                    now: Timestamp::from_millis(unix_seconds * 1000),
                    has_results: self.has_results,
                };
                self.jobs.add_cells(&mut cells, &shown);
                cells.text("jobs-problem", "");
            }
            Err(failure) => cells.text("jobs-problem", &failure.message),
        }
        Some(self.encoder.event(unix_seconds, 0, None, &SentCell::all(&cells)))
    }
}

impl FollowedJobs {
    fn are_running(&self) -> bool {
        self.found.values().any(|job| job.state == JobState::Running)
    }

    async fn read(&mut self, store: &dyn JobStore, viewer: &Viewer) -> Result<(), Failure> {
        let these = JobFilter {
            ids: Some(self.ids.clone()),
            ..JobFilter::default()
        };
        let found = store.list(&these, viewer, None, JOBS as u32).await;
        let found = found.map_err(|error| of_store(&error))?.jobs;
        self.found = found.into_iter().map(|job| (job.id, job)).collect();
        if let Some(filter) = self.filter.as_ref().filter(|_| !self.has_newer) {
            let newest = store.list(filter, viewer, None, 1).await;
            let newest = newest.map_err(|error| of_store(&error))?;
            let newest = newest.jobs.first().map(|job| job.id);
            self.has_newer = newest > self.ids.first().copied();
        }
        Ok(())
    }

    fn add_cells(&self, cells: &mut Cells, shown: &Shown) {
        for (row, id) in self.ids.iter().enumerate() {
            shown.add_cells(cells, row, self.found.get(id));
        }
        let newer = html! {
            @if self.has_newer { a #show-newer href="" { "There are newer jobs. Show them." } }
        };
        cells.html("newer", newer);
    }
}

/// Whether any job has changed since the last call.
fn has_changed(changes: &mut Receiver<JobChange>) -> bool {
    let mut has_changed = false;
    loop {
        match changes.try_recv() {
            Ok(_) | Err(TryRecvError::Lagged(_)) => has_changed = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return has_changed,
        }
    }
}

fn parse_ids(text: &str) -> Result<Vec<JobId>, Failure> {
    let ids = text.split(',').filter(|id| !id.is_empty());
    let ids: Result<Vec<JobId>, _> = ids.map(JobId::from_str).collect();
    ids.ok().filter(|ids| ids.len() <= JOBS).ok_or_else(|| {
        Failure::new(
            Code::Malformed,
            format!(
                "invalid value for parameter `ids`: expected up to {JOBS} ids of jobs, separated by commas"
            ),
        )
    })
}
