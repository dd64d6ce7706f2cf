//! Computes the tensor sizes of a run before it starts.
//!
//! Clients choose the open dimensions and, in some graphs, also values that determine the size of a tensor. In one of the
//! runtimes, a failed allocation terminates the process; with any runtime, a machine that runs out of memory kills some process.
//! A run that is far too large must therefore not start. Computed sizes are exact (cached ones are upper bounds), but not every
//! size can be computed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto};

use super::constant;
use super::graph::Walk;
use super::size::Size;
use super::value::{Content, Value};
use crate::external::each_tensor_mut;

/// Maximum number of shapes whose sizes are cached.
const MAX_REMEMBERED: usize = 64;

/// Number of elements from which a run is large. The sizes of large runs are not cached: computing them takes far less time than
/// the run itself.
const SMALL: i64 = 1 << 24;

/// A graph without its weights.
#[derive(Default)]
pub(crate) struct Outline {
    state: Mutex<State>,
    /// Whether sizes depend on the values of the inputs.
    by_elements: bool,
}

/// State that one worker uses at a time: the graph's protobuf messages are not `Sync`.
#[derive(Default)]
struct State {
    graph: GraphProto,
    opsets: Vec<OperatorSetIdProto>,
    /// Cached sizes of runs, with the dimensions of all inputs. They are upper bounds for runs with smaller dimensions.
    remembered: Vec<(Vec<usize>, Sizes)>,
}

/// An input of a run.
pub(crate) struct Known<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
    /// Its elements, if they are few and numeric.
    pub(crate) elements: Option<Vec<f64>>,
}

/// What is known about the tensors of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Number of elements of the largest tensor of known size, and the input or node it comes from.
    pub(crate) largest: Option<(i64, String)>,
    /// Maximum number of elements of computed tensors of known size that are live at the same time.
    pub(crate) peak: i64,
    /// A node that produces a tensor whose size depends on the values of the inputs in a way that the analysis cannot follow.
    pub(crate) unbounded: Option<String>,
}

/// Whether the values of a tensor with this many elements are tracked.
pub(crate) fn are_few(elements: usize) -> bool {
    elements as u64 <= constant::MAX_ELEMENTS.unsigned_abs()
}

impl Outline {
    /// Takes the graph from a model, without its weights.
    pub(crate) fn new(model: ModelProto) -> Self {
        let mut graph = model.graph.unwrap_or_default();
        graph.value_info.clear();
        // Keep the data of shapes and other small tensors; drop that of the weights.
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

    /// The sizes that do not depend on open dimensions, and whether any size depends on the values of the inputs.
    fn declared(&self) -> (Sizes, bool) {
        self.follow(|walk, info, name| Value {
            dims: walk.declared(info, name),
            numbers: None,
            content: Content::Count,
        })
    }

    /// The sizes that are the same for all inputs.
    pub(crate) fn constant(&self) -> Sizes {
        self.declared().0
    }

    /// A node that produces a tensor whose size cannot be computed, even from known and small inputs.
    pub(crate) fn unbounded(&self) -> Option<String> {
        // The result may depend on the size of an open dimension: an input that holds a shape has one element per dimension.
        // Report a node only if there is one for each of these sizes.
        let found = [1, 2, 3, 4].map(|size| self.invented(size).unbounded);
        found.into_iter().reduce(Option::and).flatten()
    }

    /// The sizes of a hypothetical run whose open dimensions all have the size `open`.
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
            // A floating-point input, such as a scale, may be fractional. Sizes that can be computed only from integers
            // therefore count as unbounded.
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

    /// The sizes of a run with these inputs, or cached sizes of a run that is at least as large.
    pub(crate) fn of_run(&self, inputs: &[Known<'_>]) -> Sizes {
        let key: Vec<usize> = inputs.iter().flat_map(|input| input.shape).copied().collect();
        if !self.by_elements
            && let Some(sizes) = self.state().remembered(&key)
        {
            return sizes;
        }
        let input = |walk: &Walk<'_>, _: &ValueInfoProto, name: &str| {
            let mut given = inputs.iter().filter(|input| input.name == name);
            // Several tensors with the same name form a sequence, which has no single shape.
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
        // The sizes of a huge run must not serve as bounds for smaller runs, which would then be rejected.
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
        // A panic cannot leave the state inconsistent: cache entries are added as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn follow(&self, input: impl Fn(&Walk<'_>, &ValueInfoProto, &str) -> Value) -> (Sizes, bool) {
        let walk = Walk::sizing(&self.opsets);
        walk.follow(&self.graph, |info, name| input(&walk, info, name));
        walk.recorded()
    }

    /// The cached sizes of a run whose dimensions are all at least as large as those in `key`.
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
