//! Reports the progress of measurements on standard error: a bar with the time left on a terminal, otherwise a line for each
//! task.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::console;
use crate::reload::TaskProgress;

/// Number of positions of the bar.
const BAR_LENGTH: u64 = 1000;

/// Reports the progress of the tasks of one model.
pub(super) struct ProgressReport {
    model: String,
    bar: Option<ProgressBar>,
    /// Whether to write lines, if there is no bar.
    writes_lines: bool,
    /// The current task.
    task: Option<String>,
}

impl ProgressReport {
    pub(super) fn new(model: &str, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && is_terminal).then(|| {
            let bar = ProgressBar::new(BAR_LENGTH);
            let style =
                ProgressStyle::with_template("{prefix} {bar:30} {msg}").expect("the template is valid");
            bar.set_style(style);
            bar
        });
        Self {
            model: model.to_owned(),
            bar,
            writes_lines: !quiet && !is_terminal,
            task: None,
        }
    }

    /// A batch is about to be measured.
    pub(super) fn update(&mut self, task: &TaskProgress<'_>) {
        let is_new = self.task.as_deref() != Some(task.task);
        if is_new {
            self.task = Some(task.task.to_owned());
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{}/{}", self.model, task.task));
            bar.set_position((task.progress.fraction * BAR_LENGTH as f64) as u64);
            bar.set_message(message(task));
        } else if self.writes_lines && is_new {
            console::report(format_args!(
                "model `{}`: measuring task `{}`, up to {} s",
                self.model,
                task.task,
                task.progress.remaining.as_secs().max(1)
            ));
        }
    }
}

impl Drop for ProgressReport {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn message(task: &TaskProgress<'_>) -> String {
    let cell = task.progress.cell;
    let items = if cell.items == 1 { "item" } else { "items" };
    let more = match task.tasks_left {
        0 => String::new(),
        1 => ", then 1 task".to_owned(),
        tasks => format!(", then {tasks} tasks"),
    };
    format!(
        "{} left{more} · {} {items} of weight {}",
        rounded(task.progress.remaining),
        cell.items,
        cell.weight
    )
}

fn rounded(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{Cell, Progress};

    #[test]
    fn the_message_has_the_time_left_and_the_batch() {
        let task = |items, tasks_left, millis| TaskProgress {
            task: "t",
            progress: Progress {
                cell: Cell { items, weight: 64 },
                fraction: 0.5,
                remaining: Duration::from_millis(millis),
            },
            tasks_left,
        };
        assert_eq!(message(&task(1, 0, 1200)), "2 s left · 1 item of weight 64");
        assert_eq!(
            message(&task(8, 2, 61_000)),
            "1 min 1 s left, then 2 tasks · 8 items of weight 64"
        );
    }
}
