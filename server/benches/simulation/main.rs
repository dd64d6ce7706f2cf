//! Compares `adaptive` with the policies that need a knob, in virtual time.
//!
//! `cargo bench -p inference-server --bench simulation -- [ITEMS] [PAGE.html] [--held-out | --several]` prints a table of
//! every cell, the worst first, writes a page that draws them, and fails if a cell misses the bar that is not known to
//! miss it. `--several` measures only the cells with several workers, requests of several items, and more clients than a
//! batch holds. `--held-out` measures cells that nothing was tuned on, with noise, several workers and requests of several
//! items. Those do not have to meet the bar.
//!
//! `-- [ITEMS] --jobs [--cell=NAME]` prints instead what jobs cost the requests, and what they get done, for several
//! values of `background_slack`, and for jobs of another task, which share no batches.

mod cells;
mod jobs;
mod page;
mod verdict;
mod world;

use inference_server::{batcher, batching, clock};

use std::io::Write;

fn main() -> std::io::Result<()> {
    // `cargo bench` says so; `cargo test` only sees whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"));
    let items = arguments
        .next()
        .and_then(|items| items.parse().ok())
        .unwrap_or(20_000);
    if std::env::args().any(|argument| argument == "--jobs") {
        return print_jobs(items);
    }
    let path = arguments.next().unwrap_or_else(|| "simulation.html".to_owned());

    let held_out = std::env::args().any(|argument| argument == "--held-out");
    let several = std::env::args().any(|argument| argument == "--several");
    let cells = if held_out {
        cells::held_out(items)
    } else if several {
        cells::several(items)
    } else {
        cells::all(items)
            .into_iter()
            .chain(cells::several(items))
            .collect()
    };
    let verdicts = verdict::measure(&cells);
    let mut rows: Vec<_> = cells.iter().zip(&verdicts).collect();
    rows.sort_by(|one, other| other.1.mean().total_cmp(&one.1.mean()));

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:66} {:>8} {:>8} {:>14} {:>7} {:>7} {:>11}",
        "cell", "mean ms", "best ms", "best is", "mean ×", "p99 ×", "throughput ×"
    )?;
    for (cell, verdict) in &rows {
        writeln!(
            out,
            "{:66} {:8.2} {:8.2} {:>14} {:7.2} {:7.2} {:11.2}",
            cell.name,
            verdict.adaptive.mean,
            verdict.adaptive.mean / verdict.mean(),
            verdict.best_name(),
            verdict.mean(),
            verdict.p99(),
            verdict.throughput(),
        )?;
    }
    std::fs::write(&path, page::draw(&cells, &verdicts))?;
    writeln!(out, "drawn in {path}")?;
    let breaches = verdict::breaches(&cells, &verdicts, verdict::BAR);
    let (known, unknown): (Vec<_>, Vec<_>) = breaches
        .iter()
        .partition(|breach| verdict::known_miss(&breach.cell.name).is_some());
    writeln!(
        out,
        "{} of {} cells miss the bar where it can be met, of which {} are not known to",
        breaches.len(),
        cells.len(),
        unknown.len()
    )?;
    for breach in known {
        let why = verdict::known_miss(&breach.cell.name).unwrap_or_default();
        writeln!(out, "  {breach}; {why}")?;
    }
    for breach in &unknown {
        writeln!(out, "  {breach}; not known")?;
    }
    if held_out || unknown.is_empty() {
        Ok(())
    } else {
        Err(std::io::Error::other("the adaptive policy misses its bar"))
    }
}

/// Prints the trade-off of `background_slack`.
fn print_jobs(items: usize) -> std::io::Result<()> {
    const SLACKS: [f64; 6] = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0];
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "p99 of the requests with jobs, relative to 1.1 × that without jobs plus a full batch / share of the free capacity that \
         jobs use, by background_slack"
    )?;
    write!(out, "{:58} {:>8}", "cell", "p99 ms")?;
    for slack in SLACKS {
        write!(out, " {slack:>11}")?;
    }
    writeln!(out, " {:>11} {:>11}", "other task", "jobs alone")?;
    let is_named = |cell: &cells::Cell| {
        let mut names =
            std::env::args().filter_map(|argument| Some(argument.strip_prefix("--cell=")?.to_owned()));
        names.next().is_none_or(|name| cell.name.contains(&name))
    };
    let cells = jobs::open(items)
        .into_iter()
        .chain(jobs::closed(items))
        .filter(is_named);
    for cell in cells {
        let rows = jobs::Comparison::of(&cell, &SLACKS, true);
        let other = jobs::Comparison::of(&cell, &[jobs::DEFAULT_SLACK], false);
        write!(out, "{:58} {:8.2}", cell.name, rows[0].without.p99)?;
        for row in rows.iter().chain(&other) {
            let text = format!("{:.2} / {:.2}", row.p99_of_promise(), row.share_of_free());
            write!(out, " {text:>11}")?;
        }
        let capacity = cell.world.service.capacity(cell.world.max_batch_size) * cell.world.workers as f64;
        writeln!(out, " {:11.2}", jobs::alone(&cell.world) / capacity)?;
    }
    Ok(())
}
