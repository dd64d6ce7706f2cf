//! The worker processes of a model, one by one.

use maud::{Markup, html};

use super::cells::Cells;
use crate::api::live::{MAX_WORKERS, ModelFrame};
use crate::model::{WorkerPhase, WorkerProcess};

/// Adds the cells of the table. Only operators see the ids of the processes.
pub(super) fn add_cells(cells: &mut Cells, model: &ModelFrame, operator: bool) {
    for (number, process) in shown(model).enumerate() {
        cells.html(format!("w{number}"), row(number, process, operator));
    }
}

/// The processes that are shown.
fn shown(model: &ModelFrame) -> impl Iterator<Item = &WorkerProcess> {
    model.worker_processes.iter().take(MAX_WORKERS)
}

/// The table, with the cells of [`add_cells`]. Nothing if the model runs in threads.
pub(super) fn table(cells: &Cells, model: &ModelFrame, operator: bool) -> Markup {
    let hidden = model.worker_processes.len().saturating_sub(MAX_WORKERS);
    html! {
        @if !model.worker_processes.is_empty() {
            section aria-labelledby="processes-title" {
                h2 #processes-title { "Worker processes" }
                table.processes {
                    thead {
                        tr {
                            th scope="col" { "Process" }
                            th scope="col" { "State" }
                            th.number scope="col" { "Restarts" }
                            @if operator { th.number scope="col" { "Process id" } }
                        }
                    }
                    tbody {
                        @for number in 0..shown(model).count() {
                            tr #{ "w" (number) } { (cells.get(&format!("w{number}"))) }
                        }
                    }
                }
                @if hidden > 0 { p.muted { "and " (hidden) " more" } }
                p.muted.note {
                    "Restarts of each process since the model was last loaded. The figure above the charts counts those of all \
                     processes since the start of the server."
                }
            }
        }
    }
}

fn row(number: usize, process: &WorkerProcess, operator: bool) -> Markup {
    let is_restarting = process.phase == WorkerPhase::Restarting;
    html! {
        th scope="row" { (number) }
        td {
            @if is_restarting {
                span.badge.problem { "restarting" }
            } @else {
                span.badge.fine { "serving" }
            }
        }
        td.number { span .bad[process.restarts > 0] { (process.restarts) } }
        @if operator {
            td.number { @if let Some(id) = process.process_id { (id) } @else { "–" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_operators_see_the_id_of_a_process() {
        let process = WorkerProcess {
            phase: WorkerPhase::Busy,
            process_id: Some(4711),
            busy: Duration::ZERO,
            restarts: 2,
        };
        let of_operator = row(0, &process, true).into_string();
        assert!(
            of_operator.contains("4711") && of_operator.contains("serving"),
            "{of_operator}"
        );
        let of_client = row(0, &process, false).into_string();
        assert!(
            !of_client.contains("4711") && of_client.contains(">2<"),
            "{of_client}"
        );
        let lost = WorkerProcess {
            phase: WorkerPhase::Restarting,
            process_id: None,
            ..process
        };
        assert!(row(0, &lost, true).into_string().contains("restarting"));
    }
}
