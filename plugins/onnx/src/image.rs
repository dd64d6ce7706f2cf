//! From the bytes of an image to the numbers of a tensor: resize, invert, scale. It knows nothing of models.
//!
//! Transparent pixels are blended with white.

use image::DynamicImage;
use pictures::Decoding;
use plugin_sdk::{ItemError, LoadError};

use crate::settings::{Channels, ImageSettings, Invert, Layout, Resize};

/// Reads images of any size into tensors of one shape.
#[derive(Debug)]
pub(crate) struct Eye {
    width: usize,
    height: usize,
    channels: Channels,
    layout: Layout,
    resize: Resize,
    invert: Invert,
    decoding: Decoding,
    /// For each channel, `number = grey level × factor + offset`.
    factor: [f32; 3],
    offset: [f32; 3],
}

impl Eye {
    /// `shape` is that of one item; `None` where any size will do. `key` is the setting to blame.
    pub(crate) fn new(
        settings: &ImageSettings,
        shape: &[Option<usize>],
        key: &str,
    ) -> Result<Self, LoadError> {
        let (width, height, channels) = (settings.width.get(), settings.height.get(), settings.channels);
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
        let mut eye = Self {
            width,
            height,
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
        eye.layout = eye.find_layout(settings.layout, shape, key)?;
        Ok(eye)
    }

    /// Shapes that a tensor of this layout may have.
    fn shapes(&self, layout: Layout) -> Vec<Vec<usize>> {
        let (width, height, channels) = (self.width, self.height, self.channels.count());
        let mut shapes = vec![match layout {
            Layout::Nchw => vec![channels, height, width],
            Layout::Nhwc => vec![height, width, channels],
            Layout::Flat => vec![channels * height * width],
        }];
        // A grey image has no order of channels: many models leave out that dimension.
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
        let fits = |layout: &Layout| self.shapes(*layout).iter().any(|given| fits(given, shape));
        layouts.iter().copied().find(fits).ok_or_else(|| {
            let mut given: Vec<String> = Vec::new();
            for shape in layouts.iter().flat_map(|layout| self.shapes(*layout)) {
                let shape = format!("{shape:?}");
                if !given.contains(&shape) {
                    given.push(shape);
                }
            }
            let taken: Vec<_> = shape
                .iter()
                .map(|size| size.map_or("any".to_owned(), |size| size.to_string()))
                .collect();
            let (width, height) = (self.width, self.height);
            let channels = match self.channels {
                Channels::Grey => "grey",
                Channels::Rgb => "rgb",
                Channels::Bgr => "bgr",
            };
            LoadError::setting(
                key,
                format_args!(
                    "{channels} images of {width}×{height} give {}, expected what the input takes: [{}]",
                    given.join(" or "),
                    taken.join(", ")
                ),
            )
        })
    }

    /// The shape of the tensor, which must fit `shape`.
    pub(crate) fn shape(&self, shape: &[Option<usize>]) -> Vec<usize> {
        let mut shapes = self.shapes(self.layout);
        let index = shapes.iter().position(|given| fits(given, shape)).unwrap_or(0);
        shapes.swap_remove(index)
    }

    /// A black PNG that has the size already, for an example; `None` if it cannot be written.
    pub(crate) fn plain(&self) -> Option<Vec<u8>> {
        pictures::black_png(self.width.try_into().ok()?, self.height.try_into().ok()?)
    }

    /// Reads one image.
    pub(crate) fn read(&self, data: &[u8]) -> Result<Vec<f32>, ItemError> {
        let image = Pixels::of(pictures::decode(data, &self.decoding)?);
        let mut pixels = self.resized(&image);
        if self.inverts(&pixels) {
            pixels.iter_mut().for_each(|level| *level = 255.0 - *level);
        }
        Ok(self.arranged(&pixels))
    }

    /// Grey levels of 0 to 255, row by row, the channels of a pixel side by side. The source is gone through once, row by
    /// row, so that a large image costs no memory beyond its own.
    fn resized(&self, image: &Pixels) -> Vec<f32> {
        let depth = self.channels.count();
        let columns = taps(image.width, self.width, self.resize);
        let rows = taps(image.height, self.height, self.resize);
        let mut source = vec![0.0; image.width * depth];
        let mut narrow = vec![0.0; self.width * depth];
        let mut resized = vec![0.0; self.height * self.width * depth];
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
            for (tap, out) in rows.iter().zip(resized.chunks_exact_mut(self.width * depth)) {
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

    fn inverts(&self, pixels: &[f32]) -> bool {
        match self.invert {
            Invert::Never => false,
            Invert::Always => true,
            Invert::Auto => {
                let depth = self.channels.count();
                let outermost = pixels.chunks_exact(depth).enumerate().filter(|(index, _)| {
                    let (x, y) = (index % self.width, index / self.width);
                    x == 0 || y == 0 || x == self.width - 1 || y == self.height - 1
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

fn fits(given: &[usize], shape: &[Option<usize>]) -> bool {
    given.len() == shape.len()
        && given
            .iter()
            .zip(shape)
            .all(|(given, size)| size.is_none_or(|size| size == *given))
}

/// A decoded image of 8 bits a sample.
struct Pixels {
    width: usize,
    height: usize,
    /// Samples of a pixel: grey, grey and alpha, RGB, or RGBA.
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
            let (colour, alpha) = match *pixel {
                [grey] => ([grey; 3], 255),
                [grey, alpha] => ([grey; 3], alpha),
                [red, green, blue] => ([red, green, blue], 255),
                [red, green, blue, alpha, ..] => ([red, green, blue], alpha),
                [] => ([255; 3], 255),
            };
            let opacity = f32::from(alpha) / 255.0;
            let seen = colour.map(|level| f32::from(level) * opacity + 255.0 * (1.0 - opacity));
            match out {
                [grey] => *grey = 0.299 * seen[0] + 0.587 * seen[1] + 0.114 * seen[2],
                colour => {
                    colour.copy_from_slice(&seen);
                    if channels == Channels::Bgr {
                        colour.reverse();
                    }
                }
            }
        }
    }
}

/// What one target row or column is made of.
struct Tap {
    start: usize,
    /// Of the rows or columns from `start` on; they add up to 1.
    weights: Vec<f32>,
}

fn taps(source: usize, target: usize, resize: Resize) -> Vec<Tap> {
    let ratio = source as f64 / target as f64;
    let tap = |index: usize| {
        let (low, high, centre, reach);
        match resize {
            Resize::Area => {
                (low, high) = (index as f64 * ratio, (index + 1) as f64 * ratio);
                (centre, reach) = (0.0, 1.0);
            }
            Resize::Bilinear => {
                // Where the image shrinks, the triangle is as wide as what it covers.
                (centre, reach) = ((index as f64 + 0.5) * ratio, ratio.max(1.0));
                (low, high) = (centre - reach, centre + reach);
            }
        }
        let start = (low.floor().max(0.0) as usize).min(source - 1);
        let end = (high.ceil() as usize).clamp(start + 1, source);
        let weight = |place: usize| match resize {
            Resize::Area => (high.min(place as f64 + 1.0) - low.max(place as f64)).max(0.0),
            Resize::Bilinear => (1.0 - (place as f64 + 0.5 - centre).abs() / reach).max(0.0),
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
