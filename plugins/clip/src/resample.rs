//! Bicubic resizing, bit-exact with Pillow 13: one direction after the other, in fixed point with 22 fractional bits, rounded to
//! integer levels in between. Only the cropped region is computed, so the cost does not depend on the aspect ratio.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

/// Number of fractional bits: 32, less 8 for a level and 2 for sums that overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// One half in fixed point, for rounding.
const HALF: i32 = 1 << (PRECISION - 1);

/// Red, green, blue and padding, so that a pixel fills a SIMD register.
pub(crate) type Pixel = [i32; 4];

/// Resizing of one side (the rows or the columns) of an image.
pub(crate) struct Side {
    taps: Vec<Tap>,
    /// Source rows or columns that all taps use.
    source: Range<usize>,
    /// Number of rows or columns by which the image shrinks. Negative if it grows.
    shrinkage: isize,
}

/// The source rows or columns of one target row or column.
struct Tap {
    /// First row or column of the source.
    start: usize,
    /// Weights of this and the following rows or columns, in fixed point. They add up to 1.
    weights: Vec<i32>,
}

impl Side {
    /// Resizes `source` rows or columns to `target`, of which only those in `crop` are computed.
    pub(crate) fn new(source: usize, target: usize, crop: Range<usize>) -> Self {
        let taps: Vec<_> = crop.map(|index| Tap::new(source, target, index)).collect();
        let start = taps.iter().map(|tap| tap.start).min().unwrap_or(0);
        let end = taps.iter().map(|tap| tap.start + tap.weights.len()).max();
        Self {
            taps,
            source: start..end.unwrap_or(0),
            shrinkage: source as isize - target as isize,
        }
    }

    /// Whether this side, the rows, is resized before the columns. Pillow does so if the rows shrink much more than the columns.
    /// The order affects the result, because levels are rounded in between.
    fn precedes(&self, columns: &Self) -> bool {
        self.shrinkage > 0 && self.shrinkage > 2 * columns.shrinkage
    }

    /// Resizes the columns of one row.
    fn resize_row(&self, source: &[Pixel], out: &mut [u8]) {
        ResizeRow {
            columns: self,
            source,
            out,
        }
        .dispatch();
    }

    /// Resizes the rows of an image with `width` levels per row.
    fn resize_rows(&self, source: &[u8], width: usize) -> Vec<u8> {
        let mut out = vec![0; self.taps.len() * width];
        ResizeRows {
            rows: self,
            source,
            out: &mut out,
        }
        .dispatch();
        out
    }
}

impl Tap {
    fn new(source: usize, target: usize, index: usize) -> Self {
        const SUPPORT: f64 = 2.0;
        // Pillow uses single precision for sizes.
        let scale = f64::from(source as f32) / target as f64;
        // If the image shrinks, the kernel is stretched over the source pixels of a target pixel.
        let stretch = scale.max(1.0);
        let center = (index as f64 + 0.5) * scale;
        // The casts truncate and saturate at 0.
        let start = (center - SUPPORT * stretch + 0.5) as usize;
        let end = ((center + SUPPORT * stretch + 0.5) as usize).min(source);
        // Multiplying by the inverse rounds differently than dividing.
        let inverse = 1.0 / stretch;
        let weights = (start..end).map(|place| bicubic((place as f64 - center + 0.5) * inverse));
        let weights: Vec<_> = weights.collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let scaled = weight / sum * f64::from(1 << PRECISION);
            // Round half away from zero.
            (scaled + 0.5_f64.copysign(scaled)) as i32
        };
        Self {
            start,
            weights: weights.into_iter().map(fixed).collect(),
        }
    }
}

/// The bicubic kernel of Keys (1981) with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Resizes an image. Returns the RGB levels of the cropped region, row by row. `read_row` writes the pixels of a row of the source
/// in a range of columns.
pub(crate) fn resize(
    columns: &Side,
    rows: &Side,
    mut read_row: impl FnMut(usize, Range<usize>, &mut [Pixel]),
) -> Vec<u8> {
    let mut pixels = vec![[0; 4]; columns.source.len()];
    let width = columns.taps.len() * 3;
    if !rows.precedes(columns) {
        let mut intermediate = vec![0; rows.source.len() * width];
        for (row, out) in rows.source.clone().zip(intermediate.chunks_exact_mut(width)) {
            read_row(row, columns.source.clone(), &mut pixels);
            columns.resize_row(&pixels, out);
        }
        return rows.resize_rows(&intermediate, width);
    }
    let mut source = Vec::with_capacity(rows.source.len() * pixels.len() * 3);
    for row in rows.source.clone() {
        read_row(row, columns.source.clone(), &mut pixels);
        let levels = pixels.iter().flat_map(|[colors @ .., _]| colors);
        source.extend(levels.map(|level| *level as u8));
    }
    let rows_resized = rows.resize_rows(&source, pixels.len() * 3);
    let mut resized = vec![0; rows.taps.len() * width];
    for (row, out) in rows_resized
        .chunks_exact(pixels.len() * 3)
        .zip(resized.chunks_exact_mut(width))
    {
        let (colors, _) = row.as_chunks::<3>();
        for (pixel, [red, green, blue]) in pixels.iter_mut().zip(colors) {
            *pixel = [*red, *green, *blue, 0].map(i32::from);
        }
        columns.resize_row(&pixels, out);
    }
    resized
}

/// Resizes the columns of one row. As a `SimdOp`, it is compiled for the processor's vector instructions.
struct ResizeRow<'a> {
    columns: &'a Side,
    source: &'a [Pixel],
    out: &'a mut [u8],
}

impl SimdOp for ResizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let (pixels, _) = self.out.as_chunks_mut::<3>();
        for (tap, out) in self.columns.taps.iter().zip(pixels) {
            let from = &self.source[tap.start - self.columns.source.start..];
            let mut sums = [HALF; 4];
            for (pixel, weight) in from.iter().zip(&tap.weights) {
                for (sum, level) in sums.iter_mut().zip(pixel) {
                    *sum += level * weight;
                }
            }
            *out = [level(sums[0]), level(sums[1]), level(sums[2])];
        }
    }
}

/// Resizes the rows of an image.
struct ResizeRows<'a> {
    rows: &'a Side,
    source: &'a [u8],
    out: &'a mut [u8],
}

impl SimdOp for ResizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let width = self.out.len() / self.rows.taps.len();
        let mut sums = vec![0; width];
        for (tap, out) in self.rows.taps.iter().zip(self.out.chunks_exact_mut(width)) {
            sums.fill(HALF);
            let from = &self.source[(tap.start - self.rows.source.start) * width..];
            for (row, weight) in from.chunks_exact(width).zip(&tap.weights) {
                for (sum, level) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*level) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = level(*sum);
            }
        }
    }
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
