//! Infers the sizes of a run's tensors before it runs.
//!
//! A client chooses open dimensions, and in some graphs also numbers that determine the size of a tensor. An allocation that
//! fails ends the process in one runtime, and a machine that runs out of memory ends some process in any case, so what is far
//! too large must not start. The sizes that are found are exact, but not all are found.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto};

use super::constant;
use super::graph::Walk;
use super::size::Size;
use super::value::{Content, Value};
use crate::external::each_tensor_mut;

/// Maximum number of shapes whose sizes are remembered.
const MAX_REMEMBERED: usize = 64;

/// Sizes from this number of elements on are worked out for every run: it takes far longer than that.
const SMALL: i64 = 1 << 24;

/// A graph without its weights.
#[derive(Default)]
pub(crate) struct Outline {
    state: Mutex<State>,
    /// Whether sizes depend on the elements of the inputs.
    by_elements: bool,
}

/// What is used by one worker at a time: the messages of a graph cannot be shared.
#[derive(Default)]
struct State {
    graph: GraphProto,
    opsets: Vec<OperatorSetIdProto>,
    /// Dimensions of all inputs, with the sizes of a run with them. Smaller dimensions do not give larger sizes.
    remembered: Vec<(Vec<usize>, Sizes)>,
}

/// An input of a run.
pub(crate) struct Known<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
    /// Its elements, if they are few and numbers.
    pub(crate) elements: Option<Vec<f64>>,
}

/// What is known of the tensors of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Elements of the largest tensor whose size is known, and the input or the node that it is from.
    pub(crate) largest: Option<(i64, String)>,
    /// Elements of the computed tensors of known size that are needed at the same time, at most.
    pub(crate) peak: i64,
    /// A node that makes a tensor as large as the elements of the inputs say, in a way that cannot be followed.
    pub(crate) unbounded: Option<String>,
}

/// Whether `elements` are few enough to be followed.
pub(crate) fn are_few(elements: usize) -> bool {
    elements as u64 <= constant::MAX_ELEMENTS.unsigned_abs()
}

impl Outline {
    /// Takes the graph out of a model.
    pub(crate) fn new(model: ModelProto) -> Self {
        let mut graph = model.graph.unwrap_or_default();
        graph.value_info.clear();
        // Shapes and the like are needed; weights are many.
        let strip = each_tensor_mut(&mut graph, &mut |tensor| {
            let count = tensor
                .dims
                .iter()
                .map(|size| usize::try_from(*size).unwrap_or(usize::MAX));
            let count = count.fold(1_usize, usize::saturating_mul);
            if !are_few(count) {
                tensor.raw_data = None;
                tensor.float_data = Vec::new();
                tensor.int32_data = Vec::new();
                tensor.int64_data = Vec::new();
                tensor.double_data = Vec::new();
            }
            Ok(())
        });
        debug_assert_eq!(strip, Ok(()));
        let state = State {
            graph,
            opsets: model.opset_import,
            remembered: Vec::new(),
        };
        let mut outline = Self {
            state: Mutex::new(state),
            by_elements: false,
        };
        outline.by_elements = outline.declared().1;
        outline
    }

    /// The sizes that do not depend on open dimensions, and whether any depends on the elements of the inputs.
    fn declared(&self) -> (Sizes, bool) {
        self.follow(|walk, info, name| Value {
            dims: walk.declared(info, name),
            numbers: None,
            content: Content::Count,
        })
    }

    /// The sizes that the graph has for any input.
    pub(crate) fn constant(&self) -> Sizes {
        self.declared().0
    }

    /// A node of which it cannot be found out how large a tensor it makes, though the inputs are known and small.
    pub(crate) fn unbounded(&self) -> Option<String> {
        // How many elements an input has in a dimension that is open may matter: a shape has one for each dimension.
        let found = [1, 2, 3, 4].map(|size| self.invented(size).unbounded);
        found.into_iter().reduce(Option::and).flatten()
    }

    /// The sizes of an invented run with open dimensions of that size.
    fn invented(&self, open: i64) -> Sizes {
        let input = |walk: &Walk<'_>, info: &ValueInfoProto, name: &str| {
            let dims = walk.declared(info, name).map(|dims| {
                let size = |size: &Size| Size::known(size.value().unwrap_or(open));
                dims.iter().map(size).collect::<Vec<_>>()
            });
            let count = dims
                .as_deref()
                .and_then(Size::product)
                .and_then(|count| count.value());
            let count = count.and_then(|count| usize::try_from(count).ok());
            // Of floats a fraction, as a scale may be: sizes that follow from whole numbers only are not bounded.
            let number = if is_float(info) {
                constant::number(0.5, walk.symbols())
            } else {
                Size::known(1)
            };
            let numbers = count
                .filter(|count| are_few(*count))
                .map(|count| vec![number; count]);
            Value {
                dims,
                numbers,
                content: Content::Count,
            }
        };
        self.follow(input).0
    }

    /// The sizes of a run with these inputs.
    pub(crate) fn of_run(&self, inputs: &[Known<'_>]) -> Sizes {
        let key: Vec<usize> = inputs.iter().flat_map(|input| input.shape).copied().collect();
        if !self.by_elements
            && let Some(sizes) = self.state().remembered(&key)
        {
            return sizes;
        }
        let input = |walk: &Walk<'_>, _: &ValueInfoProto, name: &str| {
            let mut given = inputs.iter().filter(|input| input.name == name);
            // Several tensors of one name are a sequence.
            let (Some(given), None) = (given.next(), given.next()) else {
                return Value {
                    content: Content::Count,
                    ..Value::constant(None)
                };
            };
            let size = |size: &usize| Size::known(i64::try_from(*size).unwrap_or(i64::MAX));
            let number = |number: &f64| constant::number(*number, walk.symbols());
            Value {
                dims: Some(given.shape.iter().map(size).collect()),
                numbers: given
                    .elements
                    .as_ref()
                    .map(|elements| elements.iter().map(number).collect()),
                content: Content::Count,
            }
        };
        let sizes = self.follow(input).0;
        // The sizes of a huge run say nothing of smaller ones, which must not be rejected for it.
        let is_small = sizes.peak < SMALL
            && sizes
                .largest
                .as_ref()
                .is_none_or(|(elements, _)| *elements < SMALL);
        if !self.by_elements && is_small {
            self.state().remember(key, &sizes);
        }
        sizes
    }

    fn follow(&self, input: impl Fn(&Walk<'_>, &ValueInfoProto, &str) -> Value) -> (Sizes, bool) {
        self.state().follow(input)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing half done: what is remembered is added as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn follow(&self, input: impl Fn(&Walk<'_>, &ValueInfoProto, &str) -> Value) -> (Sizes, bool) {
        let walk = Walk::sizing(&self.opsets);
        walk.follow(&self.graph, |info, name| input(&walk, info, name));
        walk.recorded()
    }

    /// The sizes of a run whose dimensions are all at least as large.
    fn remembered(&self, key: &[usize]) -> Option<Sizes> {
        let covers = |known: &[usize]| {
            known.len() == key.len() && known.iter().zip(key).all(|(known, size)| known >= size)
        };
        let (_, sizes) = self.remembered.iter().find(|(known, _)| covers(known))?;
        Some(sizes.clone())
    }

    fn remember(&mut self, key: Vec<usize>, sizes: &Sizes) {
        self.remembered.retain(|(known, _)| {
            known.len() != key.len() || known.iter().zip(&key).any(|(known, size)| known > size)
        });
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((key, sizes.clone()));
    }
}

fn is_float(info: &ValueInfoProto) -> bool {
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    matches!(
        tensor.and_then(|tensor| tensor.elem_type),
        Some(DataType::FLOAT | DataType::DOUBLE | DataType::FLOAT16 | DataType::BFLOAT16)
    )
}

#[cfg(test)]
mod tests;
