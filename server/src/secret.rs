//! Text that must not be shown: keys, and environment variables of models.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The number of bytes that the secret of webhooks can have.
const WEBHOOK_KEY_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Secret text. It can be compared and passed on, but `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Wraps secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to send or compare it. It must not be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Words in the names of secrets.
const WORDS: [&str; 15] = [
    "apikey",
    "apikeys",
    "auth",
    "authorization",
    "credential",
    "credentials",
    "key",
    "keys",
    "pass",
    "passwd",
    "password",
    "pwd",
    "secret",
    "secrets",
    "token",
];

/// The key in the secret of webhooks: `whsec_`, and 24 to 64 bytes in base64, as defined by the Standard Webhooks specification.
pub fn webhook_key(text: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
    WEBHOOK_KEY_LENGTHS.contains(&bytes.len()).then_some(bytes)
}

/// Whether a name is likely to be that of a secret, such as `admin_key` or `HF_TOKEN`.
pub fn is_secret_name(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| WORDS.iter().any(|secret| word.eq_ignore_ascii_case(secret)))
}

/// Whether a text contains a URL with a password, as in `https://user:password@host`.
pub fn has_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, scheme)| {
        let rest = &text[at + scheme.len()..];
        let authority = rest.split(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace());
        authority
            .into_iter()
            .next()
            .is_some_and(|authority| authority.contains('@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_a_secret() {
        let secret = Secret::new("f3f1f4a5c8d94c1e");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Secret(…) Some(Secret(…))"
        );
        assert_eq!(secret.expose(), "f3f1f4a5c8d94c1e");
    }

    #[test]
    fn secrets_are_recognized_by_their_names() {
        for name in [
            "admin_key",
            "api_keys",
            "HF_TOKEN",
            "apikey",
            "db-password",
            "Authorization",
            "KEY",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "keep_alive",
            "max_tokens",
            "tokenizer",
            "author",
            "monkey",
            "",
            "model",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_found() {
        for text in ["https://u:p@host/x", "a = \"http://token@host\"", "x ftp://a@b"] {
            assert!(has_password(text), "{text}");
        }
        for text in ["https://host/@x", "u:p@host", "https://host?x=a@b", ""] {
            assert!(!has_password(text), "{text}");
        }
    }
}
