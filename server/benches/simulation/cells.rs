//! The worlds that policies are compared in.

use crate::world::{Arrivals, Callers, Service, Think, World};

const MAX_BATCH: usize = 32;

const SERVICES: [Service; 3] = [
    service("overhead", 5.0, 0.1, 0.0),
    service("linear", 0.1, 1.0, 0.0),
    service("convex", 2.0, 0.1, 0.02),
];

const fn service(name: &'static str, fixed: f64, linear: f64, square: f64) -> Service {
    Service {
        name,
        fixed,
        linear,
        square,
        noise: 0.0,
    }
}

const CALLERS: [usize; 11] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128];

const THINKS: [(&str, Think); 5] = [
    ("0.1 ms", even(0.1, 0.5)),
    ("0.3 ms", even(0.3, 0.3)),
    ("1 ms", even(1.0, 0.5)),
    ("5 ms", even(5.0, 0.5)),
    ("1 ms exponential", Think::Memoryless { mean: 1.0 }),
];

const fn even(mean: f64, spread: f64) -> Think {
    Think::Even { mean, spread }
}

const ARRIVALS: [(&str, Arrivals); 5] = [
    ("poisson", Arrivals::Poisson),
    ("bursts of 4", bursts(4, 1.0)),
    ("bursts of 8", bursts(8, 2.0)),
    ("bursts of 16", bursts(16, 2.0)),
    ("on/off", Arrivals::OnOff { on: 20.0, off: 80.0 }),
];

const fn bursts(size: usize, span: f64) -> Arrivals {
    Arrivals::Bursts { size, span }
}

const LOADS: [u32; 5] = [5, 20, 50, 80, 95];

/// A world with a name.
pub(crate) struct Cell {
    pub name: String,
    pub world: World,
}

/// Cells that nothing was tuned on: other costs, with noise, other callers, other seeds.
pub(crate) fn held_out(items: usize) -> Vec<Cell> {
    let services = [
        Service {
            noise: 0.2,
            ..service("noisy overhead", 4.0, 0.15, 0.0)
        },
        Service {
            noise: 0.1,
            ..service("device", 3.0, 0.02, 0.0)
        },
        Service {
            noise: 0.3,
            ..service("noisy linear", 0.5, 0.7, 0.0)
        },
        Service {
            noise: 0.1,
            ..service("noisy convex", 1.0, 0.2, 0.01)
        },
    ];
    let thinks = [
        ("0.2 ms", even(0.2, 0.9)),
        ("0.6 ms", even(0.6, 0.5)),
        ("2 ms", even(2.0, 0.4)),
        ("10 ms", even(10.0, 0.5)),
        ("0.4 ms exponential", Think::Memoryless { mean: 0.4 }),
        ("3 ms exponential", Think::Memoryless { mean: 3.0 }),
    ];
    let mut cells = Vec::new();
    let mut seed = 1000;
    for service in services {
        let mut add = |name: String, callers, items, workers, max_batch_size| {
            seed += 1;
            let world = World {
                callers,
                service,
                max_batch_size,
                workers,
                items,
                seed,
            };
            cells.push(Cell {
                name: format!("{}, {name}", service.name),
                world,
            });
        };
        for (think_name, think) in thinks {
            for callers in [1, 3, 6, 10, 20, 40, 100] {
                let closed = Callers::Closed {
                    callers,
                    items: 1,
                    think,
                };
                add(
                    format!("closed, think {think_name}, {callers} callers"),
                    closed,
                    items.max(callers * 20),
                    1,
                    32,
                );
            }
            for (callers, each) in [(1, 5), (4, 3), (12, 4)] {
                let closed = Callers::Closed {
                    callers,
                    items: each,
                    think,
                };
                add(
                    format!("closed, think {think_name}, {callers} callers of {each} items"),
                    closed,
                    items,
                    1,
                    32,
                );
            }
            for (callers, workers) in [(2, 2), (8, 2), (32, 2), (24, 4)] {
                let closed = Callers::Closed {
                    callers,
                    items: 1,
                    think,
                };
                add(
                    format!("closed, think {think_name}, {callers} callers, {workers} workers"),
                    closed,
                    items,
                    workers,
                    16,
                );
            }
        }
        for (arrivals_name, arrivals) in [
            ("poisson", Arrivals::Poisson),
            ("bursts of 6", bursts(6, 0.5)),
            ("bursts of 24", bursts(24, 4.0)),
            ("on/off", Arrivals::OnOff { on: 50.0, off: 150.0 }),
        ] {
            for percent in [10, 35, 70, 90] {
                let open = Callers::Open {
                    arrivals,
                    load: f64::from(percent) / 100.0,
                };
                add(format!("open, {arrivals_name}, {percent} %"), open, items, 1, 32);
                if percent == 70 {
                    add(
                        format!("open, {arrivals_name}, {percent} %, 2 workers"),
                        open,
                        items,
                        2,
                        32,
                    );
                }
            }
        }
    }
    cells
}

/// Clients, the items of each request, and workers: also more items than all workers take at once.
const CREWS: [(usize, usize, usize); 12] = [
    (4, 8, 1),
    (12, 4, 1),
    (50, 3, 1),
    (2, 1, 2),
    (8, 1, 2),
    (32, 1, 2),
    (96, 1, 2),
    (16, 4, 2),
    (8, 1, 4),
    (24, 1, 4),
    (64, 1, 4),
    (200, 1, 4),
];

/// Cells with several workers, with requests of several items, and with more clients than a batch holds.
pub(crate) fn several(items: usize) -> Vec<Cell> {
    SERVICES
        .into_iter()
        .flat_map(|service| several_of(service, items))
        .collect()
}

fn several_of(service: Service, items: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    let world = |callers, workers, items| World {
        callers,
        service,
        max_batch_size: MAX_BATCH,
        workers,
        items,
        seed: 7,
    };
    for (think_name, think) in [THINKS[1], THINKS[3], THINKS[4]] {
        for (callers, each, workers) in CREWS {
            let closed = Callers::Closed {
                callers,
                items: each,
                think,
            };
            cells.push(Cell {
                name: format!(
                    "{}, closed, think {think_name}, {callers} callers of {each}, {workers} workers",
                    service.name
                ),
                world: world(closed, workers, items.max(callers * each * 20)),
            });
        }
    }
    for (arrivals_name, arrivals) in [ARRIVALS[0], ARRIVALS[2]] {
        for (percent, workers) in [(20, 2), (80, 2), (50, 4), (95, 4)] {
            let load = f64::from(percent) / 100.0;
            let open = Callers::Open { arrivals, load };
            cells.push(Cell {
                name: format!(
                    "{}, open, {arrivals_name}, {percent} %, {workers} workers",
                    service.name
                ),
                world: world(open, workers, items),
            });
        }
    }
    cells
}

/// Every cell, each measured over at least this many items.
pub(crate) fn all(items: usize) -> Vec<Cell> {
    let world = |service, callers, items| World {
        callers,
        service,
        max_batch_size: MAX_BATCH,
        workers: 1,
        items,
        seed: 7,
    };
    let mut cells = Vec::new();
    for service in SERVICES {
        for (think_name, think) in THINKS {
            for callers in CALLERS {
                let closed = Callers::Closed {
                    callers,
                    items: 1,
                    think,
                };
                cells.push(Cell {
                    name: format!("{}, closed, think {think_name}, {callers} callers", service.name),
                    world: world(service, closed, items.max(callers * 20)),
                });
            }
        }
        for (arrivals_name, arrivals) in ARRIVALS {
            for percent in LOADS {
                let load = f64::from(percent) / 100.0;
                let open = Callers::Open { arrivals, load };
                cells.push(Cell {
                    name: format!("{}, open, {arrivals_name}, {percent} %", service.name),
                    world: world(service, open, items),
                });
            }
        }
    }
    cells
}
