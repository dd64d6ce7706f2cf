//! A network that an `Architecture` describes, on packed tokens: the sequences of a batch are concatenated without padding.

use plugin_sdk::LoadError;
use transformer::{Encoder, GemmExecutor, Linear, Norm, NormKind, Pooling, Sequence, Tokens, Weights};

use crate::architectures::{Architecture, EmbeddingsShape, PositionsShape};
use crate::heads::{Classifier, MaskedLm};

/// What a network computes after its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadKind {
    /// Nothing.
    None,
    /// A number for each label.
    Classifier { labels: usize },
    /// A number for each word of the vocabulary, for each token.
    MaskedLm,
}

/// A network with its weights.
pub(crate) struct Network {
    embeddings: Embeddings,
    layers: Encoder,
    final_norm: Option<Norm>,
    head: Head,
}

enum Head {
    None,
    Classifier(Classifier),
    MaskedLm(MaskedLm),
}

struct Embeddings {
    width: usize,
    words: Vec<f32>,
    positions: Option<(PositionsShape, Vec<f32>)>,
    types: Option<Vec<f32>>,
    norm: Option<Norm>,
    projection: Option<Linear>,
}

impl Network {
    /// Loads the weights of a network and of its head.
    pub(crate) fn load(
        weights: &Weights<'_>,
        architecture: Architecture,
        head: HeadKind,
    ) -> Result<Self, LoadError> {
        let gemm = GemmExecutor::new();
        let shape = &architecture.layers;
        let (width, kind, epsilon) = (shape.width, shape.norm, shape.epsilon);
        let head = match head {
            HeadKind::None => Head::None,
            HeadKind::Classifier { labels } => {
                Head::Classifier(Classifier::load(&gemm, weights, &architecture, labels)?)
            }
            HeadKind::MaskedLm => Head::MaskedLm(MaskedLm::load(&gemm, weights, &architecture)?),
        };
        let final_norm = architecture
            .final_norm
            .map(|name| Norm::load(weights, name, width, kind, epsilon));
        let network = Self {
            embeddings: Embeddings::load(&gemm, weights, &architecture.embeddings, width, kind, epsilon)?,
            final_norm: final_norm.transpose()?,
            layers: Encoder::load(weights, architecture.layers, &architecture.names)?,
            head,
        };
        let has_head = !matches!(network.head, Head::None);
        weights.check_all_read(|name| is_irrelevant(name, has_head))?;
        Ok(network)
    }

    /// Returns the length of the vectors of tokens.
    pub(crate) fn width(&self) -> usize {
        self.layers.width()
    }

    /// Returns the size of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.embeddings.words.len() / self.embeddings.width
    }

    /// Computes the vectors of all tokens of all sequences, concatenated. All IDs must be in the vocabulary, and no sequence may be
    /// longer than the number of positions.
    pub(crate) fn states(&self, sequences: &[&Tokens]) -> Vec<f32> {
        let mut count = 0;
        let mut rows = Vec::with_capacity(sequences.len());
        for tokens in sequences {
            rows.push(Sequence {
                rows: count..count + tokens.len(),
                attended: tokens.len() - tokens.unattended,
            });
            count += tokens.len();
        }
        let gemm = GemmExecutor::new();
        let mut states = self.embeddings.embed(&gemm, sequences, count);
        self.layers.apply(&gemm, &rows, &mut states);
        if let Some(norm) = &self.final_norm {
            norm.apply(&mut states);
        }
        states
    }

    /// Computes the numbers of all labels for each sequence.
    ///
    /// # Panics
    /// The network was loaded without a classifier.
    pub(crate) fn logits(&self, sequences: &[&Tokens]) -> Vec<Vec<f32>> {
        let Head::Classifier(classifier) = &self.head else {
            panic!("loaded with a classifier");
        };
        classifier.logits(&GemmExecutor::new(), &self.states(sequences), sequences)
    }

    /// Passes the numbers of all words to `each` for all tokens of each sequence, some rows at a time, and returns its results.
    ///
    /// # Panics
    /// The network was loaded without the head of a masked language model.
    pub(crate) fn words<R>(
        &self,
        sequences: &[&Tokens],
        start: impl Fn() -> R,
        each: impl Fn(&mut R, &[f32]),
    ) -> Vec<R> {
        let Head::MaskedLm(head) = &self.head else {
            panic!("loaded with the head of a masked language model");
        };
        let (gemm, states) = (GemmExecutor::new(), self.states(sequences));
        let mut rest = &states[..];
        let of_sequence = |tokens: &&Tokens| {
            let (states, others) = rest.split_at(tokens.len() * self.width());
            rest = others;
            let mut result = start();
            head.logits(&gemm, states, |words| each(&mut result, words));
            result
        };
        sequences.iter().map(of_sequence).collect()
    }
}

/// Whether a tensor that was not read does not matter.
fn is_irrelevant(name: &str, has_head: bool) -> bool {
    // Buffers, which are computed here.
    let is_buffer = ["position_ids", "token_type_ids", "inv_freq", "masked_bias"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    // The heads for other tasks. Copies of the table of words that a head uses are read or tied.
    let heads = [
        "pooler.",
        "cls.",
        "lm_head.",
        "predictions.",
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "head.",
        "decoder.",
        "qa_outputs.",
        "sop_classifier.",
    ];
    let is_other_head = heads.iter().any(|prefix| name.starts_with(prefix));
    // An embedding model may have been trained as a classifier, but a classifier uses its head.
    let is_classifier = !has_head
        && ["classifier.", "score.", "pre_classifier."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    is_buffer || is_other_head || is_classifier
}

impl Embeddings {
    fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        shape: &EmbeddingsShape,
        layers_width: usize,
        kind: NormKind,
        epsilon: f32,
    ) -> Result<Self, LoadError> {
        let width = shape.width;
        let positions = shape.positions.map(|positions| {
            let table = weights.get(positions.name, &[positions.rows, width])?;
            Ok::<_, LoadError>((positions, table))
        });
        let types = shape.types.map(|(name, rows)| weights.get(name, &[rows, width]));
        let norm = shape
            .norm
            .map(|name| Norm::load(weights, name, width, kind, epsilon));
        let projection = shape
            .projection
            .map(|name| Linear::load(gemm, weights, name, layers_width, width));
        Ok(Self {
            width,
            words: weights.get(shape.words, &[shape.vocabulary, width])?,
            positions: positions.transpose()?,
            types: types.transpose()?,
            norm: norm.transpose()?,
            projection: projection.transpose()?,
        })
    }

    fn embed(&self, gemm: &GemmExecutor, sequences: &[&Tokens], count: usize) -> Vec<f32> {
        let width = self.width;
        let mut states = Vec::with_capacity(count * width);
        for tokens in sequences {
            let mut next = self
                .positions
                .as_ref()
                .map_or(0, |(positions, _)| positions.first());
            for (id, kind) in tokens.ids.iter().zip(&tokens.types) {
                let start = states.len();
                states.extend_from_slice(row(&self.words, *id as usize, width));
                let state = &mut states[start..];
                if let Some((positions, table)) = &self.positions {
                    // In RoBERTa, a padding token within a text has its own position and is not counted.
                    let position = match positions.padding {
                        Some(padding) if padding == *id => padding as usize,
                        _ => {
                            next += 1;
                            next - 1
                        }
                    };
                    add(state, row(table, position, width));
                }
                if let Some(table) = &self.types {
                    // A network with a single type uses it for both texts of a pair.
                    let last = table.len() / width - 1;
                    add(state, row(table, last.min(*kind as usize), width));
                }
            }
        }
        if let Some(norm) = &self.norm {
            norm.apply(&mut states);
        }
        match &self.projection {
            None => states,
            Some(projection) => {
                let mut projected = vec![0.0; count * projection.outputs()];
                projection.apply(gemm, &states, &mut projected);
                projected
            }
        }
    }
}

fn add(state: &mut [f32], row: &[f32]) {
    state.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

fn row(table: &[f32], index: usize, width: usize) -> &[f32] {
    &table[index * width..(index + 1) * width]
}

/// Pools the vectors of the tokens of one sequence in several ways, and concatenates the results.
pub(crate) fn pool(modes: &[Pooling], tokens: &Tokens, states: &[f32]) -> Vec<f32> {
    let width = states.len() / tokens.len();
    match modes {
        [mode] => mode.pool_after(tokens.skipped, states, width),
        modes => modes
            .iter()
            .flat_map(|mode| mode.pool_after(tokens.skipped, states, width))
            .collect(),
    }
}
