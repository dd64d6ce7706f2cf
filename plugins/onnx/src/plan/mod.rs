//! One task, worked out: what the settings say of it, checked against what the file declares and what a trial gave. All
//! that can be wrong with a task's settings is found here, at load, and reported for its key.
//!
//! `names` chooses inputs and outputs, `batch_mode` decides from the declared shapes how items run, `trial` computes made-up
//! items (`made_up`) or the operator's (`examples`) to find out whether that is true (`compare`).

mod batch_mode;
mod compare;
mod examples;
mod images;
mod made_up;
mod names;
mod texts;
mod trial;

use std::sync::Arc;

use plugin_sdk::{LoadContext, LoadError, TaskInfo};

pub(crate) use self::batch_mode::BatchMode;
use self::batch_mode::declared;
use self::images::Images;
use self::texts::Texts;
pub(crate) use self::trial::{Remark, Tried};
use crate::network::{Dim, Network, Port};
use crate::settings::{BatchSetting, TaskSettings};
use crate::task::answer::{self, Answer};

/// A task that is ready to run.
pub(crate) struct Plan {
    pub(crate) network: Arc<Network>,
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<Port>,
    /// Reads images, if the task takes them.
    pub(crate) images: Option<Images>,
    /// Reads texts, if the task takes them.
    pub(crate) texts: Option<Texts>,
    /// Turns what the model computes into the answer; tensors are answered as they are if there is none.
    pub(crate) answer: Option<Box<dyn Answer>>,
    pub(crate) mode: BatchMode,
    pub(crate) info: TaskInfo,
    /// Why the trial computed nothing; none if it did.
    pub(crate) trial_failure: Option<String>,
    /// What the operator should know. Not logged here, since a plan may be dropped for one with another runtime.
    pub(crate) remarks: Vec<Remark>,
}

/// An input of a task.
pub(crate) struct Slot {
    pub(crate) port: Port,
    /// Dimensions of one item; none if any shape is accepted.
    pub(crate) dims: Option<Vec<Dim>>,
}

impl Slot {
    fn new(port: &Port, mode: BatchMode) -> Self {
        let dims = port.dims.as_ref().map(|dims| match mode {
            BatchMode::Unbatched => dims.clone(),
            BatchMode::Batched | BatchMode::ItemByItem => dims[1..].to_vec(),
        });
        Self {
            port: port.clone(),
            dims,
        }
    }

    /// The size of every dimension, none for an open one; none if any shape is accepted.
    pub(crate) fn sizes(&self) -> Option<Vec<Option<usize>>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Open(_) => None,
        };
        Some(self.dims.as_ref()?.iter().map(size).collect())
    }

    pub(crate) fn is_fixed(&self) -> bool {
        let is_fixed = |dims: &Vec<Dim>| dims.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
        self.dims.as_ref().is_some_and(is_fixed) && !self.port.sequence
    }
}

impl Plan {
    /// Works out the task `name`. `written` is false for the task of a model whose settings name none; `batch` is the
    /// setting of the model.
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
        let (inputs, outputs) = names::rename(inputs, outputs, &settings.rename, &keys.of("rename", true))?;
        let setting = settings.batch.unwrap_or(batch);
        let batch_key = match settings.batch {
            Some(_) => keys.of("batch", true),
            None => "batch".to_owned(),
        };
        let declared = declared(&inputs, &outputs, setting);
        let mut plan = Self {
            network: Arc::clone(network),
            inputs: inputs.iter().map(|port| Slot::new(port, declared.mode)).collect(),
            outputs,
            images: None,
            texts: None,
            answer: None,
            mode: declared.mode,
            info: TaskInfo::default(),
            trial_failure: None,
            remarks: Vec::new(),
        };
        plan.read_inputs_by(&settings, &keys, context)?;
        let written_examples = plan.read_examples(settings.examples.as_deref(), &keys, context)?;
        let samples = plan.samples(written_examples.as_deref().unwrap_or_default());
        let tried = plan
            .try_out(&declared, setting, samples)
            .map_err(|fault| fault.blame(&keys, &batch_key))?;
        if tried.mode != plan.mode {
            plan.mode = tried.mode;
            plan.inputs = inputs.iter().map(|port| Slot::new(port, tried.mode)).collect();
            plan.read_inputs_by(&settings, &keys, context)?;
        }
        plan.warm_up(&tried, context.workers);
        plan.trial_failure = tried.failure().map(str::to_owned);
        plan.remarks = tried.remarks(name, &declared);
        let shapes = tried.item_shapes(plan.outputs.len());
        plan.answer = answer::choose(&mut settings, &plan, shapes.as_deref(), &keys, context)?;
        plan.info = plan.describe(&settings, written_examples, &tried, &keys)?;
        Ok(plan)
    }

    /// Finds out how images or texts become the inputs, if the task takes them.
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

/// The keys of a task's settings, for errors.
pub(crate) struct Keys<'a> {
    task: &'a str,
    written: bool,
}

impl Keys<'_> {
    /// The key of a setting of this task, or of the task if `setting` is empty. If the operator did not write such a setting,
    /// the cause is the file, and so the key is `model`.
    pub(crate) fn of(&self, setting: &str, written: bool) -> String {
        match (self.written && written, setting) {
            (false, _) => "model".to_owned(),
            (true, "") => format!("tasks.{}", self.task),
            (true, setting) => format!("tasks.{}.{setting}", self.task),
        }
    }
}
