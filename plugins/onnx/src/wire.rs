//! Checks the encoding of an ONNX file before anything is read into memory: the file must be complete, and the nesting of its
//! messages limited. A parser trusts the lengths in a file, so a damaged file could make it reserve any amount of memory.
//!
//! An ONNX file is a Protocol Buffers message; see <https://protobuf.dev/programming-guides/encoding/>. Weights are skipped, not
//! read.

use std::io::{self, BufRead, Seek};

/// Maximum nesting depth of messages, as in other Protocol Buffers parsers. Each subgraph adds three levels.
const MAX_DEPTH: usize = 100;

/// Maximum number of bytes of a variable-length integer.
const MAX_VARINT_BYTES: usize = 10;

/// The types of messages that are checked. Those that contain no other messages share one variant.
#[derive(Clone, Copy, Debug)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    SequenceType,
    Shape,
    /// A message that contains no other messages.
    Leaf,
}

impl Message {
    /// The type of the message in a field; `None` if the field does not hold a message or its content is not checked.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 8 | 14) | (Self::Tensor, 13) | (Self::Shape, 1) => Self::Leaf,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::ValueInfo,
            (Self::Node, 5) => Self::Attribute,
            (Self::Attribute, 6) => Self::Graph,
            (Self::ValueInfo, 2) | (Self::SequenceType, 1) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::Type, 4) => Self::SequenceType,
            (Self::TensorType, 2) => Self::Shape,
            _ => return None,
        })
    }
}

/// Checks a file of `length` bytes.
///
/// # Errors
/// The message is a clause about the file.
pub(crate) fn check(file: impl BufRead + Seek, length: u64) -> Result<(), String> {
    let mut reader = Reader { file, position: 0 };
    // The enclosing messages, outermost first, each with the position of its end.
    let mut open = vec![(Message::Model, length)];
    while let Some(&(message, end)) = open.last() {
        if reader.position == end {
            open.pop();
            continue;
        }
        let key = reader.varint(end)?;
        let size = match key & 7 {
            0 => {
                reader.varint(end)?;
                continue;
            }
            1 => 8,
            2 => reader.varint(end)?,
            5 => 4,
            other => return Err(format!("a field has the unknown wire type {other}")),
        };
        let after = reader.position.checked_add(size).filter(|after| *after <= end);
        let Some(after) = after else {
            return Err(reader.incomplete(end == length));
        };
        match message.field(key >> 3).filter(|_| key & 7 == 2) {
            Some(inner) if open.len() < MAX_DEPTH => open.push((inner, after)),
            Some(_) => return Err(format!("its messages are nested more than {MAX_DEPTH} deep")),
            None => reader.skip(size)?,
        }
    }
    Ok(())
}

struct Reader<F> {
    file: F,
    position: u64,
}

impl<F: BufRead + Seek> Reader<F> {
    /// Reads an integer, which must not extend beyond `end`.
    fn varint(&mut self, end: u64) -> Result<u64, String> {
        let mut value = 0;
        for index in 0..MAX_VARINT_BYTES {
            if self.position >= end {
                return Err(self.incomplete(false));
            }
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("there is no valid integer before byte {}", self.position))
    }

    fn byte(&mut self) -> Result<u8, String> {
        let buffer = self.file.fill_buf().map_err(|error| error.to_string())?;
        let Some(byte) = buffer.first().copied() else {
            return Err(self.incomplete(true));
        };
        self.file.consume(1);
        self.position += 1;
        Ok(byte)
    }

    /// Skips `size` bytes. The caller must have checked that they are within the file.
    fn skip(&mut self, size: u64) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let offset = i64::try_from(size).map_err(|_| self.incomplete(true))?;
        self.file.seek_relative(offset).map_err(failed)?;
        self.position += size;
        Ok(())
    }

    fn incomplete(&self, file: bool) -> String {
        let what = if file { "the file" } else { "a message" };
        format!("{what} ends within a field at byte {}", self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::check;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        check(Cursor::new(bytes), bytes.len() as u64)
    }

    fn network() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kinds/transformer.onnx");
        std::fs::read(path).expect("a network")
    }

    #[test]
    fn a_whole_file_is_accepted() {
        assert_eq!(checked(&network()), Ok(()));
    }

    #[test]
    fn a_file_that_ends_early_is_rejected() {
        let network = network();
        let graph_ends = (1..network.len()).filter(|length| checked(&network[..*length]).is_ok());
        // A truncated file is indistinguishable from a complete one only if it ends between fields of the outermost message.
        assert!(graph_ends.count() < 16);
        let error = checked(&network[..network.len() / 2]).expect_err("half a file");
        assert!(error.contains("ends within a field"), "{error}");
    }

    #[test]
    fn a_length_beyond_the_message_around_it_is_rejected() {
        // A graph of 8 bytes with a name of 2^40 bytes.
        let bytes = [0x3a, 8, 0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0];
        assert!(checked(&bytes).is_err());
        // A producer name of 2^40 bytes in the model itself.
        assert!(checked(&[0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0]).is_err());
    }

    #[test]
    fn messages_that_are_nested_too_deep_are_rejected() {
        let wrapped = |field: u8, inner: Vec<u8>| {
            let mut bytes = vec![field << 3 | 2];
            let mut length = inner.len();
            while length >= 0x80 {
                bytes.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(inner);
            bytes
        };
        let nested = |levels: usize| {
            // Graphs nested in attributes of nodes.
            let graph = (0..levels).fold(Vec::new(), |graph, _| wrapped(1, wrapped(5, wrapped(6, graph))));
            wrapped(7, graph)
        };
        assert_eq!(checked(&nested(30)), Ok(()));
        let error = checked(&nested(40)).expect_err("deep");
        assert!(error.contains("nested more than 100 deep"), "{error}");
    }
}
