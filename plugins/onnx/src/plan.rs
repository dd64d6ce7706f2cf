//! One task, worked out: what the settings say of it, checked against what the file declares and what a trial run gave. All
//! that can be wrong with a task's settings is found here, at load, and blamed on its key.

use std::fs;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::{DType, LoadContext, LoadError, TaskInfo, TensorInfo, log};
use rten_tensor::Layout;

use crate::image::{Eye, MEDIA_TYPES};
use crate::network::{Dim, Network, Port, shape_text};
use crate::ranking::Ranking;
use crate::settings::TaskSettings;
use crate::task::{Fault, Sample, SampleTensor};
use crate::values::Values;

/// Largest generated example, in elements: more would drown the documentation.
const EXAMPLE_ELEMENTS: usize = 256;

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

    fn is_fixed(&self) -> bool {
        self.dims.iter().all(|dim| matches!(dim, Dim::Fixed(_)))
    }

    fn info(&self) -> TensorInfo {
        let shape: Vec<_> = self
            .sizes()
            .iter()
            .map(|size| size.map_or(-1, |size| size as i64))
            .collect();
        TensorInfo::new(&self.port.name, self.port.dtype, &shape)
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
            let values = Values::neutral(slot.port.dtype, shape.iter().product());
            SampleTensor { shape, values }
        };
        let sample = Sample(self.inputs.iter().map(neutral).collect());
        let values = self.compute(&vec![&sample; count], 0)?;
        Ok(values.iter().map(|value| value.shape().to_vec()).collect())
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

    fn describe(
        &self,
        settings: &TaskSettings,
        shapes: Option<&[Vec<usize>]>,
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<TaskInfo, LoadError> {
        let mut info = TaskInfo::new(settings.description.clone().unwrap_or_else(|| self.description()));
        for slot in &self.inputs {
            info = info.input_tensor(slot.info());
        }
        if self.eye.is_some() {
            info = info.accepts(MEDIA_TYPES);
        }
        if self.ranking.is_none() {
            let fixed = self.inputs.iter().all(Slot::is_fixed);
            for (index, port) in self.outputs.iter().enumerate() {
                let tried = shapes.map(|shapes| &*shapes[index]);
                info = info.output_tensor(TensorInfo::new(
                    &port.name,
                    port.dtype,
                    &output_shape(port, tried, fixed),
                ));
            }
        }
        match settings.max_batch_size.map(usize::from) {
            Some(size) if size > 1 && self.singly => {
                let message = format!("{size}, expected 1: the model computes one item at a time");
                return Err(LoadError::setting(keys.of("max_batch_size", true), message));
            }
            Some(size) => info = info.max_batch_size(size),
            None if self.singly => info = info.max_batch_size(1),
            None => {}
        }
        let examples = match &settings.examples {
            Some(written) => self.read_examples(written, keys, context)?,
            None => self.made_up_example().into_iter().collect(),
        };
        Ok(examples.into_iter().fold(info, TaskInfo::example))
    }

    fn description(&self) -> String {
        let takes = match &self.eye {
            Some(_) => "Takes a PNG or JPEG image of any size, or the tensor itself.",
            None => "Takes tensors.",
        };
        match &self.ranking {
            Some(ranking) => format!(
                "{takes} Answers the best {} of {} labels.",
                ranking.top_k(),
                ranking.len()
            ),
            None => {
                let names: Vec<_> = self
                    .outputs
                    .iter()
                    .map(|port| format!("`{}`", port.name))
                    .collect();
                format!("{takes} Answers {}.", names.join(", "))
            }
        }
    }

    /// In a task that takes images, a string is the path of one.
    fn read_examples(
        &self,
        written: &[Json],
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<Vec<Json>, LoadError> {
        let read = |(index, example): (usize, &Json)| {
            let (Some(eye), Some(path)) = (&self.eye, example.as_str()) else {
                return Ok(example.clone());
            };
            let path = context.path(path);
            let key = format!("{}[{index}]", keys.of("examples", true));
            let data = fs::read(&path).map_err(|error| {
                LoadError::setting(&key, format_args!("`{}` cannot be read: {error}", path.display()))
            })?;
            eye.read(&data).map_err(|error| LoadError::setting(&key, error))?;
            Ok(image_example(&data))
        };
        written.iter().enumerate().map(read).collect()
    }

    fn made_up_example(&self) -> Option<Json> {
        if let Some(eye) = &self.eye {
            return eye.plain().as_deref().map(image_example);
        }
        let elements = |slot: &Slot| slot.sizes().iter().flatten().product::<usize>();
        if self.inputs.iter().map(elements).sum::<usize>() > EXAMPLE_ELEMENTS {
            return None;
        }
        let tensor = |slot: &Slot| {
            let element = match slot.port.dtype {
                DType::Fp32 | DType::Fp64 => json!(0.0),
                DType::Bool => json!(true),
                _ => json!(1),
            };
            let nested = |inner: Json, size: &Option<usize>| Json::Array(vec![inner; size.unwrap_or(1)]);
            (
                slot.port.name.clone(),
                slot.sizes().iter().rev().fold(element, nested),
            )
        };
        Some(Json::Object(self.inputs.iter().map(tensor).collect()))
    }
}

fn image_example(data: &[u8]) -> Json {
    let media_type = if data.starts_with(b"\x89PNG") {
        MEDIA_TYPES[0]
    } else {
        MEDIA_TYPES[1]
    };
    json!({"b64": BASE64_STANDARD.encode(data), "media_type": media_type})
}

/// What to blame.
struct Keys<'a> {
    task: &'a str,
    written: bool,
}

impl Keys<'_> {
    /// The key of a setting of this task (of the task, if that is empty). Where the operator wrote nothing of the kind, the
    /// file is to blame.
    fn of(&self, setting: &str, written: bool) -> String {
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

/// Dimensions of one item's output: as tried out where the input leaves no choice, and else as declared.
fn output_shape(port: &Port, tried: Option<&[usize]>, fixed: bool) -> Vec<i64> {
    let declared = port
        .dims
        .as_deref()
        .and_then(|dims| dims.split_first())
        .map(|(_, dims)| dims);
    match (tried, declared) {
        (Some(tried), _) if fixed => tried.iter().map(|size| *size as i64).collect(),
        (Some(tried), Some(declared)) if tried.len() != declared.len() => vec![-1; tried.len()],
        (_, Some(declared)) => {
            let size = |dim: &Dim| match dim {
                Dim::Fixed(size) => *size as i64,
                Dim::Open(_) => -1,
            };
            declared.iter().map(size).collect()
        }
        (Some(tried), None) => vec![-1; tried.len()],
        (None, None) => vec![-1],
    }
}
