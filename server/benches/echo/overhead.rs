//! CPU time and latency of the server next to those of the baselines, which do nothing but HTTP and JSON.
//!
//! All run at the same time and are measured in turns of half a second, so that other programs on the machine burden them alike.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use crate::bare::{self, Bare};
use crate::harness::load::{Latencies, Load, post, post_items};
use crate::harness::server::Server;

const TURN: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(100);

/// One kind of load.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) connections: usize,
    /// Items in a request.
    pub(crate) items: usize,
}

/// What one of them did with it.
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu_per_item: Duration,
    /// Ratio of the CPU time to that of the baseline that answers in the handler, in each turn, sorted.
    pub(crate) ratios: Vec<f64>,
}

pub(crate) struct Comparison {
    pub(crate) cell: Cell,
    /// actix-web alone.
    pub(crate) bare: Figures,
    /// actix-web and a thread that answers.
    pub(crate) thread: Figures,
    pub(crate) server: Figures,
}

pub(crate) fn measure(
    server: &Server,
    bare: &Bare,
    cell: Cell,
    text: &str,
    duration: Duration,
) -> Result<Comparison, Box<dyn Error>> {
    let item = format!("\"{text}\"");
    let request = |path: &str| match cell.items {
        1 => post(path, &item),
        items => post_items(path, &item, items),
    };
    let side = |address, path| Side::new(address, request(path), cell);
    let mut of_server = side(server.address, "/v1/models/template/tasks/echo/predict");
    let mut of_thread = side(bare.address, bare::THREAD_PATH);
    let mut of_bare = side(bare.address, bare::PATH);
    let turns = (duration.as_secs_f64() / TURN.as_secs_f64()).ceil() as u32;
    for _ in 0..turns.max(1) {
        of_server.turn(|| server.cpu_time())?;
        of_bare.turn(|| bare.cpu_time())?;
        of_thread.turn(|| bare.cpu_time())?;
    }
    Ok(Comparison {
        cell,
        thread: of_thread.figures(&of_bare)?,
        server: of_server.figures(&of_bare)?,
        bare: of_bare.figures(&of_bare)?,
    })
}

/// One of them, and its results so far.
struct Side {
    address: SocketAddr,
    request: Vec<u8>,
    cell: Cell,
    latencies: Option<Latencies>,
    cpu: Duration,
    /// CPU time of an item in each turn, in seconds.
    cpu_per_item: Vec<f64>,
}

impl Side {
    fn new(address: SocketAddr, request: Vec<u8>, cell: Cell) -> Self {
        Self {
            address,
            request,
            cell,
            latencies: None,
            cpu: Duration::ZERO,
            cpu_per_item: Vec::new(),
        }
    }

    fn turn(
        &mut self,
        cpu_time: impl Fn() -> Result<Duration, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let load = Load {
            address: self.address,
            request: &self.request,
            connections: self.cell.connections,
        };
        load.run(WARM_UP)?;
        let before = cpu_time()?;
        let latencies = load.run(TURN)?;
        let cpu = cpu_time()? - before;
        let per_item = cpu.as_secs_f64() / (latencies.count() * self.cell.items) as f64;
        self.cpu += cpu;
        self.cpu_per_item.push(per_item);
        match &mut self.latencies {
            Some(all) => all.append(latencies),
            none => *none = Some(latencies),
        }
        Ok(())
    }

    /// The results, relative to those of the baseline.
    fn figures(&self, baseline: &Self) -> Result<Figures, Box<dyn Error>> {
        let turns = self.cpu_per_item.iter().zip(&baseline.cpu_per_item);
        let mut ratios: Vec<_> = turns.map(|(this, baseline)| this / baseline).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let latencies = self.latencies.as_ref().ok_or("there was no turn")?;
        Ok(Figures {
            per_second: latencies.count() as f64 / latencies.elapsed.as_secs_f64(),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            cpu_per_item: self.cpu / u32::try_from(latencies.count() * self.cell.items)?,
            ratios,
        })
    }
}
