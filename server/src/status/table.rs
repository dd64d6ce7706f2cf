//! The state of a server as text: a line per model, and the explanations.

use comfy_table::{CellAlignment, Table, presets};

use super::reply::{Finding, ModelStatus, ServerStatus};

/// The columns. All but the first two are aligned to the right.
pub(super) const HEADER: [&str; 10] = [
    "MODEL", "STATE", "GEN", "REQ/S", "P50", "P99", "QUEUED", "FILL", "BUSY", "ERR/S",
];

/// Number of columns that are aligned to the left.
pub(super) const LEFT: usize = 2;

/// A missing value.
const NONE: &str = "-";

/// The table, and a line per finding.
pub(super) fn of_status(status: &ServerStatus) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    table.add_rows(status.models.iter().map(cells));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= LEFT {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("{}\n\n{}", headline(status), table.trim_fmt());
    for model in &status.models {
        for finding in &model.explanation {
            text.push_str(&format!("\n\n{}: {}", model.name, sentence(finding)));
        }
    }
    text
}

/// The address and the readiness of the server.
pub(super) fn headline(status: &ServerStatus) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    format!("{} is {ready}", status.url)
}

/// The cells of a model, in the order of [`HEADER`].
pub(super) fn cells(model: &ModelStatus) -> [String; HEADER.len()] {
    [
        plain(&model.name),
        plain(&model.state),
        model
            .generation
            .map_or_else(|| NONE.to_owned(), |number| number.to_string()),
        number(model.requests_per_second),
        time(model.latency_p50_seconds),
        time(model.latency_p99_seconds),
        model.queued_items.to_string(),
        percent(model.batch_fill),
        percent(model.worker_busy_share),
        number(model.errors_per_second),
    ]
}

/// A finding in one line.
pub(super) fn sentence(finding: &Finding) -> String {
    let message = plain(&finding.message);
    match &finding.task {
        Some(task) => format!("task `{}`: {message}", plain(task)),
        None => message,
    }
}

/// Text without control characters, which a plugin may have put into a reason: a terminal would execute them.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn number(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 99.95 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{:.0}%", share * 100.0))
}

fn time(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return NONE.to_owned();
    };
    match seconds * 1e3 {
        millis if millis < 9.95 => format!("{millis:.2} ms"),
        millis if millis < 999.5 => format!("{millis:.0} ms"),
        millis => format!("{:.1} s", millis / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::reply::tests::example;

    #[test]
    fn the_table_has_a_line_per_model_and_a_line_per_finding() {
        insta::assert_snapshot!(of_status(&example()));
    }

    #[test]
    fn no_control_character_of_a_reason_reaches_the_terminal() {
        let text = of_status(&example());
        assert!(
            !text.contains('\u{1b}') && text.contains("no such file"),
            "{text}"
        );
    }

    #[test]
    fn values_have_two_or_three_digits_and_their_unit() {
        assert_eq!(
            [None, Some(0.0), Some(2.25), Some(1234.5)].map(number),
            ["-", "0", "2.2", "1234"]
        );
        assert_eq!(
            [Some(0.000_42), Some(0.0421), Some(2.5)].map(time),
            ["0.42 ms", "42 ms", "2.5 s"]
        );
    }
}
