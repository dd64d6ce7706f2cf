//! What a task tells the server of itself: tensors, limits, words for the documentation, and examples, which also warm the
//! model up. All of it follows from a `plan`; nothing here changes what the task does.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use plugin_sdk::serde_json::{Value as Json, json};
use plugin_sdk::{DType, LoadContext, LoadError, TaskInfo, TensorInfo};

use crate::network::{Dim, Port};
use crate::plan::{Keys, Plan, Slot};
use crate::settings::TaskSettings;

/// Largest example that is made up, in elements: more would drown the documentation.
const EXAMPLE_ELEMENTS: usize = 256;

impl Plan {
    /// `shapes` are those of the outputs for one item, if they are known.
    pub(crate) fn describe(
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
            info = info.accepts(pictures::MEDIA_TYPES);
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
            Some(_) => "Takes a PNG, JPEG or WebP image of any size, or the tensor itself.",
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
                DType::Bytes => json!("text"),
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

impl Slot {
    fn info(&self) -> TensorInfo {
        let shape: Vec<_> = self
            .sizes()
            .iter()
            .map(|size| size.map_or(-1, |size| size as i64))
            .collect();
        TensorInfo::new(&self.port.name, self.port.dtype, &shape)
    }
}

fn image_example(data: &[u8]) -> Json {
    let media_type = pictures::media_type(data).unwrap_or("application/octet-stream");
    json!({"b64": BASE64_STANDARD.encode(data), "media_type": media_type})
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
