//! Infers the shapes of a node's outputs.

use super::attributes::axis;
use super::fact::{Bounds, Fact, count};
use super::infer::Site;
use super::{integers, windows};

pub(super) type Shape = Vec<Bounds>;

/// Shape of each output; `None` if it is unknown.
pub(super) fn shapes(site: &Site<'_>) -> Vec<Option<Shape>> {
    let attributes = site.attributes;
    let same = || site.shape(0).cloned();
    match site.operator {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Max" | "Min" | "Sum" | "Mean" | "Equal"
        | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Where" => {
            vec![broadcast(site)]
        }
        "Shape" => vec![shape_of_shape(site)],
        "Size" => vec![Some(Vec::new())],
        "Transpose" => vec![transpose(site)],
        "Reshape" => vec![reshape(site)],
        "Flatten" => vec![flatten(site)],
        "Squeeze" => vec![squeeze(site)],
        "Unsqueeze" => vec![unsqueeze(site)],
        "Concat" => vec![concat(site)],
        "Split" => split(site),
        "Slice" => vec![slice(site)],
        "Gather" => vec![gather(site)],
        "GatherElements" => vec![site.shape(1).cloned()],
        "GatherND" => vec![gather_nd(site)],
        "Expand" => vec![expand(site)],
        "Tile" => vec![tile(site)],
        "Pad" => vec![pad(site)],
        "Resize" | "Upsample" => vec![windows::resized(site)],
        "GridSample" => vec![windows::sampled(site)],
        "ConstantOfShape" => vec![dims_of(site.input(0))],
        "Range" => vec![Some(vec![Bounds::SIZE])],
        "NonZero" => vec![
            site.rank(0)
                .map(|rank| vec![Bounds::exactly(rank as i64), Bounds::SIZE]),
        ],
        "NonMaxSuppression" => vec![Some(vec![Bounds::SIZE, Bounds::exactly(3)])],
        "TopK" => {
            let shape = site.axis(-1).and_then(|axis| {
                let mut shape = same()?;
                let k = site.attributes.int("k").map(Bounds::exactly);
                shape[axis] = k.or(site.input(1).map(Fact::bounds)).unwrap_or(Bounds::SIZE);
                Some(shape)
            });
            vec![shape.clone(), shape]
        }
        "ArgMax" | "ArgMin" => {
            let shape = site.axis(0).and_then(|axis| {
                let mut shape = same()?;
                match attributes.flag("keepdims", true) {
                    true => shape[axis] = Bounds::exactly(1),
                    false => drop(shape.remove(axis)),
                }
                Some(shape)
            });
            vec![shape]
        }
        operator if operator.starts_with("Reduce") => vec![reduce(site)],
        "MatMul" | "MatMulInteger" => vec![matmul(site)],
        "Gemm" => vec![gemm(site)],
        "Conv" | "ConvInteger" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool"
        | "GlobalAveragePool" | "GlobalMaxPool" => {
            let shape = windows::window(site);
            vec![shape.clone(), shape]
        }
        "LSTM" | "GRU" | "RNN" => recurrent(site),
        "OneHot" => vec![site.rank(0).and_then(|rank| {
            let position = axis(attributes.int_or("axis", -1), rank + 1)?;
            let mut shape = same()?;
            shape.insert(position, site.input(1).map(Fact::bounds)?);
            Some(shape)
        })],
        "DepthToSpace" => vec![same().filter(|shape| shape.len() == 4).map(|shape| {
            let block = Bounds::exactly(attributes.int_or("blocksize", 1).max(1));
            vec![
                shape[0],
                shape[1].divide(block).divide(block),
                shape[2].multiply(block),
                shape[3].multiply(block),
            ]
        })],
        "Einsum" => vec![einsum_rank(site).map(|rank| vec![Bounds::SIZE; rank])],
        "DynamicQuantizeLinear" => vec![same(), Some(Vec::new()), Some(Vec::new())],
        "MatMulNBits" => vec![same().map(|mut shape| {
            if let Some(last) = shape.last_mut() {
                *last = Bounds::exactly(attributes.int_or("N", 0));
            }
            shape
        })],
        "If"
        | "Loop"
        | "Scan"
        | "Attention"
        | "MultiHeadAttention"
        | "GroupQueryAttention"
        | "SplitToSequence"
        | "SequenceAt"
        | "ConcatFromSequence"
        | "DynamicQuantizeLSTM" => Vec::new(),
        _ => vec![same()],
    }
}

/// Bounds of the dimensions that a shape tensor (a vector of integers) gives, if its length is known.
fn dims_of(shape: Option<&Fact>) -> Option<Shape> {
    let shape = shape?;
    if let Some(each) = shape.integers.as_ref().and_then(|integers| integers.each.clone()) {
        return Some(each);
    }
    let length = shape.shape.as_ref()?.first()?.value()?;
    Some(vec![Bounds::SIZE; usize::try_from(length).ok()?])
}

fn broadcast(site: &Site<'_>) -> Option<Shape> {
    let shapes = site
        .inputs
        .iter()
        .flatten()
        .map(|input| input.shape.as_ref())
        .collect::<Option<Vec<_>>>()?;
    Some(
        shapes
            .into_iter()
            .fold(Vec::new(), |all, shape| broadcast_two(&all, shape)),
    )
}

fn broadcast_two(a: &[Bounds], b: &[Bounds]) -> Shape {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Bounds], index: usize| {
        let missing = rank - shape.len();
        index
            .checked_sub(missing)
            .map_or(Bounds::exactly(1), |index| shape[index])
    };
    (0..rank)
        .map(|index| match (dim(a, index), dim(b, index)) {
            (a, b) if a.value() == Some(1) => b,
            (a, b) if b.value() == Some(1) => a,
            // The sizes are equal, or one of them is 1.
            (a, b) if a.value().is_some_and(|size| size > 1) || b.value().is_none() && a.low > 1 => a,
            (_, b) if b.value().is_some_and(|size| size > 1) => b,
            (a, b) => a.union(b),
        })
        .collect()
}

fn shape_of_shape(site: &Site<'_>) -> Option<Shape> {
    let Some(rank) = site.rank(0) else {
        return Some(vec![Bounds::new(0, 64)]);
    };
    let range = integers::shape_range(site, rank);
    Some(vec![Bounds::exactly(range.len() as i64)])
}

fn transpose(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let Some(permutation) = site.attributes.ints("perm") else {
        return Some(shape.iter().rev().copied().collect());
    };
    permutation
        .iter()
        .map(|index| Some(shape[axis(*index, shape.len())?]))
        .collect()
}

fn reshape(site: &Site<'_>) -> Option<Shape> {
    let target = match site.attributes.ints("shape") {
        Some(shape) => shape.iter().copied().map(Bounds::exactly).collect(),
        None => dims_of(site.input(1))?,
    };
    let copies = !site.attributes.flag("allowzero", false);
    let total = site.input(0).map_or(Bounds::SIZE, Fact::count);
    let mut shape = Vec::new();
    for (index, dim) in target.iter().enumerate() {
        let input = site.shape(0).and_then(|shape| shape.get(index)).copied();
        shape.push(match dim.value() {
            Some(0) if copies => input.unwrap_or(Bounds::SIZE),
            _ if dim.low < 0 => Bounds::new(0, total.high),
            _ if dim.low == 0 && copies => input.map_or(Bounds::SIZE, |input| dim.union(input)),
            _ => *dim,
        });
    }
    // A target dimension of -1 is inferred from the number of elements and the other dimensions.
    let open = target.iter().position(|dim| dim.value() == Some(-1));
    if let Some(open) = open {
        let rest: Shape = (0..shape.len())
            .filter(|index| *index != open)
            .map(|index| shape[index])
            .collect();
        let rest = count(&rest);
        if let (Some(total), Some(rest)) = (total.value(), rest.value().filter(|rest| *rest > 0)) {
            shape[open] = Bounds::exactly(total / rest);
        } else if rest.low > 0 {
            shape[open] = Bounds::new(0, total.high / rest.low);
        }
    }
    Some(shape)
}

fn flatten(site: &Site<'_>) -> Option<Shape> {
    let Some(shape) = site.shape(0) else {
        return Some(vec![Bounds::SIZE; 2]);
    };
    let position = site.attributes.int_or("axis", 1);
    let position = if position < 0 {
        position + shape.len() as i64
    } else {
        position
    };
    let position = usize::try_from(position)
        .ok()
        .filter(|position| *position <= shape.len())?;
    Some(vec![count(&shape[..position]), count(&shape[position..])])
}

fn squeeze(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let axes = match (site.attributes.ints("axes"), site.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => axes.values()?,
        (None, None) => {
            // The rank of the result depends on which dimensions are 1, so this must be known for each.
            let known = shape.iter().all(|dim| dim.value().is_some() || dim.low > 1);
            return known.then(|| {
                shape
                    .iter()
                    .filter(|dim| dim.value() != Some(1))
                    .copied()
                    .collect()
            });
        }
    };
    let axes: Vec<_> = axes
        .iter()
        .map(|index| axis(*index, shape.len()))
        .collect::<Option<_>>()?;
    let kept = shape
        .iter()
        .enumerate()
        .filter(|(index, _)| !axes.contains(index));
    Some(kept.map(|(_, dim)| *dim).collect())
}

fn unsqueeze(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let axes = site.list("axes", 1)?;
    let rank = shape.len() + axes.len();
    let axes: Vec<_> = axes
        .iter()
        .map(|index| axis(*index, rank))
        .collect::<Option<_>>()?;
    let mut kept = shape.iter();
    (0..rank)
        .map(|index| match axes.contains(&index) {
            true => Some(Bounds::exactly(1)),
            false => kept.next().copied(),
        })
        .collect()
}

fn concat(site: &Site<'_>) -> Option<Shape> {
    let shapes = site.inputs.iter().flatten().map(|input| input.shape.as_ref());
    let known: Vec<_> = shapes.clone().flatten().collect();
    let mut shape = (*known.first()?).clone();
    let position = axis(site.attributes.int("axis")?, shape.len())?;
    shape[position] = match known.len() == site.inputs.len() {
        true => known
            .iter()
            .filter_map(|shape| shape.get(position))
            .fold(Bounds::exactly(0), |sum, dim| sum.add(*dim)),
        false => Bounds::SIZE,
    };
    Some(shape)
}

fn split(site: &Site<'_>) -> Vec<Option<Shape>> {
    let Some(shape) = site.shape(0) else {
        return Vec::new();
    };
    let Some(position) = site.axis(0) else {
        return Vec::new();
    };
    let sizes = site.list("split", 1);
    let outputs = 0..site.output_count;
    let shape_of = |index: usize| {
        let mut shape = shape.clone();
        shape[position] = match (&sizes, shape[position].value()) {
            (Some(sizes), _) => sizes
                .get(index)
                .map_or(Bounds::SIZE, |size| Bounds::exactly(*size)),
            (None, Some(size)) if site.input(1).is_none() && size % site.output_count as i64 == 0 => {
                Bounds::exactly(size / site.output_count as i64)
            }
            _ => Bounds::new(0, shape[position].high),
        };
        Some(shape)
    };
    outputs.map(shape_of).collect()
}

fn slice(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let Some((axes, ranges)) = integers::slice_ranges(site) else {
        return Some(shape.iter().map(|dim| Bounds::new(0, dim.high)).collect());
    };
    let mut sliced = shape.clone();
    for (axis, range) in axes.iter().zip(&ranges) {
        sliced[*axis] = match range {
            Some(range) => Bounds::exactly(range.len() as i64),
            None => Bounds::new(0, shape[*axis].high),
        };
    }
    Some(sliced)
}

fn gather(site: &Site<'_>) -> Option<Shape> {
    let (data, indices) = (site.shape(0)?, site.shape(1)?);
    let position = site.axis(0)?;
    let mut shape = data[..position].to_vec();
    shape.extend(indices);
    shape.extend(&data[position + 1..]);
    Some(shape)
}

fn gather_nd(site: &Site<'_>) -> Option<Shape> {
    let (data, indices) = (site.shape(0)?, site.shape(1)?);
    let batch = usize::try_from(site.attributes.int_or("batch_dims", 0)).ok()?;
    let (last, rest) = indices.split_last()?;
    let depth = usize::try_from(last.value()?).ok()?;
    let mut shape = rest.to_vec();
    shape.extend(data.get(batch + depth..)?);
    Some(shape)
}

fn expand(site: &Site<'_>) -> Option<Shape> {
    Some(broadcast_two(site.shape(0)?, &dims_of(site.input(1))?))
}

fn tile(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let repeats = dims_of(site.input(1)).filter(|repeats| repeats.len() == shape.len());
    Some(match repeats {
        Some(repeats) => shape
            .iter()
            .zip(repeats)
            .map(|(dim, count)| dim.multiply(count))
            .collect(),
        None => vec![Bounds::SIZE; shape.len()],
    })
}

fn pad(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let pads = match site.attributes.ints("pads") {
        Some(pads) => Some(pads.to_vec()),
        None => site.input(1).and_then(Fact::values),
    };
    let pads = pads.filter(|pads| pads.len() == 2 * shape.len() && site.input(3).is_none());
    Some(match pads {
        Some(pads) => {
            let (begins, ends) = pads.split_at(shape.len());
            let padded = shape.iter().zip(begins.iter().zip(ends));
            padded
                .map(|(dim, (begin, end))| dim.add(Bounds::exactly(*begin)).add(Bounds::exactly(*end)))
                .collect()
        }
        None => vec![Bounds::SIZE; shape.len()],
    })
}

fn reduce(site: &Site<'_>) -> Option<Shape> {
    let shape = site.shape(0)?;
    let keep = site.attributes.flag("keepdims", true);
    let Some(axes) = integers::reduced_axes(site) else {
        return keep.then(|| shape.iter().map(|dim| dim.union(Bounds::exactly(1))).collect());
    };
    let dims = shape
        .iter()
        .enumerate()
        .filter_map(|(index, dim)| match (axes.contains(&index), keep) {
            (true, true) => Some(Bounds::exactly(1)),
            (true, false) => None,
            (false, _) => Some(*dim),
        });
    Some(dims.collect())
}

fn matmul(site: &Site<'_>) -> Option<Shape> {
    let (a, b) = (site.shape(0)?, site.shape(1)?);
    let prefix = |shape: &[Bounds]| shape[..shape.len().saturating_sub(2)].to_vec();
    let mut shape = broadcast_two(&prefix(a), &prefix(b));
    if let [.., rows, _] = a[..] {
        shape.push(rows);
    }
    if let [.., _, columns] = b[..] {
        shape.push(columns);
    }
    Some(shape)
}

fn gemm(site: &Site<'_>) -> Option<Shape> {
    let dim = |index: usize, transposed: bool, from: usize| {
        let shape = site.shape(index).filter(|shape| shape.len() == 2);
        shape.map_or(Bounds::SIZE, |shape| {
            shape[if transposed { 1 - from } else { from }]
        })
    };
    let attributes = site.attributes;
    Some(vec![
        dim(0, attributes.flag("transA", false), 0),
        dim(1, attributes.flag("transB", false), 1),
    ])
}

fn recurrent(site: &Site<'_>) -> Vec<Option<Shape>> {
    let directions = match site.attributes.text("direction") {
        Some("bidirectional") => 2,
        _ => 1,
    };
    let hidden = site.attributes.int_or("hidden_size", 0);
    let (directions, hidden) = (Bounds::exactly(directions), Bounds::exactly(hidden));
    let input = site.shape(0).filter(|shape| shape.len() == 3);
    let (length, batch) = input.map_or((Bounds::SIZE, Bounds::SIZE), |shape| (shape[0], shape[1]));
    let last = Some(vec![directions, batch, hidden]);
    vec![Some(vec![length, directions, batch, hidden]), last.clone(), last]
}

/// Rank of the result of an `Einsum`; `None` if the output is implicit or contains an ellipsis.
fn einsum_rank(site: &Site<'_>) -> Option<usize> {
    let (_, output) = site.attributes.text("equation")?.split_once("->")?;
    let output = output.trim();
    (!output.contains('.')).then(|| output.chars().filter(|letter| letter.is_alphabetic()).count())
}
