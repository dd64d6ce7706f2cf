//! The file of named API keys: reads it, and writes entries for it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cli::NewKeyArgs;
use crate::config::{ConfigError, KeySettings, Location, Origin, parse_keys};
use crate::digest::Digest;

/// Prefix of generated keys, by which scanners for leaked secrets recognize them.
const KEY_PREFIX: &str = "infkey_";

/// Number of random bytes in a generated key.
const KEY_BYTES: usize = 32;

/// Permission to write for all users.
const WRITABLE_BY_ALL: u32 = 0o002;

/// Reads the keys of a file.
///
/// # Errors
/// The file cannot be read, everyone can change it, or its errors.
pub(super) fn read(file: &Path) -> Result<Vec<KeySettings>, Vec<ConfigError>> {
    let error = |message: String, hint: Option<String>| {
        let origin = Origin::File(Location {
            file: file.display().to_string().into(),
            line: 1,
            column: 1,
        });
        vec![ConfigError::new(origin, message, hint)]
    };
    let unreadable = |problem: io::Error| error(format!("cannot read `api_keys_file`: {problem}"), None);
    // The permissions are those of the file that is read.
    let mut opened = File::open(file).map_err(unreadable)?;
    let mode = opened.metadata().map_err(unreadable)?.permissions().mode();
    if mode & WRITABLE_BY_ALL != 0 {
        let message = format!(
            "every user can change the file of API keys: found mode {:o}, expected one without write permission for others",
            mode & 0o7777
        );
        let hint = format!("run `chmod o-w {}`, and check its keys", file.display());
        return Err(error(message, Some(hint)));
    }
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(unreadable)?;
    parse_keys(&file.to_string_lossy(), &text)
}

/// A generated key.
#[derive(Debug)]
pub struct NewKey {
    /// The key, for the client.
    pub secret: String,
    /// Its entry in the file of named keys.
    pub entry: String,
}

/// Why no key was generated.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The system has no random numbers.
    #[error("cannot generate a key: the system returns no random numbers")]
    Random(#[source] io::Error),
    /// The arguments do not form a valid entry.
    #[error("{}", list(.0))]
    Invalid(Vec<ConfigError>),
}

fn list(errors: &[ConfigError]) -> String {
    let line = |error: &ConfigError| match &error.hint {
        Some(hint) => format!("{}\n    hint: {hint}", error.message),
        None => error.message.clone(),
    };
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Generates a key and its entry.
///
/// # Errors
/// The arguments are invalid.
pub fn new_key(args: &NewKeyArgs) -> Result<NewKey, NewKeyError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| NewKeyError::Random(io::Error::other(error.to_string())))?;
    let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let entry = entry(args, &Digest::of(secret.as_bytes()));
    parse_keys("", &entry).map_err(NewKeyError::Invalid)?;
    Ok(NewKey { secret, entry })
}

/// The entry for a key. Its values are checked by reading it.
fn entry(args: &NewKeyArgs, hash: &Digest) -> String {
    // JSON's strings are strings of TOML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut entry = format!(
        "[[key]]\nname = {}\nhash = \"sha256:{hash}\"\n",
        quoted(&args.name)
    );
    if !args.models.is_empty() {
        let models: Vec<String> = args.models.iter().map(|model| quoted(model)).collect();
        let _ = writeln!(entry, "models = [{}]", models.join(", "));
    }
    if args.admin {
        entry.push_str("admin = true\n");
    }
    if let Some(expires) = &args.expires {
        let _ = writeln!(entry, "expires = {}", quoted(expires));
    }
    let numbers = [
        (
            "requests_per_second",
            args.requests_per_second.map(|rate| rate.to_string()),
        ),
        ("request_burst", args.request_burst.map(|burst| burst.to_string())),
        (
            "items_per_second",
            args.items_per_second.map(|rate| rate.to_string()),
        ),
        ("item_burst", args.item_burst.map(|burst| burst.to_string())),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            let _ = writeln!(entry, "{name} = {number}");
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(name: &str) -> NewKeyArgs {
        NewKeyArgs {
            name: name.to_owned(),
            models: vec!["minilm".to_owned(), "digits.*".to_owned()],
            admin: true,
            expires: Some("2027-01-31".to_owned()),
            requests_per_second: Some(10.0),
            request_burst: None,
            items_per_second: Some(0.5),
            item_burst: Some(20),
        }
    }

    #[test]
    fn a_generated_entry_is_that_of_the_generated_key() {
        let new = new_key(&args("ci")).expect("the arguments are valid");
        let keys = parse_keys("keys.toml", &new.entry).expect("the entry is valid");
        let [key] = keys.as_slice() else {
            panic!("there is one key: {}", new.entry)
        };
        assert_eq!(key.name, "ci");
        assert_eq!(key.hash, Digest::of(new.secret.as_bytes()));
        assert_eq!(key.models, Some(vec!["minilm".to_owned(), "digits.*".to_owned()]));
        assert!(key.admin);
        assert_eq!(key.expires, Some(1_801_353_600));
        let burst = |rate: Option<crate::config::RateSettings>| rate.map(|rate| rate.burst.get());
        assert_eq!((burst(key.requests), burst(key.items)), (Some(10), Some(20)));
        assert!(!new.entry.contains(&new.secret));
        let other = new_key(&args("ci")).expect("the arguments are valid");
        assert_ne!(new.secret, other.secret);
    }

    #[test]
    fn an_invalid_argument_is_an_error_and_not_an_entry() {
        for (wrong, part) in [
            (args("two words"), "`name`"),
            (
                NewKeyArgs {
                    expires: Some("tomorrow".to_owned()),
                    ..args("ci")
                },
                "`expires`",
            ),
            (
                NewKeyArgs {
                    requests_per_second: Some(0.0),
                    ..args("ci")
                },
                "`requests_per_second`",
            ),
            (
                NewKeyArgs {
                    models: vec!["a\"]\nadmin = true\nx = [\"".to_owned()],
                    ..args("ci")
                },
                "`models`",
            ),
        ] {
            let error = new_key(&wrong).expect_err("an argument is invalid").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
