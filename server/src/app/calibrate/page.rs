//! The HTML page with plots, a single self-contained file: measured batches, the fits, and the frontier of safe batches.

use std::collections::BTreeMap;

use maud::{DOCTYPE, PreEscaped, html};
use plotters::prelude::*;

use super::CalibrateCommandError;
use super::report::ModelReport;
use crate::batcher::cost_model::CostModel;
use crate::calibration::{Cell, Point, Summary, TaskMeasurement};

const SIZE: (u32, u32) = (640, 420);

const SMALL: (&str, u32) = ("sans-serif", 15);

/// The palette of Okabe and Ito, which is distinguishable with color blindness.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:84rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}\
    .plots{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto;border:1px solid #ddd}\
    pre{overflow-x:auto;background:#f6f6f6;padding:1rem}";

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
pub(super) fn of(report: &ModelReport) -> Result<String, CalibrateCommandError> {
    let mut sections = Vec::new();
    for (name, summary) in &report.tasks {
        let Some(task) = report.calibration.tasks.get(name) else {
            continue;
        };
        let plots: Result<Vec<String>, CalibrateCommandError> =
            plots_of(task, summary).iter().map(Plot::svg).collect();
        sections.push((name, plots?));
    }
    let title = format!("inference-server calibrate: {}", report.calibration.model);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                @for (name, plots) in &sections {
                    h2 { "Task " (name) }
                    // Plotters escapes text.
                    div.plots { @for plot in plots { (PreEscaped(plot)) } }
                }
                pre { (report) }
            }
        }
    };
    Ok(page.into_string())
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
    fn svg(&self) -> Result<String, CalibrateCommandError> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| CalibrateCommandError::Plot {
            plot: self.title.clone(),
            reason: error.to_string(),
        })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || {
            self.series
                .iter()
                .flat_map(|series| series.dots.iter().chain(&series.line))
        };
        let xs = range(points().map(|(x, _)| *x), 2.0);
        let ys = range(points().map(|(_, y)| *y), 1.5);
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .label_style(SMALL)
            .axis_desc_style(SMALL)
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
            .label_font(SMALL)
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        root.present()?;
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
