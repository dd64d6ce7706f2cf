//! Runs a file in the embedded runtime without the check for verified operators, or runs only that check. Used for the comparison
//! with ONNX Runtime from which the table of verified operators is derived. Not part of the plugin's interface.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use plugin_sdk::LoadError;
use rten_onnx::onnx::{DataType, ModelProto};

use crate::embedded::Embedded;
use crate::interface::Type;
use crate::network::Network;
use crate::runtime::{self, Abilities, Given, Runtime};
use crate::values::{ElementType, Values};
pub use crate::verified::NodeFeatures;
use crate::verified::{self, Limits, Table};

/// Elements of a tensor as the embedded runtime represents them: INT64 and BOOL are 32-bit integers.
#[derive(Clone, Debug)]
pub enum Elements {
    /// FLOAT, FLOAT16 and DOUBLE.
    F32(Vec<f32>),
    /// INT64, INT32 and BOOL.
    I32(Vec<i32>),
    /// INT8.
    I8(Vec<i8>),
    /// UINT8.
    U8(Vec<u8>),
}

/// A tensor: its shape and its elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub elements: Elements,
}

/// A model file loaded in the embedded runtime.
pub struct Direct(Network);

/// The embedded runtime without the check for verified operators. Uses the guards of the given check if that accepts the model.
struct Unchecked<'a> {
    check: Option<&'a Check>,
    runtime: Embedded,
}

impl Abilities for Unchecked<'_> {
    fn held(&self, declared: DataType) -> Option<ElementType> {
        self.runtime.held(declared)
    }

    fn datatypes(&self) -> &'static str {
        self.runtime.datatypes()
    }

    fn verify(&self, model: &ModelProto) -> Result<Limits, String> {
        let limits = self.check.and_then(|check| check.limits(model).ok());
        Ok(limits.unwrap_or(Limits::NONE))
    }

    fn output_types(&self, path: &Path, model: &ModelProto) -> Result<HashMap<String, Type>, String> {
        self.runtime.output_types(path, model)
    }

    fn computes_functions(&self) -> bool {
        self.runtime.computes_functions()
    }

    /// A failed allocation may terminate the process: this is acceptable in a comparison.
    fn survives_failed_allocations(&self) -> bool {
        true
    }

    fn load(
        &self,
        file: &runtime::File<'_>,
        workers: usize,
        threads: usize,
    ) -> Result<Box<dyn Runtime>, LoadError> {
        self.runtime.load(file, workers, threads)
    }
}

impl Direct {
    /// Loads a file for one worker with one thread, with the guards of `check` if that accepts the file.
    ///
    /// # Errors
    /// The runtime cannot load the file.
    pub fn load(path: &Path, check: Option<&Check>) -> Result<Self, String> {
        Self::load_in(path, check, Embedded::default())
    }

    /// Like [`load`](Self::load), but operators overwrite the inputs of the model if they can, as they do with intermediate values.
    ///
    /// # Errors
    /// The runtime cannot load the file.
    pub fn load_in_place(path: &Path, check: Option<&Check>) -> Result<Self, String> {
        Self::load_in(path, check, Embedded { owns_inputs: true })
    }

    fn load_in(path: &Path, check: Option<&Check>, runtime: Embedded) -> Result<Self, String> {
        let network = Network::load(path, &Unchecked { check, runtime }, 1, 1);
        network
            .map(Self)
            .map_err(|failure| failure.into_error().to_string())
    }

    /// Computes all outputs from all inputs, both in the order in which the file declares them.
    ///
    /// # Errors
    /// The run fails, or an output has a type that [`Elements`] does not support.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|input| (input.shape, values(input.elements)))
            .collect();
        let given: Vec<_> = self
            .0
            .inputs()
            .iter()
            .zip(&inputs)
            .map(|(spec, (shape, values))| Given {
                spec,
                shape: shape.clone(),
                values,
            })
            .collect();
        let computed = self.0.run(&given, self.0.outputs(), 0);
        let computed = computed.map_err(|fault| fault.message().into_owned())?;
        computed
            .into_iter()
            .map(|computed| {
                let elements = elements(computed.values).ok_or("the model computed another type")?;
                Ok(Tensor {
                    shape: computed.shape,
                    elements,
                })
            })
            .collect()
    }
}

fn values(elements: Elements) -> Values {
    match elements {
        Elements::F32(values) => Values::F32(values),
        Elements::I32(values) => Values::I32(values),
        Elements::I8(values) => Values::I8(values),
        Elements::U8(values) => Values::U8(values),
    }
}

fn elements(values: Values) -> Option<Elements> {
    Some(match values {
        Values::F32(values) => Elements::F32(values),
        Values::I32(values) => Elements::I32(values),
        Values::I8(values) => Elements::I8(values),
        Values::U8(values) => Elements::U8(values),
        _ => return None,
    })
}

fn parse(path: &Path) -> Result<ModelProto, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    ModelProto::parse_file(file).map_err(|error| error.to_string())
}

/// Checks models against a table of verified operators.
pub struct Check(Option<Table>);

impl Check {
    /// Creates the check against the table of this build.
    pub fn built_in() -> Self {
        Self(None)
    }

    /// Creates the check against a table in a file.
    ///
    /// # Errors
    /// The file cannot be read or does not contain a table.
    pub fn with_table(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let table = Table::parse(&text).map_err(|error| error.to_string())?;
        Ok(Self(Some(table)))
    }

    /// Checks whether the plugin would run a file in the embedded runtime.
    ///
    /// # Errors
    /// The reasons why it would not, or why the file cannot be read.
    pub fn file(&self, path: &Path) -> Result<(), String> {
        self.model(&parse(path)?)
    }

    /// Like [`file`](Self::file), for a parsed file.
    ///
    /// # Errors
    /// The reasons why the plugin would not run it.
    pub fn model(&self, model: &ModelProto) -> Result<(), String> {
        self.limits(model).map(drop)
    }

    fn limits(&self, model: &ModelProto) -> Result<Limits, String> {
        let checked = match &self.0 {
            Some(table) => verified::check_against(model, table),
            None => verified::check(model),
        };
        checked.map_err(|reasons| verified::explain(&reasons))
    }
}

/// The features of the nodes of a file and, for each output, whether it may contain a BOOL that represents true as an integer
/// other than 1.
///
/// # Errors
/// The file cannot be read or is not an ONNX file.
pub fn features(path: &Path) -> Result<(Vec<NodeFeatures>, Vec<bool>), String> {
    Ok(verified::describe(&parse(path)?))
}

/// Names of the verified operators, sorted.
pub fn operators() -> Vec<String> {
    verified::operators()
}
