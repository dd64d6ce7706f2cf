//! Members of requests that other servers honor and this one does not. They are rejected, unless their value changes nothing.

use serde_json::value::RawValue;

use crate::api::{Code, Failure};

/// A member that is not supported.
pub(super) struct Unsupported<'a> {
    name: &'static str,
    value: Option<&'a RawValue>,
    accepted: &'static [&'static str],
    hint: &'static str,
}

impl<'a> Unsupported<'a> {
    /// A member without a value that changes nothing, except null.
    pub(super) fn new(name: &'static str, value: Option<&'a RawValue>) -> Self {
        Self {
            name,
            value,
            accepted: &[],
            hint: "remove it",
        }
    }

    /// The JSON texts of values that change nothing.
    pub(super) fn unless(self, accepted: &'static [&'static str]) -> Self {
        Self { accepted, ..self }
    }

    /// What to do instead.
    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    /// The maximum number of tokens in requests of vLLM. -1 is that of the model.
    pub(super) fn truncate_prompt_tokens(value: Option<&'a RawValue>) -> Self {
        Self::new("truncate_prompt_tokens", value)
            .unless(&["-1"])
            .hint("remove it, or send -1, the maximum of the model")
    }

    /// The priority in requests of Cohere and vLLM. 0 is the default.
    pub(super) fn priority(value: Option<&'a RawValue>) -> Self {
        Self::new("priority", value)
            .unless(&["0"])
            .hint("send the header `x-priority`")
    }

    fn check(&self) -> Result<(), Failure> {
        let Some(value) = self.value.map(RawValue::get) else {
            return Ok(());
        };
        if self.accepted.contains(&value) {
            return Ok(());
        }
        let (name, hint) = (self.name, self.hint);
        let message = match self.accepted {
            [] => format!("`{name}` is not supported; {hint}"),
            _ => {
                let value: String = value.chars().take(40).collect();
                format!("`{name}` = {value} is not supported; {hint}")
            }
        };
        Err(Failure::new(Code::Unsupported, message).with_param(name))
    }
}

/// Rejects the first of these members that has a value which changes the reply.
///
/// # Errors
/// The member, its value, and what to do instead.
pub(super) fn reject_unsupported<const N: usize>(members: [Unsupported<'_>; N]) -> Result<(), Failure> {
    members.iter().try_for_each(Unsupported::check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_change_nothing_are_accepted() {
        let check = |json: Option<&str>, accepted| {
            let value = json.map(|json| serde_json::from_str::<&RawValue>(json).expect("it is JSON"));
            let member = Unsupported::new("late_chunking", value).unless(accepted);
            reject_unsupported([member]).map_err(|failure| (failure.param, failure.message))
        };
        let rejected = |message: &str| Err((Some("late_chunking"), message.to_owned()));
        assert_eq!(check(None, &[]), Ok(()));
        assert_eq!(check(Some("false"), &["false"]), Ok(()));
        assert_eq!(
            check(Some("true"), &["false"]),
            rejected("`late_chunking` = true is not supported; remove it")
        );
        assert_eq!(
            check(Some("1"), &[]),
            rejected("`late_chunking` is not supported; remove it")
        );
    }
}
