//! Decoding of images that clients send. The files can be damaged, oversized or malicious. Converting pixels to tensors is up to
//! the plugins that use this library.

mod jpeg;
mod png;
mod webp;

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits};
use plugin_sdk::{ItemError, contain};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::jpeg::{Jpeg, UnusualJpeg};
use crate::webp::WebP;

/// Media types of the formats that can be decoded.
pub const MEDIA_TYPES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// Number of bytes that a decoder can allocate in addition to those for pixels, and before the number of pixels is known.
const OVERHEAD: u64 = 16 << 20;

/// Options of [`decode`].
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// Maximum number of pixels.
    pub max_pixels: u64,
    /// Whether truncated files are decoded.
    pub truncated_images: TruncatedImages,
    /// Whether the orientation in the file's metadata is applied.
    pub orientation: Orientation,
}

/// How truncated JPEG files are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TruncatedImages {
    /// Reject them, like other damaged files.
    #[default]
    Reject,
    /// Decode the available part and fill in the rest.
    Accept,
}

/// How the orientation in an image's Exif metadata is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// Use the pixels as stored.
    #[default]
    Ignore,
    /// Rotate and mirror the image so that it is upright.
    Apply,
}

/// Reason for rejecting a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Damage {
    /// It ends early, or parts of the image are missing.
    Truncated(String),
    /// It contains invalid data.
    Corrupt(String),
    /// It uses a feature of its format that the decoder does not support.
    Unsupported(String),
}

impl Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(message) => write!(formatter, "the file is truncated: {message}"),
            Self::Corrupt(message) => write!(formatter, "the file is corrupt: {message}"),
            Self::Unsupported(message) => write!(formatter, "the file is not supported: {message}"),
        }
    }
}

fn truncated<T>(message: impl Into<String>) -> Result<T, Damage> {
    Err(Damage::Truncated(message.into()))
}

fn corrupt<T>(message: impl Into<String>) -> Result<T, Damage> {
    Err(Damage::Corrupt(message.into()))
}

/// Decodes an image. The size of the image is checked before pixels are decoded.
///
/// Files are checked for damage first, because the decoders fill in missing data and skip invalid data, and would turn a
/// damaged file into a plausible image.
///
/// # Errors
/// The file is damaged, or it is animated, empty, too large, or in an unknown format.
pub fn decode(file: &[u8], decoding: &Decoding) -> Result<DynamicImage, ItemError> {
    let source = Cursor::new(file);
    match image::guess_format(file) {
        Ok(ImageFormat::Png) => {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(OVERHEAD);
            let decoder = PngDecoder::with_limits(source, limits).map_err(unreadable)?;
            check_still(decoder.is_apng().map_err(unreadable)?)?;
            let pixels = check_size(decoder.dimensions(), decoding.max_pixels)?;
            png::check(file, max_allocation(pixels)).map_err(unreadable)?;
            read(decoder, decoding)
        }
        Ok(ImageFormat::Jpeg) => decode_jpeg(file, decoding),
        Ok(ImageFormat::WebP) => {
            let webp = WebP::open(file).map_err(unreadable)?;
            check_still(webp.is_animated())?;
            check_size(webp.size(), decoding.max_pixels)?;
            let mut image = webp.decode().map_err(unreadable)?;
            if decoding.orientation == Orientation::Apply {
                image.apply_orientation(webp.orientation());
            }
            Ok(image)
        }
        _ => Err(ItemError::invalid(
            "image is in an unknown format, expected PNG, JPEG or WebP",
        )),
    }
}

fn decode_jpeg(file: &[u8], decoding: &Decoding) -> Result<DynamicImage, ItemError> {
    let mut jpeg = Jpeg::open(file).map_err(unreadable)?;
    check_size(jpeg.size(), decoding.max_pixels)?;
    let mut file = Cow::Borrowed(file);
    match jpeg.check() {
        Err(Damage::Truncated(_)) if decoding.truncated_images == TruncatedImages::Accept => {
            file = Cow::Owned(jpeg.repaired());
        }
        checked => checked.map_err(unreadable)?,
    }
    if jpeg.is_usual() {
        read(JpegDecoder::new(Cursor::new(file)).map_err(unreadable)?, decoding)
    } else {
        read(UnusualJpeg::new(&file).map_err(unreadable)?, decoding)
    }
}

/// Decodes an image whose header has been read.
fn read(mut decoder: impl ImageDecoder, decoding: &Decoding) -> Result<DynamicImage, ItemError> {
    let pixels = check_size(decoder.dimensions(), decoding.max_pixels)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_allocation(pixels));
    decoder.set_limits(limits).map_err(unreadable)?;
    let orientation = match decoding.orientation {
        Orientation::Apply => decoder.orientation().map_err(unreadable)?,
        Orientation::Ignore => image::metadata::Orientation::NoTransforms,
    };
    let decoded = contain(|| DynamicImage::from_decoder(decoder));
    let panicked = |message| unreadable(format_args!("the decoder panicked: {message}"));
    let mut image = decoded.map_err(panicked)?.map_err(unreadable)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Number of bytes that a decoder can allocate for an image of that many pixels. The largest pixel (16-bit RGBA) has 8 bytes, and
/// decoders need the same amount for intermediate results.
fn max_allocation(pixels: u64) -> u64 {
    pixels.saturating_mul(16).saturating_add(OVERHEAD)
}

fn check_still(animated: bool) -> Result<(), ItemError> {
    if animated {
        return Err(ItemError::invalid("image is animated, expected a still image"));
    }
    Ok(())
}

/// Checks the size of an image and returns its number of pixels.
fn check_size((width, height): (u32, u32), max_pixels: u64) -> Result<u64, ItemError> {
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
    Ok(pixels)
}

fn unreadable(error: impl Display) -> ItemError {
    // Some messages of decoders contain line breaks.
    let message: Vec<_> = error
        .to_string()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    ItemError::invalid(format_args!("cannot decode the image: {}", message.join(" ")))
}

/// Detects the media type of an image from its first bytes. `None` if the format is unknown.
pub fn media_type(file: &[u8]) -> Option<&'static str> {
    image::guess_format(file).ok().map(|format| format.to_mime_type())
}

/// Creates a black PNG of this size, for examples. `None` if encoding fails.
pub fn black_png(width: u32, height: u32) -> Option<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    DynamicImage::new_luma8(width, height)
        .write_to(&mut file, ImageFormat::Png)
        .ok()?;
    Some(file.into_inner())
}
