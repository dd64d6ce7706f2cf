//! Compares `adaptive` with the policies that need a knob, in virtual time.
//!
//! `cargo bench -p inference-server --bench simulation -- [ITEMS] [PAGE.html] [--held-out | --several]` prints a table of
//! every cell, the worst first, writes a page that draws them, and fails if a cell misses the bar that is not known to
//! miss it. `--several` measures only the cells with several workers, requests of several items, and more clients than a
//! batch holds. `--held-out` measures cells that nothing was tuned on, with noise, several workers and requests of several
//! items. Those do not have to meet the bar.

mod cells;
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
