//! Checks that a WebP file is complete: that its chunks have the declared sizes. The decoder detects damage within a chunk.

use super::{Damage, corrupt, truncated};

/// Checks the chunks of a file.
///
/// # Errors
/// The first damage found.
pub(crate) fn check(file: &[u8]) -> Result<(), Damage> {
    let size = file.get(4..).and_then(|rest| rest.first_chunk());
    let size = size.map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let Some(mut chunks) = file.get(12..).filter(|_| file.len() - 8 >= size) else {
        let missing = (size + 8).saturating_sub(file.len());
        return truncated(format!("{missing} bytes are missing"));
    };
    // Bytes beyond the declared size are not part of the image.
    chunks = &chunks[..size.saturating_sub(4)];
    while let Some((header, rest)) = chunks.split_first_chunk::<8>() {
        let [_, _, _, _, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > rest.len() {
            let missing = length - rest.len();
            return corrupt(format!(
                "a chunk exceeds the declared size of the file by {missing} bytes"
            ));
        }
        chunks = rest.get(length.next_multiple_of(2)..).unwrap_or(&[]);
    }
    Ok(())
}

/// Returns the width and height of the image data in a lossy WebP. The decoder also compares them with the header of the file,
/// but only after it has decoded an image of any size.
pub(crate) fn lossy_size(file: &[u8]) -> Option<(u32, u32)> {
    let mut chunks = file.get("RIFF....WEBP".len()..)?;
    loop {
        let (name, rest) = chunks.split_first_chunk::<4>()?;
        let (length, data) = rest.split_first_chunk::<4>()?;
        if name == b"VP8 " {
            // Preceded by a frame tag and a signature of 3 bytes each.
            let [width, more_width, height, more_height] = *data.get(6..)?.first_chunk::<4>()?;
            let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
            return Some((size(width, more_width), size(height, more_height)));
        }
        let length = u32::from_le_bytes(*length) as usize;
        chunks = data.get(length.next_multiple_of(2)..)?;
    }
}
