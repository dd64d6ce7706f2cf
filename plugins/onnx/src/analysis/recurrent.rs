//! Recurrent networks, and attention that is a single operator.

use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Inseparable, Role, Value};

/// `LSTM`, `GRU` and `RNN`: dimension 1 is the batch, or dimension 0 if the attribute `layout` is 1.
pub(super) fn recurrent(op: &Op<'_>) -> Outcome {
    let dims = op.dims(0)?;
    let first = op.int("layout").unwrap_or(0) != 0;
    let (time, items) = if first { (1, 0) } else { (0, 1) };
    if dims.len() != 3 {
        return Err(op.unknown("has an input that is not of three dimensions"));
    }
    let batch = op.batch(0);
    match batch {
        Some(batch) if batch.axis == time => {
            return Err(op.mixed("treats the items as the steps of one sequence"));
        }
        Some(batch) if batch.axis != items => return Err(op.mixed("treats the items as features")),
        _ => {}
    }
    // Weights and biases are shared by all items. Each item has its own sequence length and states.
    for index in [1, 2, 3] {
        op.setting(index)?;
    }
    let place = |index: usize| match (op.kind(), index) {
        (_, 4) => Some(0),
        (_, 5) | ("LSTM", 6) => Some(if first { 0 } else { 1 }),
        _ => None,
    };
    for index in 4..op.inputs.len() {
        let (Some(value), Some(place)) = (op.get(index), place(index)) else {
            op.setting(index)?;
            continue;
        };
        own_state(op, value, batch, place, &dims[items])?;
    }
    let hidden = op
        .int("hidden_size")
        .map_or_else(|| op.own_dimension(0), Size::known);
    let both = op.string("direction") == Some("bidirectional");
    let directions = Size::known(if both { 2 } else { 1 });
    let (steps, count) = (dims[time].clone(), dims[items].clone());
    let (all, last) = if first {
        (
            vec![count.clone(), steps, directions.clone(), hidden.clone()],
            vec![count, directions, hidden],
        )
    } else {
        (
            vec![steps, directions.clone(), count.clone(), hidden.clone()],
            vec![directions, count, hidden],
        )
    };
    let (all_at, last_at) = if first { (0, 0) } else { (2, 1) };
    let value = |dims, axis| Value::new(dims, batch.map(|batch| batch.moved(axis)));
    let last = value(last, last_at);
    Ok(vec![value(all, all_at), last.clone(), last])
}

/// Checks that a sequence length or state input has one entry for each item, in the same order.
fn own_state(
    op: &Op<'_>,
    value: &Value,
    batch: Option<&Batch>,
    place: usize,
    count: &Size,
) -> Result<(), Inseparable> {
    let Some(batch) = batch else {
        return match value.batch() {
            Some(_) => Err(op.unknown("has states of the items for a sequence without items")),
            None => Ok(()),
        };
    };
    match value.batch() {
        Some(own) if *own == batch.moved(place) && op.dims_of(value)?.get(place) == Some(count) => Ok(()),
        Some(_) => Err(op.mixed("has states that are not those of the items")),
        None => Err(op.unknown("has an initial state for a fixed number of items")),
    }
}

/// Operators that keep items independent, with the batch in dimension 0 of every input that contains items. `shapes` returns the
/// shapes of the outputs for a given size of dimension 0.
fn first_dimension(op: &Op<'_>, shapes: impl Fn(&Size) -> Vec<Vec<Size>>) -> Outcome {
    let mut known: Option<(&Batch, &Size)> = None;
    for value in op.inputs.iter().flatten() {
        let Some(batch) = value.batch() else { continue };
        let size = &op.dims_of(value)?[batch.axis];
        if batch.axis != 0 {
            return Err(op.unknown("treats another dimension as the batch dimension"));
        }
        if batch.role != Role::Data || known.is_some_and(|known| known != (batch, size)) {
            return Err(op.unknown("combines tensors whose batch dimensions differ"));
        }
        known = Some((batch, size));
    }
    let Some((batch, size)) = known else {
        return Err(op.unknown("has outputs of unknown shape"));
    };
    let shapes = shapes(size).into_iter();
    Ok(shapes.map(|dims| Value::items(dims, batch.clone())).collect())
}

/// Attention over `[items, length, width]`, with optional masks and past keys and values.
pub(super) fn attention(op: &Op<'_>) -> Outcome {
    let query = op.dims(0)?.to_vec();
    if op.batch(0).is_none() {
        return Err(op.unknown("has a query without items"));
    }
    if op.kind() == "Attention" && op.node.domain.as_deref() == Some("com.microsoft") {
        op.setting(1)?;
        op.setting(2)?;
    }
    let shared = op.inputs.iter().flatten().filter(|value| value.batch().is_none());
    let by_place = |value: &Value| {
        let dims = value.dims.as_deref();
        dims.is_none_or(|dims| dims.len() > 2 && !dims[0].is(1))
    };
    if shared.into_iter().any(by_place) {
        return Err(op.unknown("has an input that may have values for each position in the batch"));
    }
    let width = |index: usize| op.own_dimension(index);
    let main = |size: &Size| {
        let mut dims = query.clone();
        dims[0] = size.clone();
        if let Some(last) = dims.last_mut().filter(|_| query.len() > 1) {
            *last = width(0);
        }
        dims
    };
    let outputs = op.node.output.len();
    let mut values = first_dimension(op, |size| vec![main(size)])?;
    // The dimension of the batch in the present keys and values varies from operator to operator.
    values.extend(
        (1..outputs)
            .map(|_| Value::inseparable(op.unknown("has outputs that the analysis does not support"))),
    );
    Ok(values)
}

/// Operators that process each item independently and whose output has the shape of the first input.
pub(super) fn same_shape(op: &Op<'_>) -> Outcome {
    let dims = op.dims(0)?.to_vec();
    if op.batch(0).is_none() {
        return Err(op.unknown("has an input without items"));
    }
    first_dimension(op, |_| vec![dims.clone()])
}

/// `EmbedLayerNormalization`: looks up word, position and segment embeddings and normalizes their sum.
pub(super) fn embed_layer_normalization(op: &Op<'_>) -> Outcome {
    for index in 2..op.inputs.len() {
        if index != 7 && index != 8 {
            op.setting(index)?;
        }
    }
    let (dims, width) = (op.dims(0)?.to_vec(), op.own_dimension(0));
    first_dimension(op, |size| {
        let mut embedded = dims.clone();
        embedded.push(width.clone());
        vec![embedded.clone(), vec![size.clone()], embedded]
    })
}
