//! Bicubic resizing as Pillow 13 does it, to the bit: one direction after the other, in fixed point with 22 bits after the point,
//! and rounded to whole levels in between. Only what is kept of the result is computed, so the shape of an image does not decide
//! what it costs. It knows nothing of image files.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

/// Bits after the point: what 32 leave beside 8 of a level and 2 for sums that overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// A half, for rounding.
const HALF: i32 = 1 << (PRECISION - 1);

/// Red, green, blue, and nothing, so that a pixel fills a register.
pub(crate) type Pixel = [i32; 4];

/// How one side of an image is resized.
pub(crate) struct Side {
    taps: Vec<Tap>,
    /// What of the source they are made of, in all.
    source: Range<usize>,
    /// How many rows or columns the image loses; fewer than 0 where it grows.
    lost: isize,
}

/// What one target row or column is made of.
struct Tap {
    /// The first row or column of the source.
    start: usize,
    /// Of that and the following, in fixed point; they add up to 1.
    weights: Vec<i32>,
}

impl Side {
    /// Resizes `source` rows or columns to `target`, of which those in `kept` are computed.
    pub(crate) fn new(source: usize, target: usize, kept: Range<usize>) -> Self {
        let taps: Vec<_> = kept.map(|index| Tap::new(source, target, index)).collect();
        let start = taps.iter().map(|tap| tap.start).min().unwrap_or(0);
        let end = taps.iter().map(|tap| tap.start + tap.weights.len()).max();
        Self {
            taps,
            source: start..end.unwrap_or(0),
            lost: source as isize - target as isize,
        }
    }

    /// Whether this side, which is made of rows, is resized before that of columns, as Pillow does where far more rows than
    /// columns are lost. The order shows, since levels are rounded in between.
    fn goes_before(&self, columns: &Self) -> bool {
        self.lost > 0 && self.lost > 2 * columns.lost
    }

    /// Resizes one row.
    fn narrow(&self, source: &[Pixel], out: &mut [u8]) {
        Narrow {
            columns: self,
            source,
            out,
        }
        .dispatch();
    }

    /// Resizes all columns of an image whose rows have `width` levels.
    fn flatten(&self, source: &[u8], width: usize) -> Vec<u8> {
        let mut out = vec![0; self.taps.len() * width];
        Flatten {
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
        // Pillow takes sizes in single precision.
        let scale = f64::from(source as f32) / target as f64;
        // Where the image shrinks, the curve is stretched over what it covers.
        let stretch = scale.max(1.0);
        let centre = (index as f64 + 0.5) * scale;
        // The casts cut off what is behind the point, and what is below 0.
        let start = (centre - SUPPORT * stretch + 0.5) as usize;
        let end = ((centre + SUPPORT * stretch + 0.5) as usize).min(source);
        // To multiply with the inverse rounds otherwise than to divide.
        let inverse = 1.0 / stretch;
        let weights = (start..end).map(|place| bicubic((place as f64 - centre + 0.5) * inverse));
        let weights: Vec<_> = weights.collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let scaled = weight / sum * f64::from(1 << PRECISION);
            // Halves are rounded away from 0.
            (scaled + 0.5_f64.copysign(scaled)) as i32
        };
        Self {
            start,
            weights: weights.into_iter().map(fixed).collect(),
        }
    }
}

/// The curve of Keys (1981) with a = -0.5.
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

/// Resizes an image, and gives the RGB of what is kept of it, row by row. `read_row` writes those pixels of a row of the source
/// that are in a range of columns.
pub(crate) fn resize(
    columns: &Side,
    rows: &Side,
    mut read_row: impl FnMut(usize, Range<usize>, &mut [Pixel]),
) -> Vec<u8> {
    let mut pixels = vec![[0; 4]; columns.source.len()];
    let width = columns.taps.len() * 3;
    if !rows.goes_before(columns) {
        let mut narrow = vec![0; rows.source.len() * width];
        for (row, out) in rows.source.clone().zip(narrow.chunks_exact_mut(width)) {
            read_row(row, columns.source.clone(), &mut pixels);
            columns.narrow(&pixels, out);
        }
        return rows.flatten(&narrow, width);
    }
    let mut source = Vec::with_capacity(rows.source.len() * pixels.len() * 3);
    for row in rows.source.clone() {
        read_row(row, columns.source.clone(), &mut pixels);
        let levels = pixels.iter().flat_map(|[colours @ .., _]| colours);
        source.extend(levels.map(|level| *level as u8));
    }
    let flat = rows.flatten(&source, pixels.len() * 3);
    let mut resized = vec![0; rows.taps.len() * width];
    for (row, out) in flat
        .chunks_exact(pixels.len() * 3)
        .zip(resized.chunks_exact_mut(width))
    {
        let (colours, _) = row.as_chunks::<3>();
        for (pixel, [red, green, blue]) in pixels.iter_mut().zip(colours) {
            *pixel = [*red, *green, *blue, 0].map(i32::from);
        }
        columns.narrow(&pixels, out);
    }
    resized
}

/// Resizes one row. As an operation of `rten_simd` it is compiled for the processor's vector instructions.
struct Narrow<'a> {
    columns: &'a Side,
    source: &'a [Pixel],
    out: &'a mut [u8],
}

impl SimdOp for Narrow<'_> {
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

/// Resizes all columns at once.
struct Flatten<'a> {
    rows: &'a Side,
    source: &'a [u8],
    out: &'a mut [u8],
}

impl SimdOp for Flatten<'_> {
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
