//! What a classification head's numbers mean: a score for a pair of texts, or the scores of labels.

use std::collections::BTreeMap;

use plugin_sdk::LoadError;
use transformer::files::ConfigFile;

/// How the numbers of a classification head become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScoreFunction {
    Identity,
    /// Each number by itself.
    Sigmoid,
    /// All numbers together, so that the scores are probabilities.
    Softmax,
}

impl ScoreFunction {
    /// Converts the numbers of all labels.
    pub(crate) fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Sigmoid => numbers
                .iter_mut()
                .for_each(|number| *number = 1.0 / (1.0 + (-*number).exp())),
            Self::Softmax => {
                let max = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                numbers
                    .iter_mut()
                    .for_each(|number| *number = (*number - max).exp());
                let sum: f32 = numbers.iter().sum();
                numbers.iter_mut().for_each(|number| *number /= sum);
            }
        }
    }

    /// Returns the function with the name of this class of PyTorch.
    fn of_class(config: &ConfigFile, key: &str, class: &str) -> Result<Self, LoadError> {
        match class.rsplit('.').next() {
            Some("Sigmoid") => Ok(Self::Sigmoid),
            Some("Identity") => Ok(Self::Identity),
            Some("Softmax") => Ok(Self::Softmax),
            _ => Err(config.unsupported(key, format_args!("Sigmoid, Identity or Softmax, not `{class}`"))),
        }
    }
}

/// The labels of a classification head.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// Their names, in the order of the numbers.
    pub(crate) names: Vec<String>,
    pub(crate) function: ScoreFunction,
}

/// Whether `config.json` describes a network with a classification head.
pub(crate) fn has_labels(config: &ConfigFile) -> Result<bool, LoadError> {
    let classes: Vec<String> = config.get("architectures")?.unwrap_or_default();
    Ok(classes
        .iter()
        .any(|name| name.ends_with("ForSequenceClassification")))
}

impl Labels {
    /// Reads the labels from `config.json`. `activation` is the class of PyTorch in `config_sentence_transformers.json`.
    pub(crate) fn read(config: &ConfigFile, activation: Option<&str>) -> Result<Self, LoadError> {
        let names: Option<BTreeMap<usize, String>> = config.get("id2label")?;
        // transformers does not write the default, which is two labels.
        let count = match (config.get::<usize>("num_labels")?, &names) {
            (Some(_), _) => config.size("num_labels", None)?,
            (None, Some(names)) => names.len(),
            (None, None) => 2,
        };
        if let Some(names) = names.as_ref().filter(|names| names.len() != count) {
            let expected = format!("{}, the number of labels in `id2label`", names.len());
            return Err(config.unsupported("num_labels", expected));
        }
        let names = names.unwrap_or_else(|| {
            (0..count)
                .map(|label| (label, format!("LABEL_{label}")))
                .collect()
        });
        if count == 0 || !names.keys().copied().eq(0..count) {
            let expected = format!("{count} labels, whose ids count from 0");
            return Err(config.unsupported("id2label", expected));
        }
        let problem: Option<String> = config.get("problem_type")?;
        let function = match problem.as_deref() {
            Some("multi_label_classification") => ScoreFunction::Sigmoid,
            Some("regression") if count > 1 => ScoreFunction::Identity,
            None | Some("single_label_classification" | "regression") => of_count(config, activation, count)?,
            Some(_) => {
                let expected = "single_label_classification, multi_label_classification or regression";
                return Err(config.unsupported("problem_type", expected));
            }
        };
        Ok(Self {
            names: names.into_values().collect(),
            function,
        })
    }
}

/// Returns the function for a number of labels, unless the directory names one. Newer and older versions store it in different
/// places.
fn of_count(config: &ConfigFile, activation: Option<&str>, count: usize) -> Result<ScoreFunction, LoadError> {
    const OLD: &str = "sbert_ce_default_activation_function";
    let newer = config.section("sentence_transformers")?;
    let newer: Option<String> = match &newer {
        Some(section) => {
            section.check(
                &[&transformer::files::honored(["activation_fn"]), VERSION],
                &transformer::files::IgnoredKeys::default(),
            )?;
            section.get("activation_fn")?
        }
        None => None,
    };
    let older: Option<String> = config.get(OLD)?;
    let named = match (activation, newer, older) {
        (Some(class), ..) => Some(ScoreFunction::of_class(config, "activation_fn", class)?),
        (None, Some(class), _) => Some(ScoreFunction::of_class(config, "sentence_transformers", &class)?),
        (None, None, Some(class)) => Some(ScoreFunction::of_class(config, OLD, &class)?),
        (None, None, None) => None,
    };
    match (count, named) {
        (1, Some(ScoreFunction::Softmax)) => {
            Err(config.unsupported("num_labels", "several labels with Softmax"))
        }
        (1, named) => Ok(named.unwrap_or(ScoreFunction::Sigmoid)),
        // Cross-encoders with several labels return the numbers themselves, but clients expect scores.
        (_, None | Some(ScoreFunction::Identity)) => Ok(ScoreFunction::Softmax),
        (_, Some(function)) => Ok(function),
    }
}

static VERSION: &[transformer::files::Key] =
    &transformer::files::irrelevant("records where the file comes from", ["version"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let mut numbers = [1000.0, 1000.0, 0.0];
        ScoreFunction::Softmax.apply(&mut numbers);
        assert_eq!(numbers, [0.5, 0.5, 0.0]);
        let mut numbers = [0.0, -1000.0, 1000.0];
        ScoreFunction::Sigmoid.apply(&mut numbers);
        assert_eq!(numbers, [0.5, 0.0, 1.0]);
    }
}
