//! What only the settings of a model decide: the kinds of its values, where it runs, which files count, and which library it is in.

use std::path::{Path, PathBuf};

use plugin_sdk::manifest::{Kind, ValueManifest};
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as Document;
use plugin_sdk::testing::{FailureKind, Harness};
use plugin_sdk::{AnyOutput, Back, Front};

/// Answers what its setting says.
struct Chosen {
    answers: Kind,
}

#[derive(Deserialize, JsonSchema)]
struct Settings {
    answers: String,
}

impl Model for Chosen {
    type Settings = Settings;

    fn load(settings: Settings, _context: &LoadContext) -> Result<Self, LoadError> {
        let answers = match settings.answers.as_str() {
            "text" => Kind::Text,
            "bytes" => Kind::Bytes,
            "json" => Kind::Json,
            _ => Kind::Tensors,
        };
        Ok(Self { answers })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        Tasks::new().add("answer", Answer(self.answers))
    }

    fn files(&self) -> Vec<PathBuf> {
        vec!["/somewhere/model.bin".into()]
    }
}

struct Answer(Kind);

impl Task<Chosen> for Answer {
    type Input = Any;
    type Output = Any;

    fn describe(&self) -> TaskInfo {
        let info = TaskInfo::default()
            .input(ValueManifest::of(Kind::Text))
            .output(ValueManifest::of(self.0));
        match self.0 {
            Kind::Tensors => info.output_tensor(TensorInfo::new("numbers", DType::Int32, &[2])),
            _ => info,
        }
    }

    fn predict(&self, model: &Chosen, batch: Batch<'_, Value<'_>>) -> BatchResult<AnyOutput> {
        let numbers = |shape: &[usize]| {
            let count: usize = shape.iter().product();
            TensorOutput::new("numbers", shape, vec![1_i32; count])
        };
        if model.answers == Kind::Tensors && batch.len() > 1 {
            return Ok(Outputs::rows(vec![numbers(&[batch.len(), 2])]));
        }
        batch.map(|_| match model.answers {
            Kind::Text => AnyOutput::Text("text".to_owned()),
            Kind::Bytes => AnyOutput::Bytes(BytesOutput::new(vec![0, 1], "image/png")),
            Kind::Json => AnyOutput::Json("{\"a\": [1]}".to_owned()),
            Kind::Tensors => AnyOutput::Tensors(vec![numbers(&[2])]),
        })
    }
}

fn chosen(answers: &str) -> Harness<Chosen> {
    Harness::load(json!({"answers": answers})).expect("the settings are right")
}

#[test]
fn a_task_answers_any_kind_and_says_which() {
    for (answers, output) in [
        ("text", json!("text")),
        ("bytes", json!({"b64": "AAE=", "media_type": "image/png"})),
        ("json", json!({"a": [1]})),
        ("tensors", json!({"numbers": [1, 1]})),
    ] {
        let model = chosen(answers);
        let task = &model.manifest().tasks[0];
        assert_eq!(task.input.kinds, [Kind::Text]);
        let kind = plugin_sdk::serde_json::to_value(&task.output.kinds).expect("kinds are JSON");
        assert_eq!(kind, json!([answers]));
        let once: Vec<Document> = vec![json!("item")];
        for items in [once.clone(), [once.clone(), once].concat()] {
            let expected: Vec<_> = items.iter().map(|_| Ok(output.clone())).collect();
            assert_eq!(model.predict("answer", &items), expected, "{answers}");
        }
    }
}

#[test]
fn a_model_reports_the_files_that_it_was_loaded_from() {
    let model = chosen("text");
    assert_eq!(model.manifest().files, [Path::new("/somewhere/model.bin")]);
}

/// A plugin in two libraries, of which the settings name one.
struct Split;

#[derive(Deserialize, JsonSchema)]
struct Libraries {
    first: Option<PathBuf>,
}

impl Front for Split {
    type Settings = Libraries;

    fn find(settings: Libraries, context: &LoadContext) -> Result<Back, LoadError> {
        let first = settings.first.map(|first| (context.path(first), "first"));
        Ok(Back {
            libraries: first.into_iter().collect(),
            // There on every machine that runs this.
            plugin: "libc.so.6",
            settings: json!({}),
        })
    }
}

#[test]
fn a_library_that_cannot_be_opened_is_the_fault_of_its_setting() {
    let settings = json!({"first": "/no/such/library.so"});
    let failure = Harness::<Split>::load_behind(settings).expect_err("there is none");
    assert_eq!(
        (failure.kind, failure.key.as_str()),
        (FailureKind::Settings, "first")
    );
    assert!(
        failure
            .message
            .starts_with("the dynamic linker refuses /no/such/library.so: /no/such/library.so: cannot open"),
        "{failure}"
    );
}

#[test]
fn a_back_that_is_no_plugin_is_refused() {
    let failure = Harness::<Split>::load_behind(json!({})).expect_err("it is the C library");
    assert_eq!(failure.message, "libc.so.6 is not a plugin");
    let failure = Harness::<Split>::load_behind(json!({"first": 3})).expect_err("it is a number");
    assert_eq!(failure.key, "first");
}
