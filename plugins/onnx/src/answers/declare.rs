//! Builds the components that compute answers from their settings. Validates the settings against the outputs of the model and
//! reports a mismatch for the settings key that causes it.

use std::fs;
use std::path::Path;

use plugin_sdk::{DType, LoadContext, LoadError};

use super::ctc::Alphabet;
use super::embedding::Embedder;
use super::settings::{Dictionary, EmbeddingSettings, TextSettings};
use super::without_leading_ones;
use crate::network::{Dim, Network, TensorSpec};
use crate::plan::Keys;

/// The outputs of a task and what is known about their shapes.
#[derive(Clone, Copy)]
pub(crate) struct Outputs<'a> {
    pub(crate) specs: &'a [TensorSpec],
    /// The shapes for one item, if the model has completed a trial run.
    pub(crate) shapes: Option<&'a [Vec<usize>]>,
    /// Whether all items have the same shapes as the trial item.
    pub(crate) is_fixed: bool,
}

impl Outputs<'_> {
    /// The last `rank` dimensions of an output; `None` if they are unknown.
    pub(super) fn last_dims(&self, output: usize, rank: usize) -> Option<Vec<Option<usize>>> {
        let tried = self.shapes.map(|shapes| &shapes[output]);
        let last = |length: usize| length.saturating_sub(rank);
        let dims: Vec<_> = match (tried, &self.specs[output].dims) {
            (Some(tried), _) => tried.iter().skip(last(tried.len())).copied().map(Some).collect(),
            (None, Some(dims)) => {
                let size = |dim: &Dim| match dim {
                    Dim::Fixed(size) => Some(*size),
                    Dim::Open(_) => None,
                };
                dims.iter().skip(last(dims.len())).map(size).collect()
            }
            (None, None) => return None,
        };
        (dims.len() == rank).then_some(dims)
    }

    /// Whether the output for a text is a matrix rather than a single vector. The text of the trial run has several tokens.
    fn has_a_vector_for_each_token(&self, output: usize) -> bool {
        match (self.shapes, &self.specs[output].dims) {
            (Some(shapes), _) => without_leading_ones(&shapes[output], 1).len() > 1,
            // The first dimension is the batch dimension.
            (None, Some(dims)) => dims.len() > 2,
            (None, None) => true,
        }
    }

    /// Like [`last_dims`](Self::last_dims), but without sizes that can differ between items.
    pub(super) fn fixed_dims(&self, output: usize, rank: usize) -> Option<Vec<Option<usize>>> {
        let mut dims = self.last_dims(output, rank)?;
        let (Some(shapes), Some(declared), false) = (self.shapes, &self.specs[output].dims, self.is_fixed)
        else {
            return Some(dims);
        };
        // The declared shape may have a leading batch dimension, so align the shapes at the end.
        if declared.len() >= shapes[output].len() {
            for (size, declared) in dims.iter_mut().rev().zip(declared.iter().rev()) {
                if matches!(declared, Dim::Open(_)) {
                    *size = None;
                }
            }
        }
        Some(dims)
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        names.join(", ")
    }

    /// The index of the output with this name.
    pub(super) fn find(&self, name: &str, key: &str) -> Result<usize, LoadError> {
        let found = self.specs.iter().position(|spec| spec.name == name);
        let message = || {
            format!(
                "the task has no output `{name}`, expected one of {}",
                self.names()
            )
        };
        found.ok_or_else(|| LoadError::setting(key, message()))
    }

    /// The index of the only output, which must be a floating-point tensor.
    fn only(&self, what: &str, key: &str) -> Result<usize, LoadError> {
        if self.specs.len() != 1 {
            let message = format!(
                "{what} needs one output, but the task has {}: choose one with `outputs`",
                self.names()
            );
            return Err(LoadError::setting(key, message));
        }
        self.check_fractions(0, key)?;
        Ok(0)
    }

    pub(super) fn check_fractions(&self, output: usize, key: &str) -> Result<(), LoadError> {
        let spec = &self.specs[output];
        if spec.sequence || !matches!(spec.dtype, DType::Fp32 | DType::Fp64) {
            let found = if spec.sequence {
                "a sequence"
            } else {
                spec.dtype.name()
            };
            let message = format!(
                "output `{}` is {found}, expected a tensor of FP32 or FP64",
                spec.name
            );
            return Err(LoadError::setting(key, message));
        }
        Ok(())
    }
}

/// Builds the alphabet that decodes text.
pub(crate) fn alphabet(
    written: &TextSettings,
    outputs: Outputs<'_>,
    network: &Network,
    keys: &Keys<'_>,
    context: &LoadContext,
) -> Result<Alphabet, LoadError> {
    let key = keys.of("text.dictionary", true);
    let output = outputs.only("text", &keys.of("outputs", true))?;
    let mut symbols = match &written.dictionary {
        Dictionary::File(path) => {
            read_lines(&context.path(path)).map_err(|problem| LoadError::setting(&key, problem))?
        }
        Dictionary::Metadata(from) => {
            let text = network.metadata().get(&from.metadata).ok_or_else(|| {
                let known: Vec<_> = network.metadata().keys().map(|key| format!("`{key}`")).collect();
                let known = if known.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("it has {}", known.join(", "))
                };
                LoadError::setting(
                    format_args!("{key}.metadata"),
                    format_args!("the model file has no metadata `{}`: {known}", from.metadata),
                )
            })?;
            lines(text)
        }
    };
    if written.space {
        symbols.push(" ".to_owned());
    }
    let classes = outputs.last_dims(output, 1).and_then(|dims| dims[0]);
    Alphabet::new(symbols, written.blank.index(), classes)
        .map_err(|problem| LoadError::setting(&key, problem))
}

/// Builds the embedder.
pub(crate) fn embedder(
    written: &EmbeddingSettings,
    has_tokenizer: bool,
    outputs: Outputs<'_>,
    keys: &Keys<'_>,
) -> Result<Embedder, LoadError> {
    if !has_tokenizer {
        let message = "embeds texts, which requires `tokenizer`: the file `tokenizer.json`";
        return Err(LoadError::setting(keys.of("embedding", true), message));
    }
    let output = outputs.only("an embedding", &keys.of("outputs", true))?;
    let name = &outputs.specs[output].name;
    let dims = outputs.last_dims(output, 1).and_then(|dims| dims[0]);
    let Some(width) = dims.filter(|width| *width > 0) else {
        let message =
            format!("output `{name}` has vectors of unknown length, expected a model that could be tried");
        return Err(LoadError::setting(keys.of("embedding", true), message));
    };
    let key = keys.of("embedding.pooling", true);
    match (outputs.has_a_vector_for_each_token(output), written.pooling) {
        (true, None) => {
            let message = format!(
                "missing, expected \"mean\", \"cls\" or \"max\": output `{name}` has a vector for each token"
            );
            Err(LoadError::setting(key, message))
        }
        (false, Some(_)) => {
            let message = format!("output `{name}` has one vector for each text, which needs no pooling");
            Err(LoadError::setting(key, message))
        }
        (_, pooling) => Ok(Embedder {
            pooling,
            normalize: written.normalize,
            width,
        }),
    }
}

fn read_lines(path: &Path) -> Result<Vec<String>, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    Ok(lines(&text))
}

/// Splits text into lines. Spaces are preserved.
fn lines(text: &str) -> Vec<String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_space_is_a_character_and_the_last_line_break_is_not() {
        assert_eq!(lines("a\n \n\u{3000}\r\n\nb\n"), ["a", " ", "\u{3000}", "", "b"]);
        assert_eq!(lines("a\nb"), ["a", "b"]);
    }
}
