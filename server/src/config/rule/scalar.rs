//! Single values: integers, booleans, durations, sizes and text.

use std::num::NonZeroUsize;
use std::time::Duration;

use toml::de::DeValue;

use super::{Mismatch, Rule, Written};
use crate::config::error::alternatives;
use crate::config::settings::SlowRequests;
use crate::config::units;
use crate::digest::Digest;
use crate::resources::MemoryBudget;
use crate::secret::Secret;
use crate::suggest::nearest;

/// An integer within bounds.
pub(in crate::config) struct Integer<T> {
    min: u64,
    max: u64,
    convert: fn(u64) -> Option<T>,
}

impl<T: TryFrom<u64>> Integer<T> {
    pub(in crate::config) const fn new(min: u64, max: u64) -> Self {
        Self {
            min,
            max,
            convert: |value| T::try_from(value).ok(),
        }
    }
}

impl<T> Integer<T> {
    /// An integer of another type than those of the standard library. `convert` must accept every integer within the bounds.
    pub(in crate::config) const fn with(min: u64, max: u64, convert: fn(u64) -> Option<T>) -> Self {
        Self { min, max, convert }
    }
}

/// A positive integer.
pub(in crate::config) const fn count(max: u64) -> Integer<NonZeroUsize> {
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
                let hint = written.quotes_hint(|text| text.parse::<u64>().is_ok());
                self.mismatch(written, hint)
            })
    }
}

/// An upper limit, or `"none"`.
pub(in crate::config) struct Limit;

impl Rule for Limit {
    type Value = Option<u64>;

    fn expected(&self) -> String {
        "a positive integer or \"none\"".to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<Option<u64>, Mismatch> {
        if written.text() == Some("none") {
            return Ok(None);
        }
        // TOML guarantees no larger integers.
        let value = written
            .integer()
            .and_then(|value| i64::try_from(value).ok())
            .and_then(|value| u64::try_from(value).ok());
        match value {
            Some(value) if value >= 1 => Ok(Some(value)),
            Some(_) => Err(self.mismatch(written, Some("write \"none\" for no limit".to_owned()))),
            None => Err(self.mismatch(written, written.quotes_hint(|text| text.parse::<u64>().is_ok()))),
        }
    }
}

/// A boolean.
pub(in crate::config) struct Toggle;

impl Rule for Toggle {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn words(&self) -> Vec<&'static str> {
        vec!["true", "false"]
    }

    fn read(&self, written: &Written<'_>) -> Result<bool, Mismatch> {
        let hint = match written {
            Written::Toml(DeValue::Boolean(value)) => return Ok(*value),
            Written::Text("true") => return Ok(true),
            Written::Text("false") => return Ok(false),
            Written::Toml(DeValue::String(text)) if matches!(text.as_ref(), "true" | "false") => {
                Some(format!("remove the quotes: {text}"))
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
pub(in crate::config) struct TimeSpan {
    pub(in crate::config) min: Duration,
    pub(in crate::config) max: Duration,
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

    fn value_name(&self) -> Option<&'static str> {
        Some("DURATION")
    }

    fn read(&self, written: &Written<'_>) -> Result<Duration, Mismatch> {
        let hint = match written.text() {
            Some(text) => match units::duration(text) {
                Ok(value) if (self.min..=self.max).contains(&value) => return Ok(value),
                Ok(_) => text
                    .contains('M')
                    .then(|| "`M` stands for months; write `m` for minutes".to_owned()),
                Err(hint) => Some(hint),
            },
            None => match written {
                Written::Toml(DeValue::Integer(number)) => {
                    Some(units::missing_duration_unit(&number.to_string()))
                }
                Written::Toml(DeValue::Float(_)) => {
                    Some("use a duration with a unit, such as \"500ms\" or \"2s\"".to_owned())
                }
                _ => None,
            },
        };
        Err(self.mismatch(written, hint))
    }
}

/// Which requests are slow: none, those above a duration, or those above a percentile.
pub(in crate::config) struct SlowRequestRule;

/// The durations that are accepted.
const SLOW: TimeSpan = TimeSpan {
    min: Duration::from_micros(1),
    max: Duration::from_secs(24 * 60 * 60),
};

impl Rule for SlowRequestRule {
    type Value = SlowRequests;

    fn expected(&self) -> String {
        format!(
            "\"off\", {}, or a percentile from \"p50\" to \"p99.99\"",
            SLOW.expected()
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<SlowRequests, Mismatch> {
        match written.text().map(str::trim) {
            Some("off") => Ok(SlowRequests::Off),
            Some(text) if text.starts_with(['p', 'P']) => match text[1..].parse() {
                Ok(percent) if (50.0..=99.99).contains(&percent) => Ok(SlowRequests::Percentile(percent)),
                _ => Err(self.mismatch(written, None)),
            },
            _ => match SLOW.read(written) {
                Ok(limit) => Ok(SlowRequests::Above(limit)),
                Err(mismatch) => Err(self.mismatch(written, mismatch.hint)),
            },
        }
    }
}

/// A share from 0 to 1.
pub(in crate::config) struct Share;

impl Rule for Share {
    type Value = f64;

    fn expected(&self) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<f64, Mismatch> {
        written
            .number()
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| {
                let hint = written.quotes_hint(|text| text.parse::<f64>().is_ok());
                self.mismatch(written, hint)
            })
    }
}

/// A size in bytes with its unit, within bounds.
pub(in crate::config) struct Size {
    pub(in crate::config) min: u64,
    pub(in crate::config) max: u64,
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

    fn value_name(&self) -> Option<&'static str> {
        Some("SIZE")
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

/// A size in bytes with its unit, or a percentage of the free memory.
pub(in crate::config) struct Memory;

/// The sizes that are accepted.
const MEMORY: Size = Size {
    min: 1 << 20,
    max: 1 << 50,
};

impl Rule for Memory {
    type Value = MemoryBudget;

    fn expected(&self) -> String {
        format!("{}, or a percentage from \"1%\" to \"100%\"", MEMORY.expected())
    }

    fn value_name(&self) -> Option<&'static str> {
        Some("SIZE")
    }

    fn read(&self, written: &Written<'_>) -> Result<MemoryBudget, Mismatch> {
        if let Some(percent) = written.text().and_then(|text| text.trim().strip_suffix('%')) {
            return match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(MemoryBudget::Percent(percent)),
                _ => Err(self.mismatch(written, None)),
            };
        }
        match MEMORY.read(written) {
            Ok(bytes) => Ok(MemoryBudget::Bytes(bytes as u64)),
            Err(mismatch) => Err(self.mismatch(written, mismatch.hint)),
        }
    }
}

/// One of a few words, each with the value that it stands for.
pub(in crate::config) struct Choice<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

impl<T: Copy> Rule for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    fn words(&self) -> Vec<&'static str> {
        self.0.iter().map(|(word, _)| *word).collect()
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

/// Text that passes a check.
#[derive(Clone, Copy)]
pub(in crate::config) struct Text {
    /// What is accepted, with its article.
    pub(in crate::config) expected: &'static str,
    /// What stands for the value in the help of a flag.
    pub(in crate::config) value_name: Option<&'static str>,
    /// The error is a hint.
    pub(in crate::config) check: fn(&str) -> Result<(), String>,
}

impl Rule for Text {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn value_name(&self) -> Option<&'static str> {
        self.value_name
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

/// A SHA-256 digest in hexadecimal digits, after a prefix.
#[derive(Clone, Copy)]
pub(in crate::config) struct HexDigest {
    pub(in crate::config) prefix: &'static str,
    /// Whether messages must not show a value that is not a digest, since it may be what the digest should hide.
    pub(in crate::config) is_secret: bool,
    /// How to compute it.
    pub(in crate::config) hint: &'static str,
}

impl Rule for HexDigest {
    type Value = Digest;

    fn expected(&self) -> String {
        match self.prefix {
            "" => "a SHA-256 digest of 64 hexadecimal digits".to_owned(),
            prefix => format!("`{prefix}` and a SHA-256 digest of 64 hexadecimal digits"),
        }
    }

    fn is_secret(&self) -> bool {
        self.is_secret
    }

    fn read(&self, written: &Written<'_>) -> Result<Digest, Mismatch> {
        let digits = written.text().and_then(|text| text.strip_prefix(self.prefix));
        digits
            .and_then(Digest::parse)
            .ok_or_else(|| self.mismatch(written, Some(self.hint.to_owned())))
    }
}

/// Secret text: messages show only its length.
#[derive(Clone, Copy)]
pub(in crate::config) struct SecretText(pub(in crate::config) Text);

impl Rule for SecretText {
    type Value = Secret;

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn value_name(&self) -> Option<&'static str> {
        self.0.value_name()
    }

    fn read(&self, written: &Written<'_>) -> Result<Secret, Mismatch> {
        match self.0.read(written) {
            Ok(text) => Ok(Secret::new(text)),
            Err(mismatch) => Err(self.mismatch(written, mismatch.hint)),
        }
    }
}
