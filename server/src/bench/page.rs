//! The HTML page with plots, a single self-contained file.

use maud::{Markup, html};

use super::compare::{loads, step};
use super::plot::{Line, Plot, Scale};
use super::report::{Latency, Load, Report, Step};
use super::table;
use crate::html_report::{self, PlotError, Section};

/// The page of one or more runs, which share their plots.
pub(super) fn of(reports: &[&Report]) -> Result<String, PlotError> {
    let labels: Vec<&str> = reports.iter().map(|report| report.label.as_str()).collect();
    let title = format!("inference-server bench: {}", labels.join(", "));
    let loads = loads(reports);
    let (open, closed): (Vec<Load>, Vec<Load>) = loads.into_iter().partition(Load::is_open);
    let plots = [
        ("Closed loop", "clients", closed),
        ("Open loop", "target requests per second", open),
    ];
    let mut sections = Vec::new();
    for (heading, x_title, loads) in plots.into_iter().filter(|(.., loads)| !loads.is_empty()) {
        let plots: Result<Vec<String>, PlotError> =
            plots_of(reports, &loads, x_title).iter().map(Plot::svg).collect();
        sections.push(Section::new(heading, plots?));
    }
    let details = html! { @for report in reports { (details(report)) } };
    Ok(html_report::page(&title, &sections, &details))
}

type Pick = fn(&Step) -> Option<f64>;
type PickLatency = fn(&Latency) -> f64;

const PERCENTILES: [(&str, PickLatency); 4] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p99_9),
];

fn plots_of(reports: &[&Report], loads: &[Load], x_title: &'static str) -> Vec<Plot> {
    let ticks: Vec<String> = loads.iter().map(|load| load.size().to_string()).collect();
    let line = |report: &Report, name: String, pick: &dyn Fn(&Step) -> Option<f64>| Line {
        name,
        values: loads
            .iter()
            .map(|load| step(report, *load).and_then(pick))
            .collect(),
    };
    // All percentiles of several runs would be too many lines.
    let percentiles = match reports.len() {
        1 => &PERCENTILES[..],
        _ => &[PERCENTILES[0], PERCENTILES[2]],
    };
    let mut latencies = Vec::new();
    for report in reports {
        for (percentile, pick) in percentiles {
            let name = match reports.len() {
                1 => (*percentile).to_owned(),
                _ => format!("{} {percentile}", report.label),
            };
            let in_millis = |step: &Step| step.latency_seconds.as_ref().map(|latency| pick(latency) * 1e3);
            latencies.push(line(report, name, &in_millis));
        }
    }
    let per_report = |pick: Pick| -> Vec<Line> {
        reports
            .iter()
            .map(|report| line(report, report.label.clone(), &pick))
            .collect()
    };
    let stages: [(&str, Pick); 4] = [
        ("queue", |step| step.server?.queue_seconds),
        ("prepare", |step| step.server?.prepare_seconds),
        ("inference", |step| step.server?.inference_seconds),
        ("encode", |step| step.server?.encode_seconds),
    ];
    let plot = |title, y_title, scale, lines| Plot {
        title,
        x_title,
        y_title,
        scale,
        ticks: ticks.clone(),
        lines,
    };
    let mut plots = vec![
        plot("Latency", "milliseconds", Scale::Logarithmic, latencies),
        plot(
            "Throughput",
            "requests per second",
            Scale::Linear,
            per_report(|step| Some(step.requests_per_second)),
        ),
        plot(
            "Mean batch size",
            "items",
            Scale::Linear,
            per_report(|step| step.server?.batch_size),
        ),
    ];
    if let [report] = reports {
        let in_millis = |pick: Pick| move |step: &Step| pick(step).map(|seconds| seconds * 1e3);
        let lines = stages.map(|(name, pick)| line(report, name.to_owned(), &in_millis(pick)));
        plots.push(plot(
            "Mean time per stage in the server",
            "milliseconds",
            Scale::Logarithmic,
            lines.into(),
        ));
    }
    plots
}

fn details(report: &Report) -> Markup {
    let started = std::time::UNIX_EPOCH + std::time::Duration::from_secs(report.started_unix_seconds);
    html! {
        h2 { (report.label) }
        dl {
            dt { "Task" } dd { (report.model) "/" (report.task) " at " (report.server_url) }
            dt { "Load" } dd { (table::request_size(report)) }
            dt { "Started" } dd { (humantime::format_rfc3339_seconds(started)) }
            dt { "Warm-up" } dd { (report.warm_up_seconds) " s before each step" }
        }
        div.wide { table {
            thead { tr { @for name in table::HEADER { th { (name) } } } }
            tbody {
                @for step in &report.steps {
                    tr { @for cell in table::row(step) { td { (cell) } } }
                }
            }
        } }
        @for step in &report.steps {
            @for error in &step.errors {
                p { (step.load) ": " (error.count) " × " (error.kind) ": " (error.first_message) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{closed, open, report};

    /// The page with every plot replaced by a word, since drawing is up to the library.
    fn without_plots(page: &str) -> String {
        let mut parts = page.split("<svg");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (_, rest) = part.split_once("</svg>").expect("an element has an end");
            text += "PLOT";
            text += rest;
        }
        text.replace("><", ">\n<")
    }

    #[test]
    fn the_page_of_a_run_has_its_plots_and_table() {
        let report = report("<b>greedy</b>", &[closed(1), closed(16)], 1.0);
        let page = of(&[&report]).expect("it can be drawn");
        assert!(!page.contains("<b>"), "labels are escaped");
        assert!(
            !page.contains("<script") && !page.contains("src="),
            "the page is self-contained and has no scripts"
        );
        insta::assert_snapshot!(without_plots(&page));
    }

    #[test]
    fn compared_runs_share_their_plots() {
        let a = report("greedy", &[closed(1), open(10.0)], 1.0);
        let b = report("fixed", &[closed(4), open(20.0)], 0.8);
        let page = of(&[&a, &b]).expect("it can be drawn");
        assert_eq!(page.matches("<svg").count(), 6);
        for part in ["Closed loop", "Open loop", "greedy p50", "fixed p99"] {
            assert!(page.contains(part), "{part:?} is not in the page");
        }
    }
}
