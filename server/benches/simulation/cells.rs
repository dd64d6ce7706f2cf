//! The worlds that policies are compared in.

use crate::world::{Arrivals, Callers, Service, Think, World};

pub const MAX_BATCH: usize = 32;

pub const SERVICES: [Service; 3] = [
    Service { name: "overhead", fixed: 5.0, linear: 0.1, square: 0.0 },
    Service { name: "linear", fixed: 0.1, linear: 1.0, square: 0.0 },
    Service { name: "convex", fixed: 2.0, linear: 0.1, square: 0.02 },
];

pub const CALLERS: [usize; 11] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128];

pub const THINKS: [(&str, Think); 5] = [
    ("0.1", Think::Even { mean: 0.1, spread: 0.5 }),
    ("0.3", Think::Even { mean: 0.3, spread: 0.3 }),
    ("1", Think::Even { mean: 1.0, spread: 0.5 }),
    ("5", Think::Even { mean: 5.0, spread: 0.5 }),
    ("1exp", Think::Memoryless { mean: 1.0 }),
];

pub const ARRIVALS: [(&str, Arrivals); 5] = [
    ("poisson", Arrivals::Poisson),
    ("bursts4", Arrivals::Bursts { size: 4, span: 1.0 }),
    ("bursts8", Arrivals::Bursts { size: 8, span: 2.0 }),
    ("bursts16", Arrivals::Bursts { size: 16, span: 2.0 }),
    ("on/off", Arrivals::OnOff { on: 20.0, off: 80.0 }),
];

pub const LOADS: [f64; 5] = [0.05, 0.2, 0.5, 0.8, 0.95];

pub struct Cell { pub name: String, pub world: World }

pub fn all(items: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for service in SERVICES {
        for (name, think) in THINKS {
            for callers in CALLERS {
                cells.push(Cell {
                    name: format!("{:8} closed think {name:5} callers {callers}", service.name),
                    world: World { callers: Callers::Closed { callers, items: 1, think }, service, max_batch_size: MAX_BATCH, workers: 1, items: items.max(callers * 20), seed: 7 },
                });
            }
        }
        for (name, arrivals) in ARRIVALS {
            for load in LOADS {
                cells.push(Cell {
                    name: format!("{:8} open {name:8} load {load}", service.name),
                    world: World { callers: Callers::Open { arrivals, load }, service, max_batch_size: MAX_BATCH, workers: 1, items, seed: 7 },
                });
            }
        }
    }
    cells
}
