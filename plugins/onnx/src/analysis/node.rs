//! A node with the values of its inputs, in the form that the rules take.

use std::fmt::Display;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::size::{Size, Symbols};
use super::value::{Batch, Inseparable, Value};

/// A node with the values of its inputs.
pub(super) struct Op<'a> {
    pub(super) node: &'a NodeProto,
    /// Version of the node's operator set (opset).
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) symbols: &'a Symbols,
    /// Whether the analysis only computes sizes.
    pub(super) sizing: bool,
}

/// The values of a node's outputs. Unknown trailing outputs can be omitted.
pub(super) type Outcome = Result<Vec<Value>, Inseparable>;

impl Op<'_> {
    pub(super) fn kind(&self) -> &str {
        self.node.op_type.as_deref().unwrap_or_default()
    }

    /// Reports that items affect each other. `what` is a predicate of the node, such as "averages over the batch".
    pub(super) fn mixed(&self, what: impl Display) -> Inseparable {
        Inseparable::Mixed(format!("{} {what}", label(self.node)).into())
    }

    /// Reports that the analysis cannot follow the node. `what` is a predicate of the node.
    pub(super) fn unknown(&self, what: impl Display) -> Inseparable {
        Inseparable::Unknown(format!("{} {what}", label(self.node)).into())
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        attribute(self.node, name)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    pub(super) fn string(&self, name: &str) -> Option<&str> {
        self.attribute(name)?.s.as_deref()
    }

    /// The input at `index`, if the node has one.
    pub(super) fn get(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    pub(super) fn value(&self, index: usize) -> Result<&Value, Inseparable> {
        self.get(index)
            .ok_or_else(|| self.unknown(format_args!("has no input {index}")))
    }

    pub(super) fn dims(&self, index: usize) -> Result<&[Size], Inseparable> {
        self.dims_of(self.value(index)?)
    }

    pub(super) fn dims_of<'v>(&self, value: &'v Value) -> Result<&'v [Size], Inseparable> {
        let dims = value.dims.as_deref();
        dims.ok_or_else(|| self.unknown("has an input of unknown rank"))
    }

    pub(super) fn batch(&self, index: usize) -> Option<&Batch> {
        self.get(index).and_then(Value::batch)
    }

    /// An input that applies to the whole batch, such as a shape. Fails with [`Inseparable::Mixed`] if the input contains items.
    pub(super) fn setting(&self, index: usize) -> Result<Option<&Value>, Inseparable> {
        match self.get(index) {
            Some(value) if value.batch().is_some() => {
                Err(self.mixed(format_args!("takes its input {index} from all items")))
            }
            value => Ok(value),
        }
    }

    /// Checks that the inputs from `first` on apply to the whole batch, as settings, weights and lookup tables do.
    pub(super) fn settings_from(&self, first: usize) -> Result<(), Inseparable> {
        (first..self.inputs.len()).try_for_each(|index| self.setting(index).map(drop))
    }

    /// The elements of an input that applies to the whole batch; `None` if the node has no such input. Fails if the elements are
    /// unknown.
    pub(super) fn numbers(&self, index: usize) -> Result<Option<&[Size]>, Inseparable> {
        let Some(value) = self.setting(index)? else {
            return Ok(None);
        };
        let numbers = value.numbers.as_deref();
        numbers
            .map(Some)
            .ok_or_else(|| self.unknown(format_args!("has an input {index} that is computed")))
    }

    /// Like `numbers`, but every element must be a known integer.
    pub(super) fn integers(&self, index: usize) -> Result<Option<Vec<i64>>, Inseparable> {
        let Some(numbers) = self.numbers(index)? else {
            return Ok(None);
        };
        let integers: Option<Vec<_>> = numbers.iter().map(Size::value).collect();
        integers
            .map(Some)
            .ok_or_else(|| self.unknown(format_args!("has an input {index} that is computed")))
    }

    /// The axes, from the attribute `axes` or, in later opsets, from an input.
    pub(super) fn axes(&self, input: usize) -> Result<Option<Vec<i64>>, Inseparable> {
        match self.ints("axes") {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => self.integers(input),
        }
    }

    /// The index of the dimension that `axis` refers to. A negative axis counts from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Inseparable> {
        let counted = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(counted)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| self.unknown(format_args!("has the axis {axis} of {rank} dimensions")))
    }

    pub(super) fn product<'v>(&self, sizes: impl IntoIterator<Item = &'v Size>) -> Result<Size, Inseparable> {
        Size::product(sizes).ok_or_else(|| self.unknown("has a size beyond 64 bits"))
    }

    /// The symbol for a dimension of unknown size that any node of this type computes from `from`.
    pub(super) fn dimension(&self, from: &[Size]) -> Size {
        self.symbols.dimension(self.kind(), from)
    }

    /// The symbol for a dimension of unknown size that is specific to this node.
    pub(super) fn own_dimension(&self, index: usize) -> Size {
        let output = self.node.output.first().map_or("", |name| name);
        self.symbols
            .dimension(&format!("{} {output} {index}", self.kind()), &[])
    }
}

pub(super) fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name.as_deref() == Some(name))
}

/// The operator type with the node's name or, if the node has no name, the name of its first output.
pub(super) fn label(node: &NodeProto) -> String {
    let kind = node.op_type.as_deref().unwrap_or_default();
    let name = node.name.as_deref().filter(|name| !name.is_empty());
    match (name, node.output.first()) {
        (Some(name), _) => format!("{kind} node `{name}`"),
        (None, Some(output)) => format!("{kind} node that computes `{output}`"),
        (None, None) => format!("{kind} node"),
    }
}
