//! Describes a task to the server: tensors, limits, documentation, and examples, which are also used for warm-up. The description
//! is derived from a `plan`; nothing in this module changes what the task does.

use plugin_sdk::manifest::{Kind, ValueManifest};
use plugin_sdk::serde_json::Value as Json;
use plugin_sdk::{LoadError, TaskInfo, TensorInfo};

use crate::network::{Dim, MapPart, TensorSpec};
use crate::plan::{BatchMode, Keys, Plan, Slot, Tried};
use crate::settings::TaskSettings;

impl Plan {
    /// Builds the description of the task. `examples` are those of the settings, if there are any.
    pub(crate) fn describe(
        &self,
        settings: &TaskSettings,
        examples: Option<Vec<Json>>,
        tried: &Tried,
        keys: &Keys<'_>,
    ) -> Result<TaskInfo, LoadError> {
        let description = settings.description.clone();
        let mut info = TaskInfo::new(description.unwrap_or_else(|| self.description()));
        info = info.input(self.input_manifest()).trial(tried.trial());
        if self.texts.is_none() {
            for slot in &self.inputs {
                info = info.input_tensor(slot.info());
            }
        }
        if self.images.is_some() {
            info = info.accepts(pictures::MEDIA_TYPES);
        }
        match &self.answer {
            Some(answer) => info = info.output(answer.manifest()),
            None => {
                info = info.output(ValueManifest::of(Kind::Tensors));
                for (index, spec) in self.outputs.iter().enumerate() {
                    let tried = tried.item_shape(index);
                    let tried = tried.as_deref();
                    info = info.output_tensor(self.output_info(spec, tried));
                }
            }
        }
        if let Some(answer) = &self.answer {
            info = answer.complete(info);
        }
        if self.mode == BatchMode::Unbatched && self.texts.is_none() {
            info = info.unbatched();
        }
        let single = self.mode != BatchMode::Batched;
        match settings.max_batch_size.map(usize::from) {
            Some(size) if size > 1 && single => {
                let message = format!("{size}, expected 1: the model computes one item at a time");
                return Err(LoadError::setting(keys.of("max_batch_size", true), message));
            }
            Some(size) => info = info.max_batch_size(size),
            None if single => info = info.max_batch_size(1),
            None => {}
        }
        if self.creates_items() {
            info = info.samples();
        }
        let examples = examples.unwrap_or_else(|| self.made_up_example(tried).into_iter().collect());
        Ok(examples.into_iter().fold(info, TaskInfo::example))
    }

    fn input_manifest(&self) -> ValueManifest {
        let kinds = match (&self.images, &self.texts) {
            (Some(_), _) => vec![Kind::Bytes, Kind::Tensors],
            (None, Some(_)) => vec![Kind::Text],
            (None, None) => vec![Kind::Tensors],
        };
        ValueManifest {
            kinds,
            ..ValueManifest::default()
        }
    }

    fn description(&self) -> String {
        let takes = match (&self.images, self.mode) {
            (Some(_), _) => "Takes a PNG, JPEG or WebP image of any size, or the tensor itself.",
            (None, _) if self.texts.is_some() => "Takes a text.",
            (None, BatchMode::Unbatched) => {
                "Takes the tensors that the model declares; a request is one item."
            }
            (None, _) => "Takes tensors.",
        };
        if let Some(answer) = &self.answer {
            return format!("{takes} {}", answer.describe());
        }
        let names: Vec<_> = self
            .outputs
            .iter()
            .map(|spec| format!("`{}`", spec.name))
            .collect();
        format!("{takes} Answers {}.", names.join(", "))
    }

    /// Describes an output for one item: as observed in the trial run if all input shapes are fixed, otherwise as declared. A
    /// declared size that the trial run contradicts is reported as open.
    fn output_info(&self, spec: &TensorSpec, tried: Option<&[usize]>) -> TensorInfo {
        let skip = usize::from(self.mode != BatchMode::Unbatched);
        let declared = spec.dims.as_deref().and_then(|dims| dims.get(skip..));
        let is_fixed = self.inputs.iter().all(Slot::is_fixed);
        let shape: Vec<i64> = match (tried, declared) {
            (Some(tried), Some(declared)) if tried.len() == declared.len() => {
                let both = tried.iter().zip(declared);
                both.map(|(tried, declared)| match declared {
                    Dim::Fixed(size) if size == tried => *size as i64,
                    Dim::Open(_) if is_fixed && skip == 1 => *tried as i64,
                    _ => -1,
                })
                .collect()
            }
            (Some(tried), None) if is_fixed && skip == 1 => tried.iter().map(|size| *size as i64).collect(),
            // All rows of a batch have the same rank.
            (Some(tried), _) if skip == 1 => vec![-1; tried.len()],
            // Without a trial run, the declared sizes are unconfirmed.
            (None, Some(declared)) => vec![-1; declared.len()],
            (_, None) | (Some(_), Some(_)) => return info(spec, None),
        };
        info(spec, Some(&shape))
    }
}

impl Slot {
    fn info(&self) -> TensorInfo {
        let dims = self.dims.as_deref();
        let shape: Option<Vec<_>> = dims.map(|dims| dims.iter().map(declared_size).collect());
        info(&self.spec, shape.as_deref())
    }
}

/// `shape` is `None` if the rank is not fixed.
fn info(spec: &TensorSpec, shape: Option<&[i64]>) -> TensorInfo {
    let info = match shape {
        Some(shape) => TensorInfo::new(&spec.name, spec.dtype, shape),
        None => TensorInfo::unranked(&spec.name, spec.dtype),
    };
    match (spec.sequence, spec.map) {
        (true, _) => info.sequence(),
        (false, Some(MapPart::Keys)) => info.description("The keys of the values, in the same places."),
        (false, _) => info,
    }
}

fn declared_size(dim: &Dim) -> i64 {
    match dim {
        Dim::Fixed(size) => *size as i64,
        Dim::Open(_) => -1,
    }
}
