//! Modules that change a vector: Dense, LayerNorm and Normalize.

use std::path::Path;

use plugin_sdk::LoadError;
use transformer::files::{ConfigFile, IgnoredKeys, Key, file_error, honored, irrelevant};
use transformer::{Activation, GemmExecutor, Linear, Norm, NormKind, WeightFiles, Weights, normalize};

use crate::modules::module_config;

/// A module that changes each row of a matrix.
pub(crate) enum Stage {
    /// Scales to length 1.
    Normalize,
    LayerNorm(Norm),
    Dense {
        linear: Linear,
        activation: Activation,
        residual: Residual,
    },
}

/// What is added to the output of a Dense module.
pub(crate) enum Residual {
    None,
    Input,
    /// A linear layer of the input.
    Projected(Box<Linear>),
}

/// What a module changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// The vector of the text.
    Sentence,
    /// The vectors of the tokens.
    Tokens,
}

static FEATURES: &[Key] = &honored(["module_input_name", "module_output_name"]);
static DENSE: &[Key] = &honored([
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "use_residual",
]);
static SIZE: &[Key] = &irrelevant("the tensor has the size", ["dimension"]);

impl Stage {
    /// Reads the module with this name, and returns what it changes.
    pub(crate) fn read(
        name: &str,
        directory: &Path,
        ignored: &IgnoredKeys,
    ) -> Result<(Feature, Self), LoadError> {
        match name {
            "Dense" => read_dense(directory, ignored),
            "LayerNorm" => read_layer_norm(directory, ignored),
            _ => {
                let config = ConfigFile::read(&directory.join("config.json"))?;
                let feature = match &config {
                    None => Feature::Sentence,
                    Some(config) => {
                        config.check(&[FEATURES], ignored)?;
                        feature(config)?
                    }
                };
                Ok((feature, Self::Normalize))
            }
        }
    }

    /// Applies the module to rows of `width` numbers, and returns the new width.
    pub(crate) fn apply(&self, gemm: &GemmExecutor, rows: &mut Vec<f32>, width: usize) -> usize {
        match self {
            Self::Normalize => rows.chunks_exact_mut(width).for_each(normalize),
            Self::LayerNorm(norm) => norm.apply(rows),
            Self::Dense {
                linear,
                activation,
                residual,
            } => {
                let outputs = linear.outputs();
                let mut out = vec![0.0; rows.len() / width * outputs];
                linear.apply(gemm, rows, &mut out);
                activation.apply(&mut out, outputs);
                match residual {
                    Residual::None => {}
                    Residual::Input => out.iter_mut().zip(&*rows).for_each(|(sum, value)| *sum += value),
                    Residual::Projected(linear) => linear.add(gemm, rows, &mut out),
                }
                *rows = out;
                return outputs;
            }
        }
        width
    }

    /// Returns the width that the module requires, if any.
    pub(crate) fn inputs(&self) -> Option<usize> {
        match self {
            Self::Normalize => None,
            Self::LayerNorm(norm) => Some(norm.width()),
            Self::Dense { linear, .. } => Some(linear.inputs()),
        }
    }

    /// Returns the width after the module.
    pub(crate) fn outputs(&self, width: usize) -> usize {
        match self {
            Self::Normalize | Self::LayerNorm(_) => width,
            Self::Dense { linear, .. } => linear.outputs(),
        }
    }
}

/// Returns the width after all modules.
///
/// # Errors
/// A module requires a different width.
pub(crate) fn width_after(stages: &[Stage], width: usize) -> Result<usize, LoadError> {
    stages.iter().try_fold(width, |width, stage| match stage.inputs() {
        Some(inputs) if inputs != width => {
            let message =
                format!("a module takes vectors of {inputs} numbers, but those of the modules before it have {width}");
            Err(LoadError::setting("folder", message))
        }
        _ => Ok(stage.outputs(width)),
    })
}

/// Returns what a module changes.
fn feature(config: &ConfigFile) -> Result<Feature, LoadError> {
    let input: Option<String> = config.get("module_input_name")?;
    let output: Option<String> = config.get("module_output_name")?;
    let input = input.unwrap_or_else(|| "sentence_embedding".to_owned());
    let feature = match &*input {
        "sentence_embedding" => Feature::Sentence,
        "token_embeddings" => Feature::Tokens,
        _ => return Err(config.unsupported("module_input_name", "sentence_embedding or token_embeddings")),
    };
    if output.is_some_and(|output| output != input) {
        return Err(config.unsupported(
            "module_output_name",
            format_args!("`module_input_name` \"{input}\""),
        ));
    }
    Ok(feature)
}

fn read_dense(directory: &Path, ignored: &IgnoredKeys) -> Result<(Feature, Stage), LoadError> {
    let config = module_config(directory, &[DENSE, FEATURES], ignored)?;
    let (inputs, outputs) = (
        config.size("in_features", None)?,
        config.size("out_features", None)?,
    );
    let biased = config.get("bias")?.unwrap_or(true);
    let name: Option<String> = config.get("activation_function")?;
    let activation = match name.as_deref() {
        None | Some("torch.nn.modules.activation.Tanh") => Activation::Tanh,
        Some("torch.nn.modules.linear.Identity") => Activation::Identity,
        Some("torch.nn.modules.activation.ReLU") => Activation::Relu,
        Some("torch.nn.modules.activation.GELU") => Activation::Gelu,
        Some("torch.nn.modules.activation.SiLU") => Activation::Silu,
        Some(_) => {
            return Err(config.unsupported(
                "activation_function",
                "Tanh, Identity, ReLU, GELU or SiLU of torch.nn.modules",
            ));
        }
    };
    let with_residual = config.get("use_residual")?.unwrap_or(false);
    let stage = with_weights(directory, "linear.weight", |weights| {
        let gemm = GemmExecutor::new();
        let linear = |name: &str, biased: bool| {
            Linear::load_parts(&gemm, weights, &[(name.to_owned(), outputs)], inputs, biased)
        };
        Ok(Stage::Dense {
            linear: linear("linear", biased)?,
            activation,
            residual: match with_residual {
                false => Residual::None,
                true if inputs == outputs => Residual::Input,
                true => Residual::Projected(Box::new(linear("residual", false)?)),
            },
        })
    })?;
    Ok((feature(&config)?, stage))
}

fn read_layer_norm(directory: &Path, ignored: &IgnoredKeys) -> Result<(Feature, Stage), LoadError> {
    /// The default of PyTorch.
    const EPSILON: f32 = 1e-5;
    module_config(directory, &[SIZE], ignored)?;
    let stage = with_weights(directory, "norm.weight", |weights| {
        let width = weights.rows("norm.weight")?;
        Norm::load(weights, "norm", width, NormKind::Layer, EPSILON).map(Stage::LayerNorm)
    })?;
    Ok((Feature::Sentence, stage))
}

/// Loads a module from its weights, all of which must be used.
fn with_weights(
    directory: &Path,
    anchor: &str,
    load: impl FnOnce(&Weights<'_>) -> Result<Stage, LoadError>,
) -> Result<Stage, LoadError> {
    let path = directory.join("model.safetensors");
    if !path.is_file() {
        let message = "does not exist: if the directory has `pytorch_model.bin`, save the model again with `safe_serialization`";
        return Err(file_error(&path, message));
    }
    let files = WeightFiles::read(&path)?;
    let stage = Weights::read(&files, anchor).and_then(|weights| {
        let stage = load(&weights)?;
        weights.check_all_read(|_| false)?;
        Ok(stage)
    });
    stage.map_err(|error| file_error(&path, &format!("cannot be used: {}", error.message())))
}
