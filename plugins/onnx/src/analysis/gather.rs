//! Operators that select or overwrite elements by index.

use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Content, Role, Value};

pub(super) fn gather(op: &Op<'_>) -> Outcome {
    let (data, indices) = (op.value(0)?, op.value(1)?);
    let (data_dims, index_dims) = (op.dims(0)?, op.dims(1)?);
    let axis = op.axis(op.int("axis").unwrap_or(0), data_dims.len())?;
    if let Some(result) = picked_numbers(data, indices, index_dims) {
        return Ok(vec![result]);
    }
    let dims = [&data_dims[..axis], index_dims, &data_dims[axis + 1..]].concat();
    let batch = match (data.batch(), indices.batch()) {
        (Some(_), Some(_)) => return Err(op.mixed("looks up the indices of each item in all items")),
        (Some(batch), None) if batch.axis == axis => {
            return Err(op.mixed("selects items by their position in the batch"));
        }
        (Some(_), None) if indices.content == Content::Count => {
            return Err(op.mixed("selects elements by the number of items in the batch"));
        }
        (Some(batch), None) if batch.axis < axis => Some(batch.clone()),
        (Some(batch), None) => Some(batch.moved(batch.axis + index_dims.len() - 1)),
        (None, Some(batch)) => Some(batch.moved(batch.axis + axis)),
        (None, None) => None,
    };
    Ok(vec![Value::new(dims, batch)])
}

/// The elements of a known vector at known indices.
fn picked_numbers(data: &Value, indices: &Value, index_dims: &[Size]) -> Option<Value> {
    let numbers = data.numbers.as_ref().filter(|_| data.rank() == Some(1))?;
    let pick = |index: &Size| {
        let index = index.value()?;
        let index = if index < 0 {
            index + numbers.len() as i64
        } else {
            index
        };
        numbers.get(usize::try_from(index).ok()?).cloned()
    };
    let picked = indices
        .numbers
        .as_ref()?
        .iter()
        .map(pick)
        .collect::<Option<Vec<_>>>()?;
    Some(Value::numbers(index_dims.to_vec(), picked))
}

/// `GatherElements`: the indices have the shape of the result.
pub(super) fn gather_elements(op: &Op<'_>) -> Outcome {
    let (data, indices) = (op.value(0)?, op.value(1)?);
    let (data_dims, dims) = (op.dims(0)?, op.dims(1)?);
    let axis = op.axis(op.int("axis").unwrap_or(0), data_dims.len())?;
    let batch = match (data.batch(), indices.batch()) {
        (Some(batch), _) if batch.axis == axis => {
            return Err(op.mixed("looks up the indices of each item in all items"));
        }
        (Some(data), Some(indices)) if data == indices => Some(data.clone()),
        (None, Some(batch)) if batch.axis == axis => Some(batch.clone()),
        (None, None) => None,
        _ => return Err(op.unknown("looks up indices that do not have the items where the data has them")),
    };
    let same = batch.as_ref().filter(|batch| batch.axis != axis);
    if same.is_some_and(|batch| data_dims[batch.axis] != dims[batch.axis]) {
        return Err(op.unknown("looks up indices of other items than the data has"));
    }
    Ok(vec![Value::new(dims.to_vec(), batch)])
}

pub(super) fn gather_nd(op: &Op<'_>) -> Outcome {
    let (data, indices) = (op.value(0)?, op.value(1)?);
    let (data_dims, index_dims) = (op.dims(0)?, op.dims(1)?);
    let shared = usize::try_from(op.int("batch_dims").unwrap_or(0)).unwrap_or(0);
    let width = index_dims.last().and_then(Size::value);
    let width = width.and_then(|width| usize::try_from(width).ok());
    let Some(width) = width.filter(|width| shared + width <= data_dims.len()) else {
        return Err(op.unknown("has indices of unknown width"));
    };
    let rows = index_dims.len() - 1;
    let dims = [&index_dims[..rows], &data_dims[shared + width..]].concat();
    let batch = match (data.batch(), indices.batch()) {
        (Some(data), Some(indices)) if data.axis < shared && data == indices => Some(data.clone()),
        (Some(data), Some(indices))
            if shared == 0
                && *data == Batch::at(0)
                && indices.role == Role::PositionFirst
                && indices.axis < rows
                && data_dims[0] == index_dims[indices.axis] =>
        {
            Some(Batch::at(indices.axis))
        }
        (Some(_), Some(_)) => return Err(op.unknown("looks up the indices of each item in all items")),
        (Some(data), None) if data.axis < shared + width => {
            return Err(op.mixed("selects items by their position in the batch"));
        }
        (Some(data), None) => Some(data.moved(data.axis + rows - shared - width)),
        (None, Some(indices))
            if indices.axis < rows && indices.role == Role::Data && indices.axis >= shared =>
        {
            Some(indices.clone())
        }
        (None, Some(_)) => return Err(op.unknown("looks up positions in the batch")),
        (None, None) => None,
    };
    Ok(vec![Value::new(dims, batch)])
}

/// `ScatterElements`: requires that the updates of each item are written into that item's own part.
pub(super) fn scatter_elements(op: &Op<'_>) -> Outcome {
    let data = op.value(0)?;
    let dims = op.dims(0)?;
    let axis = op.axis(op.int("axis").unwrap_or(0), dims.len())?;
    match data.batch() {
        Some(batch) if batch.axis == axis => Err(op.mixed("writes elements of items into others")),
        Some(batch) => {
            let same = |index: usize| {
                let size = op.dims(index).ok().map(|dims| &dims[batch.axis]);
                op.batch(index) == Some(batch) && size == Some(&dims[batch.axis])
            };
            match same(1) && same(2) {
                true => Ok(vec![Value::items(dims.to_vec(), batch.clone())]),
                false => Err(op.unknown("writes at indices that are not those of the items")),
            }
        }
        None if op.inputs.iter().flatten().all(|value| value.batch().is_none()) => {
            Ok(vec![Value::constant(Some(dims.to_vec()))])
        }
        None => Err(op.unknown("writes elements of the items into a tensor without a batch")),
    }
}

pub(super) fn scatter_nd(op: &Op<'_>) -> Outcome {
    if op.inputs.iter().flatten().any(|value| value.batch().is_some()) {
        return Err(op.unknown("writes at indices that may be those of other items"));
    }
    Ok(vec![Value::constant(Some(op.dims(0)?.to_vec()))])
}
