//! Messages of serde and `serde_json` errors in JSON terms, for users who do not know the Rust types.
//!
//! serde describes what it expected by its Rust type: "invalid type: sequence, expected struct Person". A client that sends
//! JSON needs "got an array, expected an object". The SDK uses this module for errors in items, parameters and settings, and
//! the server uses it for errors in request bodies. It is not part of the binary interface.

use serde_json::Error;

/// Maximum number of characters of a client's string that a message quotes.
const MAX_QUOTED: usize = 60;

/// Returns the message of `error` in JSON terms, without its position. For a document that is only a part of the client's
/// body, since its lines and columns differ from those of the body.
///
/// ```
/// let error = serde_json::from_str::<Vec<usize>>("[1, \"x\"]").expect_err("a string among numbers");
/// assert_eq!(plugin_abi::json_error::message(&error), "got \"x\", expected a non-negative integer");
/// ```
pub fn message(error: &Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    rewrite(text.strip_suffix(&position).unwrap_or(&text))
}

/// Returns the message of `error` in JSON terms, with its line and column if known. For a complete document.
pub fn message_with_position(error: &Error) -> String {
    let message = message(error);
    match error.line() {
        0 => message,
        line => format!("{message} at line {line} column {}", error.column()),
    }
}

/// Rewrites one message of serde, as [`message`] does. Messages that serde's derives do not produce are returned unchanged.
pub fn rewrite(message: &str) -> String {
    rewrite_mismatch(message)
        .or_else(|| rewrite_variant(message))
        .or_else(|| rewrite_syntax(message).map(str::to_owned))
        .unwrap_or_else(|| message.to_owned())
}

/// Rewrites "invalid type: A, expected B", "invalid value: A, expected B" and "invalid length N, expected B".
fn rewrite_mismatch(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("invalid length ") {
        let (length, expected) = rest.split_once(", expected ")?;
        // serde also accepts an array for a struct, because some formats use it. In JSON, a struct is an object.
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

/// Returns what was found, in JSON terms, and the text after ", expected ".
fn split_got(rest: &str) -> Option<(String, &str)> {
    if let Some(quoted) = rest.strip_prefix("string ") {
        // The string is escaped and can contain anything, including ", expected ".
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

/// Returns the length of a quoted and escaped string, including the quotes.
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

/// Translates what serde expected into JSON terms. `out_of_range` means that the number has the right type, but is too small
/// or too large.
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

/// Describes the integer type `expected`, such as `u8` or `usize`.
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
        Some((min, max)) if out_of_range => format!("an integer from {min} to {max}"),
        _ if expected.starts_with('u') => "a non-negative integer".to_owned(),
        _ => "an integer".to_owned(),
    })
}

/// Describes the JSON form of a Rust type that serde names with its kind, such as `struct Person` or
/// `tuple struct Point with 2 elements`.
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

/// Whether the expected Rust type is an object in JSON.
fn is_object(expected: &str) -> bool {
    let objects = [
        "struct ",
        "struct variant ",
        "internally tagged enum ",
        "adjacently tagged enum ",
    ];
    objects.iter().any(|prefix| expected.starts_with(prefix))
}

/// Describes the length that serde expected: "a tuple of size 2", "tuple struct Point with 2 elements", "fewer elements in
/// array".
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

/// Rewrites "unknown variant `x`, expected `a` or `b`", and the messages of untagged enums.
fn rewrite_variant(message: &str) -> Option<String> {
    if message.starts_with("data did not match any variant of untagged enum ") {
        return Some("the value matches none of the accepted forms".to_owned());
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

/// Rewrites syntax errors of `serde_json` that use the parser's terms.
fn rewrite_syntax(message: &str) -> Option<&'static str> {
    Some(match message {
        "EOF while parsing a list" => "the document ends within an array",
        "EOF while parsing an object" => "the document ends within an object",
        "EOF while parsing a string" => "the document ends within a string",
        "EOF while parsing a value" => "the document ends where a value is expected",
        "expected ident" => "expected `true`, `false` or `null`",
        "expected value" => "expected a JSON value",
        "trailing characters" => "unexpected characters after the document",
        "key must be a string" => "expected a string as the name of an object member",
        "recursion limit exceeded" => "the document is nested too deeply",
        "invalid escape" => "invalid escape in a string",
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "an escape in a string is one half of a surrogate pair"
        }
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a control character in a string is not escaped"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
