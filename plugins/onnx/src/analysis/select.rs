//! Operators that split, slice, pad or concatenate tensors.

use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Content, Inseparable, Role, Value};

pub(super) fn concat(op: &Op<'_>) -> Outcome {
    let values: Vec<_> = op.inputs.iter().flatten().collect();
    let shapes: Vec<_> = values
        .iter()
        .map(|value| op.dims_of(value))
        .collect::<Result<_, _>>()?;
    let Some((first, _)) = shapes.split_first() else {
        return Err(op.unknown("has no inputs"));
    };
    let axis = op.axis(op.int("axis").unwrap_or(1), first.len())?;
    if shapes.iter().any(|dims| dims.len() != first.len()) {
        return Err(op.unknown("concatenates tensors of different ranks"));
    }
    let mut dims = first.to_vec();
    for other in 0..dims.len() {
        let known = shapes
            .iter()
            .map(|dims| &dims[other])
            .find(|size| size.value().is_some());
        dims[other] = known.unwrap_or(&first[other]).clone();
    }
    let parts: Vec<_> = shapes.iter().map(|dims| dims[axis].clone()).collect();
    let total = parts
        .iter()
        .skip(1)
        .try_fold(parts[0].clone(), |total, part| total.plus(part));
    dims[axis] = total.unwrap_or_else(|| op.dimension(&parts));
    let numbers: Option<Vec<_>> = values.iter().map(|value| value.numbers.as_deref()).collect();
    if let (Some(numbers), true) = (numbers, first.len() == 1) {
        return Ok(vec![Value::numbers(dims, numbers.concat())]);
    }
    let batch = joined(op, &values, &shapes, axis)?;
    if let Some(batch) = batch.as_ref().filter(|batch| batch.axis != axis) {
        let size = values
            .iter()
            .zip(&shapes)
            .find(|(value, _)| value.batch().is_some());
        if let Some((_, shape)) = size {
            dims[batch.axis] = shape[batch.axis].clone();
        }
    }
    Ok(vec![Value::new(dims, batch)])
}

fn joined(
    op: &Op<'_>,
    values: &[&Value],
    shapes: &[&[Size]],
    axis: usize,
) -> Result<Option<Batch>, Inseparable> {
    let Some((batch, size)) = values
        .iter()
        .zip(shapes)
        .find_map(|(value, dims)| Some((value.batch()?, &dims[value.batch()?.axis])))
    else {
        return Ok(None);
    };
    let mut joined = batch.clone();
    let last = shapes[0].len() - 1;
    let places = values
        .iter()
        .zip(shapes)
        .map(|(value, dims)| match value.batch() {
            Some(own) => (own.axis == batch.axis && own.outer == batch.outer && dims[own.axis] == *size)
                .then_some(own.role),
            None => None,
        });
    let places: Vec<_> = places.collect();
    joined.role = match &places[..] {
        [Some(Role::Position), rest @ ..]
            if axis == last
                && batch.axis != last
                && shapes[0][last].is(1)
                && rest.iter().all(|role| *role == Some(Role::Data)) =>
        {
            Role::PositionFirst
        }
        all if all.iter().all(|role| *role == Some(Role::Data)) => Role::Data,
        all if all.contains(&None) => {
            return Err(op.unknown("concatenates tensors with different batch dimensions"));
        }
        _ => return Err(op.unknown("concatenates positions in the batch with other values")),
    };
    if batch.axis == axis {
        joined.outer = op.product([&joined.outer, &Size::known(values.len() as i64)])?;
    }
    Ok(Some(joined))
}

pub(super) fn split(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.axis(op.int("axis").unwrap_or(0), dims.len())?;
    let count = op.node.output.len();
    if value.batch().is_some_and(|batch| batch.axis == axis) {
        return Err(op.mixed("splits the batch"));
    }
    let sizes: Option<Vec<Size>> = match (op.ints("split").filter(|sizes| !sizes.is_empty()), op.numbers(1)) {
        (Some(sizes), _) => Some(sizes.iter().map(|size| Size::known(*size)).collect()),
        (None, Ok(Some(sizes))) => Some(sizes.to_vec()),
        (None, Ok(None)) => dims[axis]
            .over(&Size::known(count as i64))
            .map(|part| vec![part; count]),
        (None, Err(_)) => None,
    };
    let part = |index: usize| {
        let mut dims = dims.to_vec();
        let size = sizes.as_ref().and_then(|sizes| sizes.get(index).cloned());
        dims[axis] = size.unwrap_or_else(|| op.own_dimension(index));
        Value::new(dims, value.batch().cloned())
    };
    let mut parts: Vec<_> = (0..count).map(part).collect();
    if let (Some(numbers), Some(sizes)) = (value.numbers.as_ref().filter(|_| dims.len() == 1), &sizes) {
        let mut rest = &numbers[..];
        for (part, size) in parts.iter_mut().zip(sizes) {
            let length = size.value().and_then(|size| usize::try_from(size).ok());
            let Some((own, others)) = length.and_then(|length| rest.split_at_checked(length)) else {
                break;
            };
            *part = Value::numbers(vec![size.clone()], own.to_vec());
            rest = others;
        }
    }
    Ok(parts)
}

/// The range that `Slice` takes from one dimension.
struct Range {
    axis: usize,
    start: Size,
    end: Size,
    step: Size,
}

pub(super) fn slice(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let mut new = dims.to_vec();
    let mut numbers = value.numbers.clone().filter(|_| dims.len() == 1);
    for range in ranges(op, dims.len())? {
        let size = dims[range.axis].clone();
        let whole = is_whole(&range, &size);
        match value.batch() {
            Some(batch) if batch.axis == range.axis && !whole => {
                return Err(op.mixed("takes items of the batch by their position"));
            }
            Some(_) if !whole && (range.start.depends_on_batch() || range.end.depends_on_batch()) => {
                return Err(op.mixed("takes a part that depends on the number of items in the batch"));
            }
            _ => {}
        }
        if whole {
            continue;
        }
        numbers = numbers.and_then(|numbers| part(&numbers, &range));
        new[range.axis] = length(&range, &size).unwrap_or_else(|| {
            op.dimension(&[size, range.start.clone(), range.end.clone(), range.step.clone()])
        });
    }
    Ok(vec![match numbers {
        Some(numbers) => Value::numbers(vec![Size::known(numbers.len() as i64)], numbers),
        None => Value {
            numbers: None,
            dims: Some(new),
            content: value.content.clone(),
        },
    }])
}

fn ranges(op: &Op<'_>, rank: usize) -> Result<Vec<Range>, Inseparable> {
    let known = |sizes: &[i64]| sizes.iter().map(|size| Size::known(*size)).collect::<Vec<_>>();
    // A computed bound becomes a symbol.
    let input = |index: usize| -> Result<Option<Vec<Size>>, Inseparable> {
        let Some(value) = op.setting(index)? else {
            return Ok(None);
        };
        if let Some(numbers) = &value.numbers {
            return Ok(Some(numbers.clone()));
        }
        let length = value.dims.as_ref().and_then(|dims| dims.first()?.value());
        match (length, &value.content) {
            (Some(length @ 0..=16), content) if op.sizing || *content == Content::Constant => {
                let bound = |element| {
                    let output = op.node.output.first().map_or("", |name| name);
                    op.symbols
                        .number(&format!("bound {index} {element} of {output}"), &[])
                };
                Ok(Some((0..length).map(bound).collect()))
            }
            _ => Err(op.unknown("has bounds that are computed")),
        }
    };
    let (starts, ends, axes, steps) = match (op.ints("starts"), op.ints("ends")) {
        (Some(starts), Some(ends)) => (known(starts), known(ends), op.ints("axes").map(known), None),
        _ => {
            let missing = || op.unknown("has no bounds");
            let starts = input(1)?.ok_or_else(missing)?;
            let ends = input(2)?.ok_or_else(missing)?;
            (starts, ends, op.integers(3)?.as_deref().map(known), input(4)?)
        }
    };
    let one = |(index, (start, end)): (usize, (Size, Size))| {
        let axis = match &axes {
            Some(axes) => axes.get(index).and_then(Size::value),
            None => Some(index as i64),
        };
        let axis = axis.ok_or_else(|| op.unknown("has no known axis"))?;
        Ok(Range {
            axis: op.axis(axis, rank)?,
            start,
            end,
            step: steps
                .as_ref()
                .and_then(|steps| steps.get(index).cloned())
                .unwrap_or(Size::known(1)),
        })
    };
    starts.into_iter().zip(ends).enumerate().map(one).collect()
}

fn is_whole(range: &Range, size: &Size) -> bool {
    // Exporters write a large number for the end of a dimension. No batch is that large.
    let far = range.end.value().is_some_and(|end| end >= 1_000_000);
    range.start.is(0) && range.step.is(1) && (far || range.end == *size)
}

/// The number of elements in a range, if it is known.
fn length(range: &Range, size: &Size) -> Option<Size> {
    let step = range.step.value().filter(|step| *step > 0)?;
    if let Some(size) = size.value() {
        let bound = |bound: &Size| {
            let bound = bound.value()?;
            Some(
                if bound < 0 {
                    bound.saturating_add(size)
                } else {
                    bound
                }
                .clamp(0, size),
            )
        };
        let (start, end) = (bound(&range.start)?, bound(&range.end)?);
        return Some(Size::known((end - start).max(0).saturating_add(step - 1) / step));
    }
    // The size of the dimension is unknown and may be smaller than the end of the range.
    None
}

fn part(numbers: &[Size], range: &Range) -> Option<Vec<Size>> {
    let count = numbers.len() as i64;
    let step = range.step.value().filter(|step| *step != 0)?;
    let bound = |bound: &Size, low: i64, high: i64| {
        let bound = bound.value()?;
        Some(
            if bound < 0 {
                bound.saturating_add(count)
            } else {
                bound
            }
            .clamp(low, high),
        )
    };
    if step > 0 {
        let (start, end) = (bound(&range.start, 0, count)?, bound(&range.end, 0, count)?);
        let indices = (start..end.max(start)).step_by(usize::try_from(step).ok()?);
        return Some(indices.map(|index| numbers[index as usize].clone()).collect());
    }
    let (start, end) = (
        bound(&range.start, -1, count - 1)?,
        bound(&range.end, -1, count - 1)?,
    );
    let indices = (end + 1..=start).rev().step_by(usize::try_from(-step).ok()?);
    Some(indices.map(|index| numbers[index as usize].clone()).collect())
}

/// `Pad`: requires that the batch dimension is not padded.
pub(super) fn pad(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let pads: Option<Vec<Size>> = match op.ints("pads").or_else(|| op.ints("paddings")) {
        Some(pads) => Some(pads.iter().map(|size| Size::known(*size)).collect()),
        None => op.setting(1)?.and_then(|pads| pads.numbers.clone()),
    };
    let axes = match op.integers(3)? {
        Some(axes) => axes
            .iter()
            .map(|axis| op.axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let mut new = dims.to_vec();
    let pads = pads.filter(|pads| pads.len() == 2 * axes.len());
    for (index, axis) in axes.iter().enumerate() {
        let around = pads
            .as_ref()
            .map(|pads| (&pads[index], &pads[axes.len() + index]));
        let none = around.is_some_and(|(before, after)| before.is(0) && after.is(0));
        if none {
            continue;
        }
        if value.batch().is_some_and(|batch| batch.axis == *axis) {
            return Err(match around {
                Some((before, after)) if before.value().is_some() && after.value().is_some() => {
                    op.mixed("adds items to the batch")
                }
                _ => op.unknown("may add items to the batch"),
            });
        }
        let sum = around.and_then(|(before, after)| dims[*axis].plus(before)?.plus(after));
        new[*axis] = sum.unwrap_or_else(|| op.own_dimension(*axis));
    }
    Ok(vec![Value {
        dims: Some(new),
        numbers: None,
        content: value.content.clone(),
    }])
}

/// `Compress`: selects by a list of flags, along one axis or from the flattened tensor.
pub(super) fn compress(op: &Op<'_>) -> Outcome {
    op.setting(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.int("axis").map(|axis| op.axis(axis, dims.len())).transpose()?;
    match (value.batch(), axis) {
        (Some(batch), axis) if axis.is_none_or(|axis| axis == batch.axis) => {
            Err(op.mixed("lists what it finds in all items"))
        }
        (batch, Some(axis)) => {
            let mut new = dims.to_vec();
            new[axis] = op.own_dimension(0);
            Ok(vec![Value::new(new, batch.cloned())])
        }
        (_, None) => Ok(vec![Value::constant(Some(vec![op.own_dimension(0)]))]),
    }
}
