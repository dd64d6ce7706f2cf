//! Bounds of the integers that a node computes. The embedded runtime computes integers with 32 bits, so those that ONNX computes
//! with 64 bits must fit in 32.

use rten_onnx::onnx::DataType;

use super::attributes::axis;
use super::fact::{Bounds, Fact, Integers, count, datatype_bounds};
use super::infer::Site;

/// Bounds of the integers of an output, whose datatype and shape have been inferred as far as possible; `None` if the elements
/// are not integers, or if nothing is known about them.
pub(super) fn integers(site: &Site<'_>, output: usize, fact: &Fact) -> Option<Integers> {
    let datatype = fact.datatype?;
    let limits = datatype_bounds(datatype);
    match datatype {
        DataType::BOOL | DataType::UINT8 | DataType::INT8 => return Some(Integers::within(limits)),
        DataType::INT32 | DataType::INT64 => {}
        _ => return None,
    }
    let found = computed(site, output, fact);
    if datatype == DataType::INT64 {
        return found;
    }
    // ONNX also computes INT32 with 32 bits, so values that overflow are the same in both runtimes.
    Some(
        found
            .filter(|found| found.all.fits_32_bits())
            .unwrap_or(Integers::within(limits)),
    )
}

fn computed(site: &Site<'_>, output: usize, fact: &Fact) -> Option<Integers> {
    let input = |index: usize| site.input(index).map(Fact::bounds);
    let within = |bounds: Bounds| Some(Integers::within(bounds));
    let same = || site.input(0).and_then(|fact| fact.integers.clone());
    let largest_index = |dims: Bounds| Bounds::new(0, (dims.high - 1).max(0));
    match site.operator {
        "Shape" => shape_values(site),
        "Size" => Some(Integers::each(vec![site.input(0)?.count()])),
        "Identity" => same(),
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            let integers = same()?;
            // These operators preserve the order of elements.
            let short = fact.rank().is_some_and(|rank| rank <= 1);
            Some(Integers {
                each: integers.each.filter(|_| short),
                ..integers
            })
        }
        "Transpose" | "Expand" | "Tile" | "Split" | "GatherElements" | "GatherND" | "ReverseSequence"
        | "DepthToSpace" => within(input(0)?),
        "Trilu" => within(input(0)?.union(Bounds::exactly(0))),
        "EyeLike" => within(Bounds::new(0, 1)),
        "Gather" => gathered(site),
        "Slice" => sliced(site),
        "Concat" => concatenated(site),
        "Pad" => within(match site.input(2) {
            Some(value) => input(0)?.union(value.bounds()),
            None => input(0)?.union(Bounds::exactly(0)),
        }),
        "Where" => within(input(1)?.union(input(2)?)),
        "ScatterElements" | "ScatterND" | "Scatter" => match site.attributes.text("reduction") {
            None | Some("none") => within(input(0)?.union(input(2)?)),
            Some("max" | "min") => within(input(0)?.union(input(2)?)),
            _ => None,
        },
        "OneHot" => within(input(2)?),
        "Cast" | "CastLike" => cast(site, fact),
        "Add" => element_by_element(site, Bounds::add),
        "Sub" => element_by_element(site, |a, b| a.add(b.negate())),
        "Mul" => element_by_element(site, Bounds::multiply),
        "Div" => element_by_element(site, Bounds::divide),
        "Max" => fold(site, |a, b| Bounds::new(a.low.max(b.low), a.high.max(b.high))),
        "Min" => fold(site, |a, b| Bounds::new(a.low.min(b.low), a.high.min(b.high))),
        "Sum" => fold(site, Bounds::add),
        "Mod" => element_by_element(site, Bounds::remainder),
        "Neg" => within(input(0)?.negate()),
        "Abs" => {
            let bounds = input(0)?;
            let high = bounds.union(bounds.negate()).high;
            within(Bounds::new(0, high))
        }
        "Sign" => within(Bounds::new(-1, 1)),
        "Relu" => within(input(0)?.union(Bounds::exactly(0))),
        "Clip" => clip(site),
        "Range" => {
            let (start, limit) = (input(0)?, input(1)?);
            within(start.union(limit))
        }
        "NonZero" => {
            let dims = site.input(0)?.shape.clone().unwrap_or(vec![Bounds::SIZE]);
            within(
                dims.into_iter()
                    .map(largest_index)
                    .reduce(Bounds::union)
                    .unwrap_or(Bounds::exactly(0)),
            )
        }
        "ArgMax" | "ArgMin" => within(largest_index(
            site.axis(0).map_or(Bounds::SIZE, |axis| dim(site, axis)),
        )),
        "TopK" if output == 1 => within(largest_index(
            site.axis(-1).map_or(Bounds::SIZE, |axis| dim(site, axis)),
        )),
        "TopK" => within(input(0)?),
        "MaxPool" if output == 1 => within(largest_index(site.input(0)?.count())),
        "NonMaxSuppression" => within(Bounds::SIZE),
        "CumSum" => {
            let dims = site.input(0)?.shape.clone();
            let axis = site
                .input(1)
                .and_then(Fact::values)
                .and_then(|axes| axes.first().copied());
            let length = match (dims, axis) {
                (Some(dims), Some(position)) => dims[axis_of(position, dims.len())?],
                (Some(dims), None) => dims
                    .into_iter()
                    .reduce(Bounds::union)
                    .unwrap_or(Bounds::exactly(1)),
                _ => Bounds::SIZE,
            };
            within(input(0)?.times(length))
        }
        "ReduceSum" => within(input(0)?.times(reduced_count(site))),
        "ReduceMax" | "ReduceMin" => within(input(0)?),
        "ReduceMean" => {
            // The runtime computes the sum first.
            let sum = input(0)?.times(reduced_count(site));
            within(if sum.fits_32_bits() { input(0)? } else { sum })
        }
        "ConstantOfShape" => {
            let value = site.attributes.tensor("value").map(Fact::of_tensor);
            within(value.map_or(Bounds::exactly(0), |value| value.bounds()))
        }
        "MatMulInteger" | "ConvInteger" => within(Bounds::I32),
        _ => None,
    }
}

fn dim(site: &Site<'_>, axis: usize) -> Bounds {
    site.shape(0).map_or(Bounds::SIZE, |shape| shape[axis])
}

fn axis_of(position: i64, rank: usize) -> Option<usize> {
    axis(position, rank)
}

/// Range of the dimensions of the first input that `Shape` returns.
pub(super) fn shape_range(site: &Site<'_>, rank: usize) -> std::ops::Range<usize> {
    let clamp = |position: i64| {
        let rank = rank as i64;
        let position = if position < 0 { position + rank } else { position };
        position.clamp(0, rank) as usize
    };
    let start = clamp(site.attributes.int_or("start", 0));
    let end = site.attributes.int("end").map_or(rank, clamp);
    start..end.max(start)
}

fn shape_values(site: &Site<'_>) -> Option<Integers> {
    Some(match site.shape(0) {
        Some(shape) => Integers::each(shape[shape_range(site, shape.len())].to_vec()),
        None => Integers::within(Bounds::SIZE),
    })
}

fn gathered(site: &Site<'_>) -> Option<Integers> {
    let data = site.input(0)?;
    let integers = data.integers.as_ref()?;
    let indices = site
        .input(1)
        .filter(|indices| indices.rank().is_some_and(|rank| rank <= 1));
    let picked = indices.and_then(Fact::values).and_then(|indices| {
        let each = integers.each.as_ref().filter(|_| data.rank() == Some(1))?;
        let pick = |index: &i64| Some(each[axis_of(*index, each.len())?]);
        indices.iter().map(pick).collect::<Option<Vec<_>>>()
    });
    Some(match picked {
        Some(picked) => Integers::each(picked),
        None => Integers::within(integers.all),
    })
}

/// Indices of an axis that a `Slice` keeps, if they are known.
type KeptIndices = Option<Vec<usize>>;

/// The axes that a `Slice` affects, and the indices it keeps of each.
pub(super) fn slice_ranges(site: &Site<'_>) -> Option<(Vec<usize>, Vec<KeptIndices>)> {
    let shape = site.shape(0)?;
    let starts = site.list("starts", 1);
    let ends = site.list("ends", 2);
    let length = starts.as_ref().or(ends.as_ref()).map(Vec::len);
    let axes = match (site.attributes.ints("axes"), site.input(3)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => axes.values()?,
        (None, None) => (0..length? as i64).collect(),
    };
    let axes: Vec<_> = axes
        .iter()
        .map(|position| axis_of(*position, shape.len()))
        .collect::<Option<_>>()?;
    let steps = match site.input(4) {
        Some(steps) => steps.values(),
        None => Some(vec![1; axes.len()]),
    };
    let range = |index: usize| {
        let size = shape[axes[index]].value()?;
        let step = *steps.as_ref()?.get(index)?;
        let clamp = |value: i64, low: i64, high: i64| {
            let value = if value < 0 {
                value.saturating_add(size)
            } else {
                value
            };
            value.clamp(low, high)
        };
        let (start, end) = (*starts.as_ref()?.get(index)?, *ends.as_ref()?.get(index)?);
        let picked: Vec<usize> = if step > 0 {
            let range = clamp(start, 0, size)..clamp(end, 0, size);
            range
                .step_by(usize::try_from(step).ok()?)
                .map(|index| index as usize)
                .collect()
        } else {
            let (first, last) = (clamp(start, -1, size - 1), clamp(end, -1, size - 1));
            let step = usize::try_from(step.unsigned_abs())
                .ok()
                .filter(|step| *step > 0)?;
            (last + 1..=first)
                .rev()
                .step_by(step)
                .map(|index| index as usize)
                .collect()
        };
        Some(picked)
    };
    let ranges = (0..axes.len()).map(range).collect();
    Some((axes, ranges))
}

fn sliced(site: &Site<'_>) -> Option<Integers> {
    let integers = site.input(0)?.integers.clone()?;
    let picked = integers
        .each
        .as_ref()
        .filter(|_| site.rank(0) == Some(1))
        .and_then(|each| {
            let (_, ranges) = slice_ranges(site)?;
            let range = ranges.first()?.as_ref()?;
            Some(range.iter().map(|index| each[*index]).collect())
        });
    Some(match picked {
        Some(picked) => Integers::each(picked),
        None => Integers::within(integers.all),
    })
}

fn concatenated(site: &Site<'_>) -> Option<Integers> {
    let parts = site
        .inputs
        .iter()
        .flatten()
        .map(|input| input.integers.as_ref())
        .collect::<Option<Vec<_>>>()?;
    let all = parts.iter().map(|part| part.all).reduce(Bounds::union)?;
    let vectors = site.inputs.iter().flatten().all(|input| input.rank() == Some(1));
    let each = parts
        .iter()
        .map(|part| part.each.clone())
        .collect::<Option<Vec<_>>>();
    Some(match each.filter(|_| vectors) {
        Some(each) => Integers::each(each.concat()),
        None => Integers::within(all),
    })
}

fn cast(site: &Site<'_>, fact: &Fact) -> Option<Integers> {
    let input = site.input(0)?;
    match input.datatype? {
        DataType::BOOL | DataType::UINT8 | DataType::INT8 | DataType::INT32 | DataType::INT64 => {
            Some(Integers {
                each: input
                    .integers
                    .as_ref()
                    .and_then(|integers| integers.each.clone())
                    .filter(|_| fact.rank().is_some_and(|rank| rank <= 1)),
                all: input.bounds(),
            })
        }
        // The standard does not define the result of converting a number that does not fit.
        _ => Some(Integers::within(Bounds::I32)),
    }
}

/// Applies an elementwise function to the bounds of two tensors, per element if both are tracked per element.
fn element_by_element(site: &Site<'_>, function: impl Fn(Bounds, Bounds) -> Bounds) -> Option<Integers> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let each = |fact: &Fact| fact.integers.as_ref().and_then(|integers| integers.each.clone());
    if let (Some(a), Some(b)) = (each(a), each(b)) {
        let pairs = match (a.len(), b.len()) {
            (_, 1) => Some(a.iter().map(|a| function(*a, b[0])).collect()),
            (1, _) => Some(b.iter().map(|b| function(a[0], *b)).collect()),
            (left, right) if left == right => Some(a.iter().zip(&b).map(|(a, b)| function(*a, *b)).collect()),
            _ => None,
        };
        return pairs.map(Integers::each);
    }
    Some(Integers::within(function(a.bounds(), b.bounds())))
}

fn fold(site: &Site<'_>, function: impl Fn(Bounds, Bounds) -> Bounds) -> Option<Integers> {
    if site.inputs.len() == 2 {
        return element_by_element(site, function);
    }
    let inputs = site.inputs.iter().flatten().map(Fact::bounds);
    inputs.reduce(function).map(Integers::within)
}

fn clip(site: &Site<'_>) -> Option<Integers> {
    let mut bounds = site.input(0)?.bounds();
    if let Some(low) = site.input(1) {
        bounds = Bounds::new(
            bounds.low.max(low.bounds().low),
            bounds.high.max(low.bounds().high),
        );
    }
    if let Some(high) = site.input(2) {
        bounds = Bounds::new(
            bounds.low.min(high.bounds().low),
            bounds.high.min(high.bounds().high),
        );
    }
    Some(Integers::within(bounds))
}

/// Axes of a reduction, if they are known.
pub(super) fn reduced_axes(site: &Site<'_>) -> Option<Vec<usize>> {
    let rank = site.rank(0)?;
    let all = || (0..rank).collect();
    let axes = match (site.attributes.ints("axes"), site.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => axes.values()?,
        (None, None) => Vec::new(),
    };
    if axes.is_empty() {
        let nothing = site.attributes.flag("noop_with_empty_axes", false);
        return Some(if nothing { Vec::new() } else { all() });
    }
    axes.iter().map(|position| axis_of(*position, rank)).collect()
}

/// Bounds of the number of elements that a reduction combines into one.
fn reduced_count(site: &Site<'_>) -> Bounds {
    let shape = site.shape(0);
    match (shape, reduced_axes(site)) {
        (Some(shape), Some(axes)) => {
            let dims: Vec<_> = axes.iter().map(|axis| shape[*axis]).collect();
            count(&dims)
        }
        (Some(shape), None) => Bounds::new(0, count(shape).high.max(1)),
        _ => Bounds::SIZE,
    }
}
