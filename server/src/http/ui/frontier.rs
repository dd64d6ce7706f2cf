//! The memory of batches: what fits into the budget, as a table and as a plot of the frontier with the latest batches.
//!
//! Figures, the line and the dots are cells, so that they follow the batches.

use maud::{Markup, html};

use super::cells::Cells;
use super::figures::{number, or_dash};
use crate::engine::{Engine, Frontier, MemoryReport};
use crate::explanation::bytes;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 180.0;
/// Room for the labels of the axes.
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 30.0;
const MARGIN: f64 = 8.0;

/// Number of cells with dots, and the maximum number of dots in each.
const DOTS: (usize, usize) = (4, 20);

/// The memory of a task.
pub(super) struct Memory {
    report: MemoryReport,
    reserved: u64,
    /// `None` if memory is not limited.
    frontier: Option<Frontier>,
}

impl Memory {
    /// `None` if the memory of the task was not calibrated.
    pub(super) fn of(engine: &Engine, task: usize, max_items: u64) -> Option<Self> {
        Some(Self {
            report: engine.memory(task)?,
            reserved: engine.reserved_memory(),
            frontier: engine.frontier(task, max_items),
        })
    }

    /// Whether batches are limited, which decides on the form of the section.
    pub(super) fn is_limited(&self) -> bool {
        self.frontier.is_some()
    }

    /// Names and values of the table.
    fn rows(&self) -> [(&'static str, String); 7] {
        let report = &self.report;
        [
            (
                "Budget of all batches of the model that run at the same time",
                or_dash(report.budget_bytes, bytes),
            ),
            (
                "Held by the batches that run now, as predicted",
                bytes(self.reserved),
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
        ]
    }

    /// Adds the cells of the section. The batches are optional, since they change with every batch and fill an event.
    pub(super) fn add_cells(&self, cells: &mut Cells, with_batches: bool) {
        for (place, (_, value)) in self.rows().iter().enumerate() {
            cells.text(format!("m{place}"), value);
        }
        if let Some(frontier) = &self.frontier {
            Plot::new(frontier).add_cells(frontier, cells, with_batches);
        }
    }

    /// The section, with the cells of [`Memory::add_cells`].
    pub(super) fn section(&self, cells: &Cells) -> Markup {
        html! {
            div.columns {
                table.facts {
                    tbody {
                        @for (place, (name, _)) in self.rows().iter().enumerate() {
                            @let id = format!("m{place}");
                            tr { th scope="row" { (name) } td.number id=(id) { (cells.get(&id)) } }
                        }
                    }
                }
                @if self.is_limited() {
                    (plot(cells))
                } @else {
                    p.muted { "Without a memory budget, every batch fits." }
                }
            }
        }
    }
}

/// The scales of the plot. Both axes are logarithmic.
struct Plot {
    max_items: u64,
    max_weight: u64,
}

impl Plot {
    fn new(frontier: &Frontier) -> Self {
        let points = || frontier.limits.iter().chain(&frontier.batches);
        let max = |values: &mut dyn Iterator<Item = u64>| values.max().unwrap_or(1).max(2);
        Self {
            max_items: max(&mut points().map(|(items, _)| *items)),
            max_weight: max(&mut points().map(|(_, weight)| *weight)),
        }
    }

    fn at(&self, (items, weight): (u64, u64)) -> String {
        let x = LEFT + scale(items, self.max_items) * (WIDTH - LEFT - MARGIN);
        let y = HEIGHT - BOTTOM - scale(weight, self.max_weight) * (HEIGHT - BOTTOM - MARGIN);
        format!("{x:.1} {y:.1}")
    }

    fn add_cells(&self, frontier: &Frontier, cells: &mut Cells, with_batches: bool) {
        let limits = frontier.limits.iter().map(|limit| self.at(*limit));
        let line = limits.collect::<Vec<_>>().join("L");
        cells.html("ml", html! { path.limit d={ "M" (line) } {} });
        let mut dots = frontier.batches.chunks(DOTS.1);
        let places = if with_batches { DOTS.0 } else { 0 };
        for place in 0..places {
            let dots = dots.next().unwrap_or_default().iter();
            let dots: String = dots.map(|batch| format!("M{}h0", self.at(*batch))).collect();
            cells.html(format!("md{place}"), html! { path.batch d=(dots) {} });
        }
        cells.text("mx", &self.max_items.to_string());
        cells.text("my", &number(self.max_weight as f64));
        let title = format!(
            "Safe batches: up to {} items, and items of a weight of up to {}",
            self.max_items, self.max_weight
        );
        cells.text("mt", &title);
    }
}

/// Batches below the line fit.
fn plot(cells: &Cells) -> Markup {
    html! {
        figure {
            svg.frontier viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="mt" {
                title #mt { (cells.get("mt")) }
                path.axis d={ "M" (LEFT) " " (MARGIN) "V" (HEIGHT - BOTTOM) "H" (WIDTH - MARGIN) } {}
                g #ml { (cells.get("ml")) }
                @for place in 0..DOTS.0 {
                    @let id = format!("md{place}");
                    g id=(id) { (cells.get(&id)) }
                }
                text #my x=(LEFT - 4.0) y=(MARGIN + 8.0) text-anchor="end" { (cells.get("my")) }
                text x=(LEFT - 4.0) y=(HEIGHT - BOTTOM) text-anchor="end" { "1" }
                text x=(LEFT) y=(HEIGHT - 16.0) text-anchor="middle" { "1" }
                text #mx x=(WIDTH - MARGIN) y=(HEIGHT - 16.0) text-anchor="end" { (cells.get("mx")) }
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
    use crate::http::ui::cells::MAX_CELL;

    fn cells(frontier: &Frontier) -> Cells {
        let mut cells = Cells::default();
        Plot::new(frontier).add_cells(frontier, &mut cells, true);
        cells
    }

    #[test]
    fn axes_are_logarithmic() {
        assert_eq!([1, 10, 100].map(|value| scale(value, 100)), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn each_batch_is_a_dot_and_the_line_starts_at_one_item() {
        let cells = cells(&Frontier {
            limits: vec![(1, 100), (10, 10), (100, 1)],
            batches: vec![(10, 10), (1, 1)],
        });
        let line = cells.get("ml").into_string();
        assert!(line.contains("d=\"M48.0 8.0L180.0 79.0L312.0 150.0\""), "{line}");
        let dots = cells.get("md0").into_string();
        assert!(dots.contains("d=\"M180.0 79.0h0M48.0 150.0h0\""), "{dots}");
        assert_eq!(cells.get("mx").into_string(), "100");
    }

    #[test]
    fn all_batches_are_shown_in_cells_that_fit_into_an_event() {
        let cells = cells(&Frontier {
            limits: (0..40).map(|power| (1 << power, 1 << (40 - power))).collect(),
            batches: (0..64)
                .map(|number| (1 << (number % 8), 1 << (number % 30)))
                .collect(),
        });
        let mut dots = 0;
        for (id, html) in cells.iter() {
            let size = serde_json::Value::from(html).to_string().len() + id.len();
            assert!(size < MAX_CELL, "{id} has {size} bytes");
            dots += html.matches("h0").count();
        }
        assert_eq!(dots, 64);
    }
}
