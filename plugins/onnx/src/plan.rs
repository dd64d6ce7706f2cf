//! One task, worked out: what the settings say of it, checked against what the file declares and what a trial run gave. All
//! that can be wrong with a task's settings is found here, at load, and blamed on its key.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_sdk::{DType, LoadContext, LoadError, TaskInfo, log};

use crate::image::Eye;
use crate::network::{Dim, Network, Port, shape_text};
use crate::ranking::Ranking;
use crate::runtime::Fault;
use crate::settings::TaskSettings;
use crate::task::{Sample, SampleTensor};
use crate::values::Values;

/// A task that is ready to run.
pub(crate) struct Plan {
    pub(crate) network: Arc<Network>,
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<Port>,
    /// Reads images, where the task takes them.
    pub(crate) eye: Option<Eye>,
    /// Names the classes, where the task classifies.
    pub(crate) ranking: Option<Ranking>,
    /// Whether the model computes a single item at a time.
    pub(crate) singly: bool,
    pub(crate) info: TaskInfo,
}

/// An input of a task.
pub(crate) struct Slot {
    pub(crate) port: Port,
    /// Dimensions of one item.
    pub(crate) dims: Vec<Dim>,
}

impl Slot {
    pub(crate) fn sizes(&self) -> Vec<Option<usize>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Open(_) => None,
        };
        self.dims.iter().map(size).collect()
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.dims.iter().all(|dim| matches!(dim, Dim::Fixed(_)))
    }
}

impl Plan {
    /// Works out the task `name`. `written` is false for the task of a model whose settings name none.
    pub(crate) fn new(
        name: &str,
        mut settings: TaskSettings,
        written: bool,
        network: &Arc<Network>,
        context: &LoadContext,
    ) -> Result<Self, LoadError> {
        let keys = Keys { task: name, written };
        let inputs_key = keys.of("inputs", settings.inputs.is_some());
        let outputs_key = keys.of("outputs", settings.outputs.is_some());
        let inputs = select(network.inputs(), settings.inputs.as_deref(), "input", &inputs_key)?;
        let outputs = select(
            network.outputs(),
            settings.outputs.as_deref(),
            "output",
            &outputs_key,
        )?;
        let (inputs, outputs) = rename(inputs, outputs, &settings.rename, &keys.of("rename", true))?;
        let (inputs, mut singly) = split_batch(inputs, &inputs_key)?;
        let eye = match &settings.image {
            Some(image) => {
                let key = keys.of("image", true);
                let [only] = &inputs[..] else {
                    let names: Vec<_> = inputs.iter().map(|slot| &*slot.port.name).collect();
                    let message = format!(
                        "an image becomes one input, but the task takes {}",
                        names.join(", ")
                    );
                    return Err(LoadError::setting(key, message));
                };
                if only.port.dtype == DType::Bytes {
                    let message = format!("input `{}` takes strings, expected numbers", only.port.name);
                    return Err(LoadError::setting(key, message));
                }
                Some(Eye::new(image, &only.sizes(), &key)?)
            }
            None => None,
        };
        let mut plan = Self {
            network: Arc::clone(network),
            inputs,
            outputs,
            eye,
            ranking: None,
            singly,
            info: TaskInfo::default(),
        };
        let shapes = plan.try_out(name, &keys, &mut singly)?;
        plan.singly = singly;
        plan.ranking = plan.ranking(&mut settings, shapes.as_deref(), &keys, context)?;
        plan.info = plan.describe(&settings, shapes.as_deref(), &keys, context)?;
        Ok(plan)
    }

    /// Runs the model on made-up items, since what a file declares of batches is not always true: some graphs have a batch of
    /// one written into them, and some outputs have no batch dimension. Gives the shapes of the outputs for one item.
    ///
    /// A model that does not like made-up items is not refused.
    fn try_out(
        &self,
        name: &str,
        keys: &Keys<'_>,
        singly: &mut bool,
    ) -> Result<Option<Vec<Vec<usize>>>, LoadError> {
        let counts: &[usize] = if *singly { &[1] } else { &[2, 1] };
        let mut problems = Vec::new();
        for &count in counts {
            let shapes = match self.run_neutral(count) {
                Ok(shapes) => shapes,
                Err(Fault::Inputs(message)) => {
                    return Err(LoadError::setting(keys.of("inputs", true), message));
                }
                Err(Fault::Failed(message)) => {
                    problems.push(message);
                    continue;
                }
            };
            let wrong = shapes
                .iter()
                .zip(&self.outputs)
                .find(|(shape, _)| shape.first() != Some(&count));
            let Some((shape, port)) = wrong else {
                if count == 1 && !*singly {
                    log::warn!(
                        "task `{name}`: the model cannot compute two items at once, so they run one by one"
                    );
                    *singly = true;
                } else if count == 1 {
                    log::info!("task `{name}`: the model's batch is fixed to 1, so items run one by one");
                }
                return Ok(Some(shapes.iter().map(|shape| shape[1..].to_vec()).collect()));
            };
            if count == 1 {
                return Err(LoadError::setting(
                    keys.of("outputs", true),
                    format_args!(
                        "output `{}` has the shape {shape:?} for a single item, expected a first dimension of 1, the batch: \
                         leave it out",
                        port.name
                    ),
                ));
            }
            problems.push(format!(
                "output `{}` has the shape {shape:?} for two items",
                port.name
            ));
        }
        log::warn!(
            "task `{name}`: a trial run on made-up items failed, so nothing is known of its outputs: {}",
            problems[0]
        );
        Ok(None)
    }

    fn run_neutral(&self, count: usize) -> Result<Vec<Vec<usize>>, Fault> {
        let neutral = |slot: &Slot| {
            let shape = match &self.eye {
                Some(eye) => eye.shape(&slot.sizes()),
                None => slot.sizes().iter().map(|size| size.unwrap_or(1)).collect(),
            };
            let values = Values::neutral(slot.port.held, shape.iter().product());
            SampleTensor { shape, values }
        };
        let sample = Sample(self.inputs.iter().map(neutral).collect());
        let values = self.compute(&vec![&sample; count], 0)?;
        Ok(values.into_iter().map(|value| value.shape).collect())
    }

    fn ranking(
        &self,
        settings: &mut TaskSettings,
        shapes: Option<&[Vec<usize>]>,
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<Option<Ranking>, LoadError> {
        let top_k = settings.top_k.map(usize::from);
        let Some(labels) = settings.labels.take() else {
            for (written, key) in [
                (top_k.is_some(), "top_k"),
                (settings.activation.is_some(), "activation"),
            ] {
                if written {
                    return Err(LoadError::setting(
                        keys.of(key, true),
                        "is for tasks with `labels`, which this one has not",
                    ));
                }
            }
            return Ok(None);
        };
        let [output] = &self.outputs[..] else {
            let names: Vec<_> = self.outputs.iter().map(|port| &*port.name).collect();
            let message = format!(
                "labels need one output, but the task has {}: choose with `outputs`",
                names.join(", ")
            );
            return Err(LoadError::setting(keys.of("outputs", true), message));
        };
        if !matches!(output.dtype, DType::Fp32 | DType::Fp64) {
            let message = format!(
                "output `{}` is {}, expected scores in FP32",
                output.name,
                output.dtype.name()
            );
            return Err(LoadError::setting(keys.of("labels", true), message));
        }
        let ranking = Ranking::new(labels, top_k, settings.activation, context, &keys.of("", true))?;
        let width = shapes.map(|shapes| shapes[0].iter().product::<usize>());
        match width {
            Some(width) if width != ranking.len() => Err(LoadError::setting(
                keys.of("labels", true),
                format_args!(
                    "{} labels, expected {width}: output `{}` has as many elements",
                    ranking.len(),
                    output.name
                ),
            )),
            _ => Ok(Some(ranking)),
        }
    }
}

/// What to blame.
pub(crate) struct Keys<'a> {
    task: &'a str,
    written: bool,
}

impl Keys<'_> {
    /// The key of a setting of this task (of the task, if that is empty). Where the operator wrote nothing of the kind, the
    /// file is to blame.
    pub(crate) fn of(&self, setting: &str, written: bool) -> String {
        match (self.written && written, setting) {
            (false, _) => "model".to_owned(),
            (true, "") => format!("tasks.{}", self.task),
            (true, setting) => format!("tasks.{}.{setting}", self.task),
        }
    }
}

fn select(ports: &[Port], wanted: Option<&[String]>, sort: &str, key: &str) -> Result<Vec<Port>, LoadError> {
    let Some(wanted) = wanted else {
        return Ok(ports.to_vec());
    };
    if wanted.is_empty() {
        return Err(LoadError::setting(
            key,
            format_args!("there are none, expected at least one {sort}"),
        ));
    }
    let find = |(index, name): (usize, &String)| {
        if wanted[..index].contains(name) {
            return Err(LoadError::setting(
                key,
                format_args!("{sort} `{name}` is named twice"),
            ));
        }
        ports
            .iter()
            .find(|port| port.name == *name)
            .cloned()
            .ok_or_else(|| {
                let known: Vec<_> = ports.iter().map(|port| format!("`{}`", port.name)).collect();
                LoadError::setting(
                    key,
                    format_args!("the model has no {sort} `{name}`, expected {}", known.join(", ")),
                )
            })
    };
    wanted.iter().enumerate().map(find).collect()
}

/// Gives inputs and outputs the names that clients use.
fn rename(
    mut inputs: Vec<Port>,
    mut outputs: Vec<Port>,
    names: &BTreeMap<String, String>,
    key: &str,
) -> Result<(Vec<Port>, Vec<Port>), LoadError> {
    for (name, new) in names {
        let mut found = false;
        let ports = inputs.iter_mut().chain(&mut outputs);
        // The names in the file, since no name that was given before is looked at again.
        for port in ports.filter(|port| port.file_name == *name) {
            port.name.clone_from(new);
            found = true;
        }
        if !found {
            let message = format!("the task has no input or output `{name}`");
            return Err(LoadError::setting(format_args!("{key}.{name}"), message));
        }
    }
    for ports in [&inputs, &outputs] {
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].iter().any(|other| other.name == port.name) {
                let message = format!("two tensors of the task are called `{}`", port.name);
                return Err(LoadError::setting(key, message));
            }
        }
    }
    Ok((inputs, outputs))
}

/// Takes the batch dimension off every input, and says whether it is fixed to one item.
fn split_batch(ports: Vec<Port>, key: &str) -> Result<(Vec<Slot>, bool), LoadError> {
    let mut singly = false;
    let slot = |port: Port| {
        let name = &port.name;
        let problem = match port.dims.as_deref() {
            None => format!("input `{name}` has no declared shape"),
            Some([]) => format!("input `{name}` is a scalar"),
            Some(dims @ [Dim::Fixed(size), ..]) if *size != 1 => {
                format!(
                    "input `{name}` has the fixed first dimension {size} ({})",
                    shape_text(dims)
                )
            }
            Some([first, rest @ ..]) => {
                singly |= *first == Dim::Fixed(1);
                let dims = rest.to_vec();
                return Ok(Slot { port, dims });
            }
        };
        let hint = "expected a first dimension for the batch that has a name instead of a size: export the model with a dynamic \
                    batch";
        Err(LoadError::setting(key, format_args!("{problem}, {hint}")))
    };
    if ports.is_empty() {
        return Err(LoadError::setting(
            key,
            "the model has no inputs, expected at least one",
        ));
    }
    let slots = ports.into_iter().map(slot).collect::<Result<_, _>>()?;
    Ok((slots, singly))
}
