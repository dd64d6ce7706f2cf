//! Checks that a PNG file is complete, that the checksums of its chunks match, and that its palette has whole entries. The decoder
//! checks the other contents of the chunks.

use super::{Damage, corrupt, truncated};

/// Number of bytes before the first chunk.
const SIGNATURE_LENGTH: usize = 8;

/// Checks a file from its first chunk to the end chunk (`IEND`).
///
/// # Errors
/// The first damage found.
pub(crate) fn check(file: &[u8]) -> Result<(), Damage> {
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
        if chunk.starts_with(b"IEND") {
            return Ok(());
        }
        rest = after;
    }
}
