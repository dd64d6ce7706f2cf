//! The tasks: vectors of texts and images in one vector space, and zero-shot classification.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::{Tokens, dot};

use crate::Clip;
use crate::image_reader::Pixels;
use crate::labels::Template;

/// Default maximum number of tokens of a batch. Larger batches do not increase throughput, because they are computed in smaller
/// blocks.
const BATCH_TOKENS: u64 = 2048;

/// Default maximum number of items of a batch. The limit of tokens matters more.
const BATCH_ITEMS: usize = 64;

/// Width and height of the images in examples.
const EXAMPLE_SIDE: u32 = 32;

fn info(description: String) -> TaskInfo {
    TaskInfo::new(description)
        .max_total_weight(BATCH_TOKENS)
        .max_batch_size(BATCH_ITEMS)
}

fn vector_info(description: &str, model: &Clip) -> TaskInfo {
    let scaled = if model.normalize {
        ", scaled to length 1"
    } else {
        ""
    };
    let vector = TensorInfo::new("embedding", DType::Fp32, &[model.network.width() as i64]);
    info(format!("{description}{scaled}.")).output_tensor(vector)
}

fn vectors(model: &Clip, vectors: &[Vec<f32>]) -> BatchResult<TensorOutput> {
    let shape = [vectors.len(), model.network.width()];
    let tensor = TensorOutput::new("embedding", &shape, vectors.concat());
    Ok(Outputs::<TensorOutput>::batch(tensor))
}

/// Returns a black PNG in base64.
fn example_image() -> Option<String> {
    let file = pictures::black_png(EXAMPLE_SIDE, EXAMPLE_SIDE)?;
    Some(BASE64_STANDARD.encode(file))
}

/// Task that computes the vector of a text.
pub(crate) struct EmbedText(TaskInfo);

impl EmbedText {
    pub(crate) fn new(model: &Clip) -> Self {
        let info = vector_info(
            "Computes the vector of a text, in the same vector space as images",
            model,
        );
        Self(info.embedding().samples().example(json!("a photo of a cat")))
    }
}

impl PreparedTask<Clip> for EmbedText {
    type Input = Text;
    type Output = Tensor;
    type Prepared = Tokens;

    fn describe(&self) -> TaskInfo {
        self.0.clone()
    }

    fn prepare(&self, model: &Clip, item: Item<&str>) -> Result<Prepared<Tokens>, ItemError> {
        let tokens = model.tokenizer.text(item.value)?;
        let weight = tokens.len() as u64;
        Ok(Prepared::new(tokens).weight(weight))
    }

    fn predict(&self, model: &Clip, batch: Batch<&Tokens>) -> BatchResult<TensorOutput> {
        vectors(
            model,
            &model.network.texts(&batch, model.normalize, batch.worker()),
        )
    }

    fn sample(&self, model: &Clip, weight: u64) -> Option<JsonValue> {
        model.tokenizer.sample("", weight).map(|text| json!(text))
    }
}

/// Task that computes the vector of an image.
pub(crate) struct EmbedImage(TaskInfo);

impl EmbedImage {
    pub(crate) fn new(model: &Clip) -> Self {
        let info = vector_info(
            "Computes the vector of a PNG, JPEG or WebP image, in the same vector space as texts",
            model,
        );
        let info = info.accepts(pictures::MEDIA_TYPES);
        let example = |image| {
            info.clone()
                .example(json!({"b64": image, "media_type": "image/png"}))
        };
        Self(example_image().map_or(info.clone(), example).samples())
    }
}

impl PreparedTask<Clip> for EmbedImage {
    type Input = Bytes;
    type Output = Tensor;
    type Prepared = Pixels;

    fn describe(&self) -> TaskInfo {
        self.0.clone()
    }

    fn prepare(&self, model: &Clip, item: Item<BytesItem>) -> Result<Prepared<Pixels>, ItemError> {
        let pixels = model.image_reader.read(item.value.data)?;
        Ok(Prepared::new(pixels).weight(model.network.image_tokens() as u64))
    }

    fn predict(&self, model: &Clip, batch: Batch<&Pixels>) -> BatchResult<TensorOutput> {
        vectors(
            model,
            &model.network.images(&batch, model.normalize, batch.worker()),
        )
    }

    /// All images have the same size in the network, and thus the same weight.
    fn sample(&self, _model: &Clip, _weight: u64) -> Option<JsonValue> {
        example_image().map(|image| json!({"b64": image, "media_type": "image/png"}))
    }
}

/// An image and candidate labels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// A PNG, JPEG or WebP image.
    image: JsonBytes,
    /// Candidate labels, without duplicates.
    #[schemars(length(min = 1))]
    labels: Vec<String>,
    /// Text that is compared with the image for each label, which replaces `{}`. Default: the setting `template`.
    template: Option<String>,
}

impl Question {
    fn check(&self, max: usize) -> Result<(), ItemError> {
        match self.labels.len() {
            0 => return Err(ItemError::invalid("`labels` is empty, expected at least one")),
            count if count > max => {
                let message = format!("`labels` has {count} texts, expected at most {max}");
                return Err(ItemError::invalid(message));
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        match self.labels.iter().find(|label| !seen.insert(*label)) {
            Some(label) => Err(ItemError::invalid(format_args!(
                "`labels` has `{label}` more than once, which would split its probability"
            ))),
            None => Ok(()),
        }
    }
}

/// A preprocessed question.
pub(crate) struct PreparedQuestion {
    pixels: Pixels,
    labels: Vec<(String, Tokens)>,
}

/// The labels, most probable first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Classification {
    /// The most probable label.
    label: String,
    /// Its probability.
    score: f32,
    /// All labels with their probabilities, most probable first. The probabilities add up to 1.
    scores: Vec<Score>,
}

/// A label with its probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Score {
    label: String,
    score: f32,
}

/// Task that computes the probabilities of labels for an image.
pub(crate) struct Classify;

impl PreparedTask<Clip> for Classify {
    type Input = Json<Question>;
    type Output = Json<Classification>;
    type Prepared = PreparedQuestion;

    fn describe(&self) -> TaskInfo {
        let info = info(
            "Classifies an image with the given labels, most probable first, without training on them."
                .to_owned(),
        );
        let example = |image| {
            let image = format!("data:image/png;base64,{image}");
            info.clone()
                .example(json!({"image": image, "labels": ["a cat", "a dog", "nothing at all"]}))
        };
        example_image().map_or(info.clone(), example)
    }

    fn prepare(&self, model: &Clip, item: Item<Question>) -> Result<Prepared<PreparedQuestion>, ItemError> {
        let question = item.value;
        question.check(model.max_labels)?;
        let custom = question.template.as_deref().map(Template::new).transpose();
        let custom = custom.map_err(|problem| ItemError::invalid(format_args!("`template`: {problem}")))?;
        let template = custom.as_ref().unwrap_or(&model.template);
        let tokenize = |label: String| -> Result<_, ItemError> {
            let tokens = model.tokenizer.text(&template.text(&label))?;
            Ok((label, tokens))
        };
        let labels: Vec<_> = question
            .labels
            .into_iter()
            .map(tokenize)
            .collect::<Result<_, _>>()?;
        let pixels = model.image_reader.read(&question.image.data)?;
        let new = labels
            .iter()
            .map(|(_, tokens)| tokens)
            .filter(|tokens| !model.labels.contains(tokens));
        let weight = model.network.image_tokens() + new.map(Tokens::len).sum::<usize>();
        Ok(Prepared::new(PreparedQuestion { pixels, labels }).weight(weight as u64))
    }

    fn predict(&self, model: &Clip, batch: Batch<&PreparedQuestion>) -> BatchResult<Classification> {
        let (network, worker) = (&model.network, batch.worker());
        let pixels: Vec<_> = batch.iter().map(|question| &question.pixels).collect();
        let labels: Vec<_> = batch
            .iter()
            .flat_map(|question| &question.labels)
            .map(|(_, tokens)| tokens)
            .collect();
        let mut images = network.images(&pixels, true, worker).into_iter();
        let vectors = model
            .labels
            .vectors(&labels, |new| network.texts(new, true, worker));
        let mut vectors = vectors.into_iter();
        batch.map(|question| {
            let image = images.next().unwrap_or_default();
            let vectors = vectors.by_ref().take(question.labels.len());
            Classification::new(&image, &question.labels, vectors, network.scale())
        })
    }
}

impl Classification {
    fn new(
        image: &[f32],
        labels: &[(String, Tokens)],
        vectors: impl Iterator<Item = Arc<[f32]>>,
        scale: f32,
    ) -> Self {
        let logits: Vec<_> = vectors.map(|vector| scale * dot(image, &vector)).collect();
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Softmax. The largest logit is subtracted first, so that `exp` does not overflow.
        let powers: Vec<_> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        let scores = labels.iter().zip(powers).map(|((label, _), power)| Score {
            label: label.clone(),
            score: power / sum,
        });
        let mut scores: Vec<_> = scores.collect();
        // The sort is stable, so labels with equal probabilities keep their order.
        scores.sort_by(|one, other| other.score.total_cmp(&one.score));
        let Score { label, score } = scores[0].clone();
        Self { label, score, scores }
    }
}
