//! The text of the configuration file: converts byte offsets to lines and columns, and quotes lines in errors, except lines
//! that may contain a secret.

use std::ops::Range;
use std::sync::Arc;

use super::error::{ConfigError, Location, Origin};
use super::secret_lines::secret_lines;

/// Longer lines, such as one with a list of labels, are not quoted.
const MAX_QUOTED_LINE: usize = 160;

/// The configuration file.
pub(super) struct Document<'a> {
    file: Arc<str>,
    text: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    /// Whether each line may contain a secret.
    secret: Vec<bool>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &str, text: &'a str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            file: file.into(),
            text,
            lines,
            secret: secret_lines(text),
        }
    }

    /// A file whose lines are never quoted.
    pub(super) fn without_excerpts(file: &str, text: &'a str) -> Self {
        let document = Self::new(file, text);
        Self {
            secret: vec![true; document.lines.len()],
            ..document
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Line and column of a byte offset.
    pub(super) fn locate(&self, at: usize) -> Location {
        let (line, start) = self.line_at(at);
        let before = self.text.get(start..at).unwrap_or("");
        Location {
            file: Arc::clone(&self.file),
            line: line + 1,
            column: before.chars().count() + 1,
        }
    }

    /// An error about the text in `span`.
    pub(super) fn error(&self, span: &Range<usize>, message: String, hint: Option<String>) -> ConfigError {
        ConfigError {
            origin: Origin::File(self.locate(span.start)),
            message,
            hint,
            excerpt: self.excerpt(span),
        }
    }

    /// Quotes the line at `origin`. `None` if that is not in the file.
    pub(super) fn line_of(&self, origin: &Origin) -> Option<String> {
        let Origin::File(location) = origin else {
            return None;
        };
        let start = *self.lines.get(location.line.checked_sub(1)?)?;
        let line = self.text.get(start..)?.lines().next()?;
        let (at, _) = line.char_indices().nth(location.column.checked_sub(1)?)?;
        self.excerpt(&(start + at..start + line.trim_end().len()))
    }

    /// Whether the line at this byte offset may contain a secret and must not be quoted.
    pub(super) fn is_secret(&self, at: usize) -> bool {
        self.secret.get(self.line_at(at).0).copied().unwrap_or(true)
    }

    fn line_at(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at).saturating_sub(1);
        (line, self.lines.get(line).copied().unwrap_or(0))
    }

    fn excerpt(&self, span: &Range<usize>) -> Option<String> {
        let (index, start) = self.line_at(span.start);
        let line = self.text.get(start..)?.lines().next()?;
        if line.trim().is_empty() || line.len() > MAX_QUOTED_LINE || self.is_secret(span.start) {
            return None;
        }
        let before = line.get(..span.start - start)?;
        let marked = line
            .get(span.start - start..(span.end - start).min(line.len()))
            .unwrap_or("");
        let number = (index + 1).to_string();
        // Tabs are kept, so that the mark is in the right column for any width of tabs.
        let indent: String = before
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let mark = "^".repeat(marked.chars().count().max(1));
        let gutter = " ".repeat(number.len());
        Some(format!("    {number} | {line}\n    {gutter} | {indent}{mark}"))
    }
}
