//! Comparison of two runs.

use super::report::{Load, Report, Step};
use super::table::{NONE, aligned, failures, millis, number, request_size};

const HEADER: [&str; 13] = [
    "load", "req/s A", "B", "B/A", "p50 ms A", "B", "B/A", "p99 ms A", "B", "B/A", "batch A", "B", "B/A",
];

/// A line per load of either run, with ratios for loads of both.
pub(super) fn table(a: &Report, b: &Report) -> String {
    let names = [("A", a), ("B", b)].map(|(letter, report)| {
        let (label, size) = (&report.label, request_size(report));
        format!("{letter}: {label} ({}/{}, {size})", report.model, report.task)
    });
    let loads = loads(&[a, b]);
    let rows: Vec<Vec<String>> = loads
        .iter()
        .map(|load| row(*load, step(a, *load), step(b, *load)))
        .collect();
    let text = format!("{}\n\n{}", names.join("\n"), aligned(&HEADER, rows));
    // Rejections are fast, so with failures, latency and throughput are misleading.
    let failures: Vec<String> = [("A", a), ("B", b)]
        .iter()
        .flat_map(|(letter, report)| failures(report).map(move |failure| format!("{letter}: {failure}")))
        .collect();
    if failures.is_empty() {
        return text;
    }
    format!("{text}\n\n{}", failures.join("\n"))
}

/// The distinct loads of several runs: closed loops first, then by size.
pub(super) fn loads(reports: &[&Report]) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    for step in reports.iter().flat_map(|report| &report.steps) {
        if !loads.contains(&step.load) {
            loads.push(step.load);
        }
    }
    loads.sort_by(|a, b| a.is_open().cmp(&b.is_open()).then(a.size().total_cmp(&b.size())));
    loads
}

/// The step of a run with this load.
pub(super) fn step(report: &Report, load: Load) -> Option<&Step> {
    report.steps.iter().find(|step| step.load == load)
}

fn row(load: Load, a: Option<&Step>, b: Option<&Step>) -> Vec<String> {
    let mut cells = vec![load.to_string()];
    let mut add = |show: fn(Option<f64>) -> String, pick: fn(&Step) -> Option<f64>| {
        let (a, b) = (a.and_then(pick), b.and_then(pick));
        cells.extend([show(a), show(b), ratio(a, b)]);
    };
    add(number, |step| Some(step.requests_per_second));
    add(millis, |step| Some(step.latency_seconds?.p50));
    add(millis, |step| Some(step.latency_seconds?.p99));
    add(number, |step| step.server?.batch_size);
    cells
}

fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if a > 0.0 => format!("{:.2}", b / a),
        _ => NONE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{closed, open, report};

    #[test]
    fn two_runs_are_compared_by_load() {
        let a = report("greedy", &[closed(16), closed(1), closed(4)], 1.0);
        let mut b = report("fixed", &[closed(4), closed(16), open(100.0)], 0.8);
        b.steps[1].latency_seconds = None;
        insta::assert_snapshot!(table(&a, &b));
    }
}
