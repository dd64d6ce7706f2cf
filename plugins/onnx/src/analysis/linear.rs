//! Matrix products, convolutions, pooling, and operators that resize or sample images.

use super::elementwise::stretched;
use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Batch, Inseparable, Value};

/// `MatMul` and its variants. `first` and `second` are the input indices of the factors; the other inputs are settings.
pub(super) fn matmul_at(op: &Op<'_>, first: usize, second: usize) -> Outcome {
    for index in (0..op.inputs.len()).filter(|index| ![first, second].contains(index)) {
        op.setting(index)?;
    }
    if op.int("transBatchA").unwrap_or(0) != 0 || op.int("transBatchB").unwrap_or(0) != 0 {
        return Err(op.unknown("transposes the batch"));
    }
    let (left, right) = (
        factor(op, first, op.int("transA"))?,
        factor(op, second, op.int("transB"))?,
    );
    Ok(vec![product(op, left, right)?])
}

pub(super) fn matmul(op: &Op<'_>) -> Outcome {
    matmul_at(op, 0, 1)
}

/// The shape of a factor, and where its items are.
type Factor = (Vec<Size>, Option<Batch>);

/// The factor at input `index`, with its last two dimensions swapped if `transposed` is nonzero.
fn factor(op: &Op<'_>, index: usize, transposed: Option<i64>) -> Result<Factor, Inseparable> {
    let mut dims = op.dims(index)?.to_vec();
    let mut batch = op.batch(index).cloned();
    let rank = dims.len();
    if transposed.unwrap_or(0) != 0 && rank >= 2 {
        dims.swap(rank - 1, rank - 2);
        if let Some(batch) = &mut batch
            && batch.axis + 2 >= rank
        {
            batch.axis = 2 * rank - 3 - batch.axis;
        }
    }
    Ok((dims, batch))
}

fn product(op: &Op<'_>, left: Factor, right: Factor) -> Result<Value, Inseparable> {
    let contracted = || op.mixed("sums over the batch dimension");
    let crossed = || op.mixed("combines every item with every other");
    let (mut left, mut right) = (left, right);
    let vectors = (left.0.len() == 1, right.0.len() == 1);
    if left.0.is_empty() || right.0.is_empty() {
        return Err(op.unknown("multiplies a scalar"));
    }
    // A vector on the left is a matrix with one row; a vector on the right is a matrix with one column.
    if vectors.0 {
        left.0.insert(0, Size::known(1));
        left.1 = left.1.map(|batch| batch.moved(batch.axis + 1));
    }
    if vectors.1 {
        right.0.push(Size::known(1));
    }
    let (rows, columns) = (left.0.len() - 2, right.0.len() - 1);
    let row_items = match &left.1 {
        Some(batch) if batch.axis == rows + 1 => return Err(contracted()),
        Some(batch) if batch.axis == rows => Some(batch.clone()),
        _ => None,
    };
    let column_items = match &right.1 {
        Some(batch) if batch.axis + 1 == columns => return Err(contracted()),
        Some(batch) if batch.axis == columns => Some(batch.clone()),
        _ => None,
    };
    if (row_items.is_some() && right.1.is_some()) || (column_items.is_some() && left.1.is_some()) {
        return Err(crossed());
    }
    let outer = |factor: &Factor, inside: bool| {
        let dims = factor.0[..factor.0.len() - 2].to_vec();
        (dims, factor.1.clone().filter(|_| !inside))
    };
    let (outer_left, outer_right) = (
        outer(&left, row_items.is_some()),
        outer(&right, column_items.is_some()),
    );
    let (mut dims, mut batch) = stretched(
        op,
        &[
            (&outer_left.0, outer_left.1.as_ref()),
            (&outer_right.0, outer_right.1.as_ref()),
        ],
    )?;
    let rank = dims.len();
    if let Some(items) = row_items {
        batch = Some(items.moved(rank));
    }
    if let Some(items) = column_items {
        batch = Some(items.moved(if vectors.0 { rank } else { rank + 1 }));
    }
    if !vectors.0 {
        dims.push(left.0[rows].clone());
    }
    if !vectors.1 {
        dims.push(right.0[columns].clone());
    }
    Ok(Value::new(dims, batch))
}

pub(super) fn gemm(op: &Op<'_>) -> Outcome {
    let sum = product(
        op,
        factor(op, 0, op.int("transA"))?,
        factor(op, 1, op.int("transB"))?,
    )?;
    let Some(addend) = op.get(2) else {
        return Ok(vec![sum]);
    };
    let shapes = [
        (op.dims_of(&sum)?, sum.batch()),
        (op.dims_of(addend)?, addend.batch()),
    ];
    let (dims, batch) = stretched(op, &shapes)?;
    Ok(vec![Value::new(dims, batch)])
}

/// `MatMulNBits` and its variants, whose weights have an operator-specific packed format. Only the last dimension changes.
pub(super) fn packed_matmul(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let mut dims = op.dims(0)?.to_vec();
    let batch = op.batch(0);
    match dims.last_mut() {
        Some(_) if batch.is_some_and(|batch| batch.axis + 1 == op.dims(0).map_or(0, <[_]>::len)) => {
            Err(op.mixed("sums over the batch dimension"))
        }
        Some(last) => {
            *last = op.int("N").map_or_else(|| op.own_dimension(0), Size::known);
            Ok(vec![Value::new(dims, batch.cloned())])
        }
        None => Err(op.unknown("multiplies a scalar")),
    }
}

pub(super) fn einsum(op: &Op<'_>) -> Outcome {
    let equation = op.string("equation").unwrap_or_default().replace(' ', "");
    let Some((inputs, output)) = equation.split_once("->") else {
        return Err(op.unknown("has an equation without a result"));
    };
    let inputs: Vec<&str> = inputs.split(',').collect();
    if equation.contains('.') || inputs.len() != op.inputs.len() {
        return Err(op.unknown("has an equation with an ellipsis"));
    }
    let mut batch: Option<(char, Batch)> = None;
    let mut sizes: Vec<(char, Size)> = Vec::new();
    for (index, letters) in inputs.iter().enumerate() {
        let dims = op.dims(index)?;
        if letters.chars().count() != dims.len() {
            return Err(op.unknown("has an equation that does not fit its inputs"));
        }
        for (axis, (letter, size)) in letters.chars().zip(dims).enumerate() {
            if !sizes.iter().any(|(known, _)| *known == letter) {
                sizes.push((letter, size.clone()));
            }
            let Some(own) = op.batch(index).filter(|own| own.axis == axis) else {
                continue;
            };
            match &batch {
                Some((known, _)) if *known != letter => {
                    return Err(op.mixed("combines every item with every other"));
                }
                Some((_, other)) if other.outer != own.outer => {
                    return Err(op.unknown("combines tensors whose batch dimensions differ"));
                }
                _ => batch = Some((letter, own.clone())),
            }
        }
    }
    if let Some((letter, _)) = &batch {
        for (index, letters) in inputs.iter().enumerate() {
            let Some(axis) = letters.chars().position(|other| other == *letter) else {
                continue;
            };
            let size = &op.dims(index)?[axis];
            if op.batch(index).is_none() && !size.is(1) {
                return Err(op.mixed("combines each item with values for its position in the batch"));
            }
            if op.batch(index).is_some()
                && let Some(known) = sizes.iter_mut().find(|(known, _)| known == letter)
            {
                if known.1.depends_on_batch() && known.1 != *size {
                    return Err(op.unknown("combines tensors whose batch dimensions differ"));
                }
                known.1 = size.clone();
            }
            if letters.matches(*letter).count() > 1 {
                return Err(op.mixed("takes a diagonal of the batch"));
            }
        }
        if !output.contains(*letter) {
            return Err(op.mixed("sums over the batch dimension"));
        }
    }
    let size = |letter: char| {
        sizes
            .iter()
            .find(|(known, _)| *known == letter)
            .map(|(_, size)| size.clone())
    };
    let dims: Option<Vec<_>> = output.chars().map(size).collect();
    let dims = dims.ok_or_else(|| op.unknown("has an equation that does not fit its inputs"))?;
    let batch = batch.and_then(|(letter, own)| {
        let axis = output.chars().position(|other| other == letter)?;
        Some(own.moved(axis))
    });
    Ok(vec![Value::new(dims, batch)])
}

/// Checks that an image `[items, channels, …]` has its items in dimension `last` or an earlier one. `last` can be 1 only if the
/// operator processes each channel separately.
fn image<'v>(op: &'v Op<'_>, input: usize, last: usize) -> Result<(&'v [Size], Option<Batch>), Inseparable> {
    let dims = op.dims(input)?;
    match op.batch(input) {
        Some(batch) if batch.axis > last => {
            Err(op.mixed("computes each element from those of several items"))
        }
        batch => Ok((dims, batch.cloned())),
    }
}

/// A convolution. `image_at` and `weight_at` are the indices of its inputs.
pub(super) fn convolution_at(op: &Op<'_>, image_at: usize, weight_at: usize) -> Outcome {
    for index in (0..op.inputs.len()).filter(|index| *index != image_at) {
        op.setting(index)?;
    }
    let (dims, batch) = image(op, image_at, 0)?;
    let weight = op.dims(weight_at)?;
    if dims.len() < 2 || weight.len() != dims.len() {
        return Err(op.unknown("has an image and weights of different ranks"));
    }
    let transposed = op.kind() == "ConvTranspose";
    let channels = if transposed {
        op.product([&weight[1], &Size::known(op.int("group").unwrap_or(1))])?
    } else {
        weight[0].clone()
    };
    let mut new = vec![dims[0].clone(), channels];
    for (index, size) in dims[2..].iter().enumerate() {
        let kernel = weight[index + 2].value();
        let known = kernel.and_then(|kernel| match transposed {
            true => spread(op, index, dims.len() - 2, size, kernel),
            false => windows(op, index, dims.len() - 2, size, kernel),
        });
        new.push(known.unwrap_or_else(|| op.own_dimension(index)));
    }
    Ok(vec![Value::new(new, batch)])
}

pub(super) fn convolution(op: &Op<'_>) -> Outcome {
    convolution_at(op, 0, 1)
}

/// `MaxPool` and its variants, which process each channel separately.
pub(super) fn pool(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (dims, batch) = image(op, 0, 1)?;
    let kernel = op.ints("kernel_shape").unwrap_or_default();
    if dims.len() != kernel.len() + 2 {
        return Err(op.unknown("has a kernel that does not fit its input"));
    }
    let mut new = dims[..2].to_vec();
    for (index, (size, length)) in dims[2..].iter().zip(kernel).enumerate() {
        let known = windows(op, index, kernel.len(), size, *length);
        new.push(known.unwrap_or_else(|| op.own_dimension(index)));
    }
    let value = Value::new(new, batch);
    // The second output of `MaxPool` contains indices into the flattened tensor of the whole batch.
    let indices = match op.node.output.get(1).filter(|name| !name.is_empty()) {
        Some(_) if value.batch().is_some() => {
            Value::inseparable(op.mixed("returns indices into the whole batch"))
        }
        _ => Value::constant(value.dims.clone()),
    };
    Ok(vec![value, indices])
}

/// Element `index` of an attribute with a list of integers, or `otherwise` if the list is absent or empty.
fn at(op: &Op<'_>, name: &str, index: usize, otherwise: i64) -> Option<i64> {
    let list = op.ints(name).filter(|list| !list.is_empty());
    list.map_or(Some(otherwise), |list| list.get(index).copied())
}

/// The output size of a transposed convolution in one spatial dimension, if the input size is known.
fn spread(op: &Op<'_>, index: usize, count: usize, size: &Size, kernel: i64) -> Option<Size> {
    if op.ints("output_shape").is_some_and(|shape| !shape.is_empty()) {
        return at(op, "output_shape", index, 0).map(Size::known);
    }
    let (stride, dilation) = (at(op, "strides", index, 1)?, at(op, "dilations", index, 1)?);
    let steps = size.value()?;
    match op.string("auto_pad").unwrap_or("NOTSET") {
        "SAME_UPPER" | "SAME_LOWER" => return steps.checked_mul(stride).map(Size::known),
        "VALID" | "NOTSET" | "" => {}
        _ => return None,
    }
    let around = at(op, "pads", index, 0)?.checked_add(at(op, "pads", index + count, 0)?)?;
    let window = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    let all = steps.checked_sub(1)?.checked_mul(stride)?.checked_add(window)?;
    let all = all
        .checked_add(at(op, "output_padding", index, 0)?)?
        .checked_sub(around)?;
    (all >= 0).then(|| Size::known(all))
}

/// The number of windows that fit into a spatial dimension, if its size is known.
fn windows(op: &Op<'_>, index: usize, count: usize, size: &Size, kernel: i64) -> Option<Size> {
    let size = size.value()?;
    let at = |name: &str, index: usize, otherwise: i64| at(op, name, index, otherwise);
    let (stride, dilation) = (at("strides", index, 1)?, at("dilations", index, 1)?);
    if stride < 1 {
        return None;
    }
    match op.string("auto_pad").unwrap_or("NOTSET") {
        "SAME_UPPER" | "SAME_LOWER" => return Some(Size::known(size.checked_add(stride - 1)? / stride)),
        "VALID" | "NOTSET" | "" => {}
        _ => return None,
    }
    let around = at("pads", index, 0)?.checked_add(at("pads", index + count, 0)?)?;
    let window = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    let free = size.checked_add(around)?.checked_sub(window)?;
    let ceil = op.int("ceil_mode").unwrap_or(0) != 0;
    (free >= 0 && !ceil).then(|| Size::known(free / stride + 1))
}

/// `GlobalAveragePool` and its variants.
pub(super) fn global_pool(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (dims, batch) = image(op, 0, 1)?;
    let size = |(axis, size): (usize, &Size)| if axis < 2 { size.clone() } else { Size::known(1) };
    let new = dims.iter().enumerate().map(size).collect();
    Ok(vec![Value::new(new, batch)])
}

/// `Resize` and `Upsample`. The batch dimension must keep its size.
pub(super) fn resize(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let (value, dims) = (op.value(0)?, op.dims(0)?);
    let axes = match op.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|axis| op.axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let list = |index: usize| {
        let numbers = op.get(index).and_then(|value| value.numbers.as_deref());
        numbers.filter(|numbers| numbers.len() == axes.len())
    };
    // The second input is `scales` up to opset 10, and `roi` from opset 11.
    let scales = list(if op.opset >= 11 { 2 } else { 1 });
    let sizes = list(3).filter(|_| op.opset >= 11);
    let mut new = dims.to_vec();
    for (index, axis) in axes.iter().enumerate() {
        let scaled = match (sizes, scales, op.attribute("scales")) {
            (Some(sizes), _, _) => Some(sizes[index].clone()),
            (None, Some(scales), _) => dims[*axis].times(&scales[index]).filter(Size::is_dimension),
            (None, None, Some(scales)) if scales.floats.get(index) == Some(&1.0) => Some(dims[*axis].clone()),
            _ => None,
        };
        if value.batch().is_some_and(|batch| batch.axis == *axis) {
            if scaled.as_ref() != Some(&dims[*axis]) {
                return Err(op.unknown("may resize the batch dimension"));
            }
        } else {
            new[*axis] = scaled.unwrap_or_else(|| op.own_dimension(*axis));
        }
    }
    if op.string("coordinate_transformation_mode") == Some("tf_crop_and_resize") && value.batch().is_some() {
        return Err(op.unknown("may crop the batch dimension"));
    }
    Ok(vec![Value::new(new, value.batch().cloned())])
}

/// `GridSample`: samples the image of each item at the positions that the grid gives for that item.
pub(super) fn grid_sample(op: &Op<'_>) -> Outcome {
    let (image_dims, batch) = image(op, 0, 0)?;
    let grid = op.dims(1)?;
    if image_dims.len() != grid.len() || grid.len() < 3 {
        return Err(op.unknown("has a grid that does not fit its input"));
    }
    if batch.as_ref() != op.batch(1) {
        return Err(op.unknown("has a grid without the items of its input"));
    }
    let new = [&image_dims[..2], &grid[1..grid.len() - 1]].concat();
    Ok(vec![Value::new(new, batch)])
}
