//! Which models a named key may use.

/// Names of models and tasks that a key may use.
#[derive(Debug)]
pub(super) struct Permissions {
    patterns: Vec<Pattern>,
}

/// The name of a model, or `model.task`.
#[derive(Debug)]
struct Pattern {
    /// Without the `*` at its end.
    text: String,
    /// Whether any suffix matches.
    is_prefix: bool,
}

impl Permissions {
    pub(super) fn new(patterns: &[String]) -> Self {
        let parse = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => Pattern {
                text: start.to_owned(),
                is_prefix: true,
            },
            None => Pattern {
                text: pattern.clone(),
                is_prefix: false,
            },
        };
        Self {
            patterns: patterns.iter().map(parse).collect(),
        }
    }

    /// Whether the key may run a task.
    pub(super) fn allows_task(&self, model: &str, task: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(model))
            || self
                .patterns
                .iter()
                .any(|pattern| pattern.matches(&format!("{model}.{task}")))
    }

    /// Whether the key may run some task of a model.
    pub(super) fn allows_model(&self, model: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.matches(model) || is_below(&pattern.text, model))
    }

    /// Whether the key may know if there is a model or task of this name: one that it may use can have it.
    pub(super) fn may_name(&self, name: &str) -> bool {
        self.allows_model(name)
            || self
                .patterns
                .iter()
                .any(|pattern| !pattern.is_prefix && is_below(name, &pattern.text))
    }

    /// The patterns, for messages.
    pub(super) fn describe(&self) -> String {
        let text = |pattern: &Pattern| match pattern.is_prefix {
            true => format!("{}*", pattern.text),
            false => pattern.text.clone(),
        };
        let all: Vec<String> = self.patterns.iter().map(text).collect();
        match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(", "),
        }
    }
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self.is_prefix {
            true => name.starts_with(&self.text),
            false => name == self.text,
        }
    }
}

/// Whether `name` is `model.` and something after it, or nothing.
fn is_below(name: &str, model: &str) -> bool {
    name.strip_prefix(model).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(patterns: &[&str]) -> Permissions {
        let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
        Permissions::new(&patterns)
    }

    #[test]
    fn a_model_is_allowed_by_its_name_with_all_of_its_tasks() {
        let key = permissions(&["minilm"]);
        assert!(key.allows_model("minilm") && key.allows_task("minilm", "query"));
        assert!(key.may_name("minilm") && key.may_name("minilm.query"));
        for other in ["minilm2", "mini", "minilm.query", ""] {
            assert!(!key.allows_model(other), "{other}");
            assert!(!key.allows_task(other, "query"), "{other}");
        }
        assert!(!key.may_name("minilm2") && !key.may_name("other"));
    }

    #[test]
    fn a_single_task_is_allowed_as_model_and_task() {
        let key = permissions(&["digits.classify"]);
        assert!(key.allows_task("digits", "classify"));
        assert!(!key.allows_task("digits", "embed"));
        assert!(key.allows_model("digits"));
        assert!(key.may_name("digits") && key.may_name("digits.classify"));
        assert!(!key.may_name("digits.embed"));
    }

    #[test]
    fn an_asterisk_matches_any_suffix() {
        let key = permissions(&["digits.*", "dev-*"]);
        assert!(key.allows_task("digits", "classify") && key.allows_model("digits"));
        assert!(key.allows_task("digits.v2", "classify"));
        assert!(key.allows_task("dev-x", "t") && key.may_name("dev-x.t"));
        assert!(!key.allows_model("digits2") && !key.allows_model("dev"));
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let key = permissions(&[]);
        assert!(!key.allows_model("m") && !key.allows_task("m", "t") && !key.may_name("m"));
        assert_eq!(key.describe(), "none");
    }
}
