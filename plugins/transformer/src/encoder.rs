//! The layers of an encoder. Sizes, variants and tensor names are data, so that all kinds of encoders share the same code.

use plugin_sdk::LoadError;
use rten_gemm::GemmExecutor;

use crate::attention::{Attention, RelativeBias, RelativePositions, Sequence};
use crate::linear::{Activation, Linear, Norm, NormKind};
use crate::rotary::{Rotary, RotaryTable};
use crate::weights::Weights;

/// Sizes and variants of the layers of an encoder.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The layers, in the order in which they are applied.
    pub layers: Vec<LayerShape>,
    /// Vector length of a token.
    pub width: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of heads of keys and values, each of which serves the same number of attention heads.
    pub key_value_heads: usize,
    /// Vector length of a head.
    pub head_size: usize,
    /// Whether a token attends only to itself and preceding tokens.
    pub causal: bool,
    /// Learned numbers that are added to attention scores.
    pub relative_positions: Option<RelativePositions>,
    /// Vector length of a token between the two linear layers of the feed-forward network.
    pub feed_forward_size: usize,
    /// Activation function of the feed-forward network.
    pub activation: Activation,
    /// Whether the output of the activation function is multiplied by the output of a third linear layer.
    pub gate: Gate,
    /// Kind of the normalization.
    pub norm: NormKind,
    /// Added to variances before the division.
    pub epsilon: f32,
    /// Position of the normalization.
    pub norms: Norms,
    /// Which linear layers have a bias.
    pub biases: Biases,
}

/// What distinguishes a layer from the others.
#[derive(Clone, Debug)]
pub struct LayerShape {
    /// Prefix of the names of its tensors, such as `encoder.layer.0`. Layers with the same prefix share their weights.
    pub name: String,
    /// Maximum distance of the tokens that a token attends to.
    pub window: Option<usize>,
    /// Rotary positions.
    pub rotary: Option<Rotary>,
    /// Whether there is a normalization for attention.
    pub has_attention_norm: bool,
}

impl LayerShape {
    /// Layers that differ only in their names, which consist of `prefix` and an index.
    pub fn numbered(prefix: &str, count: usize) -> Vec<Self> {
        let layer = |index| Self {
            name: format!("{prefix}.{index}"),
            window: None,
            rotary: None,
            has_attention_norm: true,
        };
        (0..count).map(layer).collect()
    }
}

/// Position of the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the feed-forward network, as in CLIP.
    Before,
    /// After each of them, as in BERT.
    After,
}

/// How the first linear layers of the feed-forward network are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// There is only one.
    None,
    /// The output of the first one passes the activation function and is multiplied by that of the second.
    ActivatedFirst,
    /// The output of the second one passes the activation function and is multiplied by that of the first. Both are one tensor.
    ActivatedSecond,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// The projections to queries, keys and values.
    pub project: bool,
    /// The output projection of attention.
    pub attention_output: bool,
    /// The first layers of the feed-forward network.
    pub feed_forward_in: bool,
    /// The last layer of the feed-forward network.
    pub feed_forward_out: bool,
}

impl Biases {
    /// All layers have a bias.
    pub const ALL: Self = Self::all(true);

    /// Either all or no layers have a bias.
    pub const fn all(biased: bool) -> Self {
        Self {
            project: biased,
            attention_output: biased,
            feed_forward_in: biased,
            feed_forward_out: biased,
        }
    }
}

/// Names of the tensors of a layer, after the prefix of the layer.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Projections to queries, keys and values: three tensors, or one with the rows of all.
    pub project: &'static [&'static str],
    /// Normalizations of the queries and keys of each head, if any.
    pub query_key_norms: Option<[&'static str; 2]>,
    /// Output projection of attention.
    pub attention_output: &'static str,
    /// Normalization before or after attention.
    pub attention_norm: &'static str,
    /// First linear layers of the feed-forward network: as many as are used, or one tensor with the rows of all.
    pub feed_forward_in: &'static [&'static str],
    /// Last linear layer of the feed-forward network.
    pub feed_forward_out: &'static str,
    /// Normalization before or after the feed-forward network.
    pub feed_forward_norm: &'static str,
}

/// The layers of an encoder with their weights.
pub struct Encoder {
    shape: Shape,
    /// The weights of layers with different names.
    layers: Vec<Layer>,
    /// The layers to apply.
    order: Vec<Step>,
    rotary: Vec<RotaryTable>,
    relative: Option<RelativeBias>,
}

/// The application of a layer.
struct Step {
    /// Index of its weights.
    layer: usize,
    window: Option<usize>,
    /// Index of its rotary positions.
    rotary: Option<usize>,
}

/// Names of the tensors that form one matrix, each with its number of rows.
type Parts = Vec<(String, usize)>;

struct Layer {
    /// Projection to queries, keys and values.
    project: Linear,
    query_key_norms: Option<[Norm; 2]>,
    attention_output: Linear,
    attention_norm: Option<Norm>,
    /// The first layers of the feed-forward network, as one: if they are gated, the one that is activated comes first.
    feed_forward_in: Linear,
    feed_forward_out: Linear,
    feed_forward_norm: Norm,
}

/// Buffers for intermediate results, reused by all layers.
struct Scratch {
    normed: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    feed_forward: Vec<f32>,
}

impl Encoder {
    /// Loads the weights of the layers.
    ///
    /// # Errors
    /// A tensor is missing or has a different shape.
    pub fn load(weights: &Weights<'_>, shape: Shape, names: &Names) -> Result<Self, LoadError> {
        let gemm = GemmExecutor::new();
        let (mut layers, mut loaded) = (Vec::new(), Vec::<&str>::new());
        let (mut tables, mut rotary) = (Vec::new(), Vec::new());
        let mut order = Vec::with_capacity(shape.layers.len());
        for layer in &shape.layers {
            let known = loaded.iter().position(|name| *name == layer.name);
            if known.is_none() {
                layers.push(Layer::load(&gemm, weights, &shape, names, layer)?);
                loaded.push(&layer.name);
            }
            order.push(Step {
                layer: known.unwrap_or(layers.len() - 1),
                window: layer.window,
                rotary: layer.rotary.map(|wanted| {
                    rotary
                        .iter()
                        .position(|known| *known == wanted)
                        .unwrap_or_else(|| {
                            rotary.push(wanted);
                            tables.push(RotaryTable::new(wanted, shape.head_size));
                            tables.len() - 1
                        })
                }),
            });
        }
        let relative = shape.relative_positions;
        let relative = relative.map(|relative| RelativeBias::load(weights, relative, shape.heads));
        Ok(Self {
            layers,
            order,
            rotary: tables,
            relative: relative.transpose()?,
            shape,
        })
    }

    /// Returns the vector length of a token.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Applies all layers to `states`, which has one row per token.
    pub fn apply(&self, gemm: &GemmExecutor, sequences: &[Sequence], states: &mut [f32]) {
        let (shape, count) = (&self.shape, states.len() / self.shape.width);
        let normed = match shape.norms {
            Norms::Before => count * shape.width,
            Norms::After => 0,
        };
        let mut scratch = Scratch {
            normed: vec![0.0; normed],
            projected: vec![0.0; count * shape.projected_width()],
            context: vec![0.0; count * shape.heads * shape.head_size],
            feed_forward: vec![0.0; count * shape.feed_forward_width()],
        };
        for step in &self.order {
            let attention = Attention {
                heads: shape.heads,
                key_value_heads: shape.key_value_heads,
                head_size: shape.head_size,
                causal: shape.causal,
                window: step.window,
                rotary: step.rotary.map(|index| &self.rotary[index]),
                relative: self.relative.as_ref(),
            };
            self.layers[step.layer].apply(gemm, shape, attention, sequences, states, &mut scratch);
        }
    }
}

impl Layer {
    fn load(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        shape: &Shape,
        names: &Names,
        layer: &LayerShape,
    ) -> Result<Self, LoadError> {
        let (width, inner) = (shape.width, shape.heads * shape.head_size);
        let name = |part: &str| format!("{}.{part}", layer.name);
        // The rows of each of several tensors, or of one.
        let parts = |names: &[&str], rows: &[usize]| -> Vec<_> {
            match names {
                [one] => vec![(name(one), rows.iter().sum::<usize>())],
                several => several
                    .iter()
                    .map(|part| name(part))
                    .zip(rows.iter().copied())
                    .collect(),
            }
        };
        let keys = shape.key_value_heads * shape.head_size;
        let project = parts(names.project, &[inner, keys, keys]);
        let norm =
            |part: &str, width: usize| Norm::load(weights, &name(part), width, shape.norm, shape.epsilon);
        let query_key_norms = names.query_key_norms.map(|[queries, keys]| {
            Ok::<_, LoadError>([norm(queries, shape.head_size)?, norm(keys, shape.head_size)?])
        });
        let linear = |part: &str, outputs: usize, inputs: usize, biased: bool| {
            Linear::load_parts(gemm, weights, &[(name(part), outputs)], inputs, biased)
        };
        let biases = shape.biases;
        Ok(Self {
            project: Linear::load_parts(gemm, weights, &project, width, biases.project)?,
            query_key_norms: query_key_norms.transpose()?,
            attention_output: linear(names.attention_output, width, inner, biases.attention_output)?,
            attention_norm: layer
                .has_attention_norm
                .then(|| norm(names.attention_norm, width))
                .transpose()?,
            feed_forward_in: Self::load_feed_forward_in(gemm, weights, shape, &|rows| {
                parts(names.feed_forward_in, rows)
            })?,
            feed_forward_out: linear(
                names.feed_forward_out,
                width,
                shape.feed_forward_size,
                biases.feed_forward_out,
            )?,
            feed_forward_norm: norm(names.feed_forward_norm, width)?,
        })
    }

    fn load_feed_forward_in(
        gemm: &GemmExecutor,
        weights: &Weights<'_>,
        shape: &Shape,
        parts: &dyn Fn(&[usize]) -> Parts,
    ) -> Result<Linear, LoadError> {
        let (width, size, biased) = (shape.width, shape.feed_forward_size, shape.biases.feed_forward_in);
        let rows = vec![size; shape.feed_forward_width() / size];
        let parts = parts(&rows);
        if shape.gate != Gate::ActivatedSecond {
            return Linear::load_parts(gemm, weights, &parts, width, biased);
        }
        let (mut matrix, mut bias) = (Vec::new(), Vec::new());
        for (name, outputs) in &parts {
            matrix.extend(weights.get(&format!("{name}.weight"), &[*outputs, width])?);
            if biased {
                bias.extend(weights.get(&format!("{name}.bias"), &[*outputs])?);
            }
        }
        matrix.rotate_left(size * width);
        if biased {
            bias.rotate_left(size);
        }
        Ok(Linear::new(gemm, &matrix, biased.then_some(bias), width))
    }

    fn apply(
        &self,
        gemm: &GemmExecutor,
        shape: &Shape,
        attention: Attention<'_>,
        sequences: &[Sequence],
        states: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch {
            normed,
            projected,
            context,
            feed_forward,
        } = scratch;
        let input = shape.norms.before(self.attention_norm.as_ref(), states, normed);
        self.project.apply(gemm, input, projected);
        if let Some([queries, keys]) = &self.query_key_norms {
            let (of_queries, of_keys) = (attention.heads, attention.key_value_heads);
            for row in projected.chunks_exact_mut(attention.projected_width()) {
                let mut heads = row.chunks_exact_mut(attention.head_size);
                heads
                    .by_ref()
                    .take(of_queries)
                    .for_each(|head| queries.apply_row(head));
                heads.take(of_keys).for_each(|head| keys.apply_row(head));
            }
        }
        attention.apply(gemm, projected, sequences, context);
        self.attention_output.add(gemm, context, states);
        shape.norms.after(self.attention_norm.as_ref(), states);
        let norm = Some(&self.feed_forward_norm);
        let input = shape.norms.before(norm, states, normed);
        self.feed_forward_in.apply(gemm, input, feed_forward);
        let width = shape.feed_forward_width();
        match shape.gate {
            Gate::None => shape.activation.apply(feed_forward, width),
            Gate::ActivatedFirst | Gate::ActivatedSecond => shape.activation.apply_gated(feed_forward, width),
        }
        self.feed_forward_out
            .add_strided(gemm, feed_forward, width, states);
        shape.norms.after(norm, states);
    }
}

impl Norms {
    /// Returns the input of the next sublayer: `states`, or their normalization in `buffer`.
    fn before<'a>(self, norm: Option<&Norm>, states: &'a [f32], buffer: &'a mut [f32]) -> &'a [f32] {
        match norm {
            Some(norm) if self == Self::Before => {
                buffer.copy_from_slice(states);
                norm.apply(buffer);
                buffer
            }
            _ => states,
        }
    }

    fn after(self, norm: Option<&Norm>, states: &mut [f32]) {
        if let Some(norm) = norm.filter(|_| self == Self::After) {
            norm.apply(states);
        }
    }
}

impl Shape {
    fn projected_width(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_size
    }

    /// Vector length of a token after the first layers of the feed-forward network.
    fn feed_forward_width(&self) -> usize {
        match self.gate {
            Gate::None => self.feed_forward_size,
            Gate::ActivatedFirst | Gate::ActivatedSecond => 2 * self.feed_forward_size,
        }
    }
}
