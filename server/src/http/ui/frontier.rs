//! The memory of batches: what fits into the budget, as a table and as a plot of the frontier with the latest batches.

use maud::{Markup, html};

use super::figures::or_dash;
use crate::engine::{Engine, Frontier};
use crate::explanation::bytes;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 180.0;
/// Room for the labels of the axes.
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 30.0;
const MARGIN: f64 = 8.0;

/// The section about memory. `None` if the memory of the task was not calibrated.
pub(super) fn section(engine: &Engine, task: usize, max_items: u64) -> Option<Markup> {
    let report = engine.memory(task)?;
    let frontier = engine.frontier(task, max_items);
    let rows = [
        (
            "Budget of all batches of the model that run at the same time",
            or_dash(report.budget_bytes, bytes),
        ),
        (
            "Held by the batches that run now, as predicted",
            bytes(engine.reserved_memory()),
        ),
        (
            "Predicted bound of the latest batch",
            or_dash(report.predicted_bytes, bytes),
        ),
        (
            "Measured memory of the latest batch",
            or_dash(report.measured_bytes, bytes),
        ),
        (
            "Margin: 99th percentile of the errors of the prediction",
            format!("{:.1}%", report.margin * 100.0),
        ),
        (
            "Measured relative to expected memory, in recent batches",
            or_dash(report.drift, |drift| format!("{drift:.2}")),
        ),
        (
            "Batches that no further item could join because of the budget",
            report.limited_batches.to_string(),
        ),
    ];
    Some(html! {
        div.columns {
            table.facts {
                tbody {
                    @for (name, value) in rows {
                        tr { th scope="row" { (name) } td.number { (value) } }
                    }
                }
            }
            @match frontier {
                Some(frontier) => (plot(&frontier)),
                None => p.muted { "Without a memory budget, every batch fits." }
            }
        }
    })
}

/// Batches below the line fit. Both axes are logarithmic.
fn plot(frontier: &Frontier) -> Markup {
    let points = || frontier.limits.iter().chain(&frontier.batches);
    let max_items = points().map(|(items, _)| *items).max().unwrap_or(1).max(2);
    let max_weight = points().map(|(_, weight)| *weight).max().unwrap_or(1).max(2);
    let x = |items: u64| LEFT + scale(items, max_items) * (WIDTH - LEFT - MARGIN);
    let y = |weight: u64| HEIGHT - BOTTOM - scale(weight, max_weight) * (HEIGHT - BOTTOM - MARGIN);
    let mut line = String::new();
    for (index, (items, weight)) in frontier.limits.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        line.push_str(&format!("{command}{:.1} {:.1}", x(*items), y(*weight)));
    }
    let label = format!(
        "Safe batches: up to {} items, and items of a weight of up to {}",
        max_items, max_weight
    );
    html! {
        figure {
            svg.frontier viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(label) {
                path.axis d={ "M" (LEFT) " " (MARGIN) "V" (HEIGHT - BOTTOM) "H" (WIDTH - MARGIN) } {}
                path.limit d=(line) {}
                @for (items, weight) in &frontier.batches {
                    circle cx=(format!("{:.1}", x(*items))) cy=(format!("{:.1}", y(*weight))) r="2.5" {}
                }
                text x=(LEFT - 4.0) y=(MARGIN + 8.0) text-anchor="end" { (super::figures::number(max_weight as f64)) }
                text x=(LEFT - 4.0) y=(HEIGHT - BOTTOM) text-anchor="end" { "1" }
                text x=(LEFT) y=(HEIGHT - 16.0) text-anchor="middle" { "1" }
                text x=(WIDTH - MARGIN) y=(HEIGHT - 16.0) text-anchor="end" { (max_items) }
                text x=((LEFT + WIDTH) / 2.0) y=(HEIGHT - 3.0) text-anchor="middle" { "items in a batch" }
            }
            figcaption {
                "Greatest weight of an item by the number of items. Batches below the line fit into the budget; dots are the latest \
                 batches."
            }
        }
    }
}

/// The place of a value on a logarithmic axis from 1 to `max`, from 0 to 1.
fn scale(value: u64, max: u64) -> f64 {
    (value.max(1) as f64).ln() / (max.max(2) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic() {
        assert_eq!([1, 10, 100].map(|value| scale(value, 100)), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn each_batch_is_a_dot_and_the_line_starts_at_one_item() {
        let frontier = Frontier {
            limits: vec![(1, 100), (10, 10), (100, 1)],
            batches: vec![(10, 10), (1, 1)],
        };
        let text = plot(&frontier).into_string();
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(text.contains("d=\"M48.0 8.0L180.0 79.0L312.0 150.0\""), "{text}");
        assert!(text.contains("cx=\"180.0\" cy=\"79.0\""), "{text}");
    }
}
