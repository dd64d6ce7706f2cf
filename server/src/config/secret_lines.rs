//! Finds the lines of a configuration that may contain secrets, so that no message quotes them.
//!
//! This works on any text, including invalid TOML: a key without its closing quote is still a secret. A false positive only
//! means that a line is not quoted.

use crate::secret::{has_password, is_secret_name};
use crate::suggest::nearest;

/// For each line of the text, whether it may contain a secret.
pub(super) fn secret_lines(text: &str) -> Vec<bool> {
    let mut scanner = Scanner::default();
    text.split('\n').map(|line| scanner.is_secret(line)).collect()
}

#[derive(Default)]
struct Scanner {
    /// Whether the current table is `[models.env]`.
    in_env: bool,
    /// The delimiter that closes a secret value that began on an earlier line.
    open: Option<&'static str>,
}

impl Scanner {
    fn is_secret(&mut self, line: &str) -> bool {
        if let Some(end) = self.open {
            if line.contains(end) {
                self.open = None;
            }
            return true;
        }
        let written = line.trim();
        if written.starts_with('[') {
            self.in_env = segments(written.trim_matches(['[', ']'])).last() == Some("env");
            return false;
        }
        let secret = written
            .match_indices('=')
            .find(|(at, _)| self.in_env || is_secret_key(&written[..*at]))
            .map(|(at, _)| &written[at + 1..]);
        if let Some(value) = secret {
            self.open = unclosed(value.trim_start());
        }
        // Without `=`, the key is the first word.
        let word = written
            .split(|c: char| c.is_whitespace() || c == ':')
            .next()
            .unwrap_or_default();
        let names_secret = !written.contains('=') && (self.in_env || is_secret_key(word));
        secret.is_some() || names_secret || has_password(line)
    }
}

/// Whether the text before a `=` ends in a key whose value is secret: because of its name, or because it is in a table `env`.
fn is_secret_key(before: &str) -> bool {
    let key = before.rsplit(['{', ',']).next().unwrap_or_default();
    // The members of an inline table belong to the key before it.
    let of_env = before.split(['{', ',']).any(|key| {
        let key = key.trim().trim_end_matches('=');
        segments(key).any(|segment| segment == "env")
    });
    of_env || segments(key).any(|name| is_secret_name(name) || is_misspelled_secret(name))
}

/// Whether a key is a misspelling of one of the server's secret keys.
fn is_misspelled_secret(name: &str) -> bool {
    nearest(name, SECRET_KEYS).is_some()
        || SECRET_KEYS
            .iter()
            .any(|key| name.eq_ignore_ascii_case(&key.replace('_', "")))
}

/// The keys of `[server]` and `[tracing]` whose values are secret.
const SECRET_KEYS: [&str; 3] = ["api_keys", "admin_key", "headers"];

/// The parts of a dotted key.
fn segments(key: &str) -> impl DoubleEndedIterator<Item = &str> {
    key.split('.')
        .map(|segment| segment.trim().trim_matches(['"', '\'']))
}

/// The closing delimiter of a value that continues on the next line.
fn unclosed(value: &str) -> Option<&'static str> {
    for (begin, end) in [("\"\"\"", "\"\"\""), ("'''", "'''"), ("[", "]"), ("{", "}")] {
        if let Some(rest) = value.strip_prefix(begin) {
            return (!rest.contains(end)).then_some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_may_contain_a_secret_are_found() {
        let text = r#"[server]
port = 8080
admin_key = "s"
adminkey = s
"api_keys" = [
  "s",
]
keep_alive = "5s"
admin_key "s"
admin_key: s
server.admin_key = 's
cors_allowed_origins = ["https://user:s@host"]
[[models]]
name = "m"
env.A = "s"
env = { A = "s" }
settings = { size = 1, token = "s" }
[models.env]
A = "s"
B = """
s
"""
[models.settings]
size = 3
api_key = 5
"#;
        let secret: Vec<&str> = text
            .lines()
            .zip(secret_lines(text))
            .filter_map(|(line, is_secret)| is_secret.then_some(line))
            .collect();
        let expected = [
            "admin_key = \"s\"",
            // A misspelled key is still a secret.
            "adminkey = s",
            "\"api_keys\" = [",
            "  \"s\",",
            "]",
            "admin_key \"s\"",
            "admin_key: s",
            "server.admin_key = 's",
            "cors_allowed_origins = [\"https://user:s@host\"]",
            "env.A = \"s\"",
            "env = { A = \"s\" }",
            "settings = { size = 1, token = \"s\" }",
            "A = \"s\"",
            "B = \"\"\"",
            "s",
            "\"\"\"",
            "api_key = 5",
        ];
        assert_eq!(secret, expected);
    }

    proptest::proptest! {
        #[test]
        fn every_line_of_any_text_is_classified(text in "[a-z=\\[\\]{}\"'\\n. ]{0,80}") {
            proptest::prop_assert_eq!(secret_lines(&text).len(), text.split('\n').count());
        }
    }
}
