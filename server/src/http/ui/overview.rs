//! The overview: what needs attention, and a row for each model.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};

use super::cells::{Cells, shortened};
use super::figures::{ago, count, number, or_dash, percent, time};
use super::layout::{self, Layout};
use super::{findings, html as reply, sign_in, state};
use crate::api::Client;
use crate::api::live::{Frame, ModelFrame};
use crate::http::monitoring::{MAX_INLINE_MODELS, state_name};
use crate::http::offload::run_by_size;
use crate::http::openapi::path_segment;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// Maximum number of findings that are shown.
const FINDINGS: usize = 8;

/// Maximum size of the reason why a reload failed, in bytes. The page of the model has more of it.
const MAX_RELOAD_ERROR: usize = 160;

/// `GET /ui/`
pub(super) async fn page(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let client = request.client();
    if !client.may_read() {
        return sign_in::ask_for_key(&request, &shared, "../");
    }
    let layout = Layout::new(&request, &shared, "Models", "../").live();
    let feed = state(&shared).feed.clone();
    let size = shared.registry.snapshot().models().count();
    let write = move || {
        let frame = feed.frame();
        layout::page(&layout, &render(&frame, &client))
    };
    match run_by_size(size, MAX_INLINE_MODELS, write).await {
        Ok(page) => reply(200, page),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// The models that a client sees.
fn visible<'a>(frame: &'a Frame, client: &'a Client) -> impl Iterator<Item = &'a ModelFrame> + Clone {
    let models = frame.models.iter();
    models.filter(|model| client.sees_model(model.entry.name()))
}

/// Changes with the models that are listed, whose cells are numbered.
pub(super) fn structure(frame: &Frame, client: &Client) -> u64 {
    let mut hasher = DefaultHasher::new();
    for model in visible(frame, client) {
        model.entry.name().hash(&mut hasher);
        model.entry.generation().is_some().hash(&mut hasher);
    }
    hasher.finish()
}

/// The cells of the overview.
pub(super) fn cells(frame: &Frame, client: &Client) -> Cells {
    let mut cells = Cells::default();
    let models = || visible(frame, client);
    let findings = findings::of_models(models(), client);
    findings::add_cells(&mut cells, &findings, FINDINGS, Some("models/"));
    for (row, model) in models().enumerate() {
        add_row(&mut cells, row, model, client.is_admin(), frame.unix_seconds);
    }
    let recent = || models().filter_map(|model| model.for_clients.recent.as_ref());
    let ready = models().filter(|model| model.entry.is_ready()).count();
    let requests: f64 = recent().map(|recent| recent.requests_per_second).sum();
    let errors: f64 = recent()
        .map(|recent| recent.failed_items_per_second + recent.rejections_per_second)
        .sum();
    let queued: usize = models().map(queued_items).sum();
    cells.text("t-ready", &format!("{ready} / {}", models().count()));
    cells.text("t-requests", &number(requests));
    cells.text("t-errors", &number(errors));
    cells.text("t-queued", &count(queued));
    cells
}

fn queued_items(model: &ModelFrame) -> usize {
    model.for_clients.tasks.iter().map(|task| task.queued_items).sum()
}

/// The badge with the state of a model.
pub(super) fn badge(model: &ModelFrame) -> Markup {
    let state = state_name(&model.entry);
    let class = match state {
        "ready" => "fine",
        "failed" | "crash loop" => "problem",
        _ => "warning",
    };
    html! { span class={ "badge " (class) } { (state) } }
}

fn add_row(cells: &mut Cells, row: usize, model: &ModelFrame, operator: bool, now: u64) {
    let entry = &model.entry;
    let recent = model.explanation(operator).recent.as_ref();
    let mut set = |column: &str, html: Markup| cells.html(format!("{row}{column}"), html);
    let figure = |text: String| html! { (text) };
    set("s", badge(model));
    set("g", generation(model, now));
    set(
        "r",
        figure(or_dash(recent, |recent| number(recent.requests_per_second))),
    );
    set(
        "l",
        figure(or_dash(
            recent.and_then(|recent| recent.latency_p50_seconds),
            time,
        )),
    );
    set(
        "m",
        figure(or_dash(
            recent.and_then(|recent| recent.latency_p99_seconds),
            time,
        )),
    );
    set("q", figure(or_dash(recent, |_| count(queued_items(model)))));
    set(
        "f",
        figure(or_dash(recent.and_then(|recent| recent.batch_fill), percent)),
    );
    let errors = recent.map(|recent| recent.failed_items_per_second + recent.rejections_per_second);
    let has_errors = errors.is_some_and(|errors| errors > 0.0);
    set("e", html! { span .bad[has_errors] { (or_dash(errors, number)) } });
    set("w", workers(model, operator));
    set(LINE, line(&model.requests));
    let reload_error = entry.last_reload_error.as_ref();
    let reload_error = reload_error.map(|error| shortened(error.text(operator), MAX_RELOAD_ERROR));
    set(
        "x",
        html! { @if let Some(error) = reload_error { span.bad { "last reload failed: " (error) } } },
    );
}

/// The number of the generation, and when it became ready.
pub(super) fn generation(model: &ModelFrame, now: u64) -> Markup {
    let Some(generation) = model.entry.generation() else {
        return html! { "–" };
    };
    html! {
        (generation.number) " "
        small.muted { (ago(now.saturating_sub(generation.created))) }
    }
}

/// How busy the workers are, and the worker processes with their restarts.
pub(super) fn workers(model: &ModelFrame, operator: bool) -> Markup {
    let busy = model.explanation(operator).recent.as_ref();
    let busy = busy.and_then(|recent| recent.worker_busy_share);
    let configured = model.entry.settings.workers.get();
    html! {
        (or_dash(busy, percent)) " "
        small.muted {
            @match model.processes {
                Some(processes) => {
                    (processes.serving) " of " (configured) " processes"
                    @if processes.restarts > 0 { ", " span.bad { (processes.restarts) " restarted" } }
                }
                None => {
                    (configured) @if configured == 1 { " thread" } @else { " threads" }
                }
            }
        }
    }
}

const SPARK_HEIGHT: f32 = 24.0;

/// The line of requests per second in the last ten minutes, with its description. After each start, it has only differences, so
/// that it is short.
fn line(requests: &[Option<f32>]) -> Markup {
    let max = requests.iter().flatten().copied().fold(0.0_f32, f32::max);
    let mut path = String::new();
    let mut previous = None;
    for (index, value) in requests.iter().enumerate() {
        let Some(value) = value else {
            previous = None;
            continue;
        };
        let share = if max > 0.0 { value / max } else { 0.0 };
        let y = (SPARK_HEIGHT - 1.0 - share * (SPARK_HEIGHT - 2.0)).round() as i32;
        path.push_str(&match previous {
            None => format!("M{} {y}", index * 2),
            Some(previous) => format!("l2 {}", y - previous),
        });
        previous = Some(y);
    }
    let title = format!("Up to {} requests per second", number(f64::from(max)));
    html! {
        title { (title) }
        path d=(path) {}
    }
}

fn render(frame: &Frame, client: &Client) -> Markup {
    let cells = cells(frame, client);
    let models: Vec<&ModelFrame> = visible(frame, client).collect();
    let structure = structure(frame, client);
    html! {
        main #main data-events={ "events?structure=" (structure) } {
            h1.visually-hidden { "Models" }
            dl.tiles {
                (tile(&cells, "t-ready", "Models ready", ""))
                (tile(&cells, "t-requests", "Requests", "per second"))
                (tile(&cells, "t-errors", "Errors", "per second"))
                (tile(&cells, "t-queued", "Waiting items", ""))
            }
            section aria-labelledby="attention" {
                h2 #attention { "Needs attention" }
                (findings::list(&cells, FINDINGS))
            }
            section aria-labelledby="models" {
                h2 #models { "Models" }
                @if models.is_empty() {
                    p.muted { "There are no models that this key may use, or none is configured." }
                } @else {
                    (table(&cells, &models))
                    p.muted.note {
                        "Figures cover the last ten seconds, lines the last ten minutes. Fill is the number of items in a batch \
                         relative to the maximum. Errors are failed items and rejected requests."
                    }
                }
            }
        }
    }
}

/// A figure with its name and unit.
pub(super) fn tile(cells: &Cells, id: &str, name: &str, unit: &str) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            dd { span id=(id) { (cells.get(id)) } @if !unit.is_empty() { " " small { (unit) } } }
        }
    }
}

/// The column with the line of requests, whose cell is the content of an image.
const LINE: &str = "k";

/// The columns after the name: the suffix of the cell's id, the heading, and whether it is a number.
const COLUMNS: [(&str, &str, bool); 10] = [
    ("s", "State", false),
    ("r", "Requests/s", true),
    ("l", "p50", true),
    ("m", "p99", true),
    ("q", "Waiting", true),
    ("f", "Fill", true),
    ("e", "Errors/s", true),
    ("w", "Workers", false),
    ("g", "Generation", false),
    (LINE, "Last 10 min", false),
];

fn table(cells: &Cells, models: &[&ModelFrame]) -> Markup {
    html! {
        table.models {
            thead {
                tr {
                    th scope="col" { "Model" }
                    @for (_, heading, is_number) in COLUMNS {
                        th scope="col" .number[is_number] { (heading) }
                    }
                }
            }
            tbody {
                @for (row, model) in models.iter().enumerate() {
                    tr {
                        th scope="row" {
                            a href={ "models/" (path_segment(model.entry.name())) } { (model.entry.name()) }
                            @let tasks: Vec<&str> = model.entry.task_manifests().iter().map(|task| task.name.as_str()).collect();
                            @if !tasks.is_empty() { small.muted { (tasks.join(", ")) } }
                            small #{ (row) "x" } { (cells.get(&format!("{row}x"))) }
                        }
                        @for (column, heading, is_number) in COLUMNS {
                            @let id = format!("{row}{column}");
                            @if column == LINE {
                                td data-label=(heading) {
                                    svg.spark id=(id) viewBox="0 0 120 24" preserveAspectRatio="none" role="img" {
                                        (cells.get(&id))
                                    }
                                }
                            } @else {
                                td id=(id) .number[is_number] data-label=(heading) { (cells.get(&id)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_gaps_while_a_model_did_not_serve_and_fits_into_an_event() {
        let text = line(&[Some(0.0), Some(4.0), Some(4.0), None, Some(2.0)]).into_string();
        assert!(text.contains("M0 23l2 -22l2 0M8 12"), "{text}");
        let full: Vec<_> = (0..60).map(|second| Some(second as f32 % 17.0)).collect();
        let text = line(&full).into_string();
        assert!(text.len() < 400, "{} bytes", text.len());
    }
}
