//! The one place that maps the named, typed tensors of a protocol to the items of a task, and its outcomes back.
//!
//! The first dimension of every tensor counts the items. A task that takes tensors takes those that it declares, an item
//! being one row of each; any other takes one `BYTES` tensor, called [`TEXT`], [`BYTES`] or [`JSON`], an item being one
//! element. Rows are slices of what came: nothing is copied on the way in.
//!
//! A request to an unbatched task is one item: its tensors have exactly the declared shapes, and so have those of the reply.

mod from_outcomes;
#[cfg(test)]
mod tests;
mod to_items;

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest, position_in_sequence};

pub use from_outcomes::{Output, choose_outputs, data_size, worst, write_outputs};
pub use to_items::{Input, MediaTypes, TensorsError, check_requested, max_elements, read_items};

use crate::suggest::nearest;
use crate::values::DType;

/// Name of the tensor of a task that takes or gives text.
pub const TEXT: &str = "TEXT";
/// Name of the tensor of a task that takes or gives bytes.
pub const BYTES: &str = "BYTES";
/// Name of the tensor of a task that takes or gives JSON documents.
pub const JSON: &str = "JSON";

/// What a tensor of a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: DType,
    /// Dimensions of one item; -1 where any size will do.
    pub item_shape: Vec<i64>,
    /// Whether the tensor has another dimension before these, which counts items.
    pub batched: bool,
    /// Whether it stands for any number of such tensors, called `name.0`, `name.1`, ….
    pub sequence: bool,
    /// Whether an item may have any number of dimensions; `item_shape` is empty then.
    pub unranked: bool,
}

impl<'a> Spec<'a> {
    /// Dimensions of the whole tensor; the first counts items, unless the task is unbatched. A single -1 if there may be any
    /// number of them.
    pub fn shape(&self) -> Vec<i64> {
        let items = (self.batched || self.unranked).then_some(-1);
        items.into_iter().chain(self.item_shape.iter().copied()).collect()
    }

    fn declared(tensor: &'a TensorManifest, batched: bool) -> Self {
        Self {
            name: &tensor.name,
            // The loader has refused manifests with other names.
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

/// The tensors that a task takes.
pub fn inputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(task, &task.input, main_kind(&task.input.kinds))
}

/// The tensors that a task gives.
pub fn outputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(task, &task.output, main_kind(&task.output.kinds))
}

fn specs<'a>(task: &TaskManifest, value: &'a ValueManifest, kind: Kind) -> Vec<Spec<'a>> {
    let batched = !task.unbatched;
    match kind {
        Kind::Tensors => {
            let tensors = value.tensors.iter();
            tensors.map(|tensor| Spec::declared(tensor, batched)).collect()
        }
        Kind::Text => vec![Spec::elements(TEXT, batched)],
        Kind::Bytes => vec![Spec::elements(BYTES, batched)],
        Kind::Json => vec![Spec::elements(JSON, batched)],
    }
}

/// The index of the tensor that a name belongs to, and the position of that name in the tensor's sequence, 0 if it is none.
fn find(specs: &[Spec<'_>], name: &str) -> Option<(usize, usize)> {
    let exact = |spec: &Spec<'_>| !spec.sequence && spec.name == name;
    if let Some(index) = specs.iter().position(exact) {
        return Some((index, 0));
    }
    let mut sequences = specs.iter().enumerate().filter(|(_, spec)| spec.sequence);
    sequences.find_map(|(index, spec)| Some((index, position_in_sequence(spec.name, name)?)))
}

/// Of several kinds the one that says most about itself.
fn main_kind(kinds: &[Kind]) -> Kind {
    [Kind::Tensors, Kind::Text, Kind::Bytes]
        .into_iter()
        .find(|kind| kinds.contains(kind))
        .unwrap_or(Kind::Json)
}

/// The names, datatypes and shapes of these tensors.
pub fn listed(specs: &[Spec<'_>]) -> String {
    let one = |spec: &Spec<'_>| {
        let (name, dtype, shape) = (spec.name, spec.dtype, spec.shape());
        match spec.sequence {
            true => format!("`{name}.0`, `{name}.1`, … {dtype} {shape:?}"),
            false => format!("`{name}` {dtype} {shape:?}"),
        }
    };
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The names of these tensors.
pub fn names(specs: &[Spec<'_>]) -> String {
    let one = |spec: &Spec<'_>| match spec.sequence {
        true => format!("`{0}.0`, `{0}.1`, …", spec.name),
        false => format!("`{}`", spec.name),
    };
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hint(name: &str, specs: &[Spec<'_>]) -> String {
    nearest(name, specs.iter().map(|spec| spec.name))
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}
