//! The trial of a task at load: an actual run, and, if items are to be stacked, a check that the model computes the same results
//! for items in a batch as for single items. The batch dimensions that a file declares are not always real: some graphs have a
//! hardcoded batch size of one, some outputs lack a batch dimension, and some graphs compute across the rows of a batch.
//!
//! A model whose trial fails is still served, since synthetic items may not suit it.

use plugin_sdk::log::Level;
use plugin_sdk::manifest::Trial;
use plugin_sdk::{LoadError, log};

use super::batch_mode::{BatchMode, Declared};
use super::compare::{Difference, compare};
use super::{Keys, Plan};
use crate::analysis::mixing::Verdict;
use crate::runtime::{Computed, Fault};
use crate::settings::BatchSetting;
use crate::task::Sample;

/// Number of items in the batch that is compared with single items.
const TOGETHER: usize = 3;

/// Number of synthetic items among which a second item that the model computes is sought.
const OTHER_ITEMS: u64 = 4;

/// Maximum number of items of other sizes to try until the model computes one.
const OTHER_SIZES: usize = 8;

/// A log message with its level.
pub(crate) type Remark = (Level, String);

/// Result of a trial.
pub(crate) struct Tried {
    /// How items run.
    pub(crate) mode: BatchMode,
    /// Why the mode is not the declared one.
    reason: Option<String>,
    /// The item that was computed, in the form for `mode`, and its outputs with their shapes as computed.
    computed: Option<(Sample, Vec<Computed>)>,
    /// Why no item could be computed.
    failure: Option<String>,
}

/// Why a task cannot be served.
pub(super) enum Unfit {
    /// The outputs require other inputs.
    Inputs(String),
    /// The batching that the setting `batch` requires is not possible.
    Batch(String),
}

impl Unfit {
    pub(super) fn blame(self, keys: &Keys<'_>, batch_key: &str) -> LoadError {
        match self {
            Self::Inputs(message) => LoadError::setting(keys.of("inputs", true), message),
            Self::Batch(reason) => LoadError::setting(
                batch_key,
                format_args!(
                    "\"force\" is not possible: {reason}; expected \"auto\" or \"none\", or a model with a batch dimension"
                ),
            ),
        }
    }
}

impl Tried {
    /// Outcome of the trial for the manifest.
    pub(crate) fn trial(&self) -> Trial {
        match &self.failure {
            None => Trial::Succeeded,
            Some(reason) => Trial::Failed {
                reason: reason.clone(),
            },
        }
    }

    /// The item that was computed.
    pub(crate) fn sample(&self) -> Option<&Sample> {
        self.computed.as_ref().map(|(sample, _)| sample)
    }

    /// Shape of an output for one item, if it is known. Sequences do not have a single shape.
    pub(crate) fn item_shape(&self, output: usize) -> Option<Vec<usize>> {
        let (_, computed) = self.computed.as_ref()?;
        let skip = usize::from(self.mode != BatchMode::Unbatched);
        let computed = computed.iter().find(|computed| computed.output == output)?;
        let shape = computed.shape.get(skip..)?.to_vec();
        computed.position.is_none().then_some(shape)
    }

    /// Shapes of all outputs for one item, if they are known.
    pub(crate) fn item_shapes(&self, outputs: usize) -> Option<Vec<Vec<usize>>> {
        (0..outputs).map(|output| self.item_shape(output)).collect()
    }

    /// Why no item could be computed; `None` if one was.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Why items are not batched, if the declared shapes allow it.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Log messages about the task `task`.
    pub(super) fn remarks(&self, task: &str, declared: &Declared) -> Vec<Remark> {
        let mode = match self.mode {
            BatchMode::Batched => "items are batched",
            BatchMode::ItemByItem => "items run one by one",
            BatchMode::Unbatched => "a request is one item, with the tensors that the file declares",
        };
        let mut remarks = Vec::new();
        match &self.reason {
            Some(reason) => remarks.push((Level::Warn, format!("task `{task}`: {mode}: {reason}"))),
            None if self.mode == BatchMode::Batched => {}
            None => remarks.push((Level::Info, format!("task `{task}`: {mode}: {}", declared.reason))),
        }
        if let Some(failure) = &self.failure {
            let message = format!(
                "task `{task}`: the trial failed, so it is not known whether the model works: {failure}; set `examples` to items \
                 that it accepts"
            );
            remarks.push((Level::Warn, message));
        }
        remarks
    }
}

impl Plan {
    /// Runs `samples`, or synthetic items if there are no samples or none of them can be computed.
    pub(super) fn try_out(
        &self,
        declared: &Declared,
        setting: BatchSetting,
        samples: Vec<Sample>,
    ) -> Result<Tried, Unfit> {
        let forced = setting == BatchSetting::Force;
        if forced && declared.mode != BatchMode::Batched {
            return Err(Unfit::Batch(declared.reason.clone()));
        }
        let found = match self.first_that_computes(samples)? {
            Ok(found) => found,
            Err(failure) => return Ok(self.untried(declared, forced, failure)),
        };
        let Found { item, others, alone } = found;
        let tried = |mode, reason, item, alone| Tried {
            mode,
            reason,
            computed: Some((item, alone)),
            failure: None,
        };
        if self.mode == BatchMode::Unbatched {
            return Ok(tried(self.mode, None, item, alone));
        }
        if let Some(reason) = self
            .not_rows(&alone, 1)
            .or_else(|| self.not_rows_in_other_sizes(&item))
        {
            if forced {
                return Err(Unfit::Batch(reason));
            }
            return Ok(tried(
                BatchMode::Unbatched,
                Some(reason),
                item.with_batch_of_one(),
                alone,
            ));
        }
        if self.mode == BatchMode::ItemByItem {
            return Ok(tried(self.mode, None, item, alone));
        }
        let outcome = self
            .together(&item, &others, &alone)
            .and_then(|()| self.analyzed());
        let (mode, reason) = match outcome {
            Ok(()) => (BatchMode::Batched, None),
            Err(Dependence::Values(reason)) if forced => {
                let reason = format!("{reason}, but `batch` is \"force\"");
                (BatchMode::Batched, Some(reason))
            }
            Err(dependence) if forced => return Err(Unfit::Batch(dependence.into_reason())),
            Err(dependence) => self.without_batches(declared, dependence),
        };
        let item = if mode == BatchMode::Unbatched {
            item.with_batch_of_one()
        } else {
            item
        };
        Ok(tried(mode, reason, item, alone))
    }

    /// How items run that cannot be computed together, and why. Items run one by one only if it is known that the first dimension
    /// of every output is the batch dimension, since that dimension is removed from their outputs. Otherwise an item is a whole
    /// request.
    fn without_batches(&self, declared: &Declared, dependence: Dependence) -> (BatchMode, Option<String>) {
        let has_rows = match &dependence {
            Dependence::Shape(_) => false,
            // The trial saw a row for each of several items.
            Dependence::Values(_) => true,
            Dependence::Impossible(_) | Dependence::Rows(_) => self.must_have_rows(declared),
        };
        let may_be_items = !matches!(&dependence, Dependence::Impossible(_));
        let reason = dependence.into_reason();
        match declared.why_not_items().filter(|_| may_be_items) {
            Some(why) => {
                let reason = format!("{why}, and the answers for its elements depend on one another");
                (BatchMode::Unbatched, Some(reason))
            }
            None if has_rows => (BatchMode::ItemByItem, Some(reason)),
            None => (BatchMode::Unbatched, Some(reason)),
        }
    }

    /// Whether the first dimension of every output is the batch dimension, judging by the dimension names or the graph, without
    /// the results of a trial.
    fn must_have_rows(&self, declared: &Declared) -> bool {
        let verdicts = || self.outputs.iter().map(|spec| self.network.verdict(spec));
        verdicts().all(|verdict| *verdict == Verdict::Independent)
            || declared.certain && !verdicts().any(|verdict| matches!(verdict, Verdict::NotBatchFirst(_)))
    }

    /// Runs the trial's item on every worker except the first, which has already run it. The first run of a session allocates
    /// memory.
    pub(super) fn warm_up(&self, tried: &Tried, workers: usize) {
        let Some(item) = tried.sample() else { return };
        for worker in 1..workers {
            if let Err(fault) = self.compute(&[item], worker) {
                log::warn!(
                    "worker {worker} cannot compute the item of the trial: {}",
                    fault.message()
                );
            }
        }
    }

    /// Checks what the static analysis of the graph found, after the trial has seen a row for each item. Synthetic items may be too
    /// similar to reveal a dependence between items.
    fn analyzed(&self) -> Result<(), Dependence> {
        for output in &self.outputs {
            match self.network.verdict(output) {
                Verdict::Independent | Verdict::Unknown(_) => {}
                Verdict::Mixed(reason) | Verdict::NotBatchFirst(reason) => {
                    return Err(Dependence::Values(reason.clone()));
                }
            }
        }
        Ok(())
    }

    /// Result if no item could be computed. Relies only on what the graph or the dimension names prove.
    fn untried(&self, declared: &Declared, forced: bool, failure: String) -> Tried {
        let is_independent = |spec| *self.network.verdict(spec) == Verdict::Independent;
        let unknown = |what: &str| Some(format!("the trial failed, so it is not known whether {what}"));
        let (mode, reason) = match declared.mode {
            BatchMode::Batched if forced || self.outputs.iter().all(is_independent) => {
                (BatchMode::Batched, None)
            }
            BatchMode::Batched if self.must_have_rows(declared) => (
                BatchMode::ItemByItem,
                unknown("answers depend on the rest of a batch"),
            ),
            BatchMode::ItemByItem if declared.certain => (BatchMode::ItemByItem, None),
            BatchMode::Batched | BatchMode::ItemByItem => (
                BatchMode::Unbatched,
                unknown("every output has a batch dimension"),
            ),
            BatchMode::Unbatched => (BatchMode::Unbatched, None),
        };
        Tried {
            mode,
            reason,
            computed: None,
            failure: Some(failure),
        }
    }

    /// The first item that the model computes, or the first failure if it computes none.
    fn first_that_computes(&self, samples: Vec<Sample>) -> Result<Result<Found, String>, Unfit> {
        let mut failure = None;
        let mut run = |item: &Sample| match self.compute(&[item], 0) {
            Ok(alone) => Ok(Some(alone)),
            Err(Fault::Inputs(message)) => Err(Unfit::Inputs(message)),
            Err(fault) => {
                failure.get_or_insert(fault.message().into_owned());
                Ok(None)
            }
        };
        let mut given = samples.into_iter();
        while let Some(item) = given.next() {
            if let Some(alone) = run(&item)? {
                let others = given.chain([item.reversed()]).collect();
                return Ok(Ok(Found::new(item, others, alone)));
            }
        }
        for attempt in self.attempts() {
            let Some(item) = self.make_up(attempt, 1) else {
                continue;
            };
            if let Some(alone) = run(&item)? {
                let seeds = (2..2 + OTHER_ITEMS).filter_map(|seed| self.make_up(attempt, seed));
                let others = seeds.chain([item.reversed()]).collect();
                return Ok(Ok(Found::new(item, others, alone)));
            }
        }
        Ok(Err(failure.unwrap_or_else(|| {
            "an item of the declared shape is too large to be generated".to_owned()
        })))
    }

    /// Why the outputs for `count` items do not consist of one row per item; `None` if they do.
    pub(crate) fn not_rows(&self, computed: &[Computed], count: usize) -> Option<String> {
        let other = computed
            .iter()
            .find(|computed| computed.position.is_some() || computed.shape.first() != Some(&count))?;
        let (name, shape) = (&self.outputs[other.output].name, &other.shape);
        let items = if count == 1 {
            "a single item".to_owned()
        } else {
            format!("{count} items")
        };
        Some(match other.position {
            Some(_) => format!("output `{name}` is a sequence"),
            None => format!("output `{name}` has the shape {shape:?} for {items}, without a batch dimension"),
        })
    }

    /// Like [`not_rows`](Self::not_rows), for an item of other sizes: a first dimension that depends on the size of the item may
    /// have been 1 by coincidence.
    fn not_rows_in_other_sizes(&self, item: &Sample) -> Option<String> {
        let attempts = self.attempts().into_iter();
        let others = attempts.filter_map(|attempt| self.make_up(attempt, 1));
        let others = others
            .filter(|other| !other.has_shapes_of(item))
            .take(OTHER_SIZES);
        let computed = others
            .map(|other| self.compute(&[&other], 0))
            .find_map(Result::ok)?;
        self.not_rows(&computed, 1)
    }

    /// Checks that the model computes the same results for several items at once as for each alone. `others` are candidates for
    /// an item that differs from `item`.
    fn together(&self, item: &Sample, others: &[Sample], alone: &[Computed]) -> Result<(), Dependence> {
        let different = others
            .iter()
            .find_map(|other| Some((other, self.compute(&[other], 0).ok()?)));
        let (other, other_alone) = match &different {
            Some((other, other_alone)) => (*other, other_alone.as_slice()),
            None => (item, alone),
        };
        let together = self.compute(&[item, other, item], 0).map_err(|fault| {
            let problem = fault.message();
            Dependence::Impossible(format!(
                "the model cannot compute several items at once: {problem}"
            ))
        })?;
        if let Some(reason) = self.not_rows(&together, TOGETHER) {
            return Err(Dependence::Rows(reason));
        }
        let half = self.network.is_half_precision();
        for (row, alone) in [alone, other_alone, alone].into_iter().enumerate() {
            for (together, alone) in together.iter().zip(alone) {
                let name = &self.outputs[together.output].name;
                match compare(together, row, TOGETHER, alone, half) {
                    Difference::None => {}
                    Difference::Values => {
                        return Err(Dependence::Values(format!(
                            "output `{name}` depends on the other items of a batch"
                        )));
                    }
                    Difference::Shape => {
                        return Err(Dependence::Shape(format!(
                            "output `{name}` has the shape {:?} for {TOGETHER} items and {:?} for one",
                            together.shape, alone.shape
                        )));
                    }
                }
            }
        }
        let is_independent = |spec| *self.network.verdict(spec) == Verdict::Independent;
        if different.is_none() && !self.outputs.iter().all(is_independent) {
            let reason = "the trial has only one item that the model computes, so it is not known whether answers depend on the \
                          rest of a batch";
            return Err(Dependence::Values(reason.to_owned()));
        }
        Ok(())
    }
}

/// An item that the model can compute.
struct Found {
    item: Sample,
    /// Different items of the same shapes.
    others: Vec<Sample>,
    /// Outputs for `item` alone.
    alone: Vec<Computed>,
}

impl Found {
    /// `others` may contain items that are unsuitable.
    fn new(item: Sample, mut others: Vec<Sample>, alone: Vec<Computed>) -> Self {
        others.retain(|other| other.has_shapes_of(&item) && *other != item);
        Self { item, others, alone }
    }
}

/// How items in a batch depend on each other.
enum Dependence {
    /// The model cannot compute them together.
    Impossible(String),
    /// The outputs do not have one row per item.
    Rows(String),
    /// The values of a row depend on the other rows.
    Values(String),
    /// The shape of a row depends on the number of rows.
    Shape(String),
}

impl Dependence {
    fn into_reason(self) -> String {
        let (Self::Impossible(reason) | Self::Rows(reason) | Self::Values(reason) | Self::Shape(reason)) =
            self;
        reason
    }
}
