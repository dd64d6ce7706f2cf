//! What a key accepts: its type, its range, and how it is read from TOML or from the plain text of an environment
//! variable or a flag.
//!
//! A rule says what it expected and what it got; where the value stands and what the key is called, the caller adds.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use super::suggest::{alternatives, nearest};
use super::units;
use crate::resources::Cpus;
use crate::secret::{Secret, has_password};

/// A value as somebody wrote it.
pub(super) enum Written<'a> {
    /// In the configuration file.
    Toml(&'a DeValue<'a>),
    /// In an environment variable or behind a flag.
    Text(&'a str),
}

/// A value that a rule does not accept.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) got: String,
    pub(super) expected: String,
    pub(super) hint: Option<String>,
    /// The part of the value that is meant, if not all of it.
    pub(super) span: Option<Range<usize>>,
}

/// Reads the values of one key.
pub(super) trait Rule {
    type Value;

    /// What is accepted, with its article: "an integer from 1 to 256".
    fn expected(&self) -> String;

    fn read(&self, written: &Written<'_>) -> Result<Self::Value, Mismatch>;

    /// Whether messages must not show the value.
    fn is_secret(&self) -> bool {
        false
    }

    fn mismatch(&self, written: &Written<'_>, hint: Option<String>) -> Mismatch {
        Mismatch {
            got: if self.is_secret() {
                written.got_without_value()
            } else {
                written.got()
            },
            expected: self.expected(),
            hint,
            span: None,
        }
    }
}

impl Written<'_> {
    /// The written value in words.
    fn got(&self) -> String {
        let quoted = |text: &str| match text.char_indices().nth(60) {
            _ if has_password(text) => "a URL with a password".to_owned(),
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        };
        match self {
            Self::Text("") => "empty".to_owned(),
            Self::Text(text) => quoted(text),
            Self::Toml(DeValue::String(text)) => quoted(text),
            Self::Toml(DeValue::Integer(integer)) => format!("the integer {integer}"),
            Self::Toml(DeValue::Float(float)) => format!("the float {float}"),
            Self::Toml(DeValue::Boolean(value)) => format!("the boolean {value}"),
            Self::Toml(DeValue::Datetime(value)) => format!("the date-time {value}"),
            Self::Toml(DeValue::Array(_)) => "an array".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        }
    }

    /// What is written, in words that do not show it.
    fn got_without_value(&self) -> String {
        match self.text() {
            Some("") => "empty".to_owned(),
            Some(text) => format!("a text of {} characters", text.chars().count()),
            None => match self {
                Self::Toml(DeValue::Integer(_)) => "an integer".to_owned(),
                Self::Toml(DeValue::Float(_)) => "a float".to_owned(),
                Self::Toml(DeValue::Boolean(_)) => "a boolean".to_owned(),
                Self::Toml(DeValue::Datetime(_)) => "a date-time".to_owned(),
                _ => self.got(),
            },
        }
    }

    /// The text, where text is written.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }

    /// The integer, where one is written. One that does not even fit here is out of every range.
    fn integer(&self) -> Option<i128> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Integer(integer)) => {
                Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
            }
            Self::Toml(_) => None,
        }
    }

    /// A hint for a number or a boolean that was put in quotes in the file.
    fn quoted_by_mistake(&self, is_value: impl Fn(&str) -> bool) -> Option<String> {
        match self {
            Self::Toml(DeValue::String(text)) if is_value(text) => {
                Some(format!("write it without quotes: {text}"))
            }
            _ => None,
        }
    }
}

/// An integer within bounds.
pub(super) struct Integer<T> {
    min: u64,
    max: u64,
    convert: fn(u64) -> Option<T>,
}

impl<T: TryFrom<u64>> Integer<T> {
    pub(super) const fn new(min: u64, max: u64) -> Self {
        Self {
            min,
            max,
            convert: |value| T::try_from(value).ok(),
        }
    }
}

/// An integer from 1.
pub(super) const fn count(max: u64) -> Integer<NonZeroUsize> {
    Integer {
        min: 1,
        max,
        convert: |value| usize::try_from(value).ok().and_then(NonZeroUsize::new),
    }
}

impl<T> Rule for Integer<T> {
    type Value = T;

    fn expected(&self) -> String {
        format!("an integer from {} to {}", self.min, self.max)
    }

    fn read(&self, written: &Written<'_>) -> Result<T, Mismatch> {
        written
            .integer()
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| (self.min..=self.max).contains(value))
            .and_then(self.convert)
            .ok_or_else(|| {
                let hint = written.quoted_by_mistake(|text| text.parse::<u64>().is_ok());
                self.mismatch(written, hint)
            })
    }
}

/// An upper limit that may be switched off with `"none"`.
pub(super) struct Limit;

impl Rule for Limit {
    type Value = Option<u64>;

    fn expected(&self) -> String {
        "an integer from 1 up, or \"none\"".to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<Option<u64>, Mismatch> {
        if written.text() == Some("none") {
            return Ok(None);
        }
        // The upper end is the greatest integer that TOML promises to carry.
        let value = written
            .integer()
            .and_then(|value| i64::try_from(value).ok())
            .and_then(|value| u64::try_from(value).ok());
        match value {
            Some(value) if value >= 1 => Ok(Some(value)),
            Some(_) => Err(self.mismatch(written, Some("for no limit at all write \"none\"".to_owned()))),
            None => Err(self.mismatch(
                written,
                written.quoted_by_mistake(|text| text.parse::<u64>().is_ok()),
            )),
        }
    }
}

/// A number of processors, or a list of those that are meant.
pub(super) struct CpuChoice;

/// Most processors that Linux can name.
const MOST_CPUS: u64 = 1024;

impl Rule for CpuChoice {
    type Value = Cpus;

    fn expected(&self) -> String {
        format!(
            "an integer from 1 to {MOST_CPUS}, or a list of processors, each an integer from 0 to {}",
            MOST_CPUS - 1
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<Cpus, Mismatch> {
        let Written::Toml(DeValue::Array(array)) = written else {
            let count = count(MOST_CPUS).read(written);
            return count.map(Cpus::Count).map_err(|mismatch| Mismatch {
                expected: self.expected(),
                ..mismatch
            });
        };
        if array.is_empty() {
            let got = "an empty list".to_owned();
            return Err(Mismatch {
                got,
                ..self.mismatch(written, None)
            });
        }
        let one = Integer::<usize>::new(0, MOST_CPUS - 1);
        let mut cpus = array
            .iter()
            .map(|element| {
                one.read(&Written::Toml(element.get_ref()))
                    .map_err(|mismatch| Mismatch {
                        got: format!("a list with {}", mismatch.got),
                        expected: self.expected(),
                        span: Some(element.span()),
                        ..mismatch
                    })
            })
            .collect::<Result<Vec<usize>, _>>()?;
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Cpus::These(cpus))
    }
}

/// Yes or no.
pub(super) struct Toggle;

impl Rule for Toggle {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<bool, Mismatch> {
        let hint = match written {
            Written::Toml(DeValue::Boolean(value)) => return Ok(*value),
            Written::Text("true") => return Ok(true),
            Written::Text("false") => return Ok(false),
            Written::Toml(DeValue::String(text)) if matches!(text.as_ref(), "true" | "false") => {
                Some(format!("write it without quotes: {text}"))
            }
            _ => match written.text().map(str::to_lowercase).as_deref() {
                Some("yes" | "on" | "1" | "true") => Some("write true".to_owned()),
                Some("no" | "off" | "0" | "false") => Some("write false".to_owned()),
                Some(_) => None,
                None => match written.integer() {
                    Some(1) => Some("write true".to_owned()),
                    Some(0) => Some("write false".to_owned()),
                    _ => None,
                },
            },
        };
        Err(self.mismatch(written, hint))
    }
}

/// A duration with its unit, within bounds.
pub(super) struct TimeSpan {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Rule for TimeSpan {
    type Value = Duration;

    fn expected(&self) -> String {
        format!(
            "a duration from {} to {}",
            units::show_duration(self.min),
            units::show_duration(self.max)
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<Duration, Mismatch> {
        let hint = match written.text() {
            Some(text) => match units::duration(text) {
                Ok(value) if (self.min..=self.max).contains(&value) => return Ok(value),
                Ok(_) => text
                    .contains('M')
                    .then(|| "`M` means months; minutes are `m`".to_owned()),
                Err(hint) => Some(hint),
            },
            None => match written {
                Written::Toml(DeValue::Integer(number)) => {
                    Some(units::missing_duration_unit(&number.to_string()))
                }
                Written::Toml(DeValue::Float(_)) => {
                    Some("write it as text with its unit: \"500ms\", \"2s\"".to_owned())
                }
                _ => None,
            },
        };
        Err(self.mismatch(written, hint))
    }
}

/// Durations in ascending order: a list in the file, separated by commas in an environment variable.
pub(super) struct Ascending {
    pub(super) each: TimeSpan,
    pub(super) max: usize,
}

impl Ascending {
    fn read_each(&self, element: &Written<'_>, span: Option<Range<usize>>) -> Result<Duration, Mismatch> {
        self.each.read(element).map_err(|mismatch| Mismatch {
            got: format!("a list with {}", mismatch.got),
            expected: self.expected(),
            span,
            ..mismatch
        })
    }
}

impl Rule for Ascending {
    type Value = Vec<Duration>;

    fn expected(&self) -> String {
        let each = self.each.expected();
        format!(
            "a list of at most {} elements in ascending order, each {each}",
            self.max
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<Vec<Duration>, Mismatch> {
        let list = match written {
            Written::Text(text) => elements(text)
                .map(|element| self.read_each(&Written::Text(element), None))
                .collect::<Result<Vec<Duration>, _>>()?,
            Written::Toml(DeValue::Array(array)) => array
                .iter()
                .map(|element| self.read_each(&Written::Toml(element.get_ref()), Some(element.span())))
                .collect::<Result<Vec<Duration>, _>>()?,
            Written::Toml(_) => return Err(self.mismatch(written, None)),
        };
        let wrong = |got: String| {
            Err(Mismatch {
                got,
                ..self.mismatch(written, None)
            })
        };
        if list.len() > self.max {
            return wrong(format!("a list of {} elements", list.len()));
        }
        match list.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => {
                let shown = [pair[0], pair[1]].map(units::show_duration);
                wrong(format!("a list with \"{}\" after \"{}\"", shown[1], shown[0]))
            }
            None => Ok(list),
        }
    }
}

/// The elements of a list in an environment variable.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// A size in bytes with its unit, within bounds.
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Rule for Size {
    type Value = usize;

    fn expected(&self) -> String {
        format!(
            "a size from {} to {}",
            units::show_size(self.min),
            units::show_size(self.max)
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<usize, Mismatch> {
        let hint = match written.text() {
            Some(text) => match units::size(text) {
                Ok(value) if (self.min..=self.max).contains(&value) => match usize::try_from(value) {
                    Ok(value) => return Ok(value),
                    Err(_) => None,
                },
                Ok(_) => None,
                Err(hint) => Some(hint),
            },
            None => written
                .integer()
                .and_then(|number| u64::try_from(number).ok())
                .map(units::missing_size_unit),
        };
        Err(self.mismatch(written, hint))
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> Rule for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    fn read(&self, written: &Written<'_>) -> Result<T, Mismatch> {
        let text = written.text();
        if let Some((_, value)) = self.0.iter().find(|(word, _)| text == Some(word)) {
            return Ok(*value);
        }
        let hint = text.and_then(|text| nearest(text, self.0.iter().map(|(word, _)| *word)));
        Err(self.mismatch(
            written,
            hint.map(|word| format!("did you mean {}?", alternatives([word], "or"))),
        ))
    }
}

/// Text that obeys `check`, whose error is a hint.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub(super) expected: &'static str,
    pub(super) check: fn(&str) -> Result<(), String>,
}

impl Rule for Text {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<String, Mismatch> {
        let Some(text) = written.text() else {
            return Err(self.mismatch(written, None));
        };
        match (self.check)(text) {
            Ok(()) => Ok(text.to_owned()),
            Err(hint) => Err(self.mismatch(written, Some(hint))),
        }
    }
}

/// A secret text: messages say how long it is, and no more.
#[derive(Clone, Copy)]
pub(super) struct SecretText(pub(super) Text);

impl Rule for SecretText {
    type Value = Secret;

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn read(&self, written: &Written<'_>) -> Result<Secret, Mismatch> {
        match self.0.read(written) {
            Ok(text) => Ok(Secret::new(text)),
            Err(mismatch) => Err(self.mismatch(written, mismatch.hint)),
        }
    }
}

/// Values that obey a rule each: a list in the file, separated by commas in an environment variable.
pub(super) struct List<R>(pub(super) R);

impl<R: Rule> Rule for List<R> {
    type Value = Vec<R::Value>;

    fn expected(&self) -> String {
        format!("a list, each {}", self.0.expected())
    }

    fn is_secret(&self) -> bool {
        self.0.is_secret()
    }

    fn read(&self, written: &Written<'_>) -> Result<Vec<R::Value>, Mismatch> {
        let read_each = |element: Written<'_>, span: Option<Range<usize>>| {
            self.0.read(&element).map_err(|mismatch| Mismatch {
                got: format!("a list with {}", mismatch.got),
                expected: self.expected(),
                span,
                ..mismatch
            })
        };
        match written {
            Written::Text(text) => elements(text)
                .map(|element| read_each(Written::Text(element), None))
                .collect(),
            Written::Toml(DeValue::Array(array)) => array
                .iter()
                .map(|element| read_each(Written::Toml(element.get_ref()), Some(element.span())))
                .collect(),
            Written::Toml(DeValue::String(_)) if self.is_secret() => {
                Err(self.mismatch(written, Some("put it in brackets".to_owned())))
            }
            Written::Toml(DeValue::String(text)) => {
                Err(self.mismatch(written, Some(format!("put it in brackets: [{text:?}]"))))
            }
            Written::Toml(_) => Err(self.mismatch(written, None)),
        }
    }
}
