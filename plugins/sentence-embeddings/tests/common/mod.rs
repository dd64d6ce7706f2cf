//! Helpers of the tests: loading models, and comparing numbers.

use std::fs;
use std::path::{Path, PathBuf};

use plugin_sdk::serde_json::{self, Value as Json};
use plugin_sdk::testing::{self, Failure, Harness};
use sentence_embeddings::SentenceEmbeddings;
use tempfile::TempDir;

/// Maximum difference from sentence-transformers.
pub(crate) const TOLERANCE: f64 = 1e-5;

/// Returns the path of a reference file.
pub(crate) fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

/// Reads a JSON reference file.
pub(crate) fn reference_json(name: &str) -> Json {
    let text = fs::read_to_string(reference(name)).expect("read the reference");
    serde_json::from_str(&text).expect("valid JSON")
}

/// Returns the directory of all-MiniLM-L6-v2, which `tests/install` downloads. If it does not exist, prints a note, or panics
/// if `INFERENCE_TEST_TOOLS=required` is set.
pub(crate) fn minilm() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let folder = cache
        .expect("a home directory")
        .join("inference-server/models/all-MiniLM-L6-v2");
    if folder.join("model.safetensors").exists() {
        return Some(folder);
    }
    let missing = format!("{} does not exist: run `tests/install`", folder.display());
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(!required, "{missing}");
    eprintln!("note: NOT TESTED: {missing}");
    None
}

/// Loads a model. Paths in the settings are relative to the directory of the small models.
pub(crate) fn load(settings: Json, threads: u32) -> Result<Harness<SentenceEmbeddings>, Failure> {
    Harness::load_with(settings, models(), 1, threads)
}

/// Returns the directory of the small models.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// Returns the numbers of a vector in an output.
pub(crate) fn vector(outcome: Result<Json, Failure>) -> Vec<f64> {
    numbers(&outcome.expect("a vector")["embedding"])
}

/// Returns the numbers of a JSON array of any depth, in order.
pub(crate) fn numbers(value: &Json) -> Vec<f64> {
    match value {
        Json::Array(values) => values.iter().flat_map(numbers).collect(),
        Json::Number(number) => vec![number.as_f64().expect("a number")],
        _ => panic!("expected an array of numbers, got {value}"),
    }
}

/// Asserts that two slices have the same length and that their elements differ by at most the tolerance.
#[track_caller]
pub(crate) fn assert_close(got: &[f64], expected: &[f64], what: &str) {
    testing::assert_close(got, expected, TOLERANCE, what);
}

/// A copy of the directory of a small model.
pub(crate) struct ModelCopy(TempDir);

impl ModelCopy {
    pub(crate) fn of(folder: &str) -> Self {
        let copy = tempfile::tempdir().expect("create a temporary directory");
        copy_directory(&models().join(folder), copy.path());
        Self(copy)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes a JSON file, which is created if it does not exist.
    pub(crate) fn edit(self, name: &str, edit: impl FnOnce(&mut Json)) -> Self {
        let file = self.path().join(name);
        let mut content = match fs::read(&file) {
            Ok(content) => serde_json::from_slice(&content).expect("valid JSON"),
            Err(_) => serde_json::json!({}),
        };
        edit(&mut content);
        fs::write(file, content.to_string()).expect("write the file");
        self
    }

    /// Sets a key of a JSON file.
    pub(crate) fn set(self, name: &str, key: &str, value: &Json) -> Self {
        self.edit(name, |content| content[key] = value.clone())
    }

    /// Removes a file.
    pub(crate) fn without(self, name: &str) -> Self {
        fs::remove_file(self.path().join(name)).expect("remove the file");
        self
    }

    /// Returns the error of loading the copy, which must name the setting `folder`.
    pub(crate) fn load_error(&self) -> String {
        let failure = load(serde_json::json!({"folder": self.path()}), 1).expect_err("unsupported model");
        assert_eq!(failure.key, "folder", "{failure}");
        failure.message
    }

    /// Asserts that the results of the copy are those of the model `name` among the architectures.
    #[track_caller]
    pub(crate) fn check_unchanged(&self, name: &str) {
        let reference = reference_json("architectures.json");
        let model = load(serde_json::json!({"folder": self.path()}), 1);
        let model = model.unwrap_or_else(|failure| panic!("{failure}"));
        let texts = reference["texts"].as_array().expect("a list");
        let outcomes = model.predict("query", texts);
        let got: Vec<_> = outcomes.into_iter().flat_map(vector).collect();
        assert_close(&got, &numbers(&reference["expected"][name]["query"]), name);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a directory");
    for entry in fs::read_dir(from).expect("read the directory") {
        let entry = entry.expect("read the directory").path();
        let copy = to.join(entry.file_name().expect("a file name"));
        if entry.is_dir() {
            copy_directory(&entry, &copy);
        } else {
            fs::copy(&entry, &copy).expect("copy a file");
        }
    }
}
