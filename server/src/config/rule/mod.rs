//! What a key accepts: its type, its range, and how its value is read from TOML, or from the plain text of an environment
//! variable or a flag.
//!
//! A rule reports what it found and what it expected. The caller adds the name of the key and its place.

mod list;
mod scalar;
mod written;

use std::fmt;
use std::ops::Range;

pub(super) use list::{Ascending, CpuChoice, List};
pub(super) use scalar::{
    Choice, HexDigest, Integer, Limit, Memory, SecretText, Share, Size, SlowRequestRule, Text, TimeSpan,
    Toggle, count,
};
pub(super) use written::Written;

/// Reads the values of one key.
pub(super) trait Rule {
    type Value;

    /// What is accepted, with its article: "an integer from 1 to 256".
    fn expected(&self) -> String;

    fn read(&self, written: &Written<'_>) -> Result<Self::Value, Mismatch>;

    /// What stands for the value in the help of a flag, if that is not the name of the key.
    fn value_name(&self) -> Option<&'static str> {
        None
    }

    /// The accepted words, if there are only a few.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Whether messages must not show the value.
    fn is_secret(&self) -> bool {
        false
    }

    fn mismatch(&self, written: &Written<'_>, hint: Option<String>) -> Mismatch {
        Mismatch {
            found: if self.is_secret() {
                written.found_without_value()
            } else {
                written.found()
            },
            expected: self.expected(),
            hint,
            span: None,
        }
    }
}

/// A value that a rule does not accept.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) found: Found,
    pub(super) expected: String,
    pub(super) hint: Option<String>,
    /// The part of the value that is at fault, if not all of it.
    pub(super) span: Option<Range<usize>>,
}

/// The rejected value, as a message shows it.
#[derive(Debug)]
pub(super) enum Found {
    /// As it would be written, such as `"abc"` or `3`.
    Value(String),
    /// In words, such as "an array": the value is too long to show, or secret.
    Description(String),
    /// One element of a list.
    Element(Box<Self>),
}

impl Mismatch {
    /// The mismatch of a list, one of whose elements has this mismatch.
    fn in_list(self, span: Option<Range<usize>>) -> Self {
        Self {
            found: Found::Element(Box::new(self.found)),
            span,
            ..self
        }
    }

    /// What is wrong with the value of `key`. `place` is a phrase such as "in [server]".
    pub(super) fn message(&self, key: &str, place: &str) -> String {
        let (found, what) = match &self.found {
            Found::Element(element) => (element.as_ref(), "element of"),
            found => (found, "value for"),
        };
        match found {
            Found::Value(value) => {
                let (noun, preposition) = what.split_once(' ').unwrap_or((what, "for"));
                format!(
                    "invalid {noun} {value} {preposition} `{key}` {place}: expected {}",
                    self.expected
                )
            }
            found => format!(
                "invalid {what} `{key}` {place}: found {found}, expected {}",
                self.expected
            ),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(text) | Self::Description(text) => f.write_str(text),
            Self::Element(element) => element.fmt(f),
        }
    }
}
