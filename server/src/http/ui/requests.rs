//! The list of recent slow and failed requests of a task.

use maud::{Markup, html};

use super::cells::{Cells, shortened};
use super::figures::time;
use crate::api::live::{NotableKind, NotableRequest};

/// Maximum number of requests that are shown.
const REQUESTS: usize = 15;

/// The rows that requests have. A request keeps its row while it is listed, so that a further one changes only one row. A script
/// sorts the rows by their time.
#[derive(Default)]
pub(super) struct Rows([Option<u64>; REQUESTS]);

impl Rows {
    /// Gives each request a row. Those that are listed already keep theirs.
    fn assign<'a>(&mut self, requests: &'a [NotableRequest]) -> [Option<&'a NotableRequest>; REQUESTS] {
        let listed = &requests[..requests.len().min(REQUESTS)];
        let find = |number: u64| listed.iter().find(|request| request.number == number);
        for row in &mut self.0 {
            *row = row.filter(|number| find(*number).is_some());
        }
        for request in listed {
            if !self.0.contains(&Some(request.number))
                && let Some(free) = self.0.iter_mut().find(|row| row.is_none())
            {
                *free = Some(request.number);
            }
        }
        self.0.map(|row| row.and_then(find))
    }
}

/// Adds the cells of the rows. Only operators see ids and reasons, since requests of all clients are listed.
pub(super) fn add_cells(cells: &mut Cells, rows: &mut Rows, requests: &[NotableRequest], operator: bool) {
    for (place, request) in rows.assign(requests).into_iter().enumerate() {
        let html = request.map_or_else(|| html! {}, |request| row(request, operator));
        cells.html(format!("q{place}"), html);
    }
    let none = if requests.is_empty() { "None yet." } else { "" };
    cells.text("none", none);
}

/// The table, with the cells of [`add_cells`].
pub(super) fn table(cells: &Cells) -> Markup {
    html! {
        table.requests {
            thead {
                tr {
                    th scope="col" { "Answered (UTC)" }
                    th scope="col" { "Result" }
                    th.number scope="col" { "Time" }
                    th scope="col" { "Stages" }
                    th scope="col" { "Details" }
                }
            }
            tbody #requests {
                @for place in 0..REQUESTS {
                    tr #{ "q" (place) } { (cells.get(&format!("q{place}"))) }
                }
            }
        }
        p #none.muted { (cells.get("none")) }
    }
}

/// Maximum size of the reason of a failure in bytes. The log has all of it.
const MAX_REASON: usize = 80;

/// Width of the bar of a request in pixels, as in the style sheet.
const BAR_WIDTH: f64 = 180.0;

/// The time of the day.
fn time_of_day(unix_millis: u64) -> String {
    let seconds = unix_millis / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn row(request: &NotableRequest, operator: bool) -> Markup {
    let failed = request.kind == NotableKind::Failed;
    let total = request.total.as_secs_f64();
    let items = request
        .items
        .map(|items| format!("{items} item{}", if items == 1 { "" } else { "s" }));
    html! {
        td data-at=(request.unix_millis) { (time_of_day(request.unix_millis)) }
        td {
            @if failed { span.badge.problem { (request.status) } } @else { span.badge.warning { "slow" } }
        }
        td.number { (time(total)) }
        td { (stages(request)) }
        td {
            (request.protocol)
            @if let Some(items) = items { ", " (items) }
            @if operator {
                @if let Some(reason) = &request.reason { br; span.bad { (shortened(reason, MAX_REASON)) } }
                @if !request.id.is_empty() { br; small.muted { (shortened(&request.id, 40)) } }
            }
        }
    }
}

/// A bar with the part of each stage.
fn stages(request: &NotableRequest) -> Markup {
    let Some(timing) = request.timing else {
        return html! { span.muted { "not run" } };
    };
    let encode = request.encode.unwrap_or_default();
    let stages = [timing.prepare, timing.queue, timing.inference, encode];
    // The stages of different items overlap.
    let sum: f64 = stages.iter().map(std::time::Duration::as_secs_f64).sum();
    let total = request.total.as_secs_f64().max(sum).max(f64::MIN_POSITIVE);
    let widths = stages.map(|stage| {
        (stage.as_secs_f64() / total * BAR_WIDTH)
            .clamp(0.0, BAR_WIDTH)
            .round() as u32
    });
    let names = ["prepare", "queue", "inference", "encode"];
    let label: Vec<String> = names
        .iter()
        .zip(stages)
        .map(|(name, stage)| format!("{name} {}", time(stage.as_secs_f64())))
        .collect();
    let label = label.join(", ");
    let mut start = 0;
    html! {
        svg.stages role="img" aria-label=(label) {
            @for (stage, width) in widths.into_iter().enumerate() {
                @if width > 0 {
                    path class={ "s" (stage) } d={ "M" (start) " 5h" (width) } {}
                }
                ({ start += width; "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Timing;
    use crate::http::ui::cells::MAX_CELL;

    fn request() -> NotableRequest {
        NotableRequest {
            number: 1,
            kind: NotableKind::Failed,
            unix_millis: 5000,
            model: "m".to_owned(),
            task: Some("t".to_owned()),
            protocol: "native",
            id: "an-id-of-a-client".into(),
            status: 500,
            total: Duration::from_millis(100),
            timing: Some(Timing {
                prepare: Duration::from_millis(10),
                queue: Duration::from_millis(30),
                inference: Duration::from_millis(50),
            }),
            encode: Some(Duration::from_millis(1)),
            items: Some(2),
            reason: Some("the plugin \"panicked\" ".repeat(100)),
        }
    }

    #[test]
    fn only_operators_see_ids_and_reasons() {
        let text = |operator| row(&request(), operator).into_string();
        assert!(text(true).contains("panicked") && text(true).contains("an-id-of-a-client"));
        assert!(!text(false).contains("panicked") && !text(false).contains("an-id-of-a-client"));
    }

    #[test]
    fn a_further_request_changes_only_one_row() {
        let all: Vec<NotableRequest> = (0..30)
            .map(|number| NotableRequest { number, ..request() })
            .collect();
        let mut rows = Rows::default();
        let latest = |end: usize| -> Vec<NotableRequest> { all[..end].iter().rev().cloned().collect() };
        let numbers = |rows: &mut Rows, end: usize| {
            let requests = latest(end);
            rows.assign(&requests)
                .map(|request| request.map(|request| request.number))
        };
        let before = numbers(&mut rows, 20);
        let expected: Vec<_> = (5..20).rev().map(Some).collect();
        assert_eq!(before.to_vec(), expected);
        let after = numbers(&mut rows, 21);
        let changed = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        assert_eq!(changed.collect::<Vec<_>>(), [(&Some(5), &Some(20))]);
        assert_eq!(numbers(&mut rows, 0), [None; REQUESTS]);
    }

    #[test]
    fn the_time_of_a_request_is_that_of_the_day() {
        assert_eq!(time_of_day(1_764_510_000_999), "13:40:00");
    }

    #[test]
    fn a_row_has_its_stages_and_fits_into_an_event() {
        let text = row(&request(), true).into_string();
        for part in [
            "prepare 10.0 ms, queue 30.0 ms, inference 50.0 ms, encode 1.00 ms",
            "d=\"M18 5h54\"",
            "d=\"M72 5h90\"",
        ] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        let in_event = serde_json::Value::from(text).to_string();
        assert!(
            in_event.len() + "q14".len() < MAX_CELL,
            "{} bytes",
            in_event.len()
        );
    }
}
