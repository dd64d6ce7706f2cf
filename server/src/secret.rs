//! Texts that must not be shown: keys, and variables for the environment of models.

use std::fmt;

/// A text that is a secret. It is compared and passed on like any other, but neither `Debug` nor any message shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for those who have to send it or compare it. It must not be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Words that the names of secrets contain.
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

/// Whether something of this name is likely to be a secret, such as `admin_key` or `HF_TOKEN`.
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
    fn a_secret_is_not_shown() {
        let secret = Secret::new("f3f1f4a5c8d94c1e");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Secret(…) Some(Secret(…))"
        );
        assert_eq!(secret.expose(), "f3f1f4a5c8d94c1e");
    }

    #[test]
    fn secrets_are_known_by_their_names() {
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
