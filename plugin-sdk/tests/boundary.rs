//! Tests of the C ABI from the server's side: manifests, outcomes and errors.

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use plugin_sdk::testing::{Failure, FailureKind, Harness};

/// A model with tasks of several kinds. Its settings add further tasks.
struct Zoo {
    tasks: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Names of additional tasks.
    #[serde(default)]
    tasks: Vec<String>,
}

impl Model for Zoo {
    type Settings = Settings;

    fn load(settings: Settings, _context: &LoadContext) -> Result<Self, LoadError> {
        Ok(Self {
            tasks: settings.tasks,
        })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        let fixed = Tasks::new()
            .add("reverse", Reverse)
            .add("repeat", Repeat)
            .add("rows", Rows)
            .add("kind", KindOf)
            .add_prepared("words", Words);
        self.tasks
            .iter()
            .fold(fixed, |tasks, name| tasks.add(name, Reverse))
    }
}

/// A task from bytes to bytes.
struct Reverse;

impl Task<Zoo> for Reverse {
    type Input = Bytes;
    type Output = Bytes;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Reverses bytes.")
            .example(json!({"b64": "AAEC", "media_type": "image/png"}))
            .accepts(["image/png"])
    }

    fn predict(&self, _model: &Zoo, batch: Batch<'_, BytesItem<'_>>) -> BatchResult<BytesOutput> {
        let reverse = |item: &BytesItem<'_>| {
            BytesOutput::new(
                item.data.iter().rev().copied().collect(),
                item.media_type.to_owned(),
            )
        };
        Ok(batch.iter().map(reverse).collect())
    }
}

/// A task from text to text, with parameters.
struct Repeat;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Times {
    #[serde(default = "twice")]
    times: usize,
}

fn twice() -> usize {
    2
}

impl Task<Zoo> for Repeat {
    type Input = Text;
    type Output = Text;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Repeats a text.")
            .example(json!("ab"))
            .parameters::<Times>()
            .max_batch_size(8)
    }

    fn predict(&self, _model: &Zoo, batch: Batch<'_, &str>) -> BatchResult<String> {
        let repeat = |(index, text): (usize, &&str)| {
            let Times { times } = batch.parameters(index)?;
            Ok(text.repeat(times))
        };
        Ok(batch.iter().enumerate().map(repeat).collect())
    }
}

/// A task from JSON to tensors of the whole batch.
struct Rows;

#[derive(Deserialize, JsonSchema)]
struct Number {
    number: f32,
}

impl Task<Zoo> for Rows {
    type Input = Json<Number>;
    type Output = Tensors;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("A number as tensors.")
            .example(json!({"number": 1.0}))
            .output_tensor(TensorInfo::new("pair", DType::Fp32, &[2]))
            .output_tensor(TensorInfo::new("label", DType::Bytes, &[]))
    }

    fn predict(&self, _model: &Zoo, batch: Batch<'_, Number>) -> BatchResult<Vec<TensorOutput>> {
        let pairs: Vec<f32> = batch
            .iter()
            .flat_map(|item| [item.number, -item.number])
            .collect();
        let labels = batch.iter().map(|item| format!("n{}", item.number));
        // Each negative number adds a superfluous row.
        let rows = batch.len() + batch.iter().filter(|item| item.number < 0.0).count();
        let pairs = [&pairs[..], &vec![0.0; rows * 2 - pairs.len()]].concat();
        Ok(Outputs::batch(vec![
            TensorOutput::new("pair", &[rows, 2], pairs),
            TensorOutput::byte_strings("label", &[batch.len()], labels),
        ]))
    }
}

/// A task that accepts any kind of input.
struct KindOf;

impl Task<Zoo> for KindOf {
    type Input = Any;
    type Output = Json<String>;

    fn predict(&self, _model: &Zoo, batch: Batch<'_, Value<'_>>) -> BatchResult<String> {
        let kind = |value: &Value<'_>| match value {
            Value::Text(text) => format!("text of {} bytes", text.len()),
            Value::Bytes(item) => format!("{item:?}"),
            Value::Json(document) => format!("json of {} bytes", document.len()),
            _ => "tensors".to_owned(),
        };
        Ok(batch.iter().map(kind).collect())
    }
}

/// A task with a prepare step.
struct Words;

impl PreparedTask<Zoo> for Words {
    type Input = Text;
    type Output = Json<usize>;
    type Prepared = Vec<String>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts words.")
            .example(json!("to be"))
            .max_padded_weight(64)
    }

    fn prepare(&self, _model: &Zoo, item: Item<'_, &str>) -> Result<Prepared<Vec<String>>, ItemError> {
        let Times { times } = item.parameters()?;
        let words: Vec<String> = item
            .value
            .repeat(times)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let weight = words.len() as u64;
        Ok(Prepared::new(words).weight(weight))
    }

    fn predict(&self, _model: &Zoo, batch: Batch<'_, &Vec<String>>) -> BatchResult<usize> {
        Ok(batch.iter().map(|words| words.len()).collect())
    }
}

fn zoo() -> Harness<Zoo> {
    Harness::load(json!({})).expect("it loads")
}

fn failure(outcome: &Result<JsonValue, Failure>) -> (FailureKind, &str) {
    let failure = outcome.as_ref().expect_err("it fails");
    (failure.kind, &failure.message)
}

#[test]
fn the_manifest_describes_every_task() {
    let manifest = plugin_sdk::serde_json::to_string_pretty(zoo().manifest()).expect("manifests are JSON");
    insta::assert_snapshot!(manifest);
}

#[test]
fn tasks_can_depend_on_the_settings() {
    let model = Harness::<Zoo>::load(json!({"tasks": ["esrever"]})).expect("it loads");
    let image = json!({"b64": "AAEC", "media_type": "image/png"});
    assert_eq!(
        model.predict("esrever", &[image]),
        [Ok(json!({"b64": "AgEA", "media_type": "image/png"}))]
    );
}

#[test]
fn task_names_are_validated_when_the_model_is_loaded() {
    for (name, message) in [
        ("reverse", "two tasks are named `reverse`"),
        ("a/b", "invalid task name `a/b`: expected 1 to 128 letters"),
    ] {
        let failure = Harness::<Zoo>::load(json!({"tasks": [name]})).expect_err("invalid task name");
        assert!(failure.message.starts_with(message), "{failure}");
    }
}

#[test]
fn items_receive_the_parameters_of_their_request() {
    let model = zoo();
    let items = [json!("ab"), json!("c")];
    assert_eq!(
        model.predict("repeat", &items),
        [Ok(json!("abab")), Ok(json!("cc"))]
    );
    assert_eq!(
        model.predict_with("repeat", &items, &json!({"times": 1})),
        items.map(Ok)
    );
    let outcomes = model.predict_with("repeat", &[json!("ab")], &json!({"times": "x"}));
    let expected = "parameters: `times`: got \"x\", expected a non-negative integer";
    assert_eq!(failure(&outcomes[0]), (FailureKind::InvalidInput, expected));
    assert_eq!(
        model.predict_with("words", &[json!("to be ")], &json!({"times": 3})),
        [Ok(json!(6))]
    );
}

#[test]
fn rows_are_assigned_to_the_right_items_when_one_cannot_be_decoded() {
    let model = zoo();
    let row = |number: f32| Ok(json!({"pair": [number, -number], "label": format!("n{number}")}));
    let item = |number: f32| json!({"number": number});
    assert_eq!(
        model.predict("rows", &[item(1.0), item(2.5)]),
        [row(1.0), row(2.5)]
    );
    let outcomes = model.predict("rows", &[item(1.0), json!({"number": []}), item(3.0), item(4.0)]);
    assert_eq!(
        (&outcomes[0], &outcomes[2..]),
        (&row(1.0), &[row(3.0), row(4.0)][..])
    );
    let expected = "`number`: got an array, expected a number";
    assert_eq!(failure(&outcomes[1]), (FailureKind::InvalidInput, expected));
}

#[test]
fn a_batch_with_a_wrong_number_of_rows_fails_as_a_whole() {
    let outcomes = zoo().predict("rows", &[json!({"number": -1.0})]);
    let expected = "the task returned 2 outcomes for 1 items, expected one for each";
    assert_eq!(failure(&outcomes[0]), (FailureKind::Internal, expected));
}

#[test]
fn any_input_distinguishes_kinds() {
    let outcomes = zoo().predict("kind", &[json!("é"), json!({"b64": "AA=="}), json!([1, 2])]);
    let expected = ["text of 2 bytes", "1 bytes of ``", "json of 5 bytes"];
    assert_eq!(outcomes, expected.map(|text| Ok(json!(text))));
}

#[test]
fn handles_of_other_tasks_are_rejected() {
    use abi_stable::sabi_trait::TD_Opaque;
    use abi_stable::sabi_types::RMut;
    use abi_stable::std_types::{RSlice, RStr};
    use plugin_abi::{OutputSinkAbi, OutputSinkAbi_TO, RawBatch, RawItem, RawTensor, RawValue};

    #[derive(Default)]
    struct Failures(Vec<String>);
    impl OutputSinkAbi for Failures {
        fn emit(&mut self, _index: u32, _value: RawValue<'_>, _flags: u32) -> u32 {
            panic!("unexpected output")
        }
        fn emit_batch(&mut self, _tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
            panic!("unexpected output")
        }
        fn fail(&mut self, _index: u32, _kind: u32, message: RStr<'_>) -> u32 {
            self.0.push(message.to_string());
            0
        }
    }

    let model = zoo();
    let text = RawValue {
        kind: plugin_abi::codes::kind::TEXT,
        reserved: 0,
        data: RSlice::from(&b"to be"[..]),
        media_type: RStr::from(""),
        tensors: RSlice::EMPTY,
        reserved_word: 0,
    };
    let item = RawItem {
        value: text,
        parameters: RStr::from(""),
        prepared: 0,
        reserved: 0,
    };
    let mut sink = Failures::default();
    let items = [item];
    let batch = RawBatch {
        task: 4,
        worker: 0,
        items: RSlice::from(&items[..]),
        reserved: 0,
    };
    let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
    let outcome = model.abi().predict_batch(batch, lent).into_result();
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(sink.0, ["the item was not prepared by this task"]);

    let unknown = RawBatch { task: 99, ..batch };
    let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
    let error = model
        .abi()
        .predict_batch(unknown, lent)
        .into_result()
        .expect_err("no such task");
    assert_eq!(error.message, "the model has no task with index 99");
    let error = model
        .abi()
        .prepare(0, item)
        .into_result()
        .expect_err("no prepare step");
    assert_eq!(error.message, "the task has no prepare step");
}

#[test]
fn the_harness_reads_items_in_the_same_forms_as_the_server() {
    let model = zoo();
    let uri = json!("data:image/png;base64,AAEC");
    assert_eq!(
        model.predict("reverse", &[uri]),
        [Ok(json!({"b64": "AgEA", "media_type": "image/png"}))]
    );
    let jpeg = json!({"b64": "AAEC", "media_type": "image/jpeg"});
    let outcomes = model.predict("reverse", &[jpeg]);
    assert_eq!(
        failure(&outcomes[0]).1,
        "media type `image/jpeg` is not supported, expected image/png"
    );
}
