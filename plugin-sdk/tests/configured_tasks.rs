//! Models whose kinds of values or libraries depend on their settings.

use std::path::{Path, PathBuf};

use plugin_sdk::manifest::{Kind, ValueManifest};
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as Document;
use plugin_sdk::testing::{FailureKind, Harness};
use plugin_sdk::{AnyOutput, Back, Front};

/// A model whose kind of output is a setting.
struct Configurable {
    output: Kind,
}

#[derive(Deserialize, JsonSchema)]
struct Settings {
    output: String,
}

impl Model for Configurable {
    type Settings = Settings;

    fn load(settings: Settings, _context: &LoadContext) -> Result<Self, LoadError> {
        let output = match settings.output.as_str() {
            "text" => Kind::Text,
            "bytes" => Kind::Bytes,
            "json" => Kind::Json,
            _ => Kind::Tensors,
        };
        Ok(Self { output })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        Tasks::new().add("answer", Answer(self.output))
    }

    fn files(&self) -> Vec<PathBuf> {
        vec!["/somewhere/model.bin".into()]
    }
}

struct Answer(Kind);

impl Task<Configurable> for Answer {
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

    fn predict(&self, model: &Configurable, batch: Batch<'_, Value<'_>>) -> BatchResult<AnyOutput> {
        let numbers = |shape: &[usize]| {
            let count: usize = shape.iter().product();
            TensorOutput::new("numbers", shape, vec![1_i32; count])
        };
        if model.output == Kind::Tensors && batch.len() > 1 {
            return Ok(Outputs::rows(vec![numbers(&[batch.len(), 2])]));
        }
        batch.map(|_| match model.output {
            Kind::Text => AnyOutput::Text("text".to_owned()),
            Kind::Bytes => AnyOutput::Bytes(BytesOutput::new(vec![0, 1], "image/png")),
            Kind::Json => AnyOutput::Json("{\"a\": [1]}".to_owned()),
            Kind::Tensors => AnyOutput::Tensors(vec![numbers(&[2])]),
        })
    }
}

fn configured(output: &str) -> Harness<Configurable> {
    Harness::load(json!({"output": output})).expect("valid settings")
}

#[test]
fn a_task_can_return_any_kind_that_it_declares() {
    for (kind_name, output) in [
        ("text", json!("text")),
        ("bytes", json!({"b64": "AAE=", "media_type": "image/png"})),
        ("json", json!({"a": [1]})),
        ("tensors", json!({"numbers": [1, 1]})),
    ] {
        let model = configured(kind_name);
        let task = &model.manifest().tasks[0];
        assert_eq!(task.input.kinds, [Kind::Text]);
        let kind = plugin_sdk::serde_json::to_value(&task.output.kinds).expect("kinds are JSON");
        assert_eq!(kind, json!([kind_name]));
        let once: Vec<Document> = vec![json!("item")];
        for items in [once.clone(), [once.clone(), once].concat()] {
            let expected: Vec<_> = items.iter().map(|_| Ok(output.clone())).collect();
            assert_eq!(model.predict("answer", &items), expected, "{kind_name}");
        }
    }
}

#[test]
fn a_model_reports_the_files_that_it_was_loaded_from() {
    let model = configured("text");
    assert_eq!(model.manifest().files, [Path::new("/somewhere/model.bin")]);
}

/// A plugin that consists of two libraries. Its settings name another library to open first.
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
            // Exists on every machine that runs this test, and is not a plugin.
            plugin: "libc.so.6",
            settings: json!({}),
        })
    }
}

#[test]
fn an_error_opening_a_library_names_its_setting() {
    let settings = json!({"first": "/no/such/library.so"});
    let failure = Harness::<Split>::load_behind(settings).expect_err("no such file");
    assert_eq!(
        (failure.kind, failure.key.as_str()),
        (FailureKind::Settings, "first")
    );
    assert!(
        failure
            .message
            .starts_with("cannot load the library /no/such/library.so: /no/such/library.so: cannot open"),
        "{failure}"
    );
}

#[test]
fn a_back_that_is_not_a_plugin_is_rejected() {
    let failure = Harness::<Split>::load_behind(json!({})).expect_err("not a plugin");
    assert_eq!(failure.message, "libc.so.6 is not a plugin");
    let failure = Harness::<Split>::load_behind(json!({"first": 3})).expect_err("not a path");
    assert_eq!(failure.key, "first");
}
