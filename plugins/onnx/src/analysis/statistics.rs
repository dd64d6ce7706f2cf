//! Operators that combine elements along dimensions, such as normalizations, reductions, cumulative sums and top-k selection.
//! They must not operate along the batch dimension.

use super::elementwise::broadcast_first;
use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Inseparable, Role, Value};

/// Checks that the batch is not in a dimension for which `along` returns true.
fn apart(op: &Op<'_>, value: &Value, along: impl Fn(usize) -> bool, what: &str) -> Result<(), Inseparable> {
    match value.batch() {
        Some(batch) if along(batch.axis) => Err(op.mixed(format_args!("{what} over the batch dimension"))),
        _ => Ok(()),
    }
}

/// The value with the same shape and unknown elements.
fn kept(value: &Value) -> Value {
    Value {
        numbers: None,
        ..value.clone()
    }
}

pub(super) fn softmax(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    // Before opset 13, all dimensions from the axis on are normalized together.
    let coerced = op.opset < 13;
    let axis = op.int("axis").unwrap_or(if coerced { 1 } else { -1 });
    let axis = op.axis(axis, dims.len().max(1))?;
    let along = |batch| if coerced { batch >= axis } else { batch == axis };
    apart(op, value, along, "normalizes")?;
    Ok(vec![kept(value)])
}

/// `LpNormalization`: normalizes along one dimension, by default the last.
pub(super) fn lp_normalization(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.axis(op.int("axis").unwrap_or(-1), dims.len())?;
    apart(op, value, |batch| batch == axis, "normalizes")?;
    Ok(vec![kept(value)])
}

/// `LayerNormalization` and its variants: normalize all dimensions from the axis on, with weights for the elements of an item.
pub(super) fn layer_normalization(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.axis(op.int("axis").unwrap_or(-1), dims.len())?;
    apart(op, value, |batch| batch >= axis, "normalizes")?;
    weights_within(op, 1, dims.len() - axis)?;
    let mut statistics = dims.to_vec();
    statistics[axis..].fill(Size::known(1));
    let statistics = Value::new(statistics, value.batch().cloned());
    Ok(vec![kept(value), statistics.clone(), statistics])
}

/// Checks that the weights (the inputs from `first` on) have size 1 in all but the last `rank` dimensions, so that they do not
/// reach the batch dimension.
fn weights_within(op: &Op<'_>, first: usize, rank: usize) -> Result<(), Inseparable> {
    for index in first..op.inputs.len() {
        if op.get(index).is_none() {
            continue;
        }
        let dims = op.dims(index)?;
        let before = &dims[..dims.len().saturating_sub(rank)];
        if before.iter().any(|size| !size.is(1)) {
            return Err(op.unknown("has weights of more dimensions than it normalizes"));
        }
    }
    Ok(())
}

/// `SkipLayerNormalization`: normalizes the sum of two tensors along the last dimension.
pub(super) fn skip_layer_normalization(op: &Op<'_>) -> Outcome {
    let sum = broadcast_first(op, 2)?.remove(0);
    let rank = sum.rank().unwrap_or(0);
    apart(op, &sum, |batch| batch + 1 == rank, "normalizes")?;
    let mut mean = sum.dims.clone().unwrap_or_default();
    if let Some(last) = mean.last_mut() {
        *last = Size::known(1);
    }
    let mean = Value::new(mean, sum.batch().cloned());
    Ok(vec![kept(&sum), mean.clone(), mean, kept(&sum)])
}

/// Operators that normalize each item separately, along any dimensions after the first.
pub(super) fn of_each_item(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let value = op.value(0)?;
    apart(op, value, |batch| batch > 0, "normalizes")?;
    Ok(vec![kept(value)])
}

/// `BatchNormalization`: in inference, uses the running statistics of each channel (dimension 1).
pub(super) fn batch_normalization(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let value = op.value(0)?;
    // `is_test` selects training mode before opset 7, and `training_mode` from opset 14.
    let training = match op.opset {
        14.. => op.int("training_mode").unwrap_or(0) != 0,
        7.. => false,
        _ => op.int("is_test").unwrap_or(0) == 0,
    };
    if training && value.batch().is_some() {
        return Err(op.mixed("is in training mode, so it normalizes over the batch"));
    }
    apart(op, value, |batch| batch == 1, "normalizes")?;
    Ok(vec![kept(value)])
}

pub(super) fn mean_variance_normalization(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axes = match op.ints("axes") {
        Some(axes) => axes.to_vec(),
        None if op.opset < 9 => {
            let channels = op.int("across_channels").unwrap_or(0) != 0;
            if channels { vec![1, 2, 3] } else { vec![2, 3] }
        }
        None => vec![0, 2, 3],
    };
    let axes = axes
        .iter()
        .map(|axis| op.axis(*axis, dims.len()))
        .collect::<Result<Vec<_>, _>>()?;
    apart(op, value, |batch| axes.contains(&batch), "normalizes")?;
    Ok(vec![kept(value)])
}

/// `LRN`: normalizes over neighboring channels (dimension 1).
pub(super) fn local_response(op: &Op<'_>) -> Outcome {
    let value = op.value(0)?;
    apart(op, value, |batch| batch == 1, "normalizes")?;
    Ok(vec![kept(value)])
}

pub(super) fn reduce(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axes = match op.axes(1)? {
        Some(axes) if !axes.is_empty() => axes
            .iter()
            .map(|axis| op.axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        _ if op.int("noop_with_empty_axes").unwrap_or(0) != 0 => return Ok(vec![kept(value)]),
        _ => (0..dims.len()).collect(),
    };
    let what = match op.kind() {
        "ReduceMean" => "averages",
        "ReduceSum" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => "sums",
        "ReduceMax" => "takes the maximum",
        "ReduceMin" => "takes the minimum",
        _ => "reduces",
    };
    apart(op, value, |batch| axes.contains(&batch), what)?;
    let mut result = without(op, value, dims, &axes);
    let single = result
        .dims
        .as_ref()
        .filter(|dims| dims.iter().all(|size| size.is(1)));
    if let (Some(numbers), Some(dims)) = (&value.numbers, single)
        && let Some(number) = of_all(op.kind(), numbers)
    {
        result = Value::numbers(dims.clone(), vec![number]);
    }
    Ok(vec![result])
}

/// Reduces numbers to one number, if the result is exact.
fn of_all(kind: &str, numbers: &[Size]) -> Option<Size> {
    match kind {
        "ReduceProd" => return Size::product(numbers),
        "ReduceSum" => {
            let mut numbers = numbers.iter();
            let first = numbers.next()?.clone();
            return numbers.try_fold(first, |sum, number| sum.plus(number));
        }
        _ => {}
    }
    let known: Vec<i64> = numbers.iter().map(Size::value).collect::<Option<_>>()?;
    let number = match kind {
        "ReduceMax" => known.into_iter().max(),
        "ReduceMin" => known.into_iter().min(),
        _ => None,
    };
    number.map(Size::known)
}

/// The result of a reduction: `axes` have size 1, or are removed if `keepdims` is 0.
fn without(op: &Op<'_>, value: &Value, dims: &[Size], axes: &[usize]) -> Value {
    let keep = op.int("keepdims").unwrap_or(1) != 0;
    let new = dims
        .iter()
        .enumerate()
        .filter_map(|(axis, size)| match (axes.contains(&axis), keep) {
            (false, _) => Some(size.clone()),
            (true, true) => Some(Size::known(1)),
            (true, false) => None,
        });
    let lost = |batch: &Batch| axes.iter().filter(|axis| !keep && **axis < batch.axis).count();
    let batch = value.batch().map(|batch| batch.moved(batch.axis - lost(batch)));
    Value::new(new.collect(), batch)
}

pub(super) fn arg_extreme(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.axis(op.int("axis").unwrap_or(0), dims.len())?;
    apart(op, value, |batch| batch == axis, "chooses")?;
    Ok(vec![without(op, value, dims, &[axis])])
}

pub(super) fn top_k(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axis = op.axis(op.int("axis").unwrap_or(-1), dims.len())?;
    apart(op, value, |batch| batch == axis, "chooses")?;
    let mut new = dims.to_vec();
    new[axis] = match (op.int("k"), op.numbers(1)) {
        (Some(k), _) => Size::known(k),
        (None, Ok(Some([k]))) => k.clone(),
        _ => op.own_dimension(0),
    };
    let best = Value::new(new, value.batch().cloned());
    Ok(vec![best.clone(), best])
}

/// `CumSum` and `CumProd`.
pub(super) fn cumulative(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    match op.integers(1)?.as_deref() {
        Some([axis]) => {
            let axis = op.axis(*axis, dims.len())?;
            apart(op, value, |batch| batch == axis, "sums")?;
            Ok(vec![kept(value)])
        }
        _ => Err(op.unknown("has no known axis")),
    }
}

/// `DynamicQuantizeLinear`: computes a single scale for the whole tensor from its minimum and maximum.
pub(super) fn dynamic_quantize(op: &Op<'_>) -> Outcome {
    let value = op.value(0)?;
    if value.batch().is_some() {
        return Err(
            op.mixed("takes one scale for the whole batch, so the range of each item changes the others")
        );
    }
    let scalar = Value::constant(Some(Vec::new()));
    Ok(vec![kept(value), scalar.clone(), scalar])
}

/// `QuantizeLinear` and `DequantizeLinear`, with a scale for the whole tensor (per-tensor), for each index along one axis
/// (per-axis), or for each block.
pub(super) fn quantize(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let scales = op.dims(1)?;
    let single = scales.iter().all(|size| size.is(1));
    let blocked = scales.len() > 1;
    if !single && !dims.is_empty() {
        let axis = op.axis(op.int("axis").unwrap_or(1), dims.len())?;
        if value.batch().is_some_and(|batch| batch.axis == axis || blocked) {
            return Err(op.mixed("has a scale for each position in the batch"));
        }
    }
    Ok(vec![kept(value)])
}

/// `Trilu` and other operators on the matrices in the last two dimensions.
pub(super) fn triangle(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let value = op.value(0)?;
    let rank = op.dims(0)?.len();
    apart(op, value, |batch| batch + 2 >= rank, "takes a triangle")?;
    Ok(vec![kept(value)])
}

/// `ReverseSequence`: reverses each sequence up to its length.
pub(super) fn reverse_sequence(op: &Op<'_>) -> Outcome {
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let batch_axis = op.axis(op.int("batch_axis").unwrap_or(1), dims.len())?;
    let Some(batch) = value.batch() else {
        op.settings_from(1)?;
        return Ok(vec![kept(value)]);
    };
    if batch.axis != batch_axis {
        return Err(op.mixed("reverses the order of the items"));
    }
    match op.batch(1) {
        Some(lengths) if *lengths == batch.moved(0) => Ok(vec![kept(value)]),
        Some(_) => Err(op.unknown("has lengths that are not those of the items")),
        None => Err(op.mixed("has a length for each position in the batch")),
    }
}

/// Operators that return the elements found in all items as a single list.
pub(super) fn listed(op: &Op<'_>) -> Outcome {
    if op.inputs.iter().flatten().any(|value| value.batch().is_some()) {
        return Err(op.mixed("lists what it finds in all items"));
    }
    let length = op.own_dimension(0);
    let dims = match op.kind() {
        "NonZero" => vec![Size::known(op.dims(0)?.len() as i64), length],
        "NonMaxSuppression" => vec![length, Size::known(3)],
        _ => return Err(op.unknown("has a result of unknown shape")),
    };
    Ok(vec![Value::constant(Some(dims))])
}

/// Operators that draw random numbers: the numbers for an item depend on its index in the batch.
pub(super) fn random(op: &Op<'_>) -> Outcome {
    Err(op.mixed("draws random numbers for the whole batch, so those of an item depend on its position"))
}

/// `Dropout`: the identity in inference; in training, it draws random numbers.
pub(super) fn dropout(op: &Op<'_>) -> Outcome {
    let value = op.value(0)?;
    let training = match op.opset {
        12.. => op.setting(2)?.is_some_and(|flag| {
            // A flag of unknown value may be true.
            flag.numbers
                .as_deref()
                .is_none_or(|flag| flag.iter().any(|flag| !flag.is(0)))
        }),
        7.. => false,
        _ => op.int("is_test").unwrap_or(0) == 0,
    };
    if training {
        return random(op);
    }
    // In inference, the mask is true everywhere.
    let mask = Value::new(op.dims(0)?.to_vec(), value.batch().cloned());
    Ok(vec![value.clone(), mask])
}

/// Operators of classical models, which compute one row of the output from each row of the input `[items, features]`.
pub(super) fn rows(op: &Op<'_>) -> Outcome {
    let mut first: Option<Batch> = None;
    for value in op.inputs.iter().flatten() {
        let Some(batch) = value.batch() else { continue };
        // These operators interpret a one-dimensional tensor as the features of a single item.
        if batch.axis != 0 || (op.dims_of(value)?.len() < 2 && op.kind() != "ZipMap") {
            return Err(op.mixed("treats the items as the features of one item"));
        }
        if batch.role != Role::Data || first.as_ref().is_some_and(|first| first != batch) {
            return Err(op.unknown("combines tensors whose batch dimensions differ"));
        }
        first = Some(batch.clone());
    }
    let dims = op.dims(0)?;
    let width = |index| match op.kind() {
        "Normalizer" | "Scaler" | "Imputer" | "Binarizer" => dims.get(1).cloned().unwrap_or(Size::known(1)),
        _ => op.own_dimension(index),
    };
    let label = op.kind().ends_with("Classifier");
    let value = |index: usize| match (label && index == 0, dims.first()) {
        (true, Some(count)) => Value::new(vec![count.clone()], first.clone()),
        (false, Some(count)) => Value::new(vec![count.clone(), width(index)], first.clone()),
        (_, None) => Value::constant(None),
    };
    Ok((0..op.node.output.len()).map(value).collect())
}

/// `OneHot` and `OneHotEncoder`: insert a dimension with one element for each category.
pub(super) fn one_hot(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let classical = op.kind() == "OneHotEncoder";
    let axis = if classical {
        -1
    } else {
        op.int("axis").unwrap_or(-1)
    };
    let axis = op.axis(axis, dims.len() + 1)?;
    let mut new = dims.to_vec();
    let depth = match op.numbers(1) {
        Ok(Some([depth])) if !classical => depth.clone(),
        _ => op.own_dimension(0),
    };
    new.insert(axis, depth);
    let batch = value
        .batch()
        .map(|batch| batch.moved(batch.axis + usize::from(batch.axis >= axis)));
    Ok(vec![Value::new(new, batch)])
}
