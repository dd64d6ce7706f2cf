//! WebP files. Checks that the chunks have the declared sizes, and leaves the rest to libwebp, which detects damage within a chunk.

#[expect(unsafe_code, reason = "libwebp has a C interface")]
mod libwebp;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};

use super::{Damage, corrupt, truncated};
use libwebp::Demuxer;

/// The first bytes of a file: a tag, the number of bytes that follow it, and the name of the format.
const HEADER_LENGTH: usize = "RIFF....WEBP".len();

/// A file whose chunks are valid.
pub(crate) struct WebP<'a> {
    file: &'a [u8],
    demuxer: Demuxer<'a>,
}

impl<'a> WebP<'a> {
    /// Checks the chunks of a file.
    ///
    /// # Errors
    /// The first damage found.
    pub(crate) fn open(file: &'a [u8]) -> Result<Self, Damage> {
        let file = content(file)?;
        match Demuxer::open(file) {
            Some(demuxer) => Ok(Self { file, demuxer }),
            None => corrupt(contradiction(file).unwrap_or_else(|| "its chunks are invalid".to_owned())),
        }
    }

    /// Returns the width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.demuxer.size()
    }

    /// Whether the file is an animation.
    pub(crate) fn is_animated(&self) -> bool {
        self.demuxer.is_animated()
    }

    /// Decodes a still image.
    ///
    /// # Errors
    /// The first damage found.
    pub(crate) fn decode(&self) -> Result<DynamicImage, Damage> {
        let Some(frame) = self.demuxer.frame() else {
            return corrupt("it has no image data");
        };
        let pixels = frame.decode()?;
        let image = if frame.has_alpha {
            RgbaImage::from_raw(frame.width, frame.height, pixels).map(DynamicImage::from)
        } else {
            RgbImage::from_raw(frame.width, frame.height, pixels).map(DynamicImage::from)
        };
        match image {
            Some(image) if (image.width(), image.height()) == self.size() => Ok(image),
            _ => corrupt("the image data has another size than its header declares"),
        }
    }

    /// Returns the orientation in the Exif metadata.
    pub(crate) fn orientation(&self) -> Orientation {
        let exif = chunks(self.file).find(|chunk| chunk.name == b"EXIF");
        exif.and_then(|chunk| Orientation::from_exif_chunk(chunk.data))
            .unwrap_or(Orientation::NoTransforms)
    }
}

/// A part of a file.
struct Chunk<'a> {
    name: &'a [u8; 4],
    data: &'a [u8],
}

/// The chunks of a file, up to the first one that is incomplete.
fn chunks(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = file.get(HEADER_LENGTH..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        rest = after.get(length.next_multiple_of(2)..).unwrap_or(&[]);
        let data = after.get(..length)?;
        Some(Chunk { name, data })
    })
}

/// The part of a file that its header declares, in which all chunks must be complete. What follows is not part of the image.
///
/// # Errors
/// The first damage found.
fn content(file: &[u8]) -> Result<&[u8], Damage> {
    let size = file.get(4..).and_then(|rest| rest.first_chunk());
    let size = size.map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let Some(content) = file.get(..size.saturating_add(8)) else {
        return truncated(format!("{} bytes are missing", size + 8 - file.len()));
    };
    let mut rest = content.get(HEADER_LENGTH..).unwrap_or(&[]);
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let [_, _, _, _, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > after.len() {
            let missing = length - after.len();
            return corrupt(format!(
                "a chunk exceeds the declared size of the file by {missing} bytes"
            ));
        }
        rest = after.get(length.next_multiple_of(2)..).unwrap_or(&[]);
    }
    Ok(content)
}

/// Describes that a lossy image has another size than its header declares, if so.
fn contradiction(file: &[u8]) -> Option<String> {
    let data = |name: &[u8; 4]| {
        chunks(file)
            .find(|chunk| chunk.name == name)
            .map(|chunk| chunk.data)
    };
    // Preceded by flags. Both are one less than the size.
    let [w0, w1, w2, h0, h1, h2] = *data(b"VP8X")?.get(4..)?.first_chunk()?;
    let declared = (
        u32::from_le_bytes([w0, w1, w2, 0]) + 1,
        u32::from_le_bytes([h0, h1, h2, 0]) + 1,
    );
    // Preceded by a frame tag and a signature of 3 bytes each. The highest two bits are a scale.
    let [w0, w1, h0, h1] = *data(b"VP8 ")?.get(6..)?.first_chunk()?;
    let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
    let found = (size(w0, w1), size(h0, h1));
    (found != declared).then(|| {
        format!(
            "its header declares {}×{} pixels, but its image data has {}×{}",
            declared.0, declared.1, found.0, found.1
        )
    })
}
