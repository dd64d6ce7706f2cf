//! From the file of an image to the pixels that the network sees, to the bit as transformers does it with Pillow: seen on white
//! where it is transparent, resized, and the middle of it kept.

use std::ops::Range;

use image::{DynamicImage, GenericImageView, Rgba};
use pictures::Decoding;
use plugin_sdk::ItemError;

use crate::resample::{Pixel, Side, resize};

/// Reads images of any size into pixels of one size.
#[derive(Clone, Debug)]
pub(crate) struct ImageReader {
    pub(crate) target: Target,
    /// Width and height of what is kept.
    pub(crate) side: usize,
    pub(crate) decoding: Decoding,
}

/// What size an image is given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The shorter edge becomes that long, and the longer one keeps its proportion.
    ShortestEdge(usize),
    /// Width and height.
    Exact(usize, usize),
}

/// An image as the network sees it: RGB, row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels(pub(crate) Vec<u8>);

impl Target {
    /// Width and height of an image that had these.
    fn of(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Exact(width, height) => (width, height),
            Self::ShortestEdge(edge) if width <= height => (edge, edge * height / width),
            Self::ShortestEdge(edge) => (edge * width / height, edge),
        }
    }
}

impl ImageReader {
    /// Reads one image.
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

/// Writes pixels of a row of an image, as Pillow converts them to RGB.
fn read_pixels(image: &DynamicImage, row: usize, columns: Range<usize>, out: &mut [Pixel]) {
    let start = row * image.width() as usize + columns.start;
    // Pillow reads 16 bits as its 8 higher ones, but where they are grey without alpha, which it cuts off at 255.
    let high = |sample: u16| (sample >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(image) => copy(image, start, out, |[grey]| [grey; 3]),
        DynamicImage::ImageLumaA8(image) => {
            copy(image, start, out, |[grey, alpha]| on_white([grey; 3], alpha));
        }
        DynamicImage::ImageRgb8(image) => copy(image, start, out, |colour| colour),
        DynamicImage::ImageRgba8(image) => {
            copy(image, start, out, |[red, green, blue, alpha]| {
                on_white([red, green, blue], alpha)
            });
        }
        DynamicImage::ImageLuma16(image) => {
            copy(image, start, out, |[grey]| [grey.min(255) as u8; 3]);
        }
        DynamicImage::ImageLumaA16(image) => {
            copy(image, start, out, |[grey, alpha]| {
                on_white([high(grey); 3], high(alpha))
            });
        }
        DynamicImage::ImageRgb16(image) => copy(image, start, out, |colour| colour.map(high)),
        DynamicImage::ImageRgba16(image) => {
            copy(image, start, out, |[red, green, blue, alpha]| {
                on_white([red, green, blue].map(high), high(alpha))
            });
        }
        // No format that is read has others.
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
    seen: impl Fn([S; N]) -> [u8; 3],
) {
    let (pixels, _) = samples.as_chunks::<N>();
    for (pixel, out) in pixels[start..].iter().zip(out) {
        let [red, green, blue] = seen(*pixel).map(i32::from);
        *out = [red, green, blue, 0];
    }
}

/// What is seen of a colour on white, rounded as Pillow's `alpha_composite` does: with 7 bits after the point, and 255 divided
/// by in shifts.
pub(crate) fn on_white(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    colour.map(|level| {
        let sum = (u32::from(level) * alpha + 255 * (255 - alpha) + 128) << 7;
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    })
}
