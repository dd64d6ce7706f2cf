//! The HTML page with plots, a single self-contained file: measured batches, the fits, and the frontier of safe batches.

use std::collections::BTreeMap;

use maud::html;
use plotters::prelude::*;

use super::report::ModelReport;
use crate::batcher::cost_model::CostModel;
use crate::calibration::{Cell, Point, Summary, TaskMeasurement};
use crate::html_report::{self, Area, COLORS, LABEL_FONT, PlotError, Section, TITLE_FONT};

const MIB: f64 = 1024.0 * 1024.0;

/// Points and lines of one color.
struct Series {
    name: String,
    /// Measured values.
    dots: Vec<(f64, f64)>,
    /// The model.
    line: Vec<(f64, f64)>,
}

/// A plot with two logarithmic axes.
struct Plot {
    title: String,
    x_title: &'static str,
    y_title: &'static str,
    series: Vec<Series>,
}

/// The page of a model.
pub(super) fn of(report: &ModelReport) -> Result<String, PlotError> {
    let mut sections = Vec::new();
    for (name, summary) in &report.tasks {
        let Some(task) = report.calibration.tasks.get(name) else {
            continue;
        };
        let plots: Result<Vec<String>, PlotError> = plots_of(task, summary).iter().map(Plot::svg).collect();
        sections.push(Section::new(format!("Task {name}"), plots?));
    }
    let title = format!("inference-server calibrate: {}", report.calibration.model);
    Ok(html_report::page(&title, &sections, &html! { pre { (report) } }))
}

fn plots_of(task: &TaskMeasurement, summary: &Summary) -> Vec<Plot> {
    let by_size =
        |title: &str, y_title, model: Option<&CostModel>, values: fn(&Point) -> &[f64], unit: f64| Plot {
            title: title.to_owned(),
            x_title: "items in a batch",
            y_title,
            series: by_weight(task, model, values, unit),
        };
    let safe = summary.batches.iter().filter_map(|batch| {
        let items = batch.safe.filter(|items| *items > 0)?;
        Some((batch.weight as f64, items as f64))
    });
    let knees = summary
        .batches
        .iter()
        .filter_map(|batch| Some((batch.weight as f64, batch.knee? as f64)));
    let measured = task
        .points
        .iter()
        .map(|point| (point.heaviest as f64, point.items as f64));
    let frontier = Plot {
        title: "Largest batches".to_owned(),
        x_title: "weight of the items",
        y_title: "items in a batch",
        series: vec![
            Series {
                name: "safe".to_owned(),
                dots: Vec::new(),
                line: safe.collect(),
            },
            Series {
                name: "knee".to_owned(),
                dots: Vec::new(),
                line: knees.collect(),
            },
            Series {
                name: "measured".to_owned(),
                dots: measured.collect(),
                line: Vec::new(),
            },
        ],
    };
    vec![
        by_size(
            "Memory of a batch",
            "MiB",
            task.costs.memory.as_ref(),
            |point| &point.memory_bytes,
            MIB,
        ),
        by_size(
            "Time of a batch",
            "milliseconds",
            task.costs.time.as_ref(),
            |point| &point.seconds,
            1e-3,
        ),
        frontier,
    ]
}

/// The measured values and the model, by the batch size, for each weight with several batch sizes.
fn by_weight(
    task: &TaskMeasurement,
    model: Option<&CostModel>,
    values: fn(&Point) -> &[f64],
    unit: f64,
) -> Vec<Series> {
    let mut weights: BTreeMap<u64, Vec<&Point>> = BTreeMap::new();
    for point in &task.points {
        weights.entry(point.heaviest).or_default().push(point);
    }
    weights
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .map(|(weight, points)| {
            let expected = |point: &&Point| {
                let cell = Cell {
                    items: point.items,
                    weight,
                };
                let predicted = model?.predict(&cell.uniform()).ok()?;
                Some((point.items as f64, predicted.expected / unit))
            };
            let dots = points.iter().flat_map(|point| {
                let items = point.items as f64;
                values(point).iter().map(move |value| (items, value / unit))
            });
            Series {
                name: format!("weight {weight}"),
                dots: dots.collect(),
                line: points.iter().filter_map(expected).collect(),
            }
        })
        .collect()
}

impl Plot {
    /// An `<svg>` element.
    fn svg(&self) -> Result<String, PlotError> {
        html_report::svg(&self.title, |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let points = || {
            self.series
                .iter()
                .flat_map(|series| series.dots.iter().chain(&series.line))
        };
        let xs = range(points().map(|(x, _)| *x), 2.0);
        let ys = range(points().map(|(_, y)| *y), 1.5);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, TITLE_FONT)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .label_style(LABEL_FONT)
            .axis_desc_style(LABEL_FONT)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        for (series, color) in self.series.iter().zip(COLORS.iter().cycle()) {
            let visible = |point: &&(f64, f64)| point.0 > 0.0 && point.1 > 0.0;
            let dots = series.dots.iter().filter(visible);
            chart.draw_series(dots.map(|point| Circle::new(*point, 3, color.filled())))?;
            let line = series.line.iter().filter(visible).copied();
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                .label(&series.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .label_font(LABEL_FONT)
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}

/// The range of an axis with these values, of which only those greater than zero are drawn, and a margin.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> std::ops::Range<f64> {
    let positive = values.filter(|value| *value > 0.0 && value.is_finite());
    let (low, high) = positive.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 1.0..10.0;
    }
    // Values close to zero would compress the others.
    low.max(high / 1e4) / margin..high * margin
}
