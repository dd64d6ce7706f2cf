//! What needs attention, in words: the explanations of models and tasks, most severe first.

use maud::{Markup, html};

use super::cells::{Cells, MAX_MESSAGE, shortened, with_code};
use crate::api::Client;
use crate::api::live::ModelFrame;
use crate::explanation::Explanation;
use crate::http::openapi::path_segment;

/// How severe a finding is, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Requests fail, or a model does not do what the configuration says.
    Problem,
    /// Requests may be rejected or fail soon.
    Warning,
    /// What limits a model that works.
    Note,
}

impl Severity {
    /// `None` for findings that need no attention.
    fn of(code: &str) -> Option<Self> {
        match code {
            "load_failed" | "crash_loop" | "panics" | "recovering" | "reload_failed" | "failures" => {
                Some(Self::Problem)
            }
            "rejections"
            | "untried"
            | "loading"
            | "unloaded"
            | "shutting_down"
            | "limit_queue"
            | "limit_memory"
            | "batches_out_of_memory"
            | "batches_deadline" => Some(Self::Warning),
            "idle" => None,
            _ => Some(Self::Note),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A finding about a model or a task.
pub(super) struct Finding<'a> {
    severity: Severity,
    model: &'a str,
    task: Option<&'a str>,
    explanation: &'a Explanation,
}

/// The findings about the models that a client sees, most severe first.
pub(super) fn of_models<'a>(
    models: impl Iterator<Item = &'a ModelFrame>,
    client: &Client,
) -> Vec<Finding<'a>> {
    let mut findings: Vec<Finding<'a>> = models.flat_map(|model| of_model(model, client)).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The findings about a model and those of its tasks that a client may use.
fn of_model<'a>(model: &'a ModelFrame, client: &Client) -> Vec<Finding<'a>> {
    let name = model.entry.name();
    let explained = model.explanation(client.is_admin());
    let finding = |task: Option<&'a str>, explanation: &'a Explanation| {
        Some(Finding {
            severity: Severity::of(explanation.code)?,
            model: name,
            task,
            explanation,
        })
    };
    let of_model = explained
        .explanation
        .iter()
        .filter_map(|explanation| finding(None, explanation));
    let tasks = model.entry.task_manifests().iter().zip(&explained.tasks);
    let of_tasks = tasks
        .filter(|(task, _)| client.sees_task(name, &task.name))
        .flat_map(|(task, explained)| {
            let explanations = explained.explanation.iter();
            explanations.filter_map(move |explanation| finding(Some(&task.name), explanation))
        });
    of_model.chain(of_tasks).collect()
}

impl Finding<'_> {
    /// Whether it is about the model, or about this task.
    pub(super) fn concerns(&self, task: Option<&str>) -> bool {
        self.task.is_none() || self.task == task
    }

    fn render(&self, links_to: Option<&str>) -> Markup {
        html! {
            span class={ "severity " (self.severity.name()) } { (self.severity.name()) }
            @if let Some(prefix) = links_to {
                a href={ (prefix) (path_segment(self.model)) } { (self.model) }
                @if let Some(task) = self.task { span.muted { " / " (task) } }
            } @else if let Some(task) = self.task {
                span.muted { (task) }
            }
            span.message { (with_code(&shortened(&self.explanation.message, MAX_MESSAGE))) }
        }
    }
}

/// Adds the cells of a list with `count` places. `links_to` is the prefix of links to the models.
pub(super) fn add_cells(cells: &mut Cells, findings: &[Finding<'_>], count: usize, links_to: Option<&str>) {
    for place in 0..count {
        let html = match findings.get(place) {
            Some(finding) => finding.render(links_to),
            None if place == 0 => html! {
                span.severity.fine { "fine" }
                span.message { "Nothing needs attention." }
            },
            None => html! {},
        };
        cells.html(format!("a{place}"), html);
    }
    let hidden = findings.len().saturating_sub(count);
    let more = if hidden > 0 {
        format!("and {hidden} more")
    } else {
        String::new()
    };
    cells.text("more", &more);
}

/// The list, with the cells of [`add_cells`].
pub(super) fn list(cells: &Cells, count: usize) -> Markup {
    html! {
        ul.findings {
            @for place in 0..count {
                li #{ "a" (place) } { (cells.get(&format!("a{place}"))) }
            }
        }
        p #more.muted { (cells.get("more")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_before_warnings_and_an_idle_model_needs_no_attention() {
        assert!(Severity::of("load_failed") < Severity::of("rejections"));
        assert!(Severity::of("limit_queue") < Severity::of("batches_concurrency"));
        assert_eq!(Severity::of("idle"), None);
    }
}
