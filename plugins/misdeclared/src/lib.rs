//! A test plugin that compiles, but whose declarations contain most of the mistakes that an author can make.

#![forbid(unsafe_code)]

use plugin_sdk::prelude::*;

/// A model without weights.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misdeclared {
    /// Unused number.
    #[serde(default)]
    #[schemars(range(max = 10))]
    size: u32,
}

impl Model for Misdeclared {
    type Settings = Self;

    fn load(settings: Self, _context: &LoadContext) -> Result<Self, LoadError> {
        log::debug!("loaded with size {}", settings.size);
        Ok(settings)
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
            .add("bare_tensor", BareTensor)
            .add("wrong example", WrongExample)
            .add("twice", Described)
            .add("twice", Described)
    }
}

/// Returns a tensor that it does not declare.
pub struct BareTensor;

impl Task<Misdeclared> for BareTensor {
    type Input = Text;
    type Output = Tensor;

    fn predict(&self, _model: &Misdeclared, batch: Batch<&str>) -> BatchResult<TensorOutput> {
        batch.map(|text| TensorOutput::new("length", &[], vec![text.len() as u64]))
    }
}

#[derive(Deserialize, JsonSchema)]
struct Person {
    name: String,
}

/// A task whose name is not allowed in URLs, and whose example does not match its input.
struct WrongExample;

impl Task<Misdeclared> for WrongExample {
    type Input = Json<Person>;
    type Output = Text;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Returns the name.").example(json!({"nmae": "Ada"}))
    }

    fn predict(&self, _model: &Misdeclared, batch: Batch<Person>) -> BatchResult<String> {
        batch.map(|person| person.name)
    }
}

/// A task without mistakes, except that it is added twice.
struct Described;

impl Task<Misdeclared> for Described {
    type Input = Text;
    type Output = Text;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Returns the text.").example(json!("text"))
    }

    fn predict(&self, _model: &Misdeclared, batch: Batch<&str>) -> BatchResult<String> {
        batch.map(str::to_owned)
    }
}

export_model!(Misdeclared);
