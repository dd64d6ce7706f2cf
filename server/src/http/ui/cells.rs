//! The parts of a page that change: pieces of HTML, each with the id of its element.
//!
//! A page is rendered with its cells, and the stream of its events sends the cells that have changed since.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped};

/// Maximum size of a cell with its id in bytes, as JSON, so that each fits into an event next to a point of the charts.
pub(super) const MAX_CELL: usize = 620;

/// The cells of a page, by id.
#[derive(Debug, Default)]
pub(super) struct Cells(BTreeMap<String, String>);

impl Cells {
    /// Adds a cell with a plain text.
    pub(super) fn text(&mut self, id: impl Into<String>, text: &str) {
        let escaped = maud::html! { (text) };
        self.html(id, escaped);
    }

    /// Adds a cell, which must have at most [`MAX_CELL`] bytes.
    pub(super) fn html(&mut self, id: impl Into<String>, html: Markup) {
        self.0.insert(id.into(), html.into_string());
    }

    /// The content of the cell, for the page.
    pub(super) fn get(&self, id: &str) -> Markup {
        PreEscaped(self.0.get(id).cloned().unwrap_or_default())
    }

    /// All cells.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(id, html)| (id.as_str(), html.as_str()))
    }
}

/// Maximum size of a message in a cell, in bytes.
pub(super) const MAX_MESSAGE: usize = 280;

/// Shortens a text that is to be part of a cell to at most `max` bytes, as it is written there.
pub(super) fn shortened(text: &str, max: usize) -> String {
    if escaped_size(text) <= max {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut size = "…".len();
    for character in text.chars() {
        size += escaped_size(character.encode_utf8(&mut [0; 4]));
        if size > max {
            break;
        }
        short.push(character);
    }
    short.push('…');
    short
}

/// A text in which names between backquotes are set as code.
pub(super) fn with_code(text: &str) -> Markup {
    maud::html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Size of a text in HTML, and then in a string of JSON.
fn escaped_size(text: &str) -> usize {
    let size = |character: char| match character {
        '"' | '&' | '<' | '>' => 6,
        '\\' => 2,
        // An element at every second one.
        '`' => "</code>".len(),
        character if character < ' ' => 6,
        character => character.len_utf8(),
    };
    text.chars().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shortened_by_its_size_in_an_event() {
        assert_eq!(shortened("short & sweet", 360), "short & sweet");
        for text in [
            "a".repeat(5000),
            "&".repeat(5000),
            "ü".repeat(5000),
            "\n".repeat(5000),
        ] {
            let short = shortened(&text, 360);
            assert!(short.ends_with('…') && escaped_size(&short) <= 360, "{short}");
            assert!(escaped_size(&short) > 340, "{}", escaped_size(&short));
        }
    }

    #[test]
    fn names_between_backquotes_are_code() {
        let html = with_code("`a` & `b`: c").into_string();
        assert_eq!(html, "<code>a</code> &amp; <code>b</code>: c");
    }

    #[test]
    fn text_is_escaped() {
        let mut cells = Cells::default();
        cells.text("a", "<b>");
        assert_eq!(cells.get("a").into_string(), "&lt;b&gt;");
    }
}
