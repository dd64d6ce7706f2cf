//! Whether a batch fits into its memory budget, by the prediction of a calibrated [`CostModel`].
//!
//! [`TaskMemory`] predicts the memory of the batches of one task and corrects the margin of the prediction by measurements.
//! `Reservations` counts what the running batches of one model hold. How items are chosen is decided in `fill`, when a
//! batch runs in the batcher, and who shares memory with other models in [`super::memory_ledger`].
//!
//! # Limits
//! A model's batches together stay within its *capacity*: its own budget or that of the server, whichever is smaller. A
//! batch of several items stays within the *share* of one worker, so that the batches of all workers fit at the same time.
//! A single item may use the whole capacity; then it runs when the other batches of the model have ended. An item that
//! exceeds the capacity is rejected before it is queued.
//!
//! Samples may not determine the memory of a batch. Such a batch has one item, and counts as if it needed the whole
//! capacity.
//!
//! # Correction of the margin
//! The margin is the 99th percentile of the errors of the prediction. After `WINDOW` measured batches, it is the greatest
//! of their errors, which is about that percentile; before, it is at least the margin of the calibration. So a bound that
//! was too low is corrected by the first batch that exceeds it, and one that was too high after a while.

use std::fmt;
use std::time::{Duration, Instant};

use super::cost_model::{BatchShape, CostModel};
use crate::batching::MAX_WEIGHT;

/// Number of measured batches that determine the margin.
const WINDOW: usize = 128;

/// The share of the newest batch in the drift.
const NEWEST: f64 = 1.0 / 16.0;

/// Minimum number of measured batches before a drift is reported.
const MIN_MEASURED: u64 = 16;

/// A drift below or above these is reported.
const MIN_DRIFT: f64 = 0.7;
const MAX_DRIFT: f64 = 1.2;

/// Minimum interval between reports of one task's drift.
const REPORT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The memory that batches may use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryLimits {
    /// Maximum for a batch of several items.
    pub(super) share: u64,
    /// Maximum for all batches that run at the same time.
    pub(super) capacity: u64,
}

impl MemoryLimits {
    pub(super) const NONE: Self = Self {
        share: u64::MAX,
        capacity: u64::MAX,
    };

    /// The limits of a model with this budget for `workers` workers, and the budget of all models.
    pub(super) fn new(budget: Option<u64>, shared: Option<u64>, workers: usize) -> Self {
        let shared = shared.unwrap_or(u64::MAX);
        let budget_of_worker = budget.map_or(u64::MAX, |budget| budget / workers.max(1) as u64);
        Self {
            share: budget_of_worker.min(shared),
            capacity: budget.unwrap_or(u64::MAX).min(shared),
        }
    }
}

/// An item is predicted to need more memory than all batches of its model may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooHeavy {
    /// Predicted bound for the item alone, in bytes.
    pub predicted: u64,
    /// Maximum in bytes.
    pub budget: u64,
}

/// The measured memory of a task's batches differs from the prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryDrift {
    /// Measured memory relative to the expected memory, averaged over recent batches.
    pub ratio: f64,
    /// The margin that results from the measurements.
    pub margin: f64,
}

/// Predicts the memory of the batches of one task.
#[derive(Clone, Debug)]
pub struct TaskMemory {
    model: CostModel,
    limits: MemoryLimits,
    errors: Errors,
    margin: f64,
    /// Average of measured over expected memory.
    drift: Option<f64>,
    reported: Option<Instant>,
}

/// The errors of the latest measured batches.
#[derive(Clone)]
struct Errors {
    latest: [f64; WINDOW],
    count: u64,
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} errors", self.count)
    }
}

impl Errors {
    fn add(&mut self, error: f64) {
        self.latest[(self.count % WINDOW as u64) as usize] = error;
        self.count += 1;
    }

    fn greatest(&self) -> f64 {
        let known = usize::try_from(self.count).unwrap_or(WINDOW).min(WINDOW);
        self.latest[..known].iter().copied().fold(0.0, f64::max)
    }

    fn is_full(&self) -> bool {
        self.count >= WINDOW as u64
    }
}

impl TaskMemory {
    /// Predictions by a calibrated model, without a limit.
    pub(super) fn new(model: CostModel) -> Self {
        Self {
            margin: model.margin(),
            model,
            limits: MemoryLimits::NONE,
            errors: Errors {
                latest: [0.0; WINDOW],
                count: 0,
            },
            drift: None,
            reported: None,
        }
    }

    /// The same predictions under the limits of `MemoryLimits::new`.
    pub fn with_budget(&self, budget: Option<u64>, shared: Option<u64>, workers: usize) -> Self {
        let mut memory = self.clone();
        memory.set_limits(MemoryLimits::new(budget, shared, workers));
        memory
    }

    pub(super) fn set_limits(&mut self, limits: MemoryLimits) {
        self.limits = limits;
    }

    /// The bound of the memory of a batch in bytes; `None` if the samples do not determine it.
    pub fn bound(&self, shape: &BatchShape) -> Option<u64> {
        let prediction = self.model.predict_with_margin(shape, self.margin).ok()?;
        // A conversion from a float saturates.
        Some(prediction.bound.max(0.0).ceil() as u64)
    }

    /// Whether batches are limited.
    pub(super) fn is_limited(&self) -> bool {
        self.limits.share < u64::MAX
    }

    /// Whether these items may share a batch.
    pub(super) fn admits(&self, shape: &BatchShape) -> bool {
        !self.is_limited() || self.bound(shape).is_some_and(|bound| bound <= self.limits.share)
    }

    /// The greatest weight that each of `items` items may have so that they can share a batch, at most [`MAX_WEIGHT`]. `None` if
    /// batches are not limited, or if not even the lightest items fit.
    pub fn heaviest(&self, items: u64) -> Option<u64> {
        let limit = match items {
            0 | 1 => self.limits.capacity,
            _ => self.limits.share,
        };
        let fits = |weight: u64| {
            let bound = self.bound(&BatchShape::uniform(items.max(1), weight));
            bound.is_some_and(|bound| bound <= limit)
        };
        if limit == u64::MAX || !fits(1) {
            return None;
        }
        // The bound grows with the weight.
        let (mut fitting, mut exceeding) = (1, MAX_WEIGHT + 1);
        while exceeding - fitting > 1 {
            let middle = fitting + (exceeding - fitting) / 2;
            match fits(middle) {
                true => fitting = middle,
                false => exceeding = middle,
            }
        }
        Some(fitting)
    }

    /// The memory that a batch holds while it runs: zero if memory is not limited.
    pub(super) fn reservation(&self, shape: &BatchShape) -> u64 {
        if self.limits.capacity == u64::MAX {
            return 0;
        }
        // The margin may have grown since an item was queued.
        self.bound(shape).unwrap_or(u64::MAX).min(self.limits.capacity)
    }

    /// Checks that an item of this weight can run alone.
    ///
    /// # Errors
    /// If it is predicted to exceed the budget.
    pub fn check_item(&self, weight: u64) -> Result<(), TooHeavy> {
        let budget = self.limits.capacity;
        match self.bound(&BatchShape::of([weight.max(1)])) {
            Some(predicted) if predicted > budget => Err(TooHeavy { predicted, budget }),
            Some(_) | None => Ok(()),
        }
    }

    /// Corrects the margin by a batch that was measured at `now`. Returns a drift that is to be reported.
    pub(super) fn measured(&mut self, shape: &BatchShape, bytes: u64, now: Instant) -> Option<MemoryDrift> {
        let measured = bytes as f64;
        let error = self.model.error(shape, measured).ok()?;
        let expected = self.model.expected(shape).ok()?;
        self.errors.add(error);
        self.margin = if self.errors.is_full() {
            self.errors.greatest()
        } else {
            self.errors.greatest().max(self.model.margin())
        };
        // A batch that was expected to need nothing says nothing about a ratio.
        if expected >= 1.0 {
            let ratio = measured / expected;
            let drift = self.drift.get_or_insert(ratio);
            *drift += (ratio - *drift) * NEWEST;
        }
        let ratio = self.drift?;
        let is_due = self
            .reported
            .is_none_or(|reported| now.saturating_duration_since(reported) >= REPORT_INTERVAL);
        if self.errors.count < MIN_MEASURED || (MIN_DRIFT..=MAX_DRIFT).contains(&ratio) || !is_due {
            return None;
        }
        self.reported = Some(now);
        Some(MemoryDrift {
            ratio,
            margin: self.margin,
        })
    }

    /// The 99th percentile of the relative errors, as corrected by measured batches.
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// Measured over expected memory, averaged over recent batches; `None` if none was measured.
    pub fn drift(&self) -> Option<f64> {
        self.drift
    }

    /// Maximum memory of all batches of the model that run at the same time; `None` if it is not limited.
    pub fn budget(&self) -> Option<u64> {
        (self.limits.capacity < u64::MAX).then_some(self.limits.capacity)
    }
}

/// Memory that several models share, as one of them sees it.
pub trait SharedBudget: fmt::Debug + Send {
    /// Maximum for all models, in bytes.
    fn capacity(&self) -> u64;

    /// Reserves `bytes`. If there is no room, the model is registered as waiting, and the scheduler has to be polled again
    /// when the memory is available.
    fn reserve(&mut self, bytes: u64, now: Instant) -> bool;

    /// Releases reserved bytes.
    fn release(&mut self, bytes: u64);

    /// Ends the wait of the model, if it waits.
    fn withdraw(&mut self);
}

/// The memory that the running batches of one model hold.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// Maximum for the batches of this model.
    pub(super) budget: Option<u64>,
    pub(super) shared: Option<Box<dyn SharedBudget>>,
    held: u64,
}

impl Reservations {
    /// Reserves memory for a batch, or returns false if it does not fit now. If no batch of the model runs, its own budget
    /// always suffices: it may have been lowered since the batch was admitted.
    pub(super) fn reserve(&mut self, bytes: u64, now: Instant) -> bool {
        if bytes == 0 {
            return true;
        }
        let sum = self.held.saturating_add(bytes);
        if self.held > 0 && self.budget.is_some_and(|budget| sum > budget) {
            self.withdraw();
            return false;
        }
        if let Some(shared) = &mut self.shared
            && !shared.reserve(bytes, now)
        {
            return false;
        }
        self.held = sum;
        true
    }

    /// Releases memory that a batch held.
    pub(super) fn release(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.held -= bytes;
        if let Some(shared) = &mut self.shared {
            shared.release(bytes);
        }
    }

    /// Ends the wait for shared memory.
    pub(super) fn withdraw(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.withdraw();
        }
    }

    /// Bytes that the running batches hold.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::super::cost_model::Sample;
    use super::*;
    use crate::batching::WeightRule;
    use crate::clock;

    const MIB: u64 = 1 << 20;

    /// A model of padded batches that need 1 MiB per item and unit of weight, exactly.
    fn one_mib_per_unit() -> CostModel {
        let shapes = [1, 2, 4, 8]
            .into_iter()
            .flat_map(|items| [1, 3, 9].map(|weight| BatchShape::of((0..items).map(|_| weight))));
        let samples: Vec<Sample> = shapes
            .map(|shape| Sample {
                shape,
                measured: (shape.items * shape.heaviest * MIB) as f64,
            })
            .collect();
        CostModel::fit(WeightRule::Padded, &samples).expect("the samples are valid")
    }

    fn limited(budget: u64, workers: usize) -> TaskMemory {
        let mut memory = TaskMemory::new(one_mib_per_unit());
        memory.set_limits(MemoryLimits::new(Some(budget), None, workers));
        memory
    }

    /// Rounds to MiB: the fit is exact up to rounding errors.
    fn mib(bytes: u64) -> u64 {
        (bytes + MIB / 2) / MIB
    }

    #[test]
    fn a_batch_of_several_items_stays_within_the_share_of_a_worker_and_a_single_item_within_the_budget() {
        let memory = limited(21 * MIB, 2);
        assert!(memory.admits(&BatchShape::of([5, 5])));
        assert!(!memory.admits(&BatchShape::of([6, 1])));
        assert_eq!(memory.check_item(20), Ok(()));
        let too_heavy = memory.check_item(22).expect_err("it exceeds the budget");
        assert_eq!((mib(too_heavy.predicted), mib(too_heavy.budget)), (22, 21));
    }

    #[test]
    fn the_smaller_of_two_budgets_applies() {
        assert_eq!(
            MemoryLimits::new(Some(100), Some(30), 2),
            MemoryLimits {
                share: 30,
                capacity: 30
            }
        );
        assert_eq!(
            MemoryLimits::new(Some(100), Some(70), 2),
            MemoryLimits {
                share: 50,
                capacity: 70
            }
        );
        assert_eq!(MemoryLimits::new(None, None, 4), MemoryLimits::NONE);
    }

    #[test]
    fn a_batch_whose_memory_is_not_determined_holds_the_whole_budget_and_shares_it_with_no_item() {
        let samples: Vec<Sample> = (1..8)
            .map(|items| Sample {
                shape: BatchShape::of((0..items).map(|_| 10)),
                measured: items as f64,
            })
            .collect();
        let model = CostModel::fit(WeightRule::Padded, &samples).expect("the samples are valid");
        let mut memory = TaskMemory::new(model);
        memory.set_limits(MemoryLimits::new(Some(1000), None, 1));
        assert!(memory.admits(&BatchShape::of([10, 10])));
        assert!(!memory.admits(&BatchShape::of([20, 20])));
        assert_eq!(memory.reservation(&BatchShape::of([20])), 1000);
        assert_eq!(memory.check_item(20), Ok(()));
    }

    #[test]
    fn a_batch_that_exceeds_its_bound_raises_the_margin_at_once_and_it_falls_after_a_window_of_smaller_ones()
    {
        let (mut memory, now) = (limited(1000 * MIB, 1), clock::now());
        let shape = BatchShape::of([5, 5]);
        memory.measured(&shape, 12 * MIB, now);
        assert_eq!(memory.bound(&shape).map(mib), Some(12));
        for _ in 1..WINDOW {
            memory.measured(&shape, 11 * MIB, now);
        }
        assert_eq!(memory.bound(&shape).map(mib), Some(12));
        memory.measured(&shape, 11 * MIB, now);
        assert_eq!(memory.bound(&shape).map(mib), Some(11));
    }

    #[test]
    fn a_drift_is_reported_once_in_ten_minutes() {
        let (mut memory, now) = (limited(1000 * MIB, 1), clock::now());
        let shape = BatchShape::of([5, 5]);
        let mut reports = |seconds: u64| {
            let at = now + Duration::from_secs(seconds);
            let drifts = (0..MIN_MEASURED).filter_map(|_| memory.measured(&shape, 15 * MIB, at));
            drifts
                .map(|drift| (drift.ratio * 100.0).round())
                .collect::<Vec<_>>()
        };
        assert_eq!(reports(0), [150.0]);
        assert_eq!(reports(599), [] as [f64; 0]);
        assert_eq!(reports(600), [150.0]);
    }

    #[test]
    fn a_model_holds_no_more_than_its_budget_except_for_a_single_batch() {
        let now = clock::now();
        let mut reservations = Reservations {
            budget: Some(10),
            ..Reservations::default()
        };
        assert!(reservations.reserve(7, now));
        assert!(!reservations.reserve(4, now));
        assert!(reservations.reserve(3, now));
        reservations.release(7);
        reservations.release(3);
        assert_eq!(reservations.held(), 0);
        assert!(reservations.reserve(12, now));
    }
}
