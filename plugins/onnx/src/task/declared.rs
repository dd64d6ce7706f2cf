//! Answers that the settings declare instead of tensors or labels: detections, text and embeddings. `answers` computes them; this
//! module connects it to the outputs of the runtime and to the server.

use plugin_sdk::manifest::{Kind, ValueManifest};
use plugin_sdk::prelude::*;
use plugin_sdk::{AnyOutput, DType, Output};

use super::Origin;
use super::answer::{Answer, PlannedTask, json};
use crate::answers::boxes::{Coordinates, Frame};
use crate::answers::ctc::{Alphabet, Reading};
use crate::answers::declare::{self, Outputs};
use crate::answers::declare_detection;
use crate::answers::detection::{Detections, Detector};
use crate::answers::embedding::Embedder;
use crate::answers::{Rows, check_probability};
use crate::plan::Slot;
use crate::runtime::Computed;
use crate::settings::{Activation, TaskSettings};

/// Returns the declared answer, if the settings have one. Takes the settings that it uses out of `settings`.
pub(super) fn choose(
    settings: &mut TaskSettings,
    task: PlannedTask<'_>,
) -> Result<Option<Box<dyn Answer>>, LoadError> {
    let PlannedTask {
        plan,
        shapes,
        keys,
        context,
    } = task;
    let outputs = Outputs {
        specs: &plan.outputs,
        shapes,
        is_fixed: match &plan.images {
            Some(images) => images.size().is_some(),
            None => plan.inputs.iter().all(Slot::is_fixed),
        },
    };
    let written = [
        ("detection", settings.detection.is_some()),
        ("text", settings.text.is_some()),
        ("embedding", settings.embedding.is_some()),
    ];
    let mut written = written
        .iter()
        .filter(|(_, written)| *written)
        .map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        let message = format!("a task has one kind of answer, but has `{first}` as well");
        return Err(LoadError::setting(keys.of(second, true), message));
    }
    if let Some(written) = settings.detection.take() {
        let detector = declare_detection::detector(&written, settings, outputs, keys, context)?;
        let input = plan.images.as_ref().and_then(|images| images.size());
        if detector.coordinates == Coordinates::Grid && input.is_none() {
            let message = "\"grid\" requires `image` with a fixed width, as grids have the size of the input";
            return Err(LoadError::setting(
                keys.of("detection.coordinates", true),
                message,
            ));
        }
        let input = input.map(|size| size.map(|size| size as f32));
        return Ok(Some(Box::new(Detect { detector, input })));
    }
    if let Some(written) = settings.text.take() {
        let alphabet = declare::alphabet(&written, outputs, &plan.network, keys, context)?;
        let activation = settings.activation.take().unwrap_or_default();
        return Ok(Some(Box::new(Read { alphabet, activation })));
    }
    if let Some(written) = settings.embedding.take() {
        let embedder = declare::embedder(&written, plan.texts.is_some(), outputs, keys)?;
        return Ok(Some(Box::new(Embed(embedder))));
    }
    Ok(None)
}

/// The shape of an output, and its values in row-major order.
type Numbers = (Vec<usize>, Vec<f32>);

/// Converts the values of all outputs to `f32` and returns them with their shapes.
fn numbers(outputs: Vec<Computed>) -> Result<Vec<Numbers>, ItemError> {
    let numbers = |computed: Computed| Some((computed.shape, computed.values.into_numbers()?));
    let numbers: Option<_> = outputs.into_iter().map(numbers).collect();
    numbers.ok_or_else(|| ItemError::fault("the model computed strings, expected numbers"))
}

struct Detect {
    detector: Detector,
    /// Width and height of the input, if they are fixed.
    input: Option<[f32; 2]>,
}

impl Answer for Detect {
    fn manifest(&self) -> ValueManifest {
        <Json<Detections> as Output>::manifest()
    }

    fn describe(&self) -> String {
        match self.detector.labels.len() {
            0 => "Answers the objects in the image: label, score and box of each.".to_owned(),
            labels => {
                format!("Answers the objects of {labels} classes in the image: label, score and box of each.")
            }
        }
    }

    fn answer(&self, outputs: Vec<Computed>, origin: &Origin) -> Result<AnyOutput, ItemError> {
        let outputs = numbers(outputs)?;
        let rows: Vec<_> = outputs
            .iter()
            .map(|(shape, values)| Rows { shape, values })
            .collect();
        let frame = origin.frame.unwrap_or(Frame::of_tensor(self.input));
        json(&self.detector.detect(&rows, &frame).map_err(ItemError::fault)?)
    }
}

struct Read {
    alphabet: Alphabet,
    activation: Activation,
}

impl Answer for Read {
    fn manifest(&self) -> ValueManifest {
        <Json<Reading> as Output>::manifest()
    }

    fn describe(&self) -> String {
        format!(
            "Answers the text, in an alphabet of {} characters.",
            self.alphabet.len() - 1
        )
    }

    fn answer(&self, outputs: Vec<Computed>, _origin: &Origin) -> Result<AnyOutput, ItemError> {
        let outputs = numbers(outputs)?;
        let Some((shape, mut scores)) = outputs.into_iter().next() else {
            return Err(ItemError::fault("the model computed nothing"));
        };
        let classes = self.alphabet.len();
        // One dimension is time; all others must have size 1.
        let is_sequence = shape.split_last().is_some_and(|(last, rest)| {
            *last == classes && rest.iter().filter(|size| **size != 1).count() <= 1
        });
        if !is_sequence {
            return Err(ItemError::fault(format_args!(
                "the model computed scores of the shape {shape:?}, expected [time, {classes}]"
            )));
        }
        scores
            .chunks_exact_mut(classes)
            .for_each(|step| self.activation.apply(step));
        let reading = self.alphabet.decode(&scores).map_err(ItemError::fault)?;
        check_probability(reading.score).map_err(ItemError::fault)?;
        json(&reading)
    }
}

struct Embed(Embedder);

impl Answer for Embed {
    fn manifest(&self) -> ValueManifest {
        ValueManifest::of(Kind::Tensors)
    }

    fn describe(&self) -> String {
        let scaled = if self.0.normalize {
            ", scaled to length 1"
        } else {
            ""
        };
        format!("Answers its vector of {} numbers{scaled}.", self.0.width)
    }

    fn answer(&self, outputs: Vec<Computed>, origin: &Origin) -> Result<AnyOutput, ItemError> {
        let outputs = numbers(outputs)?;
        let (Some((shape, values)), Some(tokens)) = (outputs.first(), origin.tokens) else {
            return Err(ItemError::fault("the model computed nothing"));
        };
        let vector = self
            .0
            .embed(&Rows { shape, values }, tokens)
            .map_err(ItemError::fault)?;
        let shape = [vector.len()];
        Ok(AnyOutput::Tensors(vec![TensorOutput::new(
            "embedding",
            &shape,
            vector,
        )]))
    }

    fn complete(&self, info: TaskInfo) -> TaskInfo {
        info.output_tensor(TensorInfo::new("embedding", DType::Fp32, &[self.0.width as i64]))
            .embedding()
    }
}
