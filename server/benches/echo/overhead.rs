//! CPU time and latency of the server next to those of the baseline, which does nothing but HTTP and JSON.
//!
//! Both run at the same time and are measured in turns of half a second, so that other programs on the machine burden both
//! alike.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use crate::bare::{self, Bare};
use crate::harness::load::{Latencies, Load, post, post_items};
use crate::harness::server::Server;

pub(crate) const TURN: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(100);

/// One kind of load.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) connections: usize,
    /// Items in a request.
    pub(crate) items: usize,
}

/// What one of the two did with it.
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu_per_item: Duration,
}

pub(crate) struct Comparison {
    pub(crate) cell: Cell,
    pub(crate) bare: Figures,
    pub(crate) server: Figures,
    /// Ratio of the CPU times in each turn, sorted.
    pub(crate) ratios: Vec<f64>,
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
    let mut of_server = Side::new(
        server.address,
        request("/v1/models/template/tasks/echo/predict"),
        cell,
    );
    let mut of_bare = Side::new(bare.address, request(bare::PATH), cell);
    let mut ratios = Vec::new();
    let turns = (duration.as_secs_f64() / TURN.as_secs_f64()).ceil() as u32;
    for _ in 0..turns.max(1) {
        let slow = of_server.turn(|| server.cpu_time())?;
        let fast = of_bare.turn(|| bare.cpu_time())?;
        ratios.push(slow / fast);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    Ok(Comparison {
        cell,
        bare: of_bare.figures()?,
        server: of_server.figures()?,
        ratios,
    })
}

/// One of the two, and its results so far.
pub(crate) struct Side {
    address: SocketAddr,
    request: Vec<u8>,
    cell: Cell,
    latencies: Option<Latencies>,
    cpu: Duration,
}

impl Side {
    pub(crate) fn new(address: SocketAddr, request: Vec<u8>, cell: Cell) -> Self {
        Self {
            address,
            request,
            cell,
            latencies: None,
            cpu: Duration::ZERO,
        }
    }

    /// The CPU time of one item, in seconds.
    pub(crate) fn turn(
        &mut self,
        cpu_time: impl Fn() -> Result<Duration, Box<dyn Error>>,
    ) -> Result<f64, Box<dyn Error>> {
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
        match &mut self.latencies {
            Some(all) => all.append(latencies),
            none => *none = Some(latencies),
        }
        Ok(per_item)
    }

    fn figures(&self) -> Result<Figures, Box<dyn Error>> {
        let latencies = self.latencies.as_ref().ok_or("there was no turn")?;
        Ok(Figures {
            per_second: latencies.count() as f64 / latencies.elapsed.as_secs_f64(),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            cpu_per_item: self.cpu / u32::try_from(latencies.count() * self.cell.items)?,
        })
    }
}
