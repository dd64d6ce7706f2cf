//! Checks that a PNG file is complete, that the checksums of its chunks and of its image data match, and that its palette has whole
//! entries. The decoder checks the other contents of the chunks, but not the checksum of the image data.

use std::io::{self, ErrorKind, Read};

use flate2::read::ZlibDecoder;

use super::{Damage, corrupt, truncated};

/// Number of bytes before the first chunk.
const SIGNATURE_LENGTH: usize = 8;

/// Checks a file from its first chunk to the end chunk (`IEND`). The image data must have at most `max_size` bytes once it is
/// decompressed.
///
/// # Errors
/// The first damage found.
pub(crate) fn check(file: &[u8], max_size: u64) -> Result<(), Damage> {
    let mut data = Vec::new();
    let mut rest = file.get(SIGNATURE_LENGTH..).unwrap_or(&[]);
    loop {
        let Some((length, after)) = rest.split_first_chunk() else {
            return truncated("the end chunk is missing");
        };
        let length = u32::from_be_bytes(*length) as usize;
        let chunk = after.split_at_checked(length.saturating_add(4));
        let Some((chunk, (checksum, after))) =
            chunk.and_then(|(chunk, after)| Some((chunk, after.split_first_chunk()?)))
        else {
            return truncated("it ends within a chunk");
        };
        let name = chunk[..4].escape_ascii();
        if crc32fast::hash(chunk) != u32::from_be_bytes(*checksum) {
            return corrupt(format!("the checksum of chunk `{name}` does not match"));
        }
        if chunk.starts_with(b"PLTE") && !length.is_multiple_of(3) {
            return corrupt(format!(
                "the palette has {length} bytes, expected a multiple of 3"
            ));
        }
        if let Some(part) = chunk.strip_prefix(b"IDAT") {
            data.extend_from_slice(part);
        }
        if chunk.starts_with(b"IEND") {
            return check_data(&data, max_size);
        }
        rest = after;
    }
}

/// Decompresses the image data, which is one stream in all data chunks (`IDAT`), up to its checksum.
fn check_data(data: &[u8], max_size: u64) -> Result<(), Damage> {
    let mut decompressed = ZlibDecoder::new(data).take(max_size.saturating_add(1));
    match io::copy(&mut decompressed, &mut io::sink()) {
        Ok(size) if size <= max_size => Ok(()),
        Ok(_) => corrupt(format!("the image data has more than {max_size} bytes")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => truncated("the image data is incomplete"),
        Err(error) => corrupt(format!("the image data is invalid: {error}")),
    }
}
