//! Values of a node's attributes, with the defaults of the ONNX standard.

use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// The attributes of a node.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [AttributeProto]);

impl<'a> Attributes<'a> {
    pub(crate) fn of(node: &'a NodeProto) -> Self {
        Self(&node.attribute)
    }

    fn get(self, name: &str) -> Option<&'a AttributeProto> {
        self.0
            .iter()
            .find(|attribute| attribute.name.as_deref() == Some(name))
    }

    pub(crate) fn int(self, name: &str) -> Option<i64> {
        self.get(name).and_then(|attribute| attribute.i)
    }

    pub(crate) fn int_or(self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    pub(crate) fn flag(self, name: &str, default: bool) -> bool {
        self.int_or(name, i64::from(default)) != 0
    }

    pub(crate) fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|attribute| &attribute.ints[..])
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|attribute| attribute.s.as_deref())
    }

    pub(crate) fn float(self, name: &str) -> Option<f32> {
        self.get(name).and_then(|attribute| attribute.f)
    }

    pub(crate) fn floats(self, name: &str) -> Option<&'a [f32]> {
        self.get(name).map(|attribute| &attribute.floats[..])
    }

    pub(crate) fn tensor(self, name: &str) -> Option<&'a TensorProto> {
        self.get(name).and_then(|attribute| attribute.t.as_ref())
    }

    pub(crate) fn graph(self, name: &str) -> Option<&'a GraphProto> {
        self.get(name).and_then(|attribute| attribute.g.as_ref())
    }

    /// A datatype, which the attribute encodes as an integer.
    pub(crate) fn datatype(self, name: &str) -> Option<DataType> {
        let code = self.int(name).filter(|code| *code != 0)?;
        i32::try_from(code).ok().map(DataType)
    }
}

/// Normalizes an axis, which may be negative; `None` if it is out of range for the rank.
pub(crate) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    usize::try_from(axis).ok().filter(|axis| (*axis as i64) < rank)
}
