//! The page of one model and one of its tasks.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use plugin_abi::manifest::TaskManifest;
use serde_json::{Value as Json, json};

use super::cells::{Cells, MAX_MESSAGE, shortened, with_code};
use super::figures::{count, number, or_dash, percent, time};
use super::frontier::Memory;
use super::history::{TaskQuery, find_task};
use super::layout::{self, Layout};
use super::overview::{badge, generation, tile, workers};
use super::{can_predict, estimates, findings, html as reply, requests, sign_in, workers as processes};
use crate::api::live::{Frame, ModelFrame, NotableRequests};
use crate::api::{Client, ModelView};
use crate::config::TaskSettings;
use crate::engine::Engine;
use crate::http::offload::run_blocking;
use crate::http::openapi::path_segment;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// Maximum number of findings that are shown.
const FINDINGS: usize = 6;

/// Maximum number of sentences about the estimates of the policy.
const SENTENCES: usize = 6;

/// Leads from the page to the root of the server.
const BASE: &str = "../../";

/// `GET /ui/models/{model}?task=…`
pub(super) async fn page(
    request: HttpRequest,
    shared: Data<Shared>,
    model: Path<String>,
    query: Query<TaskQuery>,
) -> HttpResponse {
    let client = request.client();
    if !client.may_read() {
        return sign_in::ask_for_key(&request, &shared, BASE);
    }
    let view = ModelView::new(shared.registry.snapshot(), client.clone());
    let task = match find_task(&view, &model, query.task.as_deref()) {
        Ok(task) => task,
        Err(failure) => return layout::failure(&request, &shared, BASE, &failure),
    };
    let layout = Layout::new(&request, &shared, &model, BASE).live();
    let can_predict = can_predict(&request);
    let state = shared.clone();
    let write = move || {
        let feed = &super::state(&state).feed;
        let frame = feed.frame();
        let page = Page {
            model: model.into_inner(),
            task,
        };
        let body = page.render(&frame, &client, feed.notable_requests(), can_predict);
        layout::page(&layout, &body)
    };
    match run_blocking(write).await {
        Ok(page) => reply(200, page),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// The page of a model.
#[derive(Clone, PartialEq)]
pub(super) struct Page {
    pub(super) model: String,
    /// `None` if the model is not serving.
    pub(super) task: Option<usize>,
}

/// A task that is serving.
struct Serving<'a> {
    manifest: &'a TaskManifest,
    settings: &'a TaskSettings,
    engine: &'a Engine,
    index: usize,
}

impl Serving<'_> {
    fn memory(&self) -> Option<Memory> {
        let max_items = self.settings.batching.max_batch_size.get() as u64;
        Memory::of(self.engine, self.index, max_items)
    }
}

impl Page {
    fn find<'a>(&self, frame: &'a Frame) -> Option<&'a ModelFrame> {
        frame.models.iter().find(|model| model.entry.name() == self.model)
    }

    fn serving<'a>(&self, model: &'a ModelFrame) -> Option<Serving<'a>> {
        let index = self.task?;
        Some(Serving {
            manifest: model.entry.task_manifests().get(index)?,
            settings: model.entry.tasks.get(index)?,
            engine: &model.entry.generation()?.engine,
            index,
        })
    }

    /// Changes when the page has to be rendered again.
    pub(super) fn structure(&self, frame: &Frame) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(model) = self.find(frame) {
            let generation = model.entry.generation();
            generation.map(|generation| generation.number).hash(&mut hasher);
            let task = self.serving(model);
            task.as_ref().map(|task| &task.manifest.name).hash(&mut hasher);
            let memory = task.and_then(|task| task.memory());
            memory.map(|memory| memory.is_limited()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The cells of the page. Those of the latest batches are optional, because they are large and always change.
    pub(super) fn cells(
        &self,
        frame: &Frame,
        client: &Client,
        notable: &NotableRequests,
        rows: &mut requests::Rows,
        with_batches: bool,
    ) -> Cells {
        let mut cells = Cells::default();
        let Some(model) = self.find(frame) else {
            return cells;
        };
        let operator = client.is_admin();
        let serving = self.serving(model);
        let task = serving.as_ref().map(|task| task.manifest.name.as_str());
        cells.html("state", badge(model));
        cells.html("generation", generation(model, frame.unix_seconds));
        cells.html("workers", workers(model, operator));
        let reload_error = model.entry.last_reload_error.as_ref();
        let reload_error = reload_error.map_or("", |error| error.text(operator));
        cells.text("reload-error", &shortened(reload_error, MAX_MESSAGE));
        let mut found = findings::of_models([model].into_iter(), client);
        found.retain(|finding| finding.concerns(task));
        findings::add_cells(&mut cells, &found, FINDINGS, None);
        processes::add_cells(&mut cells, model, operator);
        if let Some(task) = &serving {
            self.add_task(&mut cells, model, task, operator);
            if let Some(memory) = task.memory() {
                memory.add_cells(&mut cells, with_batches);
            }
            let listed = notable.of_task(&self.model, &task.manifest.name);
            requests::add_cells(&mut cells, rows, &listed, operator);
        }
        cells
    }

    fn add_task(&self, cells: &mut Cells, model: &ModelFrame, task: &Serving<'_>, operator: bool) {
        let Some(explained) = model.explanation(operator).tasks.get(task.index) else {
            return;
        };
        let recent = &explained.recent;
        let errors = recent.failed_items_per_second + recent.rejections_per_second;
        let figures = [
            ("f-requests", number(recent.requests_per_second)),
            ("f-p50", or_dash(recent.latency_p50_seconds, time)),
            ("f-p99", or_dash(recent.latency_p99_seconds, time)),
            ("f-queued", count(explained.queued_items)),
            ("f-batch", or_dash(recent.batch_size, number)),
            ("f-fill", or_dash(recent.batch_fill, percent)),
            ("f-errors", number(errors)),
        ];
        for (id, figure) in figures {
            cells.text(id, &figure);
        }
        let sentences = task.engine.estimates(task.index);
        let sentences = sentences.map_or_else(Vec::new, |estimates| estimates::sentences(&estimates));
        for place in 0..SENTENCES {
            let sentence = sentences.get(place).map_or("", String::as_str);
            cells.html(format!("e{place}"), with_code(sentence));
        }
    }

    fn render(&self, frame: &Frame, client: &Client, notable: &NotableRequests, can_predict: bool) -> Markup {
        let Some(model) = self.find(frame) else {
            return html! { main #main { p { "The model was removed." } } };
        };
        let cells = self.cells(frame, client, notable, &mut requests::Rows::default(), true);
        let serving = self.serving(model);
        let task = serving.as_ref().map(|task| task.manifest.name.as_str());
        let query = format!(
            "model={}{}",
            path_segment(&self.model),
            task.map_or_else(String::new, |task| format!("&task={}", path_segment(task)))
        );
        let events = format!("{BASE}ui/events?{query}&structure={}", self.structure(frame));
        html! {
            main #main data-events=(events) {
                (self.head(&cells, model, client))
                (tabs(model, client, task))
                section aria-label="Findings" { (findings::list(&cells, FINDINGS)) }
                @if let Some(task) = &serving {
                    (figures(&cells))
                    (self.charts(&task.manifest.name))
                    (processes::table(&cells, model, client.is_admin()))
                    (policy(&cells, task))
                    @if let Some(memory) = task.memory() {
                        section aria-labelledby="memory-title" {
                            h2 #memory-title { "Memory" }
                            (memory.section(&cells))
                        }
                    }
                    section aria-labelledby="requests-title" {
                        h2 #requests-title { "Recent slow and failed requests" }
                        p.muted.note {
                            "Slow requests took longer than 99% of those of the last minute. Inputs are not kept."
                        }
                        (requests::table(&cells))
                    }
                    (try_it(&self.model, task, can_predict))
                }
            }
        }
    }

    fn head(&self, cells: &Cells, model: &ModelFrame, client: &Client) -> Markup {
        let entry = &model.entry;
        let plugin = entry.generation().map(|generation| &generation.plugin);
        html! {
            div.head {
                div {
                    h1 { (self.model) " " span #state { (cells.get("state")) } }
                    @if let Some(description) = entry.description() { p.muted { (with_code(description)) } }
                }
                @if client.is_admin() {
                    button #reload type="button"
                        data-path={ (BASE) "v2/repository/models/" (path_segment(&self.model)) "/load" } { "Reload" }
                }
            }
            p #reload-result role="status" hidden {}
            dl.facts {
                div { dt { "Generation" } dd #generation { (cells.get("generation")) } }
                div { dt { "Workers" } dd #workers { (cells.get("workers")) } }
                @if let Some(plugin) = plugin {
                    div { dt { "Plugin" } dd { (plugin.name) " " small.muted { (plugin.version) } } }
                }
                @if let Some(generation) = entry.generation() {
                    @for (name, value) in generation.manifest.details.iter().take(4) {
                        div { dt { (name.replace('_', " ")) } dd { (shortened(value, MAX_MESSAGE)) } }
                    }
                }
            }
            p #reload-error.bad { (cells.get("reload-error")) }
        }
    }

    fn charts(&self, task: &str) -> Markup {
        let history = format!(
            "{BASE}ui/history/{}?task={}",
            path_segment(&self.model),
            path_segment(task)
        );
        let charts = [
            ("p50", "Median time by stage", ""),
            ("p99", "99th percentile by stage", ""),
            ("rate", "Requests and errors", "per second"),
            ("queue", "Waiting items", ""),
            ("sizes", "Sizes of batches", "batches in ten minutes"),
            ("reasons", "Reasons to run a batch", "batches per second"),
        ];
        html! {
            noscript { p.muted { "Charts and the form below need scripts." } }
            section.charts #charts data-history=(history) aria-label="Charts of the last ten minutes" {
                @for (id, name, unit) in charts {
                    figure.chart {
                        figcaption { (name) @if !unit.is_empty() { " " small.muted { (unit) } } }
                        div #{ "chart-" (id) } role="img" aria-label=(name) {}
                    }
                }
                figure.chart.wide {
                    figcaption {
                        "Workers"
                        span.legend {
                            span.swatch.busy { "busy, stronger for a larger part of the second" }
                            span.swatch.waiting { "waiting" }
                            span.swatch.restarting { "restarting" }
                        }
                    }
                    canvas #chart-workers role="img" aria-label="Timeline of the workers" {}
                }
            }
        }
    }
}

/// Links to the pages of the tasks that the client may use.
fn tabs(model: &ModelFrame, client: &Client, selected: Option<&str>) -> Markup {
    let tasks = model.entry.task_manifests().iter();
    let tasks: Vec<_> = tasks
        .filter(|task| client.sees_task(model.entry.name(), &task.name))
        .collect();
    html! {
        @if tasks.len() > 1 {
            nav.tabs aria-label="Tasks" {
                @for task in tasks {
                    @let is_selected = Some(task.name.as_str()) == selected;
                    a href={ "?task=" (path_segment(&task.name)) } aria-current=[is_selected.then_some("page")] { (task.name) }
                }
            }
        }
    }
}

fn figures(cells: &Cells) -> Markup {
    html! {
        dl.tiles {
            (tile(cells, "f-requests", "Requests", "per second"))
            (tile(cells, "f-p50", "p50", ""))
            (tile(cells, "f-p99", "p99", ""))
            (tile(cells, "f-queued", "Waiting items", ""))
            (tile(cells, "f-batch", "Batch size", ""))
            (tile(cells, "f-fill", "Batch fill", ""))
            (tile(cells, "f-errors", "Errors", "per second"))
        }
    }
}

fn policy(cells: &Cells, task: &Serving<'_>) -> Markup {
    let batching = &task.settings.batching;
    html! {
        section aria-labelledby="policy" {
            h2 #policy { "Batching" }
            p {
                "Policy " code { (batching.policy.name()) } ", at most " (batching.max_batch_size) " items in a batch"
                @if let Some(weight) = batching.max_batch_weight { " with a total weight of " (weight) }
                ", at most " (task.settings.max_queue_size) " waiting items."
            }
            ul.sentences {
                @for place in 0..SENTENCES {
                    li #{ "e" (place) } { (cells.get(&format!("e{place}"))) }
                }
            }
        }
    }
}

/// The place of the form, which a script builds from the description of the task.
fn try_it(model: &str, task: &Serving<'_>, can_predict: bool) -> Markup {
    let manifest = task.manifest;
    let path = format!(
        "v1/models/{}/tasks/{}/predict",
        path_segment(model),
        path_segment(&manifest.name)
    );
    html! {
        section.try aria-labelledby="try-title" {
            h2 #try-title { "Try it" }
            @if !manifest.description.is_empty() { p.muted { (with_code(&manifest.description)) } }
            @if can_predict {
                div #try data-path=(path) data-base=(BASE) data-task=(describe(manifest)) {}
            } @else {
                p.muted { "The management port does not run tasks. Open this page on the main port to send requests." }
            }
        }
    }
}

/// The parts of a manifest that the form needs.
fn describe(task: &TaskManifest) -> String {
    let description: Json = json!({
        "name": task.name,
        "input": task.input,
        "output": task.output,
        "parameters": task.parameters_schema,
        "examples": task.examples.iter().take(8).collect::<Vec<_>>(),
        "embedding": task.embedding,
    });
    description.to_string()
}
