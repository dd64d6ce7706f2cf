//! Parses the file of named API keys.
//!
//! Each `[[key]]` has the digest of a key and what it allows. The file obeys the same rules as the configuration, and all of
//! its errors are reported together. No message quotes a line of it, since a line can contain a key that was pasted by mistake.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

use toml::de::{DeTable, DeValue};

use super::checks::{KEY_NAME, MODEL_PATTERN};
use super::document::Document;
use super::error::{ConfigError, ConfigWarning, Location, Origin};
use super::file::{self, Level, Reader};
use super::rule::{HexDigest, Integer, List, Mismatch, Rule, Toggle, Written};
use super::section::{Key, KeyDefault, Located, Section, optional, section};
use super::settings::{ModelSettings, UncomparedLocation};
use crate::digest::Digest;

use KeyDefault::{Derived, Required, Value};

/// Maximum number of keys. Every request is compared with all of them.
const MAX_KEYS: usize = 1000;

/// Maximum time until a burst is available again.
const MAX_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The digest of a key.
const KEY_HASH: HexDigest = HexDigest {
    prefix: "sha256:",
    is_secret: true,
    hint: "`inference-server key new NAME` generates a key and its hash",
};

const BURST: Integer<NonZeroU32> = Integer::with(1, 10_000_000, |value| {
    u32::try_from(value).ok().and_then(NonZeroU32::new)
});

section! {
    /// One key.
    WrittenKey {
        /// Name of the key in the log, in metrics and in messages: letters, digits, `.`, `_` and `-`.
        name: String = KEY_NAME, Required("\"batch-jobs\"");
        /// SHA-256 of the key, as `inference-server key new` writes it.
        hash: Digest = KEY_HASH,
            Required("\"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"");
        /// Models that the key may use, by name, or single tasks as `model.task`. A `*` at the end matches any suffix.
        models: Vec<String> = List(MODEL_PATTERN), Derived { applies: "all models", example: "[\"minilm\", \"digits.*\"]" };
        /// Allow loading and unloading models, of those that the key may use, and reading full error messages.
        admin: bool = Toggle, Value("false");
        /// Time from which the key is rejected, in UTC: a date-time, or a date for its beginning.
        expires: u64 = Expiry, Derived { applies: "the key does not expire", example: "2027-01-31T12:00:00Z" };
        /// Requests per second, on average. Each request that runs a task counts, and each message of a gRPC stream.
        requests_per_second: f64 = Rate, Derived { applies: "no limit", example: "10" };
        /// Maximum number of requests in a burst, after a time without requests.
        request_burst: NonZeroU32 = BURST,
            Derived { applies: "`requests_per_second`, rounded up", example: "20" };
        /// Items per second, on average.
        items_per_second: f64 = Rate, Derived { applies: "no limit", example: "500" };
        /// Maximum number of items in a burst. A request with more items is rejected with 400.
        item_burst: NonZeroU32 = BURST, Derived { applies: "`items_per_second`, rounded up", example: "1000" };
    }
}

/// A named API key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySettings {
    /// Its name, unique among the keys.
    pub name: String,
    /// The digest of the key.
    pub hash: Digest,
    /// Names of models, or `model.task`; a `*` at the end matches any suffix. `None` allows all models.
    pub models: Option<Vec<String>>,
    /// Whether it allows loading and unloading models.
    pub admin: bool,
    /// Unix time from which it is rejected.
    pub expires: Option<u64>,
    /// Limit on requests.
    pub requests: Option<RateSettings>,
    /// Limit on items.
    pub items: Option<RateSettings>,
    place: UncomparedLocation,
}

/// A rate with bursts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSettings {
    /// Average per second.
    pub per_second: f64,
    /// Maximum in a burst.
    pub burst: NonZeroU32,
}

impl RateSettings {
    /// The time after which one more is available.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second).max(Duration::from_nanos(1))
    }

    /// The time after which a whole burst is available again.
    pub fn window(&self) -> Duration {
        self.interval().saturating_mul(self.burst.get())
    }
}

/// Parses the file. `file_name` is its name for messages.
///
/// # Errors
/// All errors of the file.
pub fn parse_keys(file_name: &str, text: &str) -> Result<Vec<KeySettings>, Vec<ConfigError>> {
    let document = Document::without_excerpts(file_name, text);
    let mut errors = Vec::new();
    let tables = file::parse(&document, &mut errors, |reader, root| reader.key_tables(root));
    if tables.len() > MAX_KEYS {
        let message = format!(
            "too many keys: found {}, expected at most {MAX_KEYS}",
            tables.len()
        );
        let origin = Origin::File(document.locate(0));
        errors.push(ConfigError::new(origin, message, None));
    }
    let mut keys: Vec<KeySettings> = Vec::new();
    for (header, written) in tables {
        keys.extend(key_settings(header, written, &mut errors));
    }
    reject_duplicates(&keys, &mut errors);
    if errors.is_empty() { Ok(keys) } else { Err(errors) }
}

impl Reader<'_, '_> {
    /// The keys that are written, each with the place of its table.
    fn key_tables(&mut self, root: &DeTable<'_>) -> Vec<(Location, WrittenKey)> {
        let top = Level {
            place: "at the top level",
            tables: &["key"],
            is_configuration: false,
        };
        if self.broken_lines.is_empty() {
            self.section(root, &top, &mut []);
        }
        let Some(value) = root.get("key") else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let hint = "start each key with [[key]], in double brackets";
            self.wrong_type(value, "value for `key`", "a list of tables", Some(hint));
            return Vec::new();
        };
        let level = Level {
            place: "in [[key]]",
            tables: &[],
            is_configuration: false,
        };
        let mut tables = Vec::new();
        for element in array.iter() {
            let Some(table) = element.get_ref().as_table() else {
                self.wrong_type(
                    element,
                    "element of `key`",
                    "a table",
                    Some("write it as [[key]]"),
                );
                continue;
            };
            let mut keys = WrittenKey::empty();
            self.section(table, &level, &mut [&mut keys]);
            self.required(table, &element.span(), WrittenKey::KEYS, level.place);
            tables.push((self.document.locate(element.span().start), keys));
        }
        tables
    }
}

fn key_settings(header: Location, written: WrittenKey, errors: &mut Vec<ConfigError>) -> Option<KeySettings> {
    let requests = rate(
        ("requests_per_second", written.requests_per_second),
        ("request_burst", written.request_burst),
        errors,
    );
    let items = rate(
        ("items_per_second", written.items_per_second),
        ("item_burst", written.item_burst),
        errors,
    );
    Some(KeySettings {
        name: written.name?.value,
        hash: written.hash?.value,
        models: written.models.map(|located| located.value),
        admin: written.admin.is_some_and(|located| located.value),
        expires: written.expires.map(|located| located.value),
        requests,
        items,
        place: UncomparedLocation(header),
    })
}

type Named<T> = (&'static str, Option<Located<T>>);

fn rate(
    (rate_key, rate): Named<f64>,
    (burst_key, burst): Named<NonZeroU32>,
    errors: &mut Vec<ConfigError>,
) -> Option<RateSettings> {
    let Some(rate) = rate else {
        if let Some(burst) = burst {
            let message = format!("`{burst_key}` has no effect without `{rate_key}`");
            let hint = format!("add `{rate_key}`, or remove `{burst_key}`");
            errors.push(ConfigError::new(burst.origin, message, Some(hint)));
        }
        return None;
    };
    let rounded_up = NonZeroU32::new(rate.value.ceil() as u32).unwrap_or(NonZeroU32::MIN);
    let settings = RateSettings {
        per_second: rate.value,
        burst: burst.as_ref().map_or(rounded_up, |burst| burst.value),
    };
    if settings.window() > MAX_WINDOW {
        let message = format!(
            "at {} per second, {} are available again only after {} s: expected at most {} s",
            settings.per_second,
            settings.burst,
            settings.window().as_secs(),
            MAX_WINDOW.as_secs()
        );
        let hint = format!("lower `{burst_key}`, or raise `{rate_key}`");
        let origin = burst.map_or(rate.origin, |burst| burst.origin);
        errors.push(ConfigError::new(origin, message, Some(hint)));
    }
    Some(settings)
}

/// Names are labels of metrics, and a key has one set of permissions.
fn reject_duplicates(keys: &[KeySettings], errors: &mut Vec<ConfigError>) {
    let mut names: BTreeMap<&str, &KeySettings> = BTreeMap::new();
    let mut hashes: BTreeMap<String, &KeySettings> = BTreeMap::new();
    for key in keys {
        let origin = Origin::File(key.place.0.clone());
        if let Some(first) = names.get(key.name.as_str()) {
            let hint = format!("first used at {}; give each key its own name", first.place.0);
            let message = format!("duplicate key name \"{}\"", key.name);
            errors.push(ConfigError::new(origin.clone(), message, Some(hint)));
        }
        if let Some(first) = hashes.get(&key.hash.to_string()) {
            let message = format!(
                "the keys \"{}\" and \"{}\" have the same hash",
                first.name, key.name
            );
            let hint = "generate a key for each name with `inference-server key new NAME`".to_owned();
            errors.push(ConfigError::new(origin, message, Some(hint)));
        }
        names.entry(&key.name).or_insert(key);
        hashes.entry(key.hash.to_string()).or_insert(key);
    }
}

/// Lints for patterns of keys that match none of the configured models.
pub fn unmatched_models(keys: &[KeySettings], models: &[ModelSettings]) -> Vec<ConfigWarning> {
    let matches = |pattern: &str, model: &str| {
        let (start, is_prefix) = match pattern.strip_suffix('*') {
            Some(start) => (start, true),
            None => (pattern, false),
        };
        start == model
            || is_prefix && model.starts_with(start)
            || start
                .strip_prefix(model)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    let mut warnings = Vec::new();
    for key in keys {
        for pattern in key.models.iter().flatten() {
            if !models.iter().any(|model| matches(pattern, &model.name)) {
                warnings.push(ConfigWarning {
                    origin: Origin::File(key.place.0.clone()),
                    message: format!("key `{}`: no model matches \"{pattern}\" of `models`", key.name),
                    hint: None,
                });
            }
        }
    }
    warnings
}

/// A rate per second.
struct Rate;

/// The rates that are accepted.
const MIN_RATE: f64 = 0.001;
const MAX_RATE: f64 = 1e6;

impl Rule for Rate {
    type Value = f64;

    fn expected(&self) -> String {
        format!("a number from {MIN_RATE} to {MAX_RATE}")
    }

    fn read(&self, written: &Written<'_>) -> Result<f64, Mismatch> {
        let number = match written {
            Written::Toml(DeValue::Float(float)) => float.as_str().replace('_', "").parse().ok(),
            _ => written.integer().map(|integer| integer as f64),
        };
        number
            .filter(|number| (MIN_RATE..=MAX_RATE).contains(number))
            .ok_or_else(|| {
                let hint = written.quotes_hint(|text| text.parse::<f64>().is_ok());
                self.mismatch(written, hint)
            })
    }
}

/// A date-time or a date in UTC, as Unix time in seconds.
struct Expiry;

impl Rule for Expiry {
    type Value = u64;

    fn expected(&self) -> String {
        "a date-time in UTC such as 2027-01-31T12:00:00Z, or a date such as 2027-01-31".to_owned()
    }

    fn read(&self, written: &Written<'_>) -> Result<u64, Mismatch> {
        let text = match written {
            Written::Toml(DeValue::Datetime(time)) => Some(time.to_string()),
            other => other.text().map(str::to_owned),
        };
        let time = text.as_deref().and_then(unix_time);
        time.ok_or_else(|| {
            let hint = text
                .filter(|text| text.contains(':'))
                .map(|_| "write the time in UTC, with seconds and `Z` at the end".to_owned());
            self.mismatch(written, hint)
        })
    }
}

/// The Unix time in seconds of a date-time in UTC, or of the beginning of a date.
fn unix_time(text: &str) -> Option<u64> {
    let time = match text.len() {
        10 => humantime::parse_rfc3339(&format!("{text}T00:00:00Z")),
        _ => humantime::parse_rfc3339(text),
    };
    let since = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

/// The keys of `[[key]]`, for the reference.
pub(super) const KEYS: &[Key] = WrittenKey::KEYS;
