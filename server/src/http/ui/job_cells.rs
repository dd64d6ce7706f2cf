//! The cells of a list of jobs. A job keeps its row for as long as the page is open.

use std::time::Duration;

use maud::{Markup, html};

use super::cells::{Cells, shortened};
use super::figures::{ago, time};
use crate::http::jobs::state_name;
use crate::jobs::{JobError, JobRecord, JobState, Timestamp, WebhookDelivery, WebhookState};

/// Maximum size of an error in bytes. The job has all of it.
const MAX_ERROR: usize = 200;

/// How the cells are shown.
pub(super) struct Shown {
    pub(super) now: Timestamp,
    /// Whether results can be fetched from the port of the page.
    pub(super) has_results: bool,
}

impl Shown {
    /// Adds the cells of a row. `None` if the job was removed since the page was rendered.
    pub(super) fn add_cells(&self, cells: &mut Cells, row: usize, job: Option<&JobRecord>) {
        let mut set = |column: &str, html: Markup| cells.html(format!("{row}{column}"), html);
        let Some(job) = job else {
            set("s", html! { span.badge.note { "removed" } });
            set("a", html! {});
            return;
        };
        set("s", state(job));
        set("p", progress(job));
        set("t", self.times(job));
        set("d", self.details(job));
        set("a", action(job));
    }

    fn times(&self, job: &JobRecord) -> Markup {
        let moment = |what: &str, at: Timestamp| {
            let text = format!("{what} {}", ago(self.now.since(at).as_secs()));
            html! { time datetime=(at) title=(at) { (text) } }
        };
        let until = |at: Timestamp| html! { time datetime=(at) { (at) } };
        match (job.state, job.started_at, job.finished_at) {
            (_, started, Some(finished)) => html! {
                (moment("ended", finished))
                @if let Some(started) = started {
                    br; small.muted { "after " (took(finished.since(started))) }
                }
            },
            (JobState::Running, Some(started), None) => html! {
                (moment("started", started))
                br; small.muted { (moment("submitted", job.created_at)) }
            },
            _ => html! {
                (moment("submitted", job.created_at))
                @if let Some(at) = job.not_before.filter(|at| *at > self.now) {
                    br; small.muted { "not before " (until(at)) }
                }
                @if let Some(at) = job.expires_at { br; small.muted { "expires at " (until(at)) } }
            },
        }
    }

    fn details(&self, job: &JobRecord) -> Markup {
        html! {
            @if let Some(error) = &job.error { (failure(error, job.state.is_final())) }
            @if let (Some(status), true) = (job.reply_status, self.has_results) {
                a href={ "../v1/jobs/" (job.id) "/result" } { "Result" }
                " " small.muted { "status " (status) }
            }
            @if let Some(webhook) = &job.webhook { " " (delivery(webhook)) }
        }
    }
}

fn state(job: &JobRecord) -> Markup {
    let class = match job.state {
        JobState::Queued | JobState::Cancelled => "note",
        JobState::Running => "active",
        JobState::Succeeded => "fine",
        JobState::Failed | JobState::DeadLetter => "problem",
        JobState::Expired => "warning",
    };
    html! { span class={ "badge " (class) } { (state_name(job.state)) } }
}

/// The items that have an outcome, and the attempts.
fn progress(job: &JobRecord) -> Markup {
    let done = match job.state {
        JobState::Succeeded | JobState::Failed => job.items,
        _ => job.items_done,
    };
    let text = format!(
        "{done} of {} item{}",
        job.items,
        if job.items == 1 { "" } else { "s" }
    );
    html! {
        progress max=(job.items.max(1)) value=(done) aria-label=(text) {}
        small { (text) }
        @if job.attempts > 1 || job.state == JobState::DeadLetter {
            br; small.muted { "attempt " (job.attempts) " of " (job.max_attempts) }
        }
    }
}

fn failure(error: &JobError, has_ended: bool) -> Markup {
    html! {
        span .bad[has_ended] {
            @if !has_ended { "last attempt: " }
            (shortened(&error.code, 40)) ": " (shortened(&error.message, MAX_ERROR))
        }
        br;
    }
}

fn delivery(webhook: &WebhookDelivery) -> Markup {
    let (class, text) = match webhook.state {
        WebhookState::Waiting => ("note", "webhook when it ends"),
        WebhookState::Pending => ("warning", "webhook not delivered yet"),
        WebhookState::Delivered => ("fine", "webhook delivered"),
        WebhookState::Failed => ("problem", "webhook failed"),
    };
    let failed = webhook
        .error
        .as_deref()
        .filter(|_| webhook.state != WebhookState::Delivered);
    html! {
        span class={ "badge " (class) } { (text) }
        @if let Some(error) = failed {
            " " small.muted { "attempt " (webhook.attempts) ": " (shortened(error, 60)) }
        }
    }
}

/// The button that belongs to the form of the page.
fn action(job: &JobRecord) -> Markup {
    let button = |name: &str, text: &str| {
        html! {
            button type="submit" form="change" name=(name) value=(job.id) aria-label={ (text) " job " (job.id) } { (text) }
        }
    };
    match job.state {
        JobState::Queued | JobState::Running => button("cancel", "Cancel"),
        JobState::DeadLetter => button("retry", "Retry"),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => html! {},
    }
}

fn took(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 100.. => format!("{} min", seconds.div_ceil(60)),
        _ => time(duration.as_secs_f64()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::batching::Priority;
    use crate::http::ui::cells::MAX_CELL;
    use crate::jobs::{JobId, Owner};

    /// A job that ran for two seconds, with long texts.
    pub(in crate::http::ui) fn job(state: JobState) -> JobRecord {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        JobRecord {
            id: JobId::new(at(1000)).expect("there are random numbers"),
            state,
            model: "words".to_owned(),
            task: "echo".to_owned(),
            owner: Some(Owner::new("name search")),
            priority: Priority::Normal,
            label: Some("nächtlich <b>".to_owned()),
            attempts: 3,
            max_attempts: 3,
            items_done: 4,
            items: 10,
            created_at: at(1000),
            started_at: (state != JobState::Queued).then(|| at(1060)),
            finished_at: state.is_final().then(|| at(1062)),
            not_before: Some(at(9000)),
            expires_at: Some(at(9500)),
            error: Some(JobError {
                code: "x".repeat(100),
                message: "<script>alert(1)</script> & \"quotes\" ".repeat(50),
            }),
            reply_status: Some(422),
            webhook: Some(WebhookDelivery {
                state: WebhookState::Pending,
                attempts: 3,
                attempted_at: Some(at(1070)),
                status: Some(503),
                error: Some("<b>unreachable</b> ".repeat(20)),
                next_attempt_at: Some(at(1200)),
            }),
        }
    }

    fn cells_of(job: Option<&JobRecord>) -> Cells {
        let shown = Shown {
            now: Timestamp::from_millis(1_182_000),
            has_results: true,
        };
        let mut cells = Cells::default();
        shown.add_cells(&mut cells, 49, job);
        cells
    }

    fn all(job: Option<&JobRecord>) -> String {
        let cells = cells_of(job);
        cells.iter().map(|(_, html)| html).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_cell_fits_into_an_event_and_is_escaped() {
        for state in JobState::ALL {
            let job = job(state);
            for (id, html) in cells_of(Some(&job)).iter() {
                let size = serde_json::Value::from(html).to_string().len() + id.len();
                assert!(size < MAX_CELL, "{state:?}: {id} has {size} bytes: {html}");
                assert!(!html.contains("<script"), "{html}");
            }
        }
    }

    #[test]
    fn a_job_that_has_not_ended_can_be_cancelled_and_one_without_attempts_retried() {
        for state in JobState::ALL {
            let text = all(Some(&job(state)));
            let has = |name: &str| text.contains(&format!("name=\"{name}\""));
            let expected = (!state.is_final(), state == JobState::DeadLetter);
            assert_eq!((has("cancel"), has("retry")), expected, "{state:?}: {text}");
        }
    }

    #[test]
    fn progress_times_errors_and_delivery_are_shown() {
        let running = all(Some(&job(JobState::Running)));
        for part in [
            "<progress max=\"10\" value=\"4\"",
            "4 of 10 items",
            "attempt 3 of 3",
            "started 2 min ago",
            "last attempt: xxx",
            "webhook not delivered yet",
            "../v1/jobs/",
        ] {
            assert!(running.contains(part), "{part} is missing: {running}");
        }
        let failed = all(Some(&job(JobState::DeadLetter)));
        assert!(
            failed.contains(">failed<") && failed.contains("after 2.00 s"),
            "{failed}"
        );
        let queued = all(Some(&job(JobState::Queued)));
        assert!(
            queued.contains("not before") && queued.contains("1970-01-01T02:30:00"),
            "{queued}"
        );
        assert!(all(Some(&job(JobState::Succeeded))).contains("10 of 10 items"));
        assert!(all(None).contains("removed"));
    }
}
