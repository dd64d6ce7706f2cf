//! Reads JSON from clients in bounded memory: limits are checked during parsing.
//!
//! All functions take time linear in the text, do not recurse, and do not allocate memory for rejected elements.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::JsonError;

/// A list of at most `MAX` elements. Parsing stops at the first element beyond the maximum.
#[derive(Clone, Debug, PartialEq)]
pub struct AtMost<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMostVisitor(PhantomData))
    }
}

struct AtMostVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMostVisitor<T, MAX> {
    type Value = AtMost<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == MAX {
                let message = format!("too many elements in an array: expected at most {MAX}");
                return Err(A::Error::custom(message));
            }
            elements.push(element);
        }
        Ok(AtMost(elements))
    }
}

/// Returns the elements of a valid JSON array as slices of it; `None` if there are more than `max`.
pub fn elements(array: &str, max: usize) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(array);
    let visitor = ElementsVisitor {
        max,
        elements: &mut elements,
    };
    reader.deserialize_seq(visitor).ok().map(|()| elements)
}

struct ElementsVisitor<'v, 'de> {
    max: usize,
    elements: &'v mut Vec<&'de str>,
}

impl<'de> Visitor<'de> for ElementsVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if self.elements.len() == self.max {
                return Err(A::Error::custom("too many elements"));
            }
            self.elements.push(element.get());
        }
        Ok(())
    }
}

/// Calls `visit` with the name and value of each member of an object, as slices of it, until `visit` fails.
///
/// # Errors
/// The outer error states why the text is not an object; the inner error is that of `visit`.
pub fn visit_members<'de, E>(
    object: &'de str,
    visit: &mut dyn FnMut(Cow<'de, str>, &'de str) -> Result<(), E>,
) -> Result<Result<(), E>, JsonError> {
    let mut failure = None;
    let visitor = MembersVisitor {
        visit,
        failure: &mut failure,
    };
    let read = serde_json::Deserializer::from_str(object).deserialize_map(visitor);
    match failure {
        Some(failure) => Ok(Err(failure)),
        None => Ok(Ok(read?)),
    }
}

struct MembersVisitor<'v, 'de, E> {
    visit: &'v mut dyn FnMut(Cow<'de, str>, &'de str) -> Result<(), E>,
    failure: &'v mut Option<E>,
}

impl<'de, E> Visitor<'de> for MembersVisitor<'_, 'de, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            let value = map.next_value::<&'de RawValue>()?;
            if let Err(failure) = (self.visit)(name, value.get()) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Reads the name of a member, as a slice if it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_up_to_its_maximum() {
        let read = |text| serde_json::from_str::<AtMost<i64, 3>>(text).map(|list| list.0);
        assert_eq!(read("[1,2,3]").ok(), Some(vec![1, 2, 3]));
        let error = read("[1,2,3,4,")
            .expect_err("there are four elements")
            .to_string();
        assert!(
            error.starts_with("too many elements in an array: expected at most 3"),
            "{error}"
        );
    }

    #[test]
    fn elements_are_slices_of_the_array() {
        assert_eq!(
            elements(r#"[1, "a\n", {"b": [2]}]"#, 3),
            Some(vec!["1", r#""a\n""#, r#"{"b": [2]}"#])
        );
        assert_eq!(elements("[1,2,3,4]", 3), None);
        assert_eq!(elements("[]", 0), Some(vec![]));
    }

    #[test]
    fn the_first_error_of_the_visitor_stops_parsing() {
        let mut seen = Vec::new();
        let result = visit_members(r#"{"a": 1, "\u0062": [2], "c": 3}"#, &mut |name, value| {
            seen.push((name.into_owned(), value.to_owned()));
            if seen.len() == 2 { Err("enough") } else { Ok(()) }
        });
        assert_eq!(result.ok(), Some(Err("enough")));
        let expected = [("a", "1"), ("b", "[2]")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen, expected);
        let not_an_object = visit_members("[1]", &mut |_, _| Err("unexpected member"));
        assert!(not_an_object.is_err());
    }
}
