//! Converts the named, typed tensors of a request to items of a task, and outcomes back to tensors. All protocols
//! with tensors use it.
//!
//! The first dimension of every tensor is the batch dimension. If the task takes tensors, the inputs are those that
//! it declares, and an item is one row of each. Any other task takes one `BYTES` tensor named [`TEXT`], [`BYTES`] or
//! [`JSON`], and an item is one element. Rows are slices of the request; input data is not copied.
//!
//! A request to an unbatched task is one item: the tensors of the request and the reply have exactly the declared
//! shapes.

mod from_outcomes;
mod tensors_error;
#[cfg(test)]
mod tests;
mod to_items;

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest, position_in_sequence};

pub use from_outcomes::{OutputTensor, choose_outputs, data_size, most_severe, tensors_from_outcomes};
pub use tensors_error::TensorsError;
pub use to_items::{
    InputTensor, MediaTypes, check_datatype, check_requested, items_from_tensors, max_elements,
};

use crate::suggest::nearest;
use crate::values::DType;

/// Name of the tensor of a task that takes or returns text.
pub const TEXT: &str = "TEXT";
/// Name of the tensor of a task that takes or returns bytes.
pub const BYTES: &str = "BYTES";
/// Name of the tensor of a task that takes or returns JSON documents.
pub const JSON: &str = "JSON";

/// An input or output tensor of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec<'a> {
    /// Name of the tensor.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Shape of one item. -1 means any size.
    pub item_shape: Vec<i64>,
    /// Whether the tensor has a batch dimension before `item_shape`.
    pub batched: bool,
    /// Whether it represents any number of tensors named `name.0`, `name.1`, ….
    pub sequence: bool,
    /// Whether an item can have any number of dimensions. If so, `item_shape` is empty.
    pub unranked: bool,
}

impl<'a> TensorSpec<'a> {
    /// Shape of the whole tensor, including the batch dimension if there is one. A single -1 if the number of
    /// dimensions is arbitrary.
    pub fn shape(&self) -> Vec<i64> {
        let items = (self.batched || self.unranked).then_some(-1);
        items.into_iter().chain(self.item_shape.iter().copied()).collect()
    }

    fn declared(tensor: &'a TensorManifest, batched: bool) -> Self {
        Self {
            name: &tensor.name,
            // The loader rejects manifests with unknown datatypes.
            dtype: DType::from_name(&tensor.dtype).unwrap_or(DType::Bytes),
            item_shape: tensor.shape.clone(),
            batched,
            sequence: tensor.sequence,
            unranked: tensor.unranked,
        }
    }

    fn elements(name: &'static str, batched: bool) -> Self {
        Self {
            name,
            dtype: DType::Bytes,
            item_shape: vec![1],
            batched,
            sequence: false,
            unranked: false,
        }
    }
}

/// The input tensors of a task.
pub fn inputs(task: &TaskManifest) -> Vec<TensorSpec<'_>> {
    specs(task, &task.input, main_kind(&task.input.kinds))
}

/// The output tensors of a task.
pub fn outputs(task: &TaskManifest) -> Vec<TensorSpec<'_>> {
    specs(task, &task.output, main_kind(&task.output.kinds))
}

fn specs<'a>(task: &TaskManifest, value: &'a ValueManifest, kind: Kind) -> Vec<TensorSpec<'a>> {
    let batched = !task.unbatched;
    match kind {
        Kind::Tensors => {
            let tensors = value.tensors.iter();
            tensors
                .map(|tensor| TensorSpec::declared(tensor, batched))
                .collect()
        }
        Kind::Text => vec![TensorSpec::elements(TEXT, batched)],
        Kind::Bytes => vec![TensorSpec::elements(BYTES, batched)],
        Kind::Json => vec![TensorSpec::elements(JSON, batched)],
    }
}

/// Returns the index of the tensor with this name, and its position in the sequence, or 0 if the tensor is not a
/// sequence.
fn find(specs: &[TensorSpec<'_>], name: &str) -> Option<(usize, usize)> {
    let exact = |spec: &TensorSpec<'_>| !spec.sequence && spec.name == name;
    if let Some(index) = specs.iter().position(exact) {
        return Some((index, 0));
    }
    let mut sequences = specs.iter().enumerate().filter(|(_, spec)| spec.sequence);
    sequences.find_map(|(index, spec)| Some((index, position_in_sequence(spec.name, name)?)))
}

/// Returns the most specific of several kinds.
fn main_kind(kinds: &[Kind]) -> Kind {
    [Kind::Tensors, Kind::Text, Kind::Bytes]
        .into_iter()
        .find(|kind| kinds.contains(kind))
        .unwrap_or(Kind::Json)
}

/// Lists the names, datatypes and shapes of tensors.
pub fn list_specs(specs: &[TensorSpec<'_>]) -> String {
    let one = |spec: &TensorSpec<'_>| {
        let (name, dtype, shape) = (spec.name, spec.dtype, spec.shape());
        match spec.sequence {
            true => format!("`{name}.0`, `{name}.1`, … {dtype} {shape:?}"),
            false => format!("`{name}` {dtype} {shape:?}"),
        }
    };
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Lists the names of tensors.
pub fn list_names(specs: &[TensorSpec<'_>]) -> String {
    let one = |spec: &TensorSpec<'_>| match spec.sequence {
        true => format!("`{0}.0`, `{0}.1`, …", spec.name),
        false => format!("`{}`", spec.name),
    };
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hint(name: &str, specs: &[TensorSpec<'_>]) -> String {
    nearest(name, specs.iter().map(|spec| spec.name))
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}
