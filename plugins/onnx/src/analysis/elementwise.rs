//! Elementwise operators, and arithmetic on known numbers.

use super::node::{Op, Outcome};
use super::size::{Size, Symbols};
use super::value::{Batch, Inseparable, Role, Value};

/// Elementwise operators on one tensor. Further inputs are settings.
pub(super) fn unary(op: &Op<'_>) -> Outcome {
    op.settings_from(1)?;
    let value = op.value(0)?;
    let numbers = value.numbers.as_ref().map(|numbers| {
        let number = |number| arithmetic(op.kind(), &[number], op.symbols);
        numbers.iter().map(number).collect::<Vec<_>>()
    });
    let result = match (numbers, &value.dims) {
        (Some(numbers), Some(dims)) => Value::numbers(dims.clone(), numbers),
        _ => value.clone(),
    };
    // Any further output has the same shape.
    Ok(vec![result; op.node.output.len()])
}

/// Operators that return their first input unchanged.
pub(super) fn identity(op: &Op<'_>) -> Outcome {
    Ok(vec![op.value(0)?.clone()])
}

/// Elementwise operators on any number of tensors, which are broadcast to a common shape.
pub(super) fn broadcast(op: &Op<'_>) -> Outcome {
    if op.int("broadcast").is_some_and(|flag| flag != 0) && op.int("axis").is_some() {
        return Err(op.unknown("broadcasts as operator sets before 7 do"));
    }
    let operands: Vec<_> = op.inputs.iter().flatten().collect();
    Ok(vec![combined(op, &operands)?])
}

/// Like [`broadcast`], but only the first `count` inputs are operands. The others are settings.
pub(super) fn broadcast_first(op: &Op<'_>, count: usize) -> Outcome {
    op.settings_from(count)?;
    let operands: Vec<_> = op.inputs.iter().take(count).flatten().collect();
    Ok(vec![combined(op, &operands)?])
}

fn combined(op: &Op<'_>, operands: &[&Value]) -> Result<Value, Inseparable> {
    let shapes: Vec<_> = operands
        .iter()
        .map(|operand| Ok((op.dims_of(operand)?, operand.batch())))
        .collect::<Result<_, Inseparable>>()?;
    let (dims, batch) = stretched(op, &shapes)?;
    let counted = |operand: &&&Value| matches!(operand.content, super::value::Content::Count);
    if batch.is_some() && operands.iter().any(|operand| counted(&operand)) {
        return Err(op.mixed("computes with the number of items in the batch"));
    }
    let numbers = match batch {
        None => elements(op, &dims, operands),
        Some(_) => None,
    };
    Ok(match numbers {
        Some(numbers) => Value::numbers(dims, numbers),
        None => Value::new(dims, batch),
    })
}

/// The shape to which tensors are broadcast, and where the items are in it.
pub(super) fn stretched(
    op: &Op<'_>,
    shapes: &[(&[Size], Option<&Batch>)],
) -> Result<(Vec<Size>, Option<Batch>), Inseparable> {
    let rank = shapes.iter().map(|(dims, _)| dims.len()).max().unwrap_or(0);
    let mut batch: Option<(Batch, &Size)> = None;
    for (dims, own) in shapes {
        let Some(own) = own else { continue };
        let size = &dims[own.axis];
        let own = own.moved(own.axis + rank - dims.len());
        match &batch {
            Some((known, _)) if known.axis != own.axis => {
                let (one, other) = (known.axis, own.axis);
                return Err(op.mixed(format_args!(
                    "combines every item with every other: they are in dimension {one} of one input and in {other} of another"
                )));
            }
            Some((known, known_size)) if *known != own || *known_size != size => {
                return Err(op.unknown("combines tensors whose batch dimensions differ"));
            }
            _ => batch = Some((own, size)),
        }
    }
    let mut all = Vec::with_capacity(rank);
    for axis in 0..rank {
        let sizes = shapes
            .iter()
            .filter_map(|(dims, _)| dims.get((axis + dims.len()).checked_sub(rank)?));
        all.push(common(op, sizes));
    }
    let Some((batch, _)) = batch else {
        return Ok((all, None));
    };
    for (dims, own) in shapes {
        let at_batch = (batch.axis + dims.len())
            .checked_sub(rank)
            .and_then(|axis| dims.get(axis));
        if own.is_none() && at_batch.is_some_and(|size| !size.is(1)) {
            return Err(op.mixed("combines each item with values for its position in the batch"));
        }
    }
    let size = shapes.iter().find_map(|(dims, own)| Some(&dims[(*own)?.axis]));
    if let Some(size) = size {
        all[batch.axis] = size.clone();
    }
    Ok((all, Some(batch)))
}

fn common<'a>(op: &Op<'_>, sizes: impl Iterator<Item = &'a Size>) -> Size {
    let mut distinct: Vec<&Size> = Vec::new();
    for size in sizes.filter(|size| !size.is(1)) {
        if !distinct.contains(&size) {
            distinct.push(size);
        }
    }
    match &distinct[..] {
        [] => Size::known(1),
        [only] => (*only).clone(),
        // If one of the sizes is a known number other than 1, each of the others must be equal to it or 1.
        several => match several.iter().find(|size| size.value().is_some()) {
            Some(known) => (*known).clone(),
            None => {
                let several: Vec<_> = several.iter().map(|size| (*size).clone()).collect();
                op.symbols.dimension("broadcast", &several)
            }
        },
    }
}

/// The elements of the result, if all operands are known.
fn elements(op: &Op<'_>, dims: &[Size], operands: &[&Value]) -> Option<Vec<Size>> {
    let count = usize::try_from(Size::product(dims)?.value()?).ok()?;
    let operands = operands
        .iter()
        .map(|operand| {
            operand
                .numbers
                .as_deref()
                .filter(|numbers| [1, count].contains(&numbers.len()))
        })
        .collect::<Option<Vec<_>>>()?;
    // An index modulo the length is correct only for single elements and operands of full size, not for operands that are
    // broadcast along some of their dimensions.
    let plain = operands
        .iter()
        .all(|numbers| numbers.len() == count || numbers.len() == 1);
    plain.then(|| {
        let element = |index: usize| {
            let operands: Vec<_> = operands
                .iter()
                .map(|numbers| &numbers[index % numbers.len()])
                .collect();
            arithmetic(op.kind(), &operands, op.symbols)
        };
        (0..count).map(element).collect()
    })
}

/// Applies an operator to numbers. The result is exact, or a symbol if it cannot be expressed.
pub(super) fn arithmetic(kind: &str, operands: &[&Size], symbols: &Symbols) -> Size {
    let truth = |flag: bool| Some(Size::known(i64::from(flag)));
    let exact = match (kind, operands) {
        ("Add" | "Sum", [a, b]) => a.plus(b),
        ("Sub", [a, b]) => b.times(&Size::known(-1)).and_then(|b| a.plus(&b)),
        ("Mul", [a, b]) => a.times(b),
        ("Div", [a, b]) => a.over(b),
        ("Neg", [a]) => a.times(&Size::known(-1)),
        ("Abs" | "Relu" | "Floor" | "Ceil" | "Round", [a]) if a.is_dimension() => Some((*a).clone()),
        ("Not", [a]) => a.value().map(|value| Size::known(i64::from(value == 0))),
        ("Where", [condition, a, b]) => condition
            .value()
            .map(|value| if value == 0 { (*b).clone() } else { (*a).clone() }),
        ("Equal", [a, b]) if a == b => truth(true),
        ("Equal", [a, b]) if differ(a, b) || differ(b, a) => truth(false),
        (_, [a]) => a.value().and_then(|a| of_one(kind, a)),
        (_, [a, b]) => match (a.value(), b.value()) {
            (Some(a), Some(b)) => of_two(kind, a, b),
            _ if a == b && ["Min", "Max"].contains(&kind) => Some((*a).clone()),
            _ => None,
        },
        _ => None,
    };
    exact.unwrap_or_else(|| {
        let operands: Vec<_> = operands.iter().map(|operand| (*operand).clone()).collect();
        symbols.number(kind, &operands)
    })
}

/// Whether the two cannot be equal, because `dimension` is known to be non-negative and `number` is negative.
fn differ(dimension: &Size, number: &Size) -> bool {
    dimension.is_dimension() && number.value().is_some_and(|number| number < 0)
}

fn of_one(kind: &str, a: i64) -> Option<Size> {
    match kind {
        "Abs" => a.checked_abs().map(Size::known),
        "Relu" => Some(Size::known(a.max(0))),
        "Floor" | "Ceil" | "Round" => Some(Size::known(a)),
        _ => None,
    }
}

fn of_two(kind: &str, a: i64, b: i64) -> Option<Size> {
    Some(Size::known(match kind {
        "Equal" => i64::from(a == b),
        "Less" => i64::from(a < b),
        "LessOrEqual" => i64::from(a <= b),
        "Greater" => i64::from(a > b),
        "GreaterOrEqual" => i64::from(a >= b),
        "And" => i64::from(a != 0 && b != 0),
        "Or" => i64::from(a != 0 || b != 0),
        "Min" => a.min(b),
        "Max" => a.max(b),
        "Mod" if a >= 0 && b > 0 => a % b,
        _ => return None,
    }))
}

/// `Cast`: numbers keep their value if both types can represent it.
pub(super) fn cast(op: &Op<'_>) -> Outcome {
    let value = op.value(0)?;
    let (Some(numbers), Some(dims)) = (&value.numbers, &value.dims) else {
        return Ok(vec![value.clone()]);
    };
    let to_bool = op.int("to") == Some(9);
    let number = |number: &Size| match number.value() {
        Some(value) if to_bool => Size::known(i64::from(value != 0)),
        Some(_) => number.clone(),
        None if number.is_dimension() && !to_bool => number.clone(),
        None => op.symbols.number(op.kind(), std::slice::from_ref(number)),
    };
    Ok(vec![Value::numbers(
        dims.clone(),
        numbers.iter().map(number).collect(),
    )])
}

/// `Range`: from 0 to the number of items, in steps of 1, it yields the index of each item in the batch.
pub(super) fn range(op: &Op<'_>) -> Outcome {
    let numbers = [op.numbers(0)?, op.numbers(1)?, op.numbers(2)?];
    let [Some([start]), Some([limit]), Some([step])] = numbers else {
        return Err(op.unknown("has no known length"));
    };
    if start.is(0) && step.is(1) {
        if *limit == Size::batch() {
            let mut batch = Batch::at(0);
            batch.role = Role::Position;
            return Ok(vec![Value::items(vec![limit.clone()], batch)]);
        }
        if limit.is_dimension() && !limit.depends_on_batch() {
            return Ok(vec![Value::constant(Some(vec![limit.clone()]))]);
        }
    }
    if let (Some(start), Some(limit), Some(step @ 1..)) = (start.value(), limit.value(), step.value()) {
        let length = limit.saturating_sub(start).max(0).saturating_add(step - 1) / step;
        return Ok(vec![Value::constant(Some(vec![Size::known(length)]))]);
    }
    let length = op.dimension(&[start.clone(), limit.clone(), step.clone()]);
    if length.depends_on_batch() {
        return Err(op.unknown("counts in steps that depend on the number of items in the batch"));
    }
    Ok(vec![Value::constant(Some(vec![length]))])
}
