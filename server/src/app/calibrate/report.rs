//! What the command prints: the fits, the largest safe batches, the knee of the throughput, and the suggested settings.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};

use crate::calibration::{
    Calibration, Check, Fit, MemorySource, SafeBatch, SkipReason, Suggestion, Summary, TaskMeasurement,
};

/// The measurements of a model and what follows from them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReport {
    pub(super) calibration: Calibration,
    /// The tasks that were measured, with what follows.
    pub(super) tasks: Vec<(String, Summary)>,
    /// The tasks that were not measured, and the reason.
    unmeasured: Vec<(String, String)>,
    /// The file with the measurements.
    file: PathBuf,
    /// Memory for all batches that run at the same time.
    pub(super) budget: u64,
}

impl ModelReport {
    pub(super) fn new(
        calibration: Calibration,
        measured: Vec<String>,
        unmeasured: Vec<(String, String)>,
        file: PathBuf,
        budget: u64,
        cores: u64,
    ) -> Self {
        let tasks = measured
            .into_iter()
            .filter_map(|name| {
                let summary = Summary::of(calibration.tasks.get(&name)?, budget, cores);
                Some((name, summary))
            })
            .collect();
        Self {
            calibration,
            tasks,
            unmeasured,
            file,
            budget,
        }
    }

    /// What was measured, in one line.
    pub(super) fn title(&self) -> String {
        let key = &self.calibration.key;
        let threads = match key.threads() {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        format!(
            "model `{}` on {}, {threads}; idle process: {}",
            self.calibration.model,
            key.device(),
            bytes(self.calibration.idle_bytes as f64)
        )
    }
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        let source = match self.calibration.memory_source {
            MemorySource::Model => "as the model reports it",
            MemorySource::Process => "peak of the process above its idle state",
        };
        writeln!(f, "memory of a batch: {source}")?;
        for (name, summary) in &self.tasks {
            if let Some(task) = self.calibration.tasks.get(name) {
                write_task(f, name, task, summary, self.budget)?;
            }
        }
        for (_, reason) in &self.unmeasured {
            writeln!(f, "\nnot measured: {reason}")?;
        }
        write_suggestions(f, self)?;
        writeln!(f, "\nwritten to {}", self.file.display())
    }
}

fn write_task(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    task: &TaskMeasurement,
    summary: &Summary,
    budget: u64,
) -> fmt::Result {
    let batches = task.points.len();
    writeln!(f, "\ntask `{name}`: {batches} different batches measured")?;
    writeln!(f, "\n{}", fits(task, summary))?;
    for (what, reason) in &task.not_fitted {
        writeln!(f, "no model of the {what}: {reason}")?;
    }
    if let Some(line) = checked(task) {
        writeln!(f, "{line}")?;
    }
    for line in limits_reached(task) {
        writeln!(f, "{line}")?;
    }
    writeln!(
        f,
        "\nlargest batches, by the weight of the items (budget: {})",
        bytes(budget as f64)
    )?;
    writeln!(f, "{}", batch_table(&summary.batches))
}

/// The suggested settings, as lines to paste into the configuration.
fn write_suggestions(f: &mut fmt::Formatter<'_>, report: &ModelReport) -> fmt::Result {
    let workers = report
        .tasks
        .iter()
        .map(|(_, summary)| summary.suggestion.workers)
        .min();
    writeln!(f, "\nsuggested settings of the model")?;
    if let Some(workers) = workers {
        writeln!(f, "    workers = {workers}")?;
    }
    for (name, summary) in &report.tasks {
        let Suggestion {
            max_batch_size,
            max_batch_weight,
            ..
        } = summary.suggestion;
        writeln!(f, "    [models.tasks.{name}]")?;
        writeln!(f, "    max_batch_size = {max_batch_size}")?;
        if let Some(weight) = max_batch_weight {
            writeln!(f, "    max_batch_weight = {weight}")?;
        }
    }
    Ok(())
}

fn fits(task: &TaskMeasurement, summary: &Summary) -> Table {
    let (third, fourth) = match task.weight_rule {
        crate::batching::WeightRule::Padded => ("B·L", "B·L²"),
        crate::batching::WeightRule::Sum => ("Σw", "Σw²"),
    };
    let header = [
        "", "fixed", "per item", third, fourth, "R²", "residual", "max", "margin",
    ];
    let mut table = table(&header);
    let fitted = [
        ("memory", &summary.memory, bytes as fn(f64) -> String),
        ("time", &summary.time, seconds),
    ];
    for (name, fit, show) in fitted {
        if let Some(fit) = fit {
            table.add_row(fit_row(name, fit, show));
        }
    }
    align_right(&mut table);
    table
}

fn fit_row(name: &str, fit: &Fit, show: fn(f64) -> String) -> Vec<String> {
    let coefficient = |coefficient: &crate::batcher::cost_model::Coefficient| {
        if coefficient.is_identifiable {
            show(coefficient.value)
        } else {
            "not identifiable".to_owned()
        }
    };
    let mut row = vec![name.to_owned()];
    row.extend(fit.coefficients.iter().map(coefficient));
    row.push(format!("{:.4}", fit.r_squared));
    row.extend([fit.median_residual, fit.max_residual, fit.margin].map(percent));
    row
}

/// The largest safe batch and the knee of each weight.
fn batch_table(batches: &[SafeBatch]) -> Table {
    let mut table = table(&["weight", "safe", "knee"]);
    for batch in batches {
        table.add_row([
            batch.weight.to_string(),
            match batch.safe {
                Some(0) => "too heavy".to_owned(),
                Some(items) => items.to_string(),
                None => "any".to_owned(),
            },
            batch
                .knee
                .map_or_else(|| "unknown".to_owned(), |items| items.to_string()),
        ]);
    }
    align_right(&mut table);
    table
}

/// How random batches compare with the predictions of the fit.
fn checked(task: &TaskMeasurement) -> Option<String> {
    let count = task.checks.len();
    let within = |check: &&Check| check.measured_bytes <= check.bound_bytes;
    let mut differences: Vec<f64> = task
        .checks
        .iter()
        .map(|check| (check.measured_bytes - check.expected_bytes).abs() / check.expected_bytes.max(1.0))
        .collect();
    differences.sort_unstable_by(f64::total_cmp);
    let median = differences.get(count / 2)?;
    let within = task.checks.iter().filter(within).count();
    Some(format!(
        "checked with {count} other batches: the memory of {within} is within the bound; median difference from the prediction {}",
        percent(*median)
    ))
}

/// Why larger batches were not measured.
fn limits_reached(task: &TaskMeasurement) -> Vec<String> {
    let mut lines = Vec::new();
    let count = |matches: fn(&SkipReason) -> bool| {
        task.skipped
            .iter()
            .filter(|skipped| matches(&skipped.reason))
            .count()
    };
    let over_budget = count(|reason| *reason == SkipReason::Budget);
    if over_budget > 0 {
        lines.push(format!(
            "{over_budget} larger batches exceed the budget and were not measured"
        ));
    }
    let too_slow = count(|reason| *reason == SkipReason::Time);
    if too_slow > 0 {
        lines.push(format!(
            "{too_slow} larger batches were not measured, because they take too long (raise --max-time)"
        ));
    }
    let failed: Vec<&String> = task
        .skipped
        .iter()
        .filter_map(|skipped| match &skipped.reason {
            SkipReason::Failed(reason) => Some(reason),
            _ => None,
        })
        .collect();
    if let Some(first) = failed.first() {
        lines.push(format!(
            "{} batches failed and were not measured: {first}",
            failed.len()
        ));
    }
    let out_of_memory = task.skipped.iter().find_map(|skipped| match &skipped.reason {
        SkipReason::OutOfMemory(how) => Some((skipped.cell, how)),
        _ => None,
    });
    if let Some((cell, how)) = out_of_memory {
        let mut line = String::new();
        let _ = write!(
            line,
            "memory ran out in batches from {} × weight {}: {how}",
            cell.items, cell.weight
        );
        lines.push(line);
    }
    lines
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    table
}

fn align_right(table: &mut Table) {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { 2 }, 0));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A number of bytes with a unit.
pub(super) fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", significant(value), units[unit])
}

/// A time with a unit.
pub(super) fn seconds(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1.0 => (value, "s"),
        value if value >= 1e-3 => (value * 1e3, "ms"),
        value if value >= 1e-6 => (value * 1e6, "µs"),
        value => (value * 1e9, "ns"),
    };
    format!("{} {unit}", significant(value))
}

/// Three significant digits.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn percent(fraction: f64) -> String {
    format!("{} %", significant(fraction * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let shown = [0.0, 8.0, 1536.0, 64.0 * 1024.0, 1.5e9].map(bytes);
        assert_eq!(shown, ["0 B", "8.00 B", "1.50 KiB", "64.0 KiB", "1.40 GiB"]);
        let shown = [0.0, 2e-9, 1.5e-6, 0.0123, 12.0].map(seconds);
        assert_eq!(shown, ["0 ns", "2.00 ns", "1.50 µs", "12.3 ms", "12.0 s"]);
        assert_eq!(percent(0.0312), "3.12 %");
    }
}
