//! What the analysis knows about a value of the graph: its shape, its elements if there are few, and where the items are.

use std::rc::Rc;

use super::size::Size;

/// A value of the graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    /// Its shape. `None` if even the rank is unknown, which is only the case for values without items.
    pub(super) dims: Option<Vec<Size>>,
    /// Its elements in row-major order, if they are known.
    pub(super) numbers: Option<Vec<Size>>,
    pub(super) content: Content,
}

/// What a value depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Neither the items nor their number.
    Constant,
    /// The number of items, but not their contents.
    Count,
    /// The items, each of which has its own part of the value.
    Items(Batch),
    /// The value cannot be divided into items.
    Inseparable(Inseparable),
}

/// Where the items are: in a batch of `B` items, index `j` of dimension `axis` belongs to item `(j / inner) % B`. The size of the
/// dimension is `outer · B · inner`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) axis: usize,
    pub(super) outer: Size,
    pub(super) role: Role,
}

/// What each item's part of a value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Data computed from that item alone, without any number that depends on the batch.
    Data,
    /// The index of the item in the batch.
    Position,
    /// Along the last dimension, first the index of the item in the batch, then data computed from the item.
    PositionFirst,
}

/// Why a value cannot be divided into items.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Inseparable {
    /// The items affect each other.
    Mixed(Rc<str>),
    /// The analysis cannot follow the graph.
    Unknown(Rc<str>),
}

impl Value {
    pub(super) fn constant(dims: Option<Vec<Size>>) -> Self {
        Self {
            dims,
            numbers: None,
            content: Content::Constant,
        }
    }

    /// A tensor whose elements are known.
    pub(super) fn numbers(dims: Vec<Size>, numbers: Vec<Size>) -> Self {
        let content = if numbers.iter().any(Size::depends_on_batch) {
            Content::Count
        } else {
            Content::Constant
        };
        Self {
            dims: Some(dims),
            numbers: Some(numbers),
            content,
        }
    }

    /// A tensor in which each item has its own part.
    pub(super) fn items(dims: Vec<Size>, batch: Batch) -> Self {
        Self {
            dims: Some(dims),
            numbers: None,
            content: Content::Items(batch),
        }
    }

    /// A tensor of shape `dims`. With a `batch`, each item has its own part.
    pub(super) fn new(dims: Vec<Size>, batch: Option<Batch>) -> Self {
        match batch {
            Some(batch) => Self::items(dims, batch),
            None => Self::constant(Some(dims)),
        }
    }

    pub(super) fn inseparable(inseparable: Inseparable) -> Self {
        Self {
            dims: None,
            numbers: None,
            content: Content::Inseparable(inseparable),
        }
    }

    pub(super) fn batch(&self) -> Option<&Batch> {
        match &self.content {
            Content::Items(batch) => Some(batch),
            _ => None,
        }
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }
}

impl Batch {
    /// Data of the items in batch order along dimension `axis`, with a contiguous range of any length for each item.
    pub(super) fn at(axis: usize) -> Self {
        Self {
            axis,
            outer: Size::known(1),
            role: Role::Data,
        }
    }

    pub(super) fn moved(&self, axis: usize) -> Self {
        Self { axis, ..self.clone() }
    }
}
