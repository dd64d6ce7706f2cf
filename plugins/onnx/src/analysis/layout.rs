//! Operators that rearrange or repeat elements without changing them, and where the items are afterwards.

use super::elementwise::stretched;
use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Content, Inseparable, Value};

/// Reshapes a value to `dims`, with the same elements in the same order.
fn reshaped(op: &Op<'_>, value: &Value, dims: Vec<Size>) -> Outcome {
    let result = match (&value.numbers, &value.content) {
        (Some(numbers), _) => Value::numbers(dims, numbers.clone()),
        (None, Content::Items(batch)) => {
            let batch = found_again(op, op.dims_of(value)?, batch, &dims)?;
            Value::items(dims, batch)
        }
        (None, _) => Value {
            dims: Some(dims),
            numbers: None,
            content: value.content.clone(),
        },
    };
    Ok(vec![result])
}

/// Where the items are after a tensor is reshaped from `old` to `new`.
fn found_again(op: &Op<'_>, old: &[Size], batch: &Batch, new: &[Size]) -> Result<Batch, Inseparable> {
    let place = new.iter().position(Size::depends_on_batch);
    let axis =
        place.filter(|axis| new[*axis].counts_items() && !new[axis + 1..].iter().any(Size::depends_on_batch));
    let Some(axis) = axis else {
        return Err(op.unknown("has a result whose shape does not contain the batch as one dimension"));
    };
    // The number of elements before the items (the product of the outer sizes) must stay the same, and so must the number after
    // them.
    let before = op.product(old[..batch.axis].iter().chain([&batch.outer]))?;
    let others = op.product(&new[..axis])?;
    let split = |outer: Size| {
        let items = outer.times(&Size::batch())?;
        new[axis].over(&items)?;
        Some(outer)
    };
    match before.over(&others).and_then(split) {
        Some(outer) => Ok(Batch {
            axis,
            outer,
            role: batch.role,
        }),
        None if before.value().is_some() && others.value().is_some() => {
            Err(op.mixed("moves elements from one item to another"))
        }
        None => Err(op.unknown("moves elements in a way that may take them to another item")),
    }
}

pub(super) fn reshape(op: &Op<'_>) -> Outcome {
    let value = op.value(0)?;
    let wanted: Vec<Size> = match (op.ints("shape"), op.numbers(1)) {
        (Some(shape), _) => shape.iter().map(|size| Size::known(*size)).collect(),
        (None, Ok(Some(shape))) => shape.to_vec(),
        (None, Ok(None)) => return Err(op.unknown("has no shape")),
        (None, Err(inseparable)) => return Err(inseparable),
    };
    let copies = op.int("allowzero").unwrap_or(0) == 0;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (axis, size) in wanted.into_iter().enumerate() {
        if size.is(0) && copies {
            let old = op.dims(0)?.get(axis);
            dims.push(
                old.cloned()
                    .ok_or_else(|| op.unknown("copies a dimension that does not exist"))?,
            );
        } else if size.is(-1) {
            rest = Some(axis);
            dims.push(Size::known(1));
        } else {
            dims.push(size);
        }
    }
    if let Some(axis) = rest {
        let (all, others) = (op.product(op.dims(0)?)?, op.product(&dims)?);
        dims[axis] = match all.over(&others) {
            Some(size) => size,
            None if value.batch().is_some() => {
                let item = all.over(&Size::batch()).and_then(|item| item.value());
                let definite = item.is_some() && others.value().is_some();
                return Err(if definite {
                    op.mixed("divides the elements of all items into parts that are not those of one item")
                } else {
                    op.unknown("divides the elements into parts that may not be those of one item")
                });
            }
            None => op.dimension(&[all, others]),
        };
    }
    reshaped(op, value, dims)
}

pub(super) fn flatten(op: &Op<'_>) -> Outcome {
    let dims = op.dims(0)?;
    let axis = op.int("axis").unwrap_or(1);
    let axis = if axis == dims.len() as i64 {
        dims.len()
    } else {
        op.axis(axis, dims.len())?
    };
    let flat = vec![op.product(&dims[..axis])?, op.product(&dims[axis..])?];
    reshaped(op, op.value(0)?, flat)
}

pub(super) fn squeeze(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axes = match op.axes(1)? {
        Some(axes) => axes
            .iter()
            .map(|axis| op.axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None if dims.iter().all(|size| size.value().is_some()) => {
            (0..dims.len()).filter(|axis| dims[*axis].is(1)).collect()
        }
        None => {
            return Err(op.unknown("removes all dimensions of size 1, which may include the batch dimension"));
        }
    };
    if value.batch().is_some_and(|batch| axes.contains(&batch.axis)) {
        return Err(op.unknown("removes the batch dimension, so it computes a single item"));
    }
    let kept = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    reshaped(op, value, kept.map(|(_, size)| size.clone()).collect())
}

pub(super) fn unsqueeze(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axes = op.axes(1)?.ok_or_else(|| op.unknown("has no axes"))?;
    let rank = dims.len() + axes.len();
    let axes = axes
        .iter()
        .map(|axis| op.axis(*axis, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let mut old = dims.iter();
    let size = |axis| match axes.contains(&axis) {
        true => Some(Size::known(1)),
        false => old.next().cloned(),
    };
    let new: Option<Vec<_>> = (0..rank).map(size).collect();
    reshaped(op, value, new.ok_or_else(|| op.unknown("names an axis twice"))?)
}

pub(super) fn transpose(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let order = match op.ints("perm").filter(|order| !order.is_empty()) {
        Some(order) => order
            .iter()
            .map(|axis| op.axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).rev().collect(),
    };
    let new: Vec<_> = order.iter().map(|axis| dims[*axis].clone()).collect();
    let result = match &value.content {
        Content::Items(batch) => {
            let axis = order.iter().position(|axis| *axis == batch.axis);
            let axis = axis.ok_or_else(|| op.unknown("removes the batch dimension"))?;
            Value::items(new, batch.moved(axis))
        }
        content => Value {
            numbers: value.numbers.clone().filter(|_| dims.len() < 2),
            dims: Some(new),
            content: content.clone(),
        },
    };
    Ok(vec![result])
}

/// `Expand`: broadcasts the tensor as an operand of the given shape would.
pub(super) fn expand(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let wanted = op.numbers(1)?.ok_or_else(|| op.unknown("has no shape"))?;
    if let Some(batch) = value.batch() {
        let rank = dims.len().max(wanted.len());
        let axis = batch.axis + rank - dims.len();
        let aligned = (axis + wanted.len()).checked_sub(rank).map(|axis| &wanted[axis]);
        let elsewhere = wanted
            .iter()
            .enumerate()
            .any(|(index, size)| size.depends_on_batch() && index + rank - wanted.len() != axis);
        let kept = aligned.is_none_or(|size| size.is(1) || *size == dims[batch.axis]);
        if elsewhere || !kept {
            return Err(op.unknown("broadcasts a tensor that already has a batch dimension"));
        }
        let mut wanted = wanted.to_vec();
        if let Some(index) = (axis + wanted.len()).checked_sub(rank) {
            wanted[index] = Size::known(1);
        }
        let (dims, batch) = stretched(op, &[(dims, Some(batch)), (&wanted, None)])?;
        return Ok(vec![Value::new(dims, batch)]);
    }
    let (new, _) = stretched(op, &[(dims, None), (wanted, None)])?;
    repeated(op, value, new)
}

pub(super) fn tile(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let repeats = op.numbers(1)?.ok_or_else(|| op.unknown("has no repeats"))?;
    if repeats.len() != dims.len() {
        return Err(op.unknown("repeats in a way that older operator sets define"));
    }
    let new = dims.iter().zip(repeats);
    let new: Option<Vec<_>> = new.map(|(size, repeats)| size.times(repeats)).collect();
    let new = new.ok_or_else(|| op.unknown("has a size beyond 64 bits"))?;
    let Some(batch) = value.batch() else {
        return repeated(op, value, new);
    };
    if repeats.iter().any(Size::depends_on_batch) {
        return Err(op.unknown("repeats a tensor that already has a batch dimension"));
    }
    let mut batch = batch.clone();
    batch.outer = op.product([&batch.outer, &repeats[batch.axis]])?;
    Ok(vec![Value::items(new, batch)])
}

/// A tensor without items, repeated to the shape `new`. If that shape contains the batch dimension, each item gets a copy.
fn repeated(op: &Op<'_>, value: &Value, new: Vec<Size>) -> Outcome {
    let mut places = (0..new.len()).filter(|axis| new[*axis].depends_on_batch());
    let result = match (places.next(), places.next()) {
        (None, _) => Value {
            numbers: value
                .numbers
                .clone()
                .filter(|numbers| Size::product(&new).is_some_and(|count| count.is(numbers.len() as i64))),
            dims: Some(new),
            content: value.content.clone(),
        },
        (Some(axis), None) if new[axis].counts_items() && value.content == Content::Constant => {
            Value::items(new, Batch::at(axis))
        }
        _ => return Err(op.unknown("computes a tensor with several batch dimensions")),
    };
    Ok(vec![result])
}

pub(super) fn constant_of_shape(op: &Op<'_>) -> Outcome {
    let shape = match op.numbers(0) {
        Ok(Some(shape)) => shape,
        Ok(None) => return Err(op.unknown("has no shape")),
        Err(inseparable) => {
            // The rank may be known even if the shape is not.
            let length = op
                .setting(0)?
                .and_then(|shape| shape.dims.as_deref()?.first()?.value());
            let Some(rank) = length.filter(|rank| (0..=16).contains(rank)) else {
                return Err(inseparable);
            };
            if op.value(0)?.content != Content::Constant {
                return Err(inseparable);
            }
            let dims = (0..rank as usize).map(|index| op.own_dimension(index)).collect();
            return Ok(vec![Value::constant(Some(dims))]);
        }
    };
    let value = match op.attribute("value").and_then(|value| value.t.as_ref()) {
        Some(tensor) => {
            super::constant::elements(tensor, op.symbols).and_then(|elements| elements.first().cloned())
        }
        None => Some(Size::known(0)),
    };
    let count = Size::product(shape).and_then(|count| count.value());
    let few = count.filter(|count| (0..=super::constant::MAX_ELEMENTS).contains(count));
    if let (Some(value), Some(count)) = (value, few) {
        return Ok(vec![Value::numbers(shape.to_vec(), vec![value; count as usize])]);
    }
    repeated(op, &Value::constant(Some(Vec::new())), shape.to_vec())
}

pub(super) fn shape(op: &Op<'_>) -> Outcome {
    let dims = op.dims(0)?;
    let rank = dims.len() as i64;
    let bound = |name, otherwise: i64| {
        let bound = op.int(name).unwrap_or(otherwise);
        let bound = if bound < 0 { bound + rank } else { bound };
        bound.clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let numbers = dims[start..end.max(start)].to_vec();
    Ok(vec![Value::numbers(
        vec![Size::known(numbers.len() as i64)],
        numbers,
    )])
}

pub(super) fn size(op: &Op<'_>) -> Outcome {
    let count = op.product(op.dims(0)?)?;
    Ok(vec![Value::numbers(Vec::new(), vec![count])])
}

/// `DepthToSpace` and `SpaceToDepth`: turn blocks of channels into pixels, or the reverse.
pub(super) fn depth_and_space(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let block = Size::known(op.int("blocksize").unwrap_or(1));
    if value.batch().is_some_and(|batch| batch.axis != 0) {
        return Err(op.mixed("moves elements between the batch dimension and other dimensions"));
    }
    let [batch, channels, height, width] = dims else {
        return Err(op.unknown("has an input that is not of four dimensions"));
    };
    let area = op.product([&block, &block])?;
    let new = if op.kind() == "DepthToSpace" {
        [channels.over(&area), height.times(&block), width.times(&block)]
    } else {
        [channels.times(&area), height.over(&block), width.over(&block)]
    };
    let mut all = vec![batch.clone()];
    for (index, size) in new.into_iter().enumerate() {
        all.push(size.unwrap_or_else(|| op.own_dimension(index)));
    }
    Ok(vec![Value::new(all, value.batch().cloned())])
}
