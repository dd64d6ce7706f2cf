//! The page of the jobs: a table with a filter, which cancels and retries them.
//!
//! It works without scripts. The jobs on a page stay the same until it is loaded again, so that a button does not move to
//! another job while it is being pressed; what changes in them is in [`job_cells`](super::job_cells).

use actix_web::http::header::LOCATION;
use actix_web::web::{self, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde::Deserialize;

use super::cells::Cells;
use super::job_cells::Shown;
use super::job_list::Choice;
use super::layout::{self, Layout};
use super::{can_predict, html as reply, sign_in};
use crate::api::{Client, Code, Failure, ModelView};
use crate::clock;
use crate::http::jobs::handlers::{cancel, queue_again};
use crate::http::openapi::path_segment;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;
use crate::jobs::{JobPage, JobRecord, Owner, Timestamp};

/// Leads from the page to the root of the server.
const BASE: &str = "../";

/// Whether the server has jobs.
pub(super) fn is_available(shared: &Shared) -> bool {
    cfg!(feature = "jobs") && shared.jobs.settings.enabled
}

/// `GET /ui/jobs`
pub(super) async fn page(request: HttpRequest, shared: Data<Shared>, choice: Query<Choice>) -> HttpResponse {
    if !request.client().may_read() {
        return sign_in::ask_for_key(&request, &shared, BASE);
    }
    render(&request, &shared, &choice, None).await
}

/// The job to change.
#[derive(Deserialize)]
struct Change {
    cancel: Option<String>,
    retry: Option<String>,
}

/// `POST /ui/jobs`: cancels or retries a job, and leads back to the list.
pub(super) async fn change(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    choice: Query<Choice>,
) -> HttpResponse {
    if !request.client().may_read() {
        return sign_in::ask_for_key(&request, &shared, BASE);
    }
    match try_change(&request, payload, &shared).await {
        Ok(()) => respond::status(303)
            .insert_header((LOCATION, format!("jobs{}", choice.query())))
            .insert_header(("cache-control", "no-store"))
            .finish(),
        Err(failure) => render(&request, &shared, &choice, Some(&failure)).await,
    }
}

async fn try_change(request: &HttpRequest, payload: web::Payload, shared: &Shared) -> Result<(), Failure> {
    if !is_available(shared) {
        return Err(disabled());
    }
    let client = request.client();
    let expected = "the field `cancel` or `retry`";
    match sign_in::read_form(request, payload, shared, expected).await? {
        Change {
            cancel: Some(id),
            retry: None,
        } => cancel(shared, &client, &id).await.map(drop),
        Change {
            cancel: None,
            retry: Some(id),
        } => queue_again(shared, &client, &id).await.map(drop),
        Change { .. } => Err(Failure::new(
            Code::Malformed,
            format!("expected a form with {expected}"),
        )),
    }
}

fn disabled() -> Failure {
    Failure::new(
        Code::NotFound,
        "this server has no jobs: `enabled = false` in [jobs]",
    )
}

/// The page, with the reason why a change failed.
async fn render(
    request: &HttpRequest,
    shared: &Data<Shared>,
    choice: &Choice,
    problem: Option<&Failure>,
) -> HttpResponse {
    if !is_available(shared) {
        return layout::failure(request, shared, BASE, &disabled());
    }
    let client = request.client();
    let found = match choice.find(shared, &client).await {
        Ok(found) => found,
        Err(failure) => return layout::failure(request, shared, BASE, &failure),
    };
    let view = ModelView::new(shared.registry.snapshot(), client.clone());
    let list = List {
        choice,
        found: &found,
        models: view.models().map(|model| model.name().to_owned()).collect(),
        is_of_all_keys: client.is_admin(),
        shown: Shown {
            now: Timestamp::from_millis(clock::unix_millis()),
            has_results: can_predict(request),
        },
    };
    let layout = Layout::of_jobs(request, shared, BASE).live();
    let status = problem.map_or(200, |problem| problem.code.status());
    reply(status, layout::page(&layout, &list.render(&client, problem)))
}

/// What the page shows.
struct List<'a> {
    choice: &'a Choice,
    found: &'a JobPage,
    /// The models that the client sees.
    models: Vec<String>,
    /// Whether jobs of all keys are listed.
    is_of_all_keys: bool,
    shown: Shown,
}

impl List<'_> {
    fn render(&self, client: &Client, problem: Option<&Failure>) -> Markup {
        let ids: Vec<String> = self.found.jobs.iter().map(|job| job.id.to_string()).collect();
        let events = format!(
            "{BASE}ui/jobs/events{}&ids={}",
            self.choice.query(),
            ids.join(",")
        );
        let whose = match (client.has_key(), self.is_of_all_keys) {
            (true, false) => "Jobs of this key, newest first.",
            (true, true) => "Jobs of all keys, newest first.",
            (false, _) => "All jobs, newest first.",
        };
        html! {
            main #main data-events=(events) {
                h1 { "Jobs" }
                p.muted { (whose) }
                (self.filter())
                form #change method="post" action={ "jobs" (self.choice.query()) } {}
                p #notice.notice role="status" tabindex="-1" {
                    @if let Some(problem) = problem { span.bad { (problem.message) } }
                }
                p #newer {}
                p #jobs-problem.bad role="status" {}
                @if self.found.jobs.is_empty() {
                    p.muted {
                        @if self.choice.is_filtered() { "No job matches the filter." } @else { "There are no jobs." }
                    }
                } @else {
                    (self.table())
                }
                (self.pages())
            }
        }
    }

    fn filter(&self) -> Markup {
        let choice = self.choice;
        html! {
            form.filter method="get" action="jobs" role="search" aria-label="Filter" {
                div.field {
                    label for="state" { "State" }
                    select #state name="state" {
                        @for (value, name) in STATES {
                            option value=(value) selected[choice.state == value] { (name) }
                        }
                        @if !STATES.iter().any(|(value, _)| choice.state == *value) {
                            option value=(choice.state) selected { (choice.state) }
                        }
                    }
                }
                div.field {
                    label for="model" { "Model" }
                    input #model name="model" list="model-names" value=(choice.model) placeholder="any" autocomplete="off";
                    datalist #model-names { @for model in &self.models { option value=(model) {} } }
                }
                div.field {
                    label for="label" { "Label" }
                    input #label name="label" value=(choice.label) placeholder="any" autocomplete="off";
                }
                button.primary type="submit" { "Filter" }
                @if choice.is_filtered() { a href="jobs" { "Clear" } }
            }
        }
    }

    fn table(&self) -> Markup {
        let mut cells = Cells::default();
        for (row, job) in self.found.jobs.iter().enumerate() {
            self.shown.add_cells(&mut cells, row, Some(job));
        }
        html! {
            table.jobs {
                thead { tr { @for (_, heading) in COLUMNS { th scope="col" { (heading) } } } }
                tbody {
                    @for (row, job) in self.found.jobs.iter().enumerate() {
                        tr {
                            th scope="row" data-label="Job" { (self.name(job)) }
                            @for (column, heading) in COLUMNS.iter().skip(1) {
                                @let id = format!("{row}{column}");
                                td id=(id) data-label=(heading) { (cells.get(&id)) }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What does not change: model, task, label, id, and the key if it has a name.
    fn name(&self, job: &JobRecord) -> Markup {
        let key = job.owner.as_ref().and_then(named).filter(|_| self.is_of_all_keys);
        html! {
            @if self.models.contains(&job.model) {
                a href={ "models/" (path_segment(&job.model)) "?task=" (path_segment(&job.task)) } { (job.model) }
            } @else {
                (job.model)
            }
            span.muted { " / " (job.task) }
            @if let Some(label) = &job.label { span.label { (label) } }
            small.muted {
                code { (job.id) }
                @if let Some(key) = key { " key " (key) }
            }
        }
    }

    fn pages(&self) -> Markup {
        html! {
            nav.pages aria-label="Pages" {
                @if !self.choice.is_first_page() {
                    a href={ "jobs" (self.choice.first_page().query()) } { "Newest jobs" }
                }
                @if let Some(last) = self.found.next {
                    a href={ "jobs" (self.choice.after(last).query()) } { "Older jobs" }
                }
            }
        }
    }
}

/// Choices of the filter: the value, and how it reads.
const STATES: [(&str, &str); 9] = [
    ("", "any"),
    ("queued,running", "not ended"),
    ("queued", "queued"),
    ("running", "running"),
    ("succeeded", "succeeded"),
    ("failed", "failed"),
    ("dead_letter", "failed, can be retried"),
    ("cancelled", "cancelled"),
    ("expired", "expired"),
];

/// The suffix of the id of the cells in each column, and the heading. The first column has no cells.
const COLUMNS: [(&str, &str); 6] = [
    ("", "Job"),
    ("s", "State"),
    ("p", "Progress"),
    ("t", "Time"),
    ("d", "Details"),
    ("a", "Action"),
];

/// The name of the key of an owner, if it has one.
fn named(owner: &Owner) -> Option<&str> {
    owner.as_str().strip_prefix("name ")
}
