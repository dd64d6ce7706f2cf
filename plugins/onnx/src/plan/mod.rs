//! The plan of a task: its settings, checked against the shapes that the file declares and the results of a trial. Every error in
//! a task's settings is found here, at load, and reported with its key.
//!
//! `names` selects inputs and outputs, `batch_mode` derives from the declared shapes how items run, and `trial` verifies this
//! (`compare`) by running synthetic items (`made_up`) or the operator's examples (`examples`). `padded` derives and verifies what
//! is padded, and `sampled` creates items of a requested weight.

mod batch_mode;
mod compare;
mod examples;
mod images;
mod made_up;
mod names;
mod padded;
mod sampled;
mod texts;
mod trial;

use std::sync::Arc;

use plugin_sdk::{LoadContext, LoadError, TaskInfo};

pub(crate) use self::batch_mode::BatchMode;
use self::batch_mode::declared;
use self::images::Images;
use self::sampled::Sampler;
use self::texts::Texts;
pub(crate) use self::trial::{Remark, Tried};
use crate::network::{Dim, Network, TensorSpec};
use crate::padding::Padding;
use crate::settings::{BatchSetting, TaskSettings};
use crate::task::answer::{self, Answer, PlannedTask};

/// A task that is ready to run.
pub(crate) struct Plan {
    pub(crate) network: Arc<Network>,
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<TensorSpec>,
    /// Preprocesses images, if the task takes them.
    pub(crate) images: Option<Images>,
    /// Tokenizes texts, if the task takes them.
    pub(crate) texts: Option<Texts>,
    /// Turns the model's outputs into the response. If `None`, the response contains the tensors unchanged.
    pub(crate) answer: Option<Box<dyn Answer>>,
    pub(crate) mode: BatchMode,
    /// How items of different lengths are padded, if they are.
    pub(crate) padding: Option<Padding>,
    /// Key of the setting `pad`, if no item could be computed to check it.
    pub(crate) unchecked_padding: Option<String>,
    /// Creates items of a requested weight. `None` if the model has not computed any item.
    sampler: Option<Sampler>,
    pub(crate) info: TaskInfo,
    /// Why the trial failed; `None` if it succeeded.
    pub(crate) trial_failure: Option<String>,
    /// Messages for the operator. They are not logged here, since the plan may be discarded for one with another runtime.
    pub(crate) remarks: Vec<Remark>,
}

/// An input of a task.
pub(crate) struct Slot {
    pub(crate) spec: TensorSpec,
    /// Dimensions of one item; `None` if any shape is accepted.
    pub(crate) dims: Option<Vec<Dim>>,
}

impl Slot {
    fn new(spec: &TensorSpec, mode: BatchMode) -> Self {
        let dims = spec.dims.as_ref().map(|dims| match mode {
            BatchMode::Unbatched => dims.clone(),
            BatchMode::Batched | BatchMode::ItemByItem => dims[1..].to_vec(),
        });
        Self {
            spec: spec.clone(),
            dims,
        }
    }

    /// Size of each dimension, `None` for a dynamic one; `None` overall if any shape is accepted.
    pub(crate) fn sizes(&self) -> Option<Vec<Option<usize>>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Open(_) => None,
        };
        Some(self.dims.as_ref()?.iter().map(size).collect())
    }

    pub(crate) fn is_fixed(&self) -> bool {
        let is_fixed = |dims: &Vec<Dim>| dims.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
        self.dims.as_ref().is_some_and(is_fixed) && !self.spec.sequence
    }
}

impl Plan {
    /// Plans the task `name`. `written` is false for the implicit task of a model whose settings define none; `batch` is the
    /// model-wide setting.
    pub(crate) fn new(
        name: &str,
        mut settings: TaskSettings,
        written: bool,
        batch: BatchSetting,
        network: &Arc<Network>,
        context: &LoadContext,
    ) -> Result<Self, LoadError> {
        let keys = Keys { task: name, written };
        let inputs_key = keys.of("inputs", settings.inputs.is_some());
        let outputs_key = keys.of("outputs", settings.outputs.is_some());
        let inputs = names::select(network.inputs(), settings.inputs.as_deref(), "input", &inputs_key)?;
        let outputs = names::select(
            network.outputs(),
            settings.outputs.as_deref(),
            "output",
            &outputs_key,
        )?;
        let fills = padded::fills(settings.pad.as_ref(), &inputs, &keys)?;
        let (inputs, outputs) = names::rename(inputs, outputs, &settings.rename, &keys.of("rename", true))?;
        let setting = settings.batch.unwrap_or(batch);
        let batch_key = match settings.batch {
            Some(_) => keys.of("batch", true),
            None => "batch".to_owned(),
        };
        let declared = declared(&inputs, &outputs, setting);
        let mut plan = Self {
            network: Arc::clone(network),
            inputs: inputs.iter().map(|spec| Slot::new(spec, declared.mode)).collect(),
            outputs,
            images: None,
            texts: None,
            answer: None,
            mode: declared.mode,
            padding: None,
            unchecked_padding: None,
            sampler: None,
            info: TaskInfo::default(),
            trial_failure: None,
            remarks: Vec::new(),
        };
        plan.padding = plan.declared_padding(fills, &declared, &keys)?;
        plan.read_inputs_by(&settings, &keys, context)?;
        let written_examples = plan.read_examples(settings.examples.as_deref(), &keys, context)?;
        let samples = plan.samples(written_examples.as_deref().unwrap_or_default());
        plan.check_lengths(&samples, &keys)?;
        let tried = plan
            .try_out(&declared, setting, samples.clone())
            .map_err(|fault| fault.blame(&keys, &batch_key))?;
        if tried.mode != plan.mode {
            plan.mode = tried.mode;
            plan.inputs = inputs.iter().map(|spec| Slot::new(spec, tried.mode)).collect();
            plan.read_inputs_by(&settings, &keys, context)?;
        }
        plan.check_padding(&tried, samples, setting, &keys)?;
        plan.sampler = Sampler::new(&plan, &tried);
        plan.warm_up(&tried, context.workers);
        plan.trial_failure = tried.failure().map(str::to_owned);
        plan.remarks = tried.remarks(name, &declared);
        let shapes = tried.item_shapes(plan.outputs.len());
        let task = PlannedTask {
            plan: &plan,
            shapes: shapes.as_deref(),
            keys: &keys,
            context,
        };
        plan.answer = answer::choose(&mut settings, task)?;
        plan.info = plan.describe(&settings, written_examples, &tried, &keys)?;
        Ok(plan)
    }

    /// Prepares the conversion of images or texts to the inputs, if the task takes them.
    fn read_inputs_by(
        &mut self,
        settings: &TaskSettings,
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<(), LoadError> {
        if settings.image.is_some() && settings.tokenizer.is_some() {
            let message = "a task takes images or texts, but has `image` as well";
            return Err(LoadError::setting(keys.of("tokenizer", true), message));
        }
        self.images = Images::new(settings.image.as_ref(), &self.inputs, self.mode, keys)?;
        self.texts = Texts::new(
            settings.tokenizer.as_ref(),
            &self.inputs,
            self.mode,
            keys,
            context,
        )?;
        Ok(())
    }

    pub(crate) fn is_image(&self) -> bool {
        self.images.is_some()
    }
}

/// Keys of a task's settings, for error messages.
pub(crate) struct Keys<'a> {
    task: &'a str,
    written: bool,
}

impl Keys<'_> {
    /// Key of the setting `setting` of this task, or of the task itself if `setting` is empty. Returns `model` if the operator
    /// did not write the setting, since the cause is then the model file.
    pub(crate) fn of(&self, setting: &str, written: bool) -> String {
        match (self.written && written, setting) {
            (false, _) => "model".to_owned(),
            (true, "") => format!("tasks.{}", self.task),
            (true, setting) => format!("tasks.{}.{setting}", self.task),
        }
    }
}
