//! The tasks: `text` and `image` take orders as they are, `prepared` prepares them, `tensor` doubles numbers.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plugin_sdk::prelude::*;

use crate::order::{Deed, Order, Report};
use crate::{Misbehave, deeds};

/// Value of the example, by which a warm-up is known.
const WARM_UP: &str = "warm-up";

/// Takes orders as they are.
pub(crate) struct Direct {
    pub(crate) max_batch_size: Option<usize>,
}

impl Task<Misbehave> for Direct {
    type Input = Json<Order>;
    type Output = Json<Report>;

    fn describe(&self) -> TaskInfo {
        describe("Does what each item orders.", self.max_batch_size)
    }

    fn predict(&self, model: &Misbehave, batch: Batch<Order>) -> BatchResult<Report> {
        let orders: Vec<&Order> = batch.iter().collect();
        model.run(batch.worker(), &orders)
    }
}

/// Prepares orders first.
pub(crate) struct Prepares {
    pub(crate) max_batch_size: Option<usize>,
}

/// A prepared order.
pub(crate) struct Ready {
    order: Order,
    _bomb: Option<deeds::Bomb>,
}

impl PreparedTask<Misbehave> for Prepares {
    type Input = Json<Order>;
    type Output = Json<Report>;
    type Prepared = Ready;

    fn describe(&self) -> TaskInfo {
        describe(
            "Does what each item orders, with weights and groups.",
            self.max_batch_size,
        )
    }

    fn prepare(&self, _model: &Misbehave, item: Item<Order>) -> Result<Prepared<Ready>, ItemError> {
        let order = item.value;
        let in_prepare = [Deed::AbortInPrepare, Deed::HangInPrepare].contains(&order.deed);
        match if in_prepare { due(&order) } else { order.deed } {
            Deed::FailInPrepare => return Err(ItemError::invalid(&order.message)),
            Deed::AbortInPrepare => deeds::abort(),
            Deed::HangInPrepare => deeds::hang(),
            Deed::PanicInPrepare => panic!("misbehave panics in prepare: {}", order.message),
            _ => {}
        }
        let (weight, group) = (order.weight, order.group);
        let _bomb = (order.deed == Deed::PanicInPreparedDrop).then(|| deeds::Bomb);
        Ok(Prepared::new(Ready { order, _bomb }).weight(weight).group(group))
    }

    fn predict(&self, model: &Misbehave, batch: Batch<&Ready>) -> BatchResult<Report> {
        let orders: Vec<&Order> = batch.iter().map(|ready| &ready.order).collect();
        model.run(batch.worker(), &orders)
    }
}

/// Doubles numbers: a tensor in, a tensor out.
pub(crate) struct Double;

impl Task<Misbehave> for Double {
    type Input = Tensor;
    type Output = Tensor;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Doubles every number.")
            .input_tensor(TensorInfo::new("numbers", DType::Fp32, &[-1]))
            .output_tensor(TensorInfo::new("doubled", DType::Fp32, &[-1]))
            .example(json!({"numbers": [1.0, 2.5]}))
    }

    fn predict(&self, _model: &Misbehave, batch: Batch<TensorView>) -> BatchResult<TensorOutput> {
        batch.try_map(|tensor| {
            let doubled: Vec<f32> = tensor
                .values::<f32>()?
                .iter()
                .map(|number| number * 2.0)
                .collect();
            Ok(TensorOutput::new("doubled", &[doubled.len()], doubled))
        })
    }
}

fn describe(text: &str, max_batch_size: Option<usize>) -> TaskInfo {
    let info = TaskInfo::new(text).example(json!({"value": WARM_UP}));
    match max_batch_size {
        Some(items) => info.max_batch_size(items),
        None => info,
    }
}

impl Misbehave {
    fn run(&self, worker: usize, orders: &[&Order]) -> BatchResult<Report> {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let warm_up = orders.iter().all(|order| order.value == WARM_UP);
        if warm_up && self.settings.fail_warm_up {
            return Err(BatchError::failed("misbehave was told to fail its warm-up"));
        }
        if let (Some(gate), false) = (&self.settings.gate, warm_up) {
            deeds::wait_for(gate);
        }
        let per_item = Duration::from_micros(self.settings.item_us);
        deeds::pause(
            Duration::from_millis(self.settings.batch_ms) + per_item.saturating_mul(orders.len() as u32),
        );
        if self
            .settings
            .out_of_memory_above
            .is_some_and(|most| orders.len() > most)
        {
            return Err(BatchError::out_of_memory(format_args!("{} items", orders.len())));
        }
        let due: Vec<Deed> = orders.iter().map(|order| due(order)).collect();
        for (order, deed) in orders.iter().zip(&due) {
            order.act(*deed, orders.len(), self.threads)?;
        }
        let report = |order: &Order| Report {
            value: order.value.clone(),
            batch_size: orders.len(),
            order: orders.iter().map(|order| order.value.clone()).collect(),
            batch,
            worker,
            tag: self.settings.tag.clone(),
            pid: std::process::id(),
        };
        let mut outcomes: Vec<Result<Report, ItemError>> = orders
            .iter()
            .zip(&due)
            .map(|(order, deed)| match deed {
                Deed::FailItem => Err(ItemError::invalid(&order.message)),
                Deed::FaultItem => Err(ItemError::fault(&order.message)),
                Deed::Write => refused(std::fs::write(&order.path, &order.message)).map(|()| report(order)),
                Deed::Connect => refused(TcpStream::connect(&order.message)).map(|_| report(order)),
                _ => Ok(report(order)),
            })
            .collect();
        if due.contains(&Deed::TooFew) {
            outcomes.pop();
        } else if due.contains(&Deed::TooMany) {
            // Not both in one batch, which would be the right number again.
            outcomes.push(Ok(report(orders[0])));
        }
        Ok(outcomes.into_iter().collect())
    }
}

/// What the system refuses fails the item.
fn refused<T>(result: io::Result<T>) -> Result<T, ItemError> {
    result.map_err(|error| ItemError::fault(format_args!("refused: {:?}", error.kind())))
}

/// What is really to be done for an order.
fn due(order: &Order) -> Deed {
    match &order.once {
        Some(path) if !deeds::first_time(path) => Deed::Echo,
        _ => order.deed,
    }
}

impl Order {
    fn act(&self, deed: Deed, batch_size: usize, threads: usize) -> Result<(), BatchError> {
        let duration = Duration::from_millis(self.ms);
        match deed {
            Deed::Sleep => deeds::pause(duration),
            Deed::Busy => deeds::busy(duration),
            Deed::Wait => deeds::wait_for(&self.path),
            Deed::Hang => deeds::hang(),
            Deed::Log => log::info!("{}", self.message),
            Deed::Describe => deeds::describe(threads, &self.message),
            Deed::Print => deeds::print(&self.message),
            Deed::Leak => deeds::leak(self.bytes),
            Deed::FailBatch => return Err(BatchError::failed(&self.message)),
            Deed::OutOfMemory if batch_size > 1 => return Err(BatchError::out_of_memory(&self.message)),
            Deed::Panic => panic!("misbehave panics: {}", self.message),
            Deed::PanicTwice => deeds::panic_twice(),
            Deed::Exit => deeds::exit(self.code),
            Deed::Kill => deeds::kill(),
            Deed::Abort => deeds::abort(),
            Deed::Segfault => deeds::segfault(),
            Deed::StackOverflow => {
                deeds::overflow_the_stack(0);
            }
            _ => {}
        }
        Ok(())
    }
}
