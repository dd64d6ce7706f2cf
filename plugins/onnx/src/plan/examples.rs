//! Converts examples: from the settings, or from the item that the trial computed, to JSON for the documentation and the warm-up,
//! and from JSON to items for the trial.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use half::{bf16, f16};
use plugin_sdk::serde_json::{Map, Value as Json, json};
use plugin_sdk::{DType, LoadContext, LoadError};

use super::{Keys, Plan, Slot, Tried, texts};
use crate::task::{Origin, Sample, SampleTensor};
use crate::values::{ElementType, Values};

/// Maximum number of elements of a generated example. A larger one would clutter the documentation.
const EXAMPLE_ELEMENTS: usize = 256;

impl Plan {
    /// Examples from the settings, with paths of image files replaced by the content of the files.
    pub(super) fn read_examples(
        &self,
        written: Option<&[Json]>,
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<Option<Vec<Json>>, LoadError> {
        let read = |(index, example): (usize, &Json)| {
            let (Some(images), Some(path)) = (&self.images, example.as_str()) else {
                return Ok(example.clone());
            };
            let path = context.path(path);
            let key = format!("{}[{index}]", keys.of("examples", true));
            let data = fs::read(&path).map_err(|error| {
                LoadError::setting(&key, format_args!("`{}` cannot be read: {error}", path.display()))
            })?;
            images
                .read(&data)
                .map_err(|error| LoadError::setting(&key, error))?;
            Ok(image_example(&data))
        };
        written
            .map(|written| written.iter().enumerate().map(read).collect())
            .transpose()
    }

    /// Examples that can be converted to items. The server parses the others, since it accepts more formats.
    pub(super) fn samples(&self, examples: &[Json]) -> Vec<Sample> {
        examples
            .iter()
            .filter_map(|example| self.sample(example))
            .collect()
    }

    fn sample(&self, example: &Json) -> Option<Sample> {
        if let (Some(images), Some(data)) = (&self.images, example.get("b64")) {
            let data = BASE64_STANDARD.decode(data.as_str()?).ok()?;
            return images.read(&data).ok();
        }
        if let Some(texts) = &self.texts {
            return texts.read(example.as_str()?).ok();
        }
        let tensor = |(index, slot): (usize, &Slot)| {
            let value = match (example, &self.inputs[..]) {
                (Json::Object(tensors), _) => tensors.get(&slot.spec.name)?,
                (value, [_]) => value,
                _ => return None,
            };
            let mut shape = Vec::new();
            let mut elements = Vec::new();
            flatten(value, 0, &mut shape, &mut elements);
            (elements.len() == shape.iter().product::<usize>()).then_some(())?;
            Some(SampleTensor {
                slot: index,
                shape,
                values: from_json(slot.spec.held, &elements)?,
            })
        };
        Some(Sample(
            self.inputs
                .iter()
                .enumerate()
                .map(tensor)
                .collect::<Option<_>>()?,
            Origin::default(),
        ))
    }

    /// A generated example of an item: a black image, an example text, or the item that the trial computed, if it is small.
    pub(crate) fn made_up_example(&self, tried: &Tried) -> Option<Json> {
        let sample = tried.sample()?;
        if let Some(images) = &self.images {
            return images.plain().as_deref().map(image_example);
        }
        if self.texts.is_some() {
            return Some(json!(texts::EXAMPLE));
        }
        let elements: usize = sample.0.iter().map(|tensor| tensor.values.len()).sum();
        (elements <= EXAMPLE_ELEMENTS).then(|| self.to_example(sample))?
    }

    /// The tensors of an item as a client would send them. `None` if one of them is empty, or if there are none.
    pub(super) fn to_example(&self, sample: &Sample) -> Option<Json> {
        let is_empty = sample.0.iter().any(|tensor| tensor.values.len() == 0);
        // Nested lists cannot represent the shape of an empty tensor.
        if is_empty || sample.0.is_empty() {
            return None;
        }
        let mut example = Map::new();
        let mut position = 0;
        for (index, tensor) in sample.0.iter().enumerate() {
            let spec = &self.inputs[tensor.slot].spec;
            let follows = index > 0 && sample.0[index - 1].slot == tensor.slot;
            position = if follows { position + 1 } else { 0 };
            let name = match spec.sequence {
                true => format!("{}.{position}", spec.name),
                false => spec.name.clone(),
            };
            let mut elements = to_json(&tensor.values);
            if spec.dtype == DType::Bool {
                // The embedded runtime represents booleans as integers.
                elements
                    .iter_mut()
                    .for_each(|element| *element = json!(*element != 0 && *element != false));
            }
            example.insert(name, nest(&elements, &tensor.shape));
        }
        Some(Json::Object(example))
    }
}

fn image_example(data: &[u8]) -> Json {
    let media_type = pictures::media_type(data).unwrap_or("application/octet-stream");
    json!({"b64": BASE64_STANDARD.encode(data), "media_type": media_type})
}

/// Flattens nested lists into `elements`, and records the length of the first list at each depth in `shape`.
fn flatten<'a>(value: &'a Json, depth: usize, shape: &mut Vec<usize>, elements: &mut Vec<&'a Json>) {
    let Some(list) = value.as_array() else {
        elements.push(value);
        return;
    };
    if shape.len() == depth {
        shape.push(list.len());
    }
    list.iter()
        .for_each(|value| flatten(value, depth + 1, shape, elements));
}

/// Nests the elements of a tensor in lists according to its shape.
fn nest(elements: &[Json], shape: &[usize]) -> Json {
    match shape.split_first() {
        None => elements.first().cloned().unwrap_or(Json::Null),
        Some((&length, rest)) => {
            let size = elements.len() / length.max(1);
            let rows = (0..length).map(|row| nest(&elements[row * size..(row + 1) * size], rest));
            Json::Array(rows.collect())
        }
    }
}

fn to_json(values: &Values) -> Vec<Json> {
    match values {
        Values::F64(values) => values.iter().map(|value| json!(value)).collect(),
        Values::F32(values) => values.iter().map(|value| json!(value)).collect(),
        Values::F16(values) => values.iter().map(|value| json!(value.to_f32())).collect(),
        Values::Bf16(values) => values.iter().map(|value| json!(value.to_f32())).collect(),
        Values::I64(values) => values.iter().map(|value| json!(value)).collect(),
        Values::I32(values) => values.iter().map(|value| json!(value)).collect(),
        Values::I16(values) => values.iter().map(|value| json!(value)).collect(),
        Values::I8(values) => values.iter().map(|value| json!(value)).collect(),
        Values::U64(values) => values.iter().map(|value| json!(value)).collect(),
        Values::U32(values) => values.iter().map(|value| json!(value)).collect(),
        Values::U16(values) => values.iter().map(|value| json!(value)).collect(),
        Values::U8(values) => values.iter().map(|value| json!(value)).collect(),
        Values::Bool(values) => values.iter().map(|value| json!(value)).collect(),
        Values::Text(values) => values.iter().map(|value| json!(value)).collect(),
    }
}

/// `None` if an element does not have the type.
pub(super) fn from_json(held: ElementType, elements: &[&Json]) -> Option<Values> {
    fn each<T>(elements: &[&Json], read: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
        elements.iter().map(|element| read(element)).collect()
    }
    fn integers<T: TryFrom<i64>>(elements: &[&Json]) -> Option<Vec<T>> {
        // The embedded runtime represents booleans as integers.
        let read = |element: &Json| element.as_i64().or_else(|| element.as_bool().map(i64::from));
        each(elements, |element| T::try_from(read(element)?).ok())
    }
    Some(match held {
        ElementType::F64 => Values::F64(each(elements, Json::as_f64)?),
        ElementType::F32 => Values::F32(each(elements, |element| Some(element.as_f64()? as f32))?),
        ElementType::F16 => Values::F16(each(elements, |element| Some(f16::from_f64(element.as_f64()?)))?),
        ElementType::Bf16 => Values::Bf16(each(elements, |element| Some(bf16::from_f64(element.as_f64()?)))?),
        ElementType::I64 => Values::I64(integers(elements)?),
        ElementType::I32 => Values::I32(integers(elements)?),
        ElementType::I16 => Values::I16(integers(elements)?),
        ElementType::I8 => Values::I8(integers(elements)?),
        ElementType::U64 => Values::U64(integers(elements)?),
        ElementType::U32 => Values::U32(integers(elements)?),
        ElementType::U16 => Values::U16(integers(elements)?),
        ElementType::U8 => Values::U8(integers(elements)?),
        ElementType::Bool => Values::Bool(each(elements, Json::as_bool)?),
        ElementType::Text => Values::Text(each(elements, |element| Some(element.as_str()?.to_owned()))?),
    })
}
