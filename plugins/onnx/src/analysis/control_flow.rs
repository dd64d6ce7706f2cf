//! Operators with subgraphs: `If`, `Loop` and `Scan`.

use super::graph::{Scope, Walk, worst};
use super::node::{Op, Outcome};
use super::size::Size;
use super::value::{Content, Value};

/// Maximum number of times that the body of a loop is analyzed.
const MAX_ROUNDS: usize = 6;

impl Walk<'_> {
    pub(super) fn branches(&self, op: &Op<'_>, scope: &Scope<'_>) -> Outcome {
        let condition = op.value(0)?;
        if condition.batch().is_some() {
            return Err(op.mixed("uses one condition for all items"));
        }
        let branch = |name: &str| {
            let graph = op.attribute(name).and_then(|attribute| attribute.g.as_ref());
            graph
                .map(|graph| self.inner(graph, &[], scope))
                .ok_or_else(|| op.unknown("lacks a branch"))
        };
        let decided = match condition.numbers.as_deref() {
            Some([condition]) => condition.value(),
            _ => None,
        };
        match decided {
            Some(0) => return branch("else_branch"),
            Some(_) => return branch("then_branch"),
            None => {}
        }
        let (yes, no) = (branch("then_branch")?, branch("else_branch")?);
        if self.sizes.is_none() && condition.content == Content::Count && yes != no {
            return Err(op.mixed("uses the number of items in the batch as its condition"));
        }
        let both = yes.into_iter().zip(no).enumerate();
        Ok(both
            .map(|(index, (yes, no))| self.either(op, index, yes, no))
            .collect())
    }

    /// Merges two possible values of an output into what is true of both.
    fn either(&self, op: &Op<'_>, index: usize, one: Value, other: Value) -> Value {
        if let Some(inseparable) = worst([&one.content, &other.content].into_iter()) {
            return Value::inseparable(inseparable);
        }
        let numbers = if one.numbers == other.numbers {
            one.numbers.clone()
        } else {
            None
        };
        let dims = match (&one.dims, &other.dims) {
            (Some(one), Some(other)) if one.len() == other.len() => {
                let sizes = one.iter().zip(other).enumerate();
                let size = |(axis, (one, other)): (usize, (&Size, &Size))| match one == other {
                    true => one.clone(),
                    false => op.own_dimension(index * 100 + axis),
                };
                Some(sizes.map(size).collect::<Vec<_>>())
            }
            _ => None,
        };
        let content = match (one.content, other.content) {
            (one, other) if one == other => one,
            (Content::Constant | Content::Count, Content::Constant | Content::Count) => Content::Count,
            _ => Content::Inseparable(
                op.unknown("returns the items in one branch and something else in the other"),
            ),
        };
        let lost = match (&content, &dims) {
            (Content::Items(batch), Some(dims)) => !dims[batch.axis].counts_items(),
            (Content::Items(_), None) => true,
            _ => false,
        };
        if lost {
            return Value::inseparable(op.unknown("returns tensors of different shapes"));
        }
        Value {
            dims,
            numbers,
            content,
        }
    }

    /// `Loop`: analyzes the body until the loop-carried values no longer change.
    pub(super) fn repeat(&self, op: &Op<'_>, scope: &Scope<'_>) -> Outcome {
        let one_for_all = "repeats the same number of times for all items";
        if op.batch(0).is_some() || op.batch(1).is_some() {
            return Err(op.mixed(one_for_all));
        }
        let counts = |value: Option<&Value>| {
            self.sizes.is_none() && value.is_some_and(|value| value.content == Content::Count)
        };
        if counts(op.get(0)) || counts(op.get(1)) {
            return Err(op.mixed("repeats as many times as there are items"));
        }
        let body = op.attribute("body").and_then(|body| body.g.as_ref());
        let body = body.ok_or_else(|| op.unknown("has no body"))?;
        let absent = || op.unknown("lacks a value to carry");
        let carried = op
            .inputs
            .iter()
            .skip(2)
            .map(|value| value.clone().ok_or_else(absent));
        let mut carried: Vec<Value> = carried.collect::<Result<_, _>>()?;
        let scalar = Value::constant(Some(Vec::new()));
        for round in 0..MAX_ROUNDS {
            let mut inputs = vec![scalar.clone(), scalar.clone()];
            inputs.extend(carried.iter().cloned());
            let mut outputs = self.inner(body, &inputs, scope);
            if outputs.len() < carried.len() + 1 {
                return Err(op.unknown("has a body with too few outputs"));
            }
            match &outputs[0].content {
                Content::Items(_) => return Err(op.mixed(one_for_all)),
                Content::Count if self.sizes.is_none() => {
                    return Err(op.mixed("repeats as many times as there are items"));
                }
                Content::Inseparable(inseparable) => return Err(inseparable.clone()),
                Content::Count | Content::Constant => {}
            }
            let collected = outputs.split_off(carried.len() + 1);
            let next = outputs.into_iter().skip(1).zip(&carried).enumerate();
            let next: Vec<_> = next
                .map(|(index, (new, old))| self.either(op, index, old.clone(), new))
                .collect();
            if next == carried || round + 1 == MAX_ROUNDS {
                if next != carried {
                    break;
                }
                let count = op.own_dimension(0);
                let stacked = collected.into_iter().map(|value| stacked(value, &count, 0));
                return Ok(next.into_iter().chain(stacked).collect());
            }
            carried = next;
        }
        Err(op.unknown("carries values whose shape changes from iteration to iteration"))
    }

    pub(super) fn scan(&self, op: &Op<'_>, scope: &Scope<'_>) -> Outcome {
        let body = op.attribute("body").and_then(|body| body.g.as_ref());
        let scanned = op
            .int("num_scan_inputs")
            .and_then(|count| usize::try_from(count).ok());
        let (Some(body), Some(scanned), true) = (body, scanned, op.opset >= 9) else {
            return Err(op.unknown("is not supported by the analysis in this form"));
        };
        let states = op.inputs.len().saturating_sub(scanned);
        let absent = || op.unknown("lacks an input");
        let inputs = op.inputs.iter().map(|value| value.clone().ok_or_else(absent));
        let inputs: Vec<Value> = inputs.collect::<Result<_, _>>()?;
        let axis_of = |name: &str, index: usize| {
            let axes = op.ints(name).unwrap_or_default();
            axes.get(index).copied().unwrap_or(0)
        };
        let mut slices = Vec::new();
        let mut steps = None;
        for (index, value) in inputs[states..].iter().enumerate() {
            let mut dims = op.dims_of(value)?.to_vec();
            let axis = op.axis(axis_of("scan_input_axes", index), dims.len())?;
            steps.get_or_insert(dims.remove(axis));
            let batch = match value.batch() {
                Some(batch) if batch.axis == axis => {
                    return Err(op.mixed("treats the items as the steps of one sequence"));
                }
                batch => batch.map(|batch| batch.moved(batch.axis - usize::from(batch.axis > axis))),
            };
            slices.push(Value::new(dims, batch));
        }
        let steps = steps.unwrap_or_else(|| op.own_dimension(0));
        let mut carried = inputs[..states].to_vec();
        for _ in 0..MAX_ROUNDS {
            let all = [&carried[..], &slices].concat();
            let mut outputs = self.inner(body, &all, scope);
            if outputs.len() < states {
                return Err(op.unknown("has a body with too few outputs"));
            }
            let collected = outputs.split_off(states);
            let next = outputs.into_iter().zip(&carried).enumerate();
            let next: Vec<_> = next
                .map(|(index, (new, old))| self.either(op, index, old.clone(), new))
                .collect();
            if next == carried {
                let stacked = collected.into_iter().enumerate().map(|(index, value)| {
                    let rank = value.rank().unwrap_or(0) + 1;
                    match op.axis(axis_of("scan_output_axes", index), rank) {
                        Ok(axis) => stacked(value, &steps, axis),
                        Err(inseparable) => Value::inseparable(inseparable),
                    }
                });
                return Ok(next.into_iter().chain(stacked).collect());
            }
            carried = next;
        }
        Err(op.unknown("carries values whose shape changes from iteration to iteration"))
    }
}

/// Stacks the values of all iterations along the new dimension `axis`.
fn stacked(value: Value, count: &Size, axis: usize) -> Value {
    let content = match value.content {
        Content::Items(batch) => Content::Items(batch.moved(batch.axis + usize::from(batch.axis >= axis))),
        content => content,
    };
    let dims = value.dims.map(|mut dims| {
        dims.insert(axis, count.clone());
        dims
    });
    Value {
        dims,
        numbers: None,
        content,
    }
}
