//! What plugins share that take images from clients: opening files that may be broken, or made to do harm. What becomes of the
//! pixels is theirs. It is a library, not a plugin.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits};
use plugin_sdk::ItemError;

/// Media types of what can be read.
pub const MEDIA_TYPES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// Bytes that a decoder may take beside those for pixels, before the number of pixels is known as well.
const OVERHEAD: u64 = 16 << 20;

/// Decodes an image of at most `max_pixels` pixels. Its size is known, and refused, before any pixel is decoded; orientation
/// tags are not followed.
///
/// # Errors
/// The file is broken, of another format, animated, empty or too large.
pub fn decode(file: &[u8], max_pixels: u64) -> Result<DynamicImage, ItemError> {
    let source = Cursor::new(file);
    match image::guess_format(file) {
        Ok(ImageFormat::Png) => {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(OVERHEAD);
            let decoder = PngDecoder::with_limits(source, limits).map_err(unreadable)?;
            let animated = decoder.is_apng().map_err(unreadable)?;
            read(decoder, animated, max_pixels)
        }
        Ok(ImageFormat::Jpeg) => read(JpegDecoder::new(source).map_err(unreadable)?, false, max_pixels),
        Ok(ImageFormat::WebP) => {
            let decoder = WebPDecoder::new(source).map_err(unreadable)?;
            let said = decoder.dimensions();
            if let Some((width, height)) = lossy_size(file).filter(|found| *found != said) {
                return Err(unreadable(format_args!(
                    "its head says {}×{} pixels, its picture has {width}×{height}",
                    said.0, said.1
                )));
            }
            let animated = decoder.has_animation();
            read(decoder, animated, max_pixels)
        }
        _ => Err(ItemError::invalid(
            "image is in an unknown format, expected PNG, JPEG or WebP",
        )),
    }
}

/// Width and height of the picture in a lossy WebP. The decoder compares them with the head of the file as well, but only after
/// it has decoded a picture of any size.
fn lossy_size(file: &[u8]) -> Option<(u32, u32)> {
    let mut chunks = file.get("RIFF....WEBP".len()..)?;
    loop {
        let (name, rest) = chunks.split_first_chunk::<4>()?;
        let (length, data) = rest.split_first_chunk::<4>()?;
        if name == b"VP8 " {
            // After a tag of 3 bytes and a signature of 3.
            let [width, more_width, height, more_height] = *data.get(6..)?.first_chunk::<4>()?;
            let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
            return Some((size(width, more_width), size(height, more_height)));
        }
        let length = u32::from_le_bytes(*length) as usize;
        chunks = data.get(length.next_multiple_of(2)..)?;
    }
}

fn read(mut decoder: impl ImageDecoder, animated: bool, max_pixels: u64) -> Result<DynamicImage, ItemError> {
    if animated {
        return Err(ItemError::invalid("image is animated, expected a single picture"));
    }
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        return Err(ItemError::invalid(format_args!(
            "image has {width}×{height} = {pixels} pixels, expected at most {max_pixels}"
        )));
    }
    if pixels == 0 {
        return Err(ItemError::invalid(format_args!(
            "image has {width}×{height} pixels, expected at least one"
        )));
    }
    // 8 bytes is the largest pixel (16-bit RGBA), and as much again serves the decoder to work.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixels.saturating_mul(16).saturating_add(OVERHEAD));
    decoder.set_limits(limits).map_err(unreadable)?;
    DynamicImage::from_decoder(decoder).map_err(unreadable)
}

fn unreadable(error: impl Display) -> ItemError {
    ItemError::invalid(format_args!("image cannot be read: {error}"))
}

/// The media type of an image, by its first bytes; `None` if it is in no known format.
pub fn media_type(file: &[u8]) -> Option<&'static str> {
    image::guess_format(file).ok().map(|format| format.to_mime_type())
}

/// A black PNG of that size, for an example; `None` if it cannot be written.
pub fn black_png(width: u32, height: u32) -> Option<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    DynamicImage::new_luma8(width, height)
        .write_to(&mut file, ImageFormat::Png)
        .ok()?;
    Some(file.into_inner())
}
