//! Converts the bytes of an image to the values of a tensor: resizes, inverts, pads and scales. `fit` determines the sizes. Does
//! not deal with models.
//!
//! Transparent pixels are blended with white.

use image::DynamicImage;
use pictures::Decoding;
use plugin_sdk::{ItemError, LoadError};

use crate::answers::boxes::Frame;
use crate::fit::{Canvas, Placement};
use crate::settings::{Channels, ImageSettings, Invert, Layout, Resize};

/// Converts images of any size to tensors.
#[derive(Debug)]
pub(crate) struct ImagePreprocessor {
    canvas: Canvas,
    /// Grey level of the padding.
    fill: f32,
    channels: Channels,
    layout: Layout,
    resize: Resize,
    invert: Invert,
    decoding: Decoding,
    /// For each channel, `value = grey level × factor + offset`.
    factor: [f32; 3],
    offset: [f32; 3],
}

impl ImagePreprocessor {
    /// `shape` is the shape of one item, with `None` for dimensions that accept any size. Errors are reported for the setting
    /// `key`.
    pub(crate) fn new(
        settings: &ImageSettings,
        shape: &[Option<usize>],
        key: &str,
    ) -> Result<Self, LoadError> {
        let channels = settings.channels;
        let canvas = Canvas::new(settings)
            .map_err(|(name, problem)| LoadError::setting(format_args!("{key}.{name}"), problem))?;
        let fill = settings.fill.unwrap_or(0.0);
        if !(0.0..=255.0).contains(&fill) {
            let message = format!("{fill}, expected a number from 0 to 255");
            return Err(LoadError::setting(format_args!("{key}.fill"), message));
        }
        let [black, white] = settings.scale;
        if !(black.is_finite() && white.is_finite()) || black == white {
            let message = format!("[{black}, {white}], expected two different numbers");
            return Err(LoadError::setting(format_args!("{key}.scale"), message));
        }
        let mean = per_channel(settings.mean.as_deref(), 0.0, channels, key, "mean")?;
        let std = per_channel(settings.std.as_deref(), 1.0, channels, key, "std")?;
        if std.contains(&0.0) {
            let message = "0 cannot be divided by, expected other numbers";
            return Err(LoadError::setting(format_args!("{key}.std"), message));
        }
        let mut preprocessor = Self {
            canvas,
            fill,
            channels,
            layout: Layout::Flat,
            resize: settings.resize,
            invert: settings.invert,
            decoding: Decoding {
                max_pixels: settings.max_pixels,
                truncated_images: settings.truncated_images,
                orientation: settings.orientation,
            },
            factor: [0, 1, 2].map(|channel| (white - black) / 255.0 / std[channel]),
            offset: [0, 1, 2].map(|channel| (black - mean[channel]) / std[channel]),
        };
        preprocessor.layout = preprocessor.find_layout(settings.layout, shape, key)?;
        Ok(preprocessor)
    }

    /// Possible tensor shapes for an image of the given size. `None` stands for a width that depends on the image.
    fn shapes(&self, layout: Layout, [width, height]: [Option<usize>; 2]) -> Vec<Vec<Option<usize>>> {
        let channels = Some(self.channels.count());
        let flat = width
            .zip(height)
            .map(|(width, height)| width * height * self.channels.count());
        let mut shapes = vec![match layout {
            Layout::Nchw => vec![channels, height, width],
            Layout::Nhwc => vec![height, width, channels],
            Layout::Flat => vec![flat],
        }];
        // Grey images have a single channel: many models omit the channel dimension.
        if self.channels == Channels::Grey && layout != Layout::Flat {
            shapes.push(vec![height, width]);
        }
        shapes
    }

    fn find_layout(
        &self,
        wanted: Option<Layout>,
        shape: &[Option<usize>],
        key: &str,
    ) -> Result<Layout, LoadError> {
        let layouts = match wanted {
            Some(layout) => vec![layout],
            None => vec![Layout::Nchw, Layout::Nhwc, Layout::Flat],
        };
        let size = self.canvas.size();
        let fits = |layout: &Layout| self.shapes(*layout, size).iter().any(|given| fits(given, shape));
        layouts.iter().copied().find(fits).ok_or_else(|| {
            let mut given: Vec<String> = Vec::new();
            for shape in layouts.iter().flat_map(|layout| self.shapes(*layout, size)) {
                let shape = sizes_text(&shape);
                if !given.contains(&shape) {
                    given.push(shape);
                }
            }
            let [width, height] = size.map(|size| size.map_or("any".to_owned(), |size| size.to_string()));
            let channels = match self.channels {
                Channels::Grey => "grey",
                Channels::Rgb => "rgb",
                Channels::Bgr => "bgr",
            };
            LoadError::setting(
                key,
                format_args!(
                    "{channels} images of {width}×{height} give {}, expected what the input takes: {}",
                    given.join(" or "),
                    sizes_text(shape)
                ),
            )
        })
    }

    /// Width and height of the input, if they are the same for all images.
    pub(crate) fn size(&self) -> Option<[usize; 2]> {
        let [width, height] = self.canvas.size();
        width.zip(height).map(<[usize; 2]>::from)
    }

    /// The shape of the tensor for an image of size `image`, for an input of the shape `shape`.
    ///
    /// # Errors
    /// The image is too wide.
    pub(crate) fn shape(&self, image: [usize; 2], shape: &[Option<usize>]) -> Result<Vec<usize>, ItemError> {
        let placement = self.canvas.place(image).map_err(ItemError::invalid)?;
        Ok(self.shape_of(&placement, shape))
    }

    /// The position of an image of size `image` within the input.
    pub(crate) fn frame(&self, image: [usize; 2]) -> Result<Frame, ItemError> {
        let placement = self.canvas.place(image).map_err(ItemError::invalid)?;
        Ok(placement.frame(image))
    }

    fn shape_of(&self, placement: &Placement, shape: &[Option<usize>]) -> Vec<usize> {
        let shapes = self.shapes(self.layout, placement.canvas.map(Some));
        let fitting = shapes.iter().find(|given| fits(given, shape));
        fitting
            .or(shapes.first())
            .into_iter()
            .flatten()
            .copied()
            .flatten()
            .collect()
    }

    /// A black PNG that becomes a tensor of a typical size, for use as an example; `None` if it cannot be encoded.
    pub(crate) fn plain(&self) -> Option<Vec<u8>> {
        let [width, height] = self.plain_size();
        pictures::black_png(width.try_into().ok()?, height.try_into().ok()?)
    }

    /// The size of the image that [`plain`](Self::plain) returns.
    pub(crate) fn plain_size(&self) -> [usize; 2] {
        let [width, height] = self.canvas.size();
        let height = height.unwrap_or(1);
        // If the width is not fixed, choose the proportions of a short line of text.
        [width.unwrap_or(6 * height), height]
    }

    /// Decodes an image and converts it to a tensor for an input of the shape `shape`.
    pub(crate) fn read(&self, data: &[u8], shape: &[Option<usize>]) -> Result<Picture, ItemError> {
        let image = Pixels::of(pictures::decode(data, &self.decoding)?);
        let original = [image.width, image.height];
        let placement = self.canvas.place(original).map_err(ItemError::invalid)?;
        let mut pixels = self.resized(&image, placement.resized);
        if self.inverts(&pixels, placement.resized) {
            pixels.iter_mut().for_each(|level| *level = 255.0 - *level);
        }
        Ok(Picture {
            shape: self.shape_of(&placement, shape),
            values: self.arranged(&self.padded(pixels, &placement)),
            frame: placement.frame(original),
        })
    }

    /// Resizes the image. Returns levels from 0 to 255 in row-major order, with the channels of a pixel interleaved. The source
    /// is read once, row by row, to avoid a full-size floating-point copy of a large image.
    fn resized(&self, image: &Pixels, [width, height]: [usize; 2]) -> Vec<f32> {
        let depth = self.channels.count();
        let columns = taps(image.width, width, self.resize);
        let rows = taps(image.height, height, self.resize);
        let mut source = vec![0.0; image.width * depth];
        let mut narrow = vec![0.0; width * depth];
        let mut resized = vec![0.0; height * width * depth];
        for y in 0..image.height {
            image.read_row(y, self.channels, &mut source);
            for (tap, out) in columns.iter().zip(narrow.chunks_exact_mut(depth)) {
                out.fill(0.0);
                let from = source[tap.start * depth..].chunks_exact(depth);
                for (pixel, weight) in from.zip(&tap.weights) {
                    out.iter_mut()
                        .zip(pixel)
                        .for_each(|(sum, level)| *sum += level * weight);
                }
            }
            for (tap, out) in rows.iter().zip(resized.chunks_exact_mut(width * depth)) {
                let weight = y.checked_sub(tap.start).and_then(|index| tap.weights.get(index));
                if let Some(weight) = weight {
                    out.iter_mut()
                        .zip(&narrow)
                        .for_each(|(sum, level)| *sum += level * weight);
                }
            }
        }
        resized
    }

    /// Places the image within the input and fills the rest with the padding level.
    fn padded(&self, pixels: Vec<f32>, placement: &Placement) -> Vec<f32> {
        if placement.canvas == placement.resized {
            return pixels;
        }
        let depth = self.channels.count();
        let [[width, height], [left, top]] = [placement.canvas, placement.offset];
        let mut canvas = vec![self.fill; width * height * depth];
        let from = pixels.chunks_exact(placement.resized[0] * depth);
        for (from, to) in from.zip(canvas.chunks_exact_mut(width * depth).skip(top)) {
            to[left * depth..][..from.len()].copy_from_slice(from);
        }
        canvas
    }

    fn inverts(&self, pixels: &[f32], [width, height]: [usize; 2]) -> bool {
        match self.invert {
            Invert::Never => false,
            Invert::Always => true,
            Invert::Auto => {
                let depth = self.channels.count();
                let outermost = pixels.chunks_exact(depth).enumerate().filter(|(index, _)| {
                    let (x, y) = (index % width, index / width);
                    x == 0 || y == 0 || x == width - 1 || y == height - 1
                });
                let (mut sum, mut count) = (0.0, 0);
                for level in outermost.flat_map(|(_, pixel)| pixel) {
                    sum += level;
                    count += 1;
                }
                sum / count as f32 > 127.5
            }
        }
    }

    fn arranged(&self, pixels: &[f32]) -> Vec<f32> {
        let depth = self.channels.count();
        let scaled = |channel: usize| {
            let levels = pixels.iter().skip(channel).step_by(depth);
            levels.map(move |level| level * self.factor[channel] + self.offset[channel])
        };
        if self.layout == Layout::Nchw {
            return (0..depth).flat_map(scaled).collect();
        }
        let scale =
            |(index, level): (usize, &f32)| level * self.factor[index % depth] + self.offset[index % depth];
        pixels.iter().enumerate().map(scale).collect()
    }
}

fn per_channel(
    written: Option<&[f32]>,
    otherwise: f32,
    channels: Channels,
    key: &str,
    name: &str,
) -> Result<[f32; 3], LoadError> {
    let values = written.unwrap_or(&[]);
    match (values, channels) {
        _ if !values.iter().all(|value| value.is_finite()) => {}
        ([], _) if written.is_none() => return Ok([otherwise; 3]),
        ([all], _) => return Ok([*all; 3]),
        ([first, second, third], Channels::Rgb | Channels::Bgr) => return Ok([*first, *second, *third]),
        _ => {}
    }
    let expected = match channels {
        Channels::Grey => "one number",
        Channels::Rgb | Channels::Bgr => "one number or three",
    };
    Err(LoadError::setting(
        format_args!("{key}.{name}"),
        format_args!("{values:?}, expected {expected}"),
    ))
}

fn fits(given: &[Option<usize>], shape: &[Option<usize>]) -> bool {
    given.len() == shape.len()
        && given
            .iter()
            .zip(shape)
            .all(|(given, size)| size.is_none() || size == given)
}

/// Formats a shape for messages, such as `[3, 48, any]`.
fn sizes_text(shape: &[Option<usize>]) -> String {
    let size = |size: &Option<usize>| size.map_or("any".to_owned(), |size| size.to_string());
    let sizes: Vec<_> = shape.iter().map(size).collect();
    format!("[{}]", sizes.join(", "))
}

/// An image converted to a tensor.
pub(crate) struct Picture {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
    /// Position of the original image within the tensor.
    pub(crate) frame: Frame,
}

/// A decoded image with 8 bits per sample.
struct Pixels {
    width: usize,
    height: usize,
    /// Samples per pixel: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    samples: usize,
    data: Vec<u8>,
}

impl Pixels {
    fn of(image: DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (samples, data) = match image {
            DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
            DynamicImage::ImageLumaA8(image) => (2, image.into_raw()),
            DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
            other => (4, other.into_rgba8().into_raw()),
        };
        Self {
            width,
            height,
            samples,
            data,
        }
    }

    fn read_row(&self, y: usize, channels: Channels, row: &mut [f32]) {
        let length = self.width * self.samples;
        let source = self.data[y * length..][..length].chunks_exact(self.samples);
        for (pixel, out) in source.zip(row.chunks_exact_mut(channels.count())) {
            let (color, alpha) = match *pixel {
                [grey] => ([grey; 3], 255),
                [grey, alpha] => ([grey; 3], alpha),
                [red, green, blue] => ([red, green, blue], 255),
                [red, green, blue, alpha, ..] => ([red, green, blue], alpha),
                [] => ([255; 3], 255),
            };
            let opacity = f32::from(alpha) / 255.0;
            let seen = color.map(|level| f32::from(level) * opacity + 255.0 * (1.0 - opacity));
            match out {
                [grey] => *grey = 0.299 * seen[0] + 0.587 * seen[1] + 0.114 * seen[2],
                color => {
                    color.copy_from_slice(&seen);
                    if channels == Channels::Bgr {
                        color.reverse();
                    }
                }
            }
        }
    }
}

/// The source rows or columns that contribute to one target row or column.
struct Tap {
    start: usize,
    /// Weights of the rows or columns from `start` on. They sum to 1.
    weights: Vec<f32>,
}

fn taps(source: usize, target: usize, resize: Resize) -> Vec<Tap> {
    let ratio = source as f64 / target as f64;
    let tap = |index: usize| {
        let (low, high, center, reach);
        match resize {
            Resize::Area => {
                (low, high) = (index as f64 * ratio, (index + 1) as f64 * ratio);
                (center, reach) = (0.0, 1.0);
            }
            Resize::Linear => {
                (center, reach) = ((index as f64 + 0.5) * ratio, 1.0);
                (low, high) = (center - reach, center + reach);
            }
            Resize::Bilinear => {
                // When downscaling, the triangle filter widens to cover all source pixels of a target pixel.
                (center, reach) = ((index as f64 + 0.5) * ratio, ratio.max(1.0));
                (low, high) = (center - reach, center + reach);
            }
        }
        let start = (low.floor().max(0.0) as usize).min(source - 1);
        let end = (high.ceil() as usize).clamp(start + 1, source);
        let weight = |place: usize| match resize {
            Resize::Area => (high.min(place as f64 + 1.0) - low.max(place as f64)).max(0.0),
            Resize::Bilinear | Resize::Linear => (1.0 - (place as f64 + 0.5 - center).abs() / reach).max(0.0),
        };
        let weights: Vec<_> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Tap {
            start,
            weights: weights.iter().map(|weight| (weight / sum) as f32).collect(),
        }
    };
    (0..target).map(tap).collect()
}
