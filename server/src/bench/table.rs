//! The report as text for a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::report::{Report, Step};

/// Above this fraction of a CPU, the client limits the results.
const MAX_CLIENT_BUSY: f64 = 0.85;

/// The report: a title, a line per step, and notes.
pub(super) fn of_report(report: &Report) -> String {
    let (target, url) = (
        format_args!("{}/{}", report.model, report.task),
        &report.server_url,
    );
    let steps = aligned(&HEADER, report.steps.iter().map(row));
    let text = format!("{target} at {url}, {}\n\n{steps}", request_size(report));
    let notes = notes(report);
    if notes.is_empty() {
        return text;
    }
    format!("{text}\n\n{}", notes.join("\n"))
}

/// Notes about failures and unreliable results.
fn notes(report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = failures(report).collect();
    for step in &report.steps {
        let load = step.load;
        let failed_items = step.server.map_or(0, |server| server.items_failed);
        if failed_items > 0 {
            notes.push(format!("{load}: {failed_items} items failed in the server"));
        }
        if step.client_busy > MAX_CLIENT_BUSY {
            let percent = step.client_busy * 100.0;
            notes.push(format!(
                "{load}: this client used {percent:.0} % of a CPU; the server may be faster than reported"
            ));
        }
        if step.server.is_none() {
            notes.push(format!(
                "{load}: no server times: /metrics did not respond in time or does not have this task"
            ));
        }
    }
    notes
}

/// The size of a request.
pub(super) fn request_size(report: &Report) -> String {
    let items = match report.items_per_request {
        1 => "1 item".to_owned(),
        items => format!("{items} items"),
    };
    format!("{items} and {} bytes per request", report.body_bytes)
}

/// A line per step and kind of failure.
pub(super) fn failures(report: &Report) -> impl Iterator<Item = String> {
    report.steps.iter().flat_map(|step| {
        step.errors.iter().map(|error| {
            let (load, count, kind) = (step.load, error.count, &error.kind);
            format!("{load}: {count} × {kind}: {}", error.first_message)
        })
    })
}

/// The columns. Times are in milliseconds; columns from `batch` on are the server's own.
pub(super) const HEADER: [&str; 14] = [
    "load",
    "req/s",
    "items/s",
    "p50 ms",
    "p90",
    "p99",
    "p99.9",
    "max",
    "failed",
    "batch",
    "queue ms",
    "prepare",
    "inference",
    "encode",
];

/// The cells of a step, in the order of [`HEADER`].
pub(super) fn row(step: &Step) -> Vec<String> {
    let latency = |pick: fn(&super::report::Latency) -> f64| millis(step.latency_seconds.as_ref().map(pick));
    let server = |pick: fn(&super::report::ServerSide) -> Option<f64>| step.server.as_ref().and_then(pick);
    vec![
        step.load.to_string(),
        number(Some(step.requests_per_second)),
        number(Some(step.items_per_second)),
        latency(|latency| latency.p50),
        latency(|latency| latency.p90),
        latency(|latency| latency.p99),
        latency(|latency| latency.p99_9),
        latency(|latency| latency.max),
        step.failed().to_string(),
        number(server(|server| server.batch_size)),
        millis(server(|server| server.queue_seconds)),
        millis(server(|server| server.prepare_seconds)),
        millis(server(|server| server.inference_seconds)),
        millis(server(|server| server.encode_seconds)),
    ]
}

/// A table whose first column is aligned to the left and the others to the right.
pub(super) fn aligned<'a>(header: &[&str], rows: impl IntoIterator<Item = Vec<String>> + 'a) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().copied()).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A missing value.
pub(super) const NONE: &str = "-";

/// Seconds as milliseconds, with three significant digits.
pub(super) fn millis(seconds: Option<f64>) -> String {
    number(seconds.map(|seconds| seconds * 1e3))
}

/// A number with three significant digits, at most three of them after the decimal point.
pub(super) fn number(number: Option<f64>) -> String {
    let Some(number) = number else {
        return NONE.to_owned();
    };
    let decimals = match number.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::ErrorCount;
    use crate::bench::report::tests::{closed, open, report};

    #[test]
    fn a_report_has_a_line_per_step_and_a_line_per_error() {
        let mut report = report("greedy", &[closed(1), closed(64), open(12.5)], 1.0);
        report.steps[1].errors.push(ErrorCount {
            kind: "429".to_owned(),
            count: 12,
            first_message: "the queue of task `classify` is full".to_owned(),
        });
        report.steps[0].client_busy = 0.97;
        report.steps[2].server = None;
        report.steps[2].latency_seconds = None;
        insta::assert_snapshot!(of_report(&report));
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, text) in [
            (12345.6, "12346"),
            (12.345, "12.3"),
            (1.2345, "1.23"),
            (0.012345, "0.012"),
        ] {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "-");
    }
}
