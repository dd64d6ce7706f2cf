//! The one place that maps the named, typed tensors of a protocol to the items of a task, and its outcomes back.
//!
//! The first dimension of every tensor counts the items. A task that takes tensors takes those that it declares, an item
//! being one row of each; any other takes one `BYTES` tensor, called [`TEXT`], [`BYTES`] or [`JSON`], an item being one
//! element. Rows are slices of what came: nothing is copied on the way in.

mod read;
#[cfg(test)]
mod tests;
mod write;

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};

pub use read::{Input, MediaTypes, TensorsError, check_requested, max_elements, read_items};
pub use write::{Output, data_size, worst, write_outputs};

use super::error::nearest;
use crate::protocol::DType;

/// Name of the tensor of a task that takes or gives text.
pub const TEXT: &str = "TEXT";
/// Name of the tensor of a task that takes or gives bytes.
pub const BYTES: &str = "BYTES";
/// Name of the tensor of a task that takes or gives JSON documents.
pub const JSON: &str = "JSON";

/// What a tensor of a task is, apart from its first dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: DType,
    /// Dimensions of one item; -1 where any size will do.
    pub item_shape: Vec<i64>,
}

impl<'a> Spec<'a> {
    /// Dimensions of the whole tensor, of which the first counts items.
    pub fn shape(&self) -> Vec<i64> {
        [-1].into_iter().chain(self.item_shape.iter().copied()).collect()
    }

    fn declared(tensor: &'a TensorManifest) -> Self {
        Self {
            name: &tensor.name,
            // The loader has refused manifests with other names.
            dtype: DType::from_name(&tensor.dtype).unwrap_or(DType::Bytes),
            item_shape: tensor.shape.clone(),
        }
    }

    fn elements(name: &'static str) -> Self {
        Self {
            name,
            dtype: DType::Bytes,
            item_shape: vec![1],
        }
    }
}

/// The tensors that a task takes.
pub fn inputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(&task.input, main_kind(&task.input.kinds))
}

/// The tensors that a task gives.
pub fn outputs(task: &TaskManifest) -> Vec<Spec<'_>> {
    specs(&task.output, main_kind(&task.output.kinds))
}

fn specs(value: &ValueManifest, kind: Kind) -> Vec<Spec<'_>> {
    match kind {
        Kind::Tensors => value.tensors.iter().map(Spec::declared).collect(),
        Kind::Text => vec![Spec::elements(TEXT)],
        Kind::Bytes => vec![Spec::elements(BYTES)],
        Kind::Json => vec![Spec::elements(JSON)],
    }
}

/// Of several kinds the one that says most about itself.
fn main_kind(kinds: &[Kind]) -> Kind {
    [Kind::Tensors, Kind::Text, Kind::Bytes]
        .into_iter()
        .find(|kind| kinds.contains(kind))
        .unwrap_or(Kind::Json)
}

fn listed(specs: &[Spec<'_>]) -> String {
    let one = |spec: &Spec<'_>| format!("`{}` {} {:?}", spec.name, spec.dtype, spec.shape());
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hint(name: &str, specs: &[Spec<'_>]) -> String {
    nearest(name, specs.iter().map(|spec| spec.name))
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}
