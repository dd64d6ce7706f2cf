//! Line plots over the steps of a run, as SVG.
//!
//! Steps have equal distances on the x axis, so that 1, 4, 16 and 64 clients are all visible.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use crate::html_report::{self, Area, COLORS, LABEL_FONT, PlotError, TITLE_FONT};

/// A plot.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x_title: &'static str,
    pub(super) y_title: &'static str,
    pub(super) scale: Scale,
    /// The labels of the steps, from left to right.
    pub(super) ticks: Vec<String>,
    pub(super) lines: Vec<Line>,
}

/// The scale of the y axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// Only values greater than zero are drawn.
    Logarithmic,
}

/// A line of one color.
pub(super) struct Line {
    pub(super) name: String,
    /// One value per tick. The line skips steps without a value.
    pub(super) values: Vec<Option<f64>>,
}

impl Scale {
    fn height(self, value: f64) -> Option<f64> {
        match self {
            Self::Linear => value.is_finite().then_some(value),
            Self::Logarithmic => (value > 0.0 && value.is_finite()).then(|| value.log10()),
        }
    }

    fn value(self, height: f64) -> f64 {
        match self {
            Self::Linear => height,
            Self::Logarithmic => 10_f64.powf(height),
        }
    }

    /// The range of the axis for these heights.
    fn range(self, heights: impl Iterator<Item = f64>) -> Range<f64> {
        let (low, high) = heights.fold((f64::MAX, f64::MIN), |(low, high), height| {
            (low.min(height), high.max(height))
        });
        match self {
            _ if low > high => 0.0..1.0,
            Self::Linear => 0.0..(high * 1.1).max(f64::MIN_POSITIVE),
            Self::Logarithmic => (low - 0.1)..(high + 0.1),
        }
    }

    /// The heights of grid lines: about five round numbers.
    fn ticks(self, range: &Range<f64>) -> Vec<f64> {
        let within = |height: &f64| range.contains(height);
        match self {
            Self::Linear => {
                let rough = (range.end - range.start) / 5.0;
                let decade = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * decade);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                (0..10)
                    .map(|count| f64::from(count) * step)
                    .filter(within)
                    .collect()
            }
            Self::Logarithmic => {
                let decades = range.start.floor() as i32..=range.end.ceil() as i32;
                let round: &[f64] = if range.end - range.start > 3.0 {
                    &[1.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                decades
                    .flat_map(|decade| round.iter().map(move |round| round.log10() + f64::from(decade)))
                    .filter(within)
                    .collect()
            }
        }
    }
}

impl Plot {
    /// An `<svg>` element.
    pub(super) fn svg(&self) -> Result<String, PlotError> {
        html_report::svg(self.title, |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let heights = self.lines.iter().flat_map(|line| line.points(self.scale));
        let range = self.scale.range(heights.map(|(_, height)| height));
        let y_ticks = self.scale.ticks(&range);
        let x_ticks: Vec<f64> = (0..self.ticks.len()).map(|index| index as f64).collect();
        let lines: Vec<&Line> = self
            .lines
            .iter()
            .filter(|line| line.points(self.scale).next().is_some())
            .collect();
        let names = lines.len() > 1;
        // About a quarter of the width, at the right, is reserved for the legend, so that it does not cover lines.
        let steps = self.ticks.len().max(1) as f64;
        let right = steps - 0.7 + if names { steps / 3.0 } else { 0.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, TITLE_FONT)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(Axis::new(-0.3..right, x_ticks), Axis::new(range, y_ticks))?;
        let x_label = |place: &f64| {
            self.ticks
                .get(place.round() as usize)
                .cloned()
                .unwrap_or_default()
        };
        let y_label = |height: &f64| short(self.scale.value(*height));
        chart
            .configure_mesh()
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .label_style(LABEL_FONT)
            .axis_desc_style(LABEL_FONT)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        for (line, color) in lines.into_iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points(self.scale), color.stroke_width(2)).point_size(3))?
                .label(&line.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        if names {
            chart
                .configure_series_labels()
                .label_font(LABEL_FONT)
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
        Ok(())
    }
}

impl Line {
    /// The points that the scale can show.
    fn points(&self, scale: Scale) -> impl Iterator<Item = (f64, f64)> {
        let points = self.values.iter().enumerate();
        points.filter_map(move |(index, value)| Some((index as f64, scale.height((*value)?)?)))
    }
}

/// An axis with ticks at given values. `WithKeyPoints` of the library does not support labels.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    fn new(range: Range<f64>, ticks: Vec<f64>) -> Self {
        Self { range, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A number without rounding errors.
fn short(value: f64) -> String {
    let digits = if value.abs() >= 1.0 { 1e3 } else { 1e6 };
    format!("{}", (value * digits).round() / digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, values: &[Option<f64>]) -> Plot {
        Plot {
            title: "Latency",
            x_title: "clients",
            y_title: "ms",
            scale,
            ticks: (0..values.len()).map(|index| format!("tick {index}")).collect(),
            lines: ["a < b", "c"]
                .map(|name| Line {
                    name: name.to_owned(),
                    values: values.to_vec(),
                })
                .into(),
        }
    }

    #[test]
    fn a_plot_has_labels_for_its_axes_lines_and_steps() {
        let svg = plot(Scale::Logarithmic, &[Some(1.0), None, Some(30.0)])
            .svg()
            .expect("it can be drawn");
        for part in [
            "<svg", "Latency", "clients", "ms", "tick 0", "tick 2", "a &lt; b", "\n10\n", "</svg>",
        ] {
            assert!(svg.contains(part), "{part:?} is not in {svg}");
        }
    }

    #[test]
    fn a_plot_without_values_is_empty() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for values in [&[][..], &[None], &[Some(0.0)], &[Some(f64::NAN)]] {
                plot(scale, values).svg().expect("it can be drawn");
            }
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let ticks = |scale: Scale, range| -> Vec<String> {
            scale
                .ticks(&range)
                .into_iter()
                .map(|height| short(scale.value(height)))
                .collect()
        };
        assert_eq!(ticks(Scale::Linear, 0.0..1234.0), ["0", "500", "1000"]);
        assert_eq!(ticks(Scale::Linear, 0.0..0.9), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(ticks(Scale::Logarithmic, -0.5..1.1), ["0.5", "1", "2", "5", "10"]);
    }
}
