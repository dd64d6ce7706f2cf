//! Shapes of the results of convolution, pooling, resizing and grid sampling.

use super::fact::{Bounds, Fact};
use super::infer::Site;
use super::shapes::Shape;

/// Shape of the result of a convolution or pooling, with bounds for the spatial dimensions.
pub(super) fn window(site: &Site<'_>) -> Option<Shape> {
    let rank = site
        .rank(0)
        .or(site.rank(1).filter(|_| site.operator.starts_with("Conv")))?;
    let mut shape = match site.shape(0) {
        Some(shape) => shape.clone(),
        None => vec![Bounds::SIZE; rank],
    };
    for (index, dim) in shape.iter_mut().enumerate().skip(2) {
        *dim = match site.operator {
            "GlobalAveragePool" | "GlobalMaxPool" => Bounds::exactly(1),
            "ConvTranspose" => Bounds::SIZE,
            _ => smaller(site, index - 2, *dim),
        };
    }
    let weight = site
        .shape(1)
        .filter(|weight| weight.len() >= 2 && site.operator.starts_with("Conv"));
    if let (Some(channels), Some(weight)) = (shape.get_mut(1), weight) {
        *channels = match site.operator {
            "ConvTranspose" => weight[1].multiply(Bounds::exactly(site.attributes.int_or("group", 1))),
            _ => weight[0],
        };
    }
    Some(shape)
}

/// Upper bound of a spatial dimension: a window has at most as many positions as there are elements including padding, plus one
/// if sizes are rounded up.
fn smaller(site: &Site<'_>, index: usize, dim: Bounds) -> Bounds {
    let pads = site.attributes.ints("pads").unwrap_or_default();
    let pad = |index: usize| i128::from(pads.get(index).copied().unwrap_or_default().max(0));
    let padded = i128::from(dim.high) + pad(index) + pad(index + pads.len() / 2) + 1;
    Bounds::wide([0, padded])
}

/// Shape of the result of resizing.
pub(super) fn resized(site: &Site<'_>) -> Option<Shape> {
    let input = site.shape(0)?;
    let sizes = site.input(3).filter(|_| site.operator == "Resize");
    if let Some(sizes) = sizes.and_then(|sizes| sizes.integers.as_ref()?.each.clone())
        && sizes.len() == input.len()
    {
        return Some(sizes);
    }
    // Scales are floats, whose values are not tracked.
    Some(input.iter().map(|_| Bounds::SIZE).collect())
}

/// Shape of the result of `GridSample`.
pub(super) fn sampled(site: &Site<'_>) -> Option<Shape> {
    let rank = site.rank(0)?;
    let grid = site.input(1).and_then(|grid: &Fact| grid.shape.clone());
    let known = site.shape(0)?;
    let spatial = |index: usize| grid.as_ref().and_then(|grid| grid.get(index - 1)).copied();
    let dim = |index: usize| match index {
        0 | 1 => known[index],
        _ => spatial(index).unwrap_or(Bounds::SIZE),
    };
    Some((0..rank).map(dim).collect())
}
