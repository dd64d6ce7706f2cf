//! Decodes text from the scores of characters over time with greedy CTC decoding (connectionist temporal classification). Does
//! not deal with files, tensors or runtimes.

use schemars::JsonSchema;
use serde::Serialize;

/// Recognized text.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Reading {
    /// The text. May be empty.
    pub(crate) text: String,
    /// Mean score of the characters; 0 if the text is empty.
    pub(crate) score: f32,
}

/// The characters that the classes of a time step stand for.
#[derive(Debug)]
pub(crate) struct Alphabet {
    symbols: Vec<String>,
    blank: usize,
}

impl Alphabet {
    /// Builds the alphabet of a model with a dictionary of `symbols`. The blank is an additional class at the index `blank`, or
    /// after all others if `blank` is `None`, unless the dictionary already lists it there as an empty string. `classes` is the
    /// number of classes of the model, if known.
    ///
    /// # Errors
    /// The index of the blank is out of range, or the number of classes does not match. The message is meant to follow a settings
    /// key.
    pub(crate) fn new(
        mut symbols: Vec<String>,
        blank: Option<usize>,
        classes: Option<usize>,
    ) -> Result<Self, String> {
        let count = symbols.len();
        let listed = match blank {
            Some(blank) => symbols.get(blank).is_some_and(String::is_empty),
            None => symbols.last().is_some_and(String::is_empty),
        };
        let last = if listed { count - 1 } else { count };
        let blank = blank.unwrap_or(last);
        if blank > last {
            return Err(format!(
                "the blank has the index {blank}, expected at most {last}, the last class"
            ));
        }
        if !listed {
            symbols.insert(blank, String::new());
        }
        match classes {
            Some(classes) if classes != symbols.len() => Err(format!(
                "{} characters and the blank, expected {classes} classes, which is how many the output has",
                symbols.len() - 1
            )),
            _ => Ok(Self { symbols, blank }),
        }
    }

    /// The number of classes, including the blank.
    pub(crate) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Decodes scores of shape `[steps, classes]`: takes the best class of each step (the first one if scores are equal), then
    /// merges repetitions and drops blanks.
    ///
    /// # Errors
    /// A score is NaN.
    pub(crate) fn decode(&self, scores: &[f32]) -> Result<Reading, String> {
        let mut text = String::new();
        let (mut sum, mut count) = (0.0_f64, 0_u32);
        let mut previous = self.blank;
        for (step, row) in scores.chunks_exact(self.symbols.len()).enumerate() {
            let mut best = 0;
            for (class, score) in row.iter().enumerate() {
                if score.is_nan() {
                    return Err(format!("the model computed NaN for class {class} of step {step}"));
                }
                if *score > row[best] {
                    best = class;
                }
            }
            if best != previous && best != self.blank {
                text.push_str(&self.symbols[best]);
                sum += f64::from(row[best]);
                count += 1;
            }
            previous = best;
        }
        let score = if count == 0 {
            0.0
        } else {
            (sum / f64::from(count)) as f32
        };
        Ok(Reading { text, score })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    /// Scores of 0.9 for the given class of each step and 0 for the others.
    fn steps(classes: &[usize], count: usize) -> Vec<f32> {
        classes
            .iter()
            .flat_map(|best| (0..count).map(move |class| if class == *best { 0.9 } else { 0.0 }))
            .collect()
    }

    #[test]
    fn repetitions_merge_unless_a_blank_parts_them() {
        let alphabet = Alphabet::new(symbols("ab "), Some(0), Some(4)).expect("the counts match");
        for (classes, expected) in [
            (&[1, 1, 2, 2][..], "ab"),
            (&[1, 0, 1, 2], "aab"),
            (&[0, 0, 0], ""),
            (&[], ""),
            (&[1, 3, 3, 2], "a b"),
            (&[0, 2, 0], "b"),
        ] {
            let reading = alphabet.decode(&steps(classes, 4)).expect("no score is NaN");
            assert_eq!(reading.text, expected, "{classes:?}");
            assert_eq!(reading.score, if expected.is_empty() { 0.0 } else { 0.9 });
        }
    }

    #[test]
    fn the_score_is_the_mean_over_the_characters_that_are_kept() {
        let alphabet = Alphabet::new(symbols("ab"), Some(0), Some(3)).expect("the counts match");
        // a, a (repeated), blank, b
        let scores = [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]];
        let reading = alphabet.decode(&scores.concat()).expect("no score is NaN");
        assert_eq!(
            reading,
            Reading {
                text: "ab".to_owned(),
                score: 0.75
            }
        );
    }

    #[test]
    fn of_equal_scores_the_first_class_wins() {
        let alphabet = Alphabet::new(symbols("ab"), Some(0), Some(3)).expect("the counts match");
        let read = |scores: &[f32]| alphabet.decode(scores).map(|reading| reading.text);
        assert_eq!(read(&[0.5, 0.5, 0.5]).as_deref(), Ok(""));
        assert_eq!(read(&[0.2, 0.4, 0.4]).as_deref(), Ok("a"));
        assert_eq!(read(&[-3.0, -2.0, -2.0]).as_deref(), Ok("a"));
    }

    #[test]
    fn a_score_that_is_not_a_number_is_an_error() {
        let alphabet = Alphabet::new(symbols("ab"), Some(0), Some(3)).expect("the counts match");
        let scores = [0.0, 1.0, 0.0, f32::NAN, 0.0, 0.0];
        assert_eq!(
            alphabet.decode(&scores),
            Err("the model computed NaN for class 0 of step 1".to_owned())
        );
    }

    #[test]
    fn the_blank_is_added_at_its_index_or_listed_in_the_dictionary() {
        let read = |dictionary: &str, blank, classes, best: &[usize], count| {
            Alphabet::new(symbols(dictionary), blank, classes)
                .expect("the counts match")
                .decode(&steps(best, count))
                .expect("no score is NaN")
                .text
        };
        // Added at the start, in the middle and at the end.
        assert_eq!(read("abc", Some(0), Some(4), &[1, 0, 3], 4), "ac");
        assert_eq!(read("abc", Some(1), Some(4), &[0, 1, 3], 4), "ac");
        assert_eq!(read("abc", None, Some(4), &[0, 3, 2], 4), "ac");
        // Listed as an empty string.
        let listed = |symbols: &[&str], blank, best: &[usize]| {
            let symbols = symbols.iter().copied().map(str::to_owned).collect();
            let alphabet = Alphabet::new(symbols, blank, Some(4)).expect("the counts match");
            alphabet.decode(&steps(best, 4)).expect("no score is NaN").text
        };
        assert_eq!(listed(&["", "a", "b", "c"], Some(0), &[1, 0, 3]), "ac");
        assert_eq!(listed(&["a", "b", "c", ""], None, &[0, 3, 2]), "ac");
        // Also added if the number of classes is unknown.
        assert_eq!(read("abc", Some(0), None, &[1, 0, 3], 4), "ac");
    }

    #[test]
    fn a_dictionary_of_another_length_is_an_error() {
        let error = |blank, classes| {
            Alphabet::new(symbols("abc"), blank, classes)
                .map(|alphabet| alphabet.len())
                .expect_err("the counts do not match")
        };
        assert_eq!(
            error(Some(0), Some(6)),
            "3 characters and the blank, expected 6 classes, which is how many the output has"
        );
        // As many characters as the output has classes, but no entry for the blank.
        assert_eq!(
            error(Some(0), Some(3)),
            "3 characters and the blank, expected 3 classes, which is how many the output has"
        );
        assert_eq!(
            error(Some(7), Some(4)),
            "the blank has the index 7, expected at most 3, the last class"
        );
    }
}
