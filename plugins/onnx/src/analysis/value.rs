//! What the analysis knows of a value of the graph: its shape, its elements if they are few integers, and where the items are.

use std::rc::Rc;

use super::size::Size;

/// A value of the graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    /// Its shape; `None` if not even the rank is known, which is so only for values without items.
    pub(super) dims: Option<Vec<Size>>,
    /// Its elements in order, if they are known.
    pub(super) numbers: Option<Vec<Size>>,
    pub(super) content: Content,
}

/// What a value depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Neither on the items nor on their number.
    Constant,
    /// On the number of items, but on nothing of them.
    Count,
    /// On the items, each of which has its own part of the value.
    Items(Batch),
    /// Anything else.
    Trouble(Trouble),
}

/// Where the items are: element `j` of dimension `axis` belongs to item `(j / inner) % B`. The size of the dimension is
/// `outer · B · inner`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) axis: usize,
    pub(super) outer: Size,
    pub(super) role: Role,
}

/// What the part of an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Computed from that item alone, and from no number that depends on the batch.
    Data,
    /// The place of the item in the batch.
    Place,
    /// Along the last dimension, first the place of the item, then what was computed from it.
    PlaceFirst,
}

/// Why the items cannot be told apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    /// They affect each other.
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

    /// A tensor of known elements.
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

    /// A tensor with a part for each item.
    pub(super) fn items(dims: Vec<Size>, batch: Batch) -> Self {
        Self {
            dims: Some(dims),
            numbers: None,
            content: Content::Items(batch),
        }
    }

    /// A tensor of the shape `dims`, with a part for each item if there is a `batch`.
    pub(super) fn new(dims: Vec<Size>, batch: Option<Batch>) -> Self {
        match batch {
            Some(batch) => Self::items(dims, batch),
            None => Self::constant(Some(dims)),
        }
    }

    pub(super) fn trouble(trouble: Trouble) -> Self {
        Self {
            dims: None,
            numbers: None,
            content: Content::Trouble(trouble),
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
    /// Items in the order of dimension `axis`, each with any part of it.
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
