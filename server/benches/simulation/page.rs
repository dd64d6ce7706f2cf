//! A page that draws mean latency by cell, one bar per policy.

use std::fmt::Write;

use crate::cells::Cell;
use crate::verdict::{BASELINES, Verdict};

const COLORS: [&str; 7] = [
    "#999", "#c6dbef", "#9ecae1", "#6baed6", "#3182bd", "#08519c", "#e6550d",
];
const BAR: usize = 6;
const WIDTH: f64 = 420.0;

/// The page as HTML, with one picture per cell. Bars are as long as the mean beside the largest of the cell.
pub(crate) fn draw(cells: &[Cell], verdicts: &[Verdict]) -> String {
    let names = BASELINES.iter().map(|(name, _)| *name).chain(["adaptive"]);
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Dispatch policies</title>\
         <style>body{font:13px sans-serif;columns:30em}figure{break-inside:avoid;margin:0 0 1em}</style>\
         <h1>Mean latency by policy</h1><p>",
    );
    for (name, color) in names.zip(COLORS) {
        let _ = write!(page, "<span style='color:{color}'>■</span> {name} ");
    }
    for (cell, verdict) in cells.iter().zip(verdicts) {
        let means: Vec<f64> = verdict
            .baselines
            .iter()
            .chain([&verdict.adaptive])
            .map(|measured| measured.mean)
            .collect();
        let largest = means.iter().copied().fold(0.0, f64::max);
        let height = means.len() * (BAR + 1);
        let _ = write!(
            page,
            "<figure><figcaption>{}: mean × {:.2}, p99 × {:.2}, throughput × {:.2}</figcaption>\
             <svg width={WIDTH} height={height}>",
            cell.name,
            verdict.mean(),
            verdict.p99(),
            verdict.throughput()
        );
        for (nth, (mean, color)) in means.iter().zip(COLORS).enumerate() {
            let (y, width) = (nth * (BAR + 1), mean / largest * WIDTH);
            let _ = write!(
                page,
                "<rect y={y} width={width:.0} height={BAR} fill='{color}'><title>{mean:.2} ms</title></rect>"
            );
        }
        page.push_str("</svg></figure>");
    }
    page
}
