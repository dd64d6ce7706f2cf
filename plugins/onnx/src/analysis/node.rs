//! A node with its inputs, as the rules see it.

use std::fmt::Display;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::size::{Size, Symbols};
use super::value::{Batch, Trouble, Value};

/// A node whose inputs are known.
pub(super) struct Op<'a> {
    pub(super) node: &'a NodeProto,
    /// The version of its operator set.
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) symbols: &'a Symbols,
    /// Whether only sizes are asked for.
    pub(super) sizing: bool,
}

/// The values of a node's outputs; those that are left out are not known.
pub(super) type Outcome = Result<Vec<Value>, Trouble>;

impl Op<'_> {
    pub(super) fn kind(&self) -> &str {
        self.node.op_type.as_deref().unwrap_or_default()
    }

    /// Items affect each other: `what` is a predicate of the node, such as "averages over the batch".
    pub(super) fn mixed(&self, what: impl Display) -> Trouble {
        Trouble::Mixed(format!("{} {what}", label(self.node)).into())
    }

    /// The analysis cannot follow: `what` is a predicate of the node.
    pub(super) fn unknown(&self, what: impl Display) -> Trouble {
        Trouble::Unknown(format!("{} {what}", label(self.node)).into())
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

    /// The input `index`, if the node has it.
    pub(super) fn get(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    pub(super) fn value(&self, index: usize) -> Result<&Value, Trouble> {
        self.get(index)
            .ok_or_else(|| self.unknown(format_args!("has no input {index}")))
    }

    pub(super) fn dims(&self, index: usize) -> Result<&[Size], Trouble> {
        self.dims_of(self.value(index)?)
    }

    pub(super) fn dims_of<'v>(&self, value: &'v Value) -> Result<&'v [Size], Trouble> {
        let dims = value.dims.as_deref();
        dims.ok_or_else(|| self.unknown("has an input of unknown rank"))
    }

    pub(super) fn batch(&self, index: usize) -> Option<&Batch> {
        self.get(index).and_then(Value::batch)
    }

    /// An input that holds one setting for the whole batch, such as a shape.
    pub(super) fn setting(&self, index: usize) -> Result<Option<&Value>, Trouble> {
        match self.get(index) {
            Some(value) if value.batch().is_some() => {
                Err(self.mixed(format_args!("takes its input {index} from all items together")))
            }
            value => Ok(value),
        }
    }

    /// Checks that the inputs from `first` hold settings, weights or tables.
    pub(super) fn settings_from(&self, first: usize) -> Result<(), Trouble> {
        (first..self.inputs.len()).try_for_each(|index| self.setting(index).map(drop))
    }

    /// The known elements of an input that holds settings; `None` if the node does not have it.
    pub(super) fn numbers(&self, index: usize) -> Result<Option<&[Size]>, Trouble> {
        let Some(value) = self.setting(index)? else {
            return Ok(None);
        };
        let numbers = value.numbers.as_deref();
        numbers
            .map(Some)
            .ok_or_else(|| self.unknown(format_args!("has an input {index} that is computed")))
    }

    /// Like `numbers`, of integers that are known as such.
    pub(super) fn integers(&self, index: usize) -> Result<Option<Vec<i64>>, Trouble> {
        let Some(numbers) = self.numbers(index)? else {
            return Ok(None);
        };
        let integers: Option<Vec<_>> = numbers.iter().map(Size::value).collect();
        integers
            .map(Some)
            .ok_or_else(|| self.unknown(format_args!("has an input {index} that is computed")))
    }

    /// Dimensions from an attribute, or from an input in later versions.
    pub(super) fn axes(&self, input: usize) -> Result<Option<Vec<i64>>, Trouble> {
        match self.ints("axes") {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => self.integers(input),
        }
    }

    /// The dimension that a number means, which may count from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Trouble> {
        let counted = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(counted)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| self.unknown(format_args!("has the axis {axis} of {rank} dimensions")))
    }

    pub(super) fn product<'v>(&self, sizes: impl IntoIterator<Item = &'v Size>) -> Result<Size, Trouble> {
        Size::product(sizes).ok_or_else(|| self.unknown("has a size beyond 64 bits"))
    }

    /// A dimension of unknown size that this kind of node makes of `from`.
    pub(super) fn dimension(&self, from: &[Size]) -> Size {
        self.symbols.dimension(self.kind(), from)
    }

    /// A dimension of unknown size that this very node makes.
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

/// The operator with the name of the node, or with that of its first output.
pub(super) fn label(node: &NodeProto) -> String {
    let kind = node.op_type.as_deref().unwrap_or_default();
    let name = node.name.as_deref().filter(|name| !name.is_empty());
    match (name, node.output.first()) {
        (Some(name), _) => format!("{kind} node `{name}`"),
        (None, Some(output)) => format!("{kind} node that computes `{output}`"),
        (None, None) => format!("{kind} node"),
    }
}
