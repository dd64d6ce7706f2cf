//! Messages of serde and `serde_json` errors in the terms of JSON, for people who never see the Rust types.
//!
//! serde describes what it expected by the Rust type: "invalid type: sequence, expected struct Person". A client that
//! sends JSON needs "got an array, expected an object". The SDK words errors of items, parameters and settings this way,
//! and the server words errors of request bodies, so both sides share this module. It is not part of the binary
//! interface.

use serde_json::Error;

/// Maximum number of characters of a client's string that a message repeats.
const MAX_QUOTED: usize = 60;

/// The message of `error` in the terms of JSON, without its position: for a document that is a part of what the client
/// sent, where a line and a column mislead.
///
/// ```
/// let error = serde_json::from_str::<Vec<usize>>("[1, \"x\"]").expect_err("a string among numbers");
/// assert_eq!(plugin_abi::json_error::message(&error), "got \"x\", expected a non-negative integer");
/// ```
pub fn message(error: &Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    reword(text.strip_suffix(&position).unwrap_or(&text))
}

/// The message of `error` in the terms of JSON, with its line and column if it has them: for a complete document.
pub fn message_with_position(error: &Error) -> String {
    let message = message(error);
    match error.line() {
        0 => message,
        line => format!("{message} at line {line} column {}", error.column()),
    }
}

/// Rewords one message of serde, as in [`message`]. Text that no derive of serde produces is returned unchanged.
pub fn reword(message: &str) -> String {
    reword_mismatch(message)
        .or_else(|| reword_variant(message))
        .or_else(|| reword_syntax(message).map(str::to_owned))
        .unwrap_or_else(|| message.to_owned())
}

/// "invalid type: A, expected B", "invalid value: A, expected B" and "invalid length N, expected B".
fn reword_mismatch(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("invalid length ") {
        let (length, expected) = rest.split_once(", expected ")?;
        // serde accepts an array for a struct, as other formats have it; in JSON a struct is an object.
        if is_object(expected) {
            return Some("got an array, expected an object".to_owned());
        }
        let noun = if length == "1" { "element" } else { "elements" };
        return Some(format!(
            "got {length} {noun}, expected {}",
            expected_length(expected)
        ));
    }
    let (rest, out_of_range) = match message.strip_prefix("invalid type: ") {
        Some(rest) => (rest, false),
        None => (message.strip_prefix("invalid value: ")?, true),
    };
    let (got, expected) = split_got(rest)?;
    Some(format!(
        "got {got}, expected {}",
        expected_value(expected, out_of_range)
    ))
}

/// What was found, in JSON's terms, and the text after ", expected ".
fn split_got(rest: &str) -> Option<(String, &str)> {
    if let Some(quoted) = rest.strip_prefix("string ") {
        // A string may contain anything, ", expected " included; it is written with escapes.
        let end = closing_quote(quoted)?;
        let expected = quoted[end..].strip_prefix(", expected ")?;
        return Some((shorten(&quoted[..end]), expected));
    }
    let (got, expected) = rest.split_once(", expected ")?;
    let number = [
        "integer `",
        "floating point `",
        "boolean `",
        "character `",
        "number `",
    ]
    .iter()
    .find_map(|prefix| got.strip_prefix(prefix)?.strip_suffix('`'));
    let got = match (got, number) {
        (_, Some(number)) => number,
        ("sequence", _) => "an array",
        ("map", _) => "an object",
        ("null" | "unit value" | "Option value", _) => "null",
        ("byte array", _) => "bytes",
        (other, _) => other,
    };
    Some((got.to_owned(), expected))
}

/// The length of a quoted string with escapes, quotes included.
fn closing_quote(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in quoted.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn shorten(quoted: &str) -> String {
    match quoted.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…\"", &quoted[..end]),
        None => quoted.to_owned(),
    }
}

/// What serde expected, in JSON's terms. `out_of_range`: a number of the right type, but too small or too large.
fn expected_value(expected: &str, out_of_range: bool) -> String {
    let known = match expected {
        "a boolean" | "bool" => "`true` or `false`",
        "a string" | "a borrowed string" | "str" | "string" | "field identifier" | "variant identifier"
        | "identifier" => "a string",
        "a character" | "char" => "a string of one character",
        "unit" | "null" => "null",
        "a sequence" | "sequence" | "seq" | "a set" => "an array",
        "a map" | "map" => "an object",
        "a byte array" | "byte array" | "bytes" | "a borrowed byte array" => "an array of bytes",
        "string or map" => "a string or an object",
        "f32" | "f64" => "a number",
        "path string" => "a path",
        "option" | "any value" => "a value or null",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    if let Some(integer) = integer(expected, out_of_range) {
        return integer;
    }
    match expected.strip_prefix("a nonzero ") {
        Some(unsigned) if unsigned.starts_with('u') => return "a positive integer".to_owned(),
        Some(_) => return "an integer other than 0".to_owned(),
        None => {}
    }
    shape(expected).unwrap_or_else(|| expected.to_owned())
}

/// `u8`, `i64`, `usize` and their siblings.
fn integer(expected: &str, out_of_range: bool) -> Option<String> {
    let range = match expected {
        "u8" => Some((i64::from(u8::MIN), i64::from(u8::MAX))),
        "u16" => Some((i64::from(u16::MIN), i64::from(u16::MAX))),
        "u32" => Some((i64::from(u32::MIN), i64::from(u32::MAX))),
        "i8" => Some((i64::from(i8::MIN), i64::from(i8::MAX))),
        "i16" => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        "i32" => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        "i64" | "isize" => Some((i64::MIN, i64::MAX)),
        "u64" | "usize" | "u128" | "i128" => None,
        _ => return None,
    };
    Some(match range {
        Some((least, most)) if out_of_range => format!("an integer from {least} to {most}"),
        _ if expected.starts_with('u') => "a non-negative integer".to_owned(),
        _ => "an integer".to_owned(),
    })
}

/// The JSON form of a Rust type that is named by its kind: `struct Person`, `tuple struct Point with 2 elements`.
fn shape(expected: &str) -> Option<String> {
    let arrays = [
        "a tuple of size ",
        "an array of length ",
        "tuple struct ",
        "tuple variant ",
    ];
    if arrays.iter().any(|prefix| expected.starts_with(prefix)) {
        return Some(expected_length(expected));
    }
    if is_object(expected) {
        return Some("an object".to_owned());
    }
    if expected.starts_with("enum ") {
        return Some("a string or an object with one member".to_owned());
    }
    (expected.starts_with("unit struct ") || expected.starts_with("unit variant ")).then(|| "null".to_owned())
}

/// Whether what serde expected is an object in JSON.
fn is_object(expected: &str) -> bool {
    let objects = [
        "struct ",
        "struct variant ",
        "internally tagged enum ",
        "adjacently tagged enum ",
    ];
    objects.iter().any(|prefix| expected.starts_with(prefix))
}

/// What serde expected of a length: "a tuple of size 2", "tuple struct Point with 2 elements", "fewer elements in array".
fn expected_length(expected: &str) -> String {
    let number = expected
        .split([' ', ','])
        .find_map(|word| word.parse::<usize>().ok());
    match number {
        _ if expected.starts_with("fewer elements") => "fewer".to_owned(),
        Some(1) => "an array of 1 element".to_owned(),
        Some(number) => format!("an array of {number} elements"),
        None if expected.starts_with("tuple ") => "an array".to_owned(),
        None => expected.to_owned(),
    }
}

/// "unknown variant `x`, expected `a` or `b`", and the messages of enums that have no name for their variants.
fn reword_variant(message: &str) -> Option<String> {
    if message.starts_with("data did not match any variant of untagged enum ") {
        return Some("the value has none of the accepted forms".to_owned());
    }
    if message.starts_with("no variant of enum ") {
        return Some("expected exactly one of the alternative fields".to_owned());
    }
    let rest = message.strip_prefix("unknown variant `")?;
    let (got, expected) = match rest.rsplit_once("`, expected ") {
        Some(parts) => parts,
        None => (rest.strip_suffix("`, there are no variants")?, "no value at all"),
    };
    let got = shorten(&format!("{got:?}"));
    Some(format!("got {got}, expected {}", expected.replace('`', "\"")))
}

/// What `serde_json` says of a text that is not JSON, where it uses a parser's terms.
fn reword_syntax(message: &str) -> Option<&'static str> {
    Some(match message {
        "EOF while parsing a list" => "the document ends within an array",
        "EOF while parsing an object" => "the document ends within an object",
        "EOF while parsing a string" => "the document ends within a string",
        "EOF while parsing a value" => "the document ends where a value is expected",
        "expected ident" => "expected `true`, `false` or `null`",
        "expected value" => "expected a JSON value",
        "trailing characters" => "unexpected characters after the document",
        "key must be a string" => "expected a string as the name of a member",
        "recursion limit exceeded" => "the document is nested too deeply",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read into")]
    struct Person {
        name: String,
        age: u8,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read into")]
    struct Point(f32, f32);

    #[derive(Debug, Deserialize)]
    struct Nothing;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code, reason = "only read into")]
    enum Color {
        Red,
        Mixed(u8, u8),
        Named { name: String },
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind")]
    #[allow(dead_code, reason = "only read into")]
    enum Tagged {
        Circle { radius: f64 },
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only read into")]
    enum Either {
        Number(u8),
        List(Vec<u8>),
    }

    fn of<T: DeserializeOwned + std::fmt::Debug>(document: &str) -> String {
        message(&serde_json::from_str::<T>(document).expect_err(document))
    }

    #[test]
    fn mismatches_are_worded_in_the_terms_of_json() {
        for (worded, expected) in [
            (of::<Person>("[]"), "got an array, expected an object"),
            (of::<Person>("[\"Ada\"]"), "got an array, expected an object"),
            (
                of::<Color>(r#"{"named": []}"#),
                "got an array, expected an object",
            ),
            (of::<Person>("5"), "got 5, expected an object"),
            (of::<Person>("\"Ada\""), "got \"Ada\", expected an object"),
            (of::<Person>("null"), "got null, expected an object"),
            (of::<Person>("{}"), "missing field `name`"),
            (
                of::<Person>(r#"{"nam": 1}"#),
                "unknown field `nam`, expected `name` or `age`",
            ),
            (of::<usize>("-1"), "got -1, expected a non-negative integer"),
            (of::<usize>("1.5"), "got 1.5, expected a non-negative integer"),
            (of::<u8>("256"), "got 256, expected an integer from 0 to 255"),
            (of::<i32>("true"), "got true, expected an integer"),
            (of::<NonZeroU32>("0"), "got 0, expected a positive integer"),
            (of::<f32>("[1]"), "got an array, expected a number"),
            (of::<bool>("{}"), "got an object, expected `true` or `false`"),
            (
                of::<char>("\"ab\""),
                "got \"ab\", expected a string of one character",
            ),
            (of::<()>("1"), "got 1, expected null"),
            (of::<Nothing>("1"), "got 1, expected null"),
            (of::<Vec<u8>>("{}"), "got an object, expected an array"),
            (
                of::<BTreeMap<String, u8>>("[]"),
                "got an array, expected an object",
            ),
            (
                of::<(u8, u8)>("[1]"),
                "got 1 element, expected an array of 2 elements",
            ),
            (
                of::<[u8; 3]>("[]"),
                "got 0 elements, expected an array of 3 elements",
            ),
            (of::<Point>("{}"), "got an object, expected an array"),
            (
                of::<Point>("[1.0]"),
                "got 1 element, expected an array of 2 elements",
            ),
            (
                of::<Color>("\"blue\""),
                "got \"blue\", expected one of \"red\", \"mixed\", \"named\"",
            ),
            (
                of::<Color>(r#"{"mixed": {}}"#),
                "got an object, expected an array",
            ),
            (of::<Color>(r#"{"named": 1}"#), "got 1, expected an object"),
            (of::<Tagged>("5"), "got 5, expected an object"),
            (of::<Either>("true"), "the value has none of the accepted forms"),
        ] {
            assert_eq!(worded, expected);
        }
    }

    #[test]
    fn values_that_were_parsed_before_are_worded_alike() {
        let of_value = |value: serde_json::Value| {
            message(&serde_json::from_value::<Color>(value).expect_err("it is not a color"))
        };
        assert_eq!(
            of_value(serde_json::json!(5)),
            "got 5, expected a string or an object"
        );
        assert_eq!(
            of_value(serde_json::json!(null)),
            "got null, expected a string or an object"
        );
    }

    #[test]
    fn strings_of_clients_are_shortened_and_cannot_imitate_a_message() {
        let long = format!("\"{}\"", "x".repeat(500));
        let worded = of::<u8>(&long);
        assert!(worded.chars().count() < 120, "{worded}");
        assert_eq!(
            of::<u8>(r#"", expected u8\" and""#),
            r#"got ", expected u8\" and", expected a non-negative integer"#
        );
    }

    #[test]
    fn syntax_errors_have_no_terms_of_the_parser() {
        for (document, expected) in [
            ("", "the document ends where a value is expected"),
            ("[1", "the document ends within an array"),
            ("trux", "expected `true`, `false` or `null`"),
            ("[1] 2", "unexpected characters after the document"),
        ] {
            assert_eq!(of::<serde_json::Value>(document), expected, "{document}");
        }
        let error = serde_json::from_str::<Vec<u8>>("[1,\n \"a\"]").expect_err("a string among numbers");
        assert_eq!(
            message_with_position(&error),
            "got \"a\", expected a non-negative integer at line 2 column 4"
        );
    }

    #[test]
    fn what_authors_write_themselves_is_left_alone() {
        for own in [
            "expected a data URI such as `data:image/png;base64,…`",
            "not base64: invalid padding",
            "`name` is empty",
        ] {
            assert_eq!(reword(own), own);
        }
    }
}
