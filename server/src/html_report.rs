//! Self-contained HTML pages with plots, which the commands `bench` and `calibrate` write.
//!
//! The frame of a page, and what all plots have in common. The commands provide the content and draw the plots.

use std::error::Error;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:84rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
    .plots{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto;border:1px solid #ddd}\
    .wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
    th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
    th:first-child,td:first-child{text-align:left}dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}dd{margin:0}\
    pre{overflow-x:auto;background:#f6f6f6;padding:1rem}";

/// Size of a plot in pixels.
const SIZE: (u32, u32) = (640, 400);

/// Font of the title of a plot.
pub const TITLE_FONT: (&str, u32) = ("sans-serif", 20);

/// Font of all other text in a plot.
pub const LABEL_FONT: (&str, u32) = ("sans-serif", 15);

/// The palette of Okabe and Ito, which is distinguishable with color blindness.
pub const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Why a plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the plot \"{title}\": {reason}")]
pub struct PlotError {
    title: String,
    reason: String,
}

/// The area of a plot.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Plots below a heading.
pub struct Section {
    heading: String,
    plots: Vec<String>,
}

impl Section {
    /// `plots` are `<svg>` elements.
    pub fn new(heading: impl Into<String>, plots: Vec<String>) -> Self {
        Self {
            heading: heading.into(),
            plots,
        }
    }
}

/// Returns an `<svg>` element with the plot that `draw` draws on a white area.
///
/// # Errors
/// If the library cannot draw it.
pub fn svg(
    title: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    let drawn = (|| {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
        Ok::<_, Box<dyn Error>>(())
    })();
    drawn.map_err(|error| PlotError {
        title: title.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(svg)
}

/// Returns a page with plots, followed by `details`.
pub fn page(title: &str, sections: &[Section], details: &Markup) -> String {
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
                @for section in sections {
                    h2 { (section.heading) }
                    // Plotters escapes text.
                    div.plots { @for plot in &section.plots { (PreEscaped(plot)) } }
                }
                (details)
            }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_that_cannot_be_drawn_is_named() {
        let error = svg("Latency", |_| Err("no room".into())).expect_err("it cannot be drawn");
        assert_eq!(error.to_string(), "cannot draw the plot \"Latency\": no room");
    }
}
