//! Preprocessing of image files: blending with white, resizing and center cropping. Bit-exact with transformers and Pillow.

use std::ops::Range;

use image::{DynamicImage, GenericImageView, Rgba};
use pictures::Decoding;
use plugin_sdk::ItemError;

use crate::resample::{Pixel, Side, resize};

/// Decodes images and converts them to one size.
#[derive(Clone, Debug)]
pub(crate) struct ImageReader {
    pub(crate) target: Target,
    /// Width and height after cropping.
    pub(crate) side: usize,
    pub(crate) decoding: Decoding,
}

/// Size of an image after resizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Length of the shorter edge. The aspect ratio is preserved.
    ShortestEdge(usize),
    /// Width and height.
    Exact(usize, usize),
}

/// A preprocessed image: RGB, row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels(pub(crate) Vec<u8>);

impl Target {
    /// Returns the width and height after resizing.
    fn of(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Exact(width, height) => (width, height),
            Self::ShortestEdge(edge) if width <= height => (edge, edge * height / width),
            Self::ShortestEdge(edge) => (edge * width / height, edge),
        }
    }
}

impl ImageReader {
    /// Reads an image file.
    pub(crate) fn read(&self, file: &[u8]) -> Result<Pixels, ItemError> {
        let image = pictures::decode(file, &self.decoding)?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (wide, high) = self.target.of(width, height);
        let middle = |length: usize| (length - self.side) / 2..(length - self.side) / 2 + self.side;
        let columns = Side::new(width, wide, middle(wide));
        let rows = Side::new(height, high, middle(high));
        let read_row = |row, columns, out: &mut [_]| read_pixels(&image, row, columns, out);
        Ok(Pixels(resize(&columns, &rows, read_row)))
    }
}

/// Writes a range of pixels of a row, converted to RGB like Pillow does.
fn read_pixels(image: &DynamicImage, row: usize, columns: Range<usize>, out: &mut [Pixel]) {
    let start = row * image.width() as usize + columns.start;
    // Pillow uses the upper 8 of 16 bits, except for gray without alpha, which it clips at 255.
    let high = |sample: u16| (sample >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(image) => copy(image, start, out, |[gray]| [gray; 3]),
        DynamicImage::ImageLumaA8(image) => {
            copy(image, start, out, |[gray, alpha]| on_white([gray; 3], alpha));
        }
        DynamicImage::ImageRgb8(image) => copy(image, start, out, |color| color),
        DynamicImage::ImageRgba8(image) => {
            copy(image, start, out, |[red, green, blue, alpha]| {
                on_white([red, green, blue], alpha)
            });
        }
        DynamicImage::ImageLuma16(image) => {
            copy(image, start, out, |[gray]| [gray.min(255) as u8; 3]);
        }
        DynamicImage::ImageLumaA16(image) => {
            copy(image, start, out, |[gray, alpha]| {
                on_white([high(gray); 3], high(alpha))
            });
        }
        DynamicImage::ImageRgb16(image) => copy(image, start, out, |color| color.map(high)),
        DynamicImage::ImageRgba16(image) => {
            copy(image, start, out, |[red, green, blue, alpha]| {
                on_white([red, green, blue].map(high), high(alpha))
            });
        }
        // The supported formats have no other pixel types.
        image => {
            for (column, out) in columns.zip(out) {
                let Rgba([red, green, blue, alpha]) = image.get_pixel(column as u32, row as u32);
                copy(
                    &[red, green, blue, alpha],
                    0,
                    std::slice::from_mut(out),
                    |[red, green, blue, alpha]| on_white([red, green, blue], alpha),
                );
            }
        }
    }
}

fn copy<S: Copy, const N: usize>(
    samples: &[S],
    start: usize,
    out: &mut [Pixel],
    convert: impl Fn([S; N]) -> [u8; 3],
) {
    let (pixels, _) = samples.as_chunks::<N>();
    for (pixel, out) in pixels[start..].iter().zip(out) {
        let [red, green, blue] = convert(*pixel).map(i32::from);
        *out = [red, green, blue, 0];
    }
}

/// Blends a color with white. Rounds like Pillow's `alpha_composite`: with 7 fractional bits, and a division by 255 that
/// consists of shifts.
pub(crate) fn on_white(color: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    color.map(|level| {
        let sum = (u32::from(level) * alpha + 255 * (255 - alpha) + 128) << 7;
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    })
}
