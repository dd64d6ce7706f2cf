//! Files to load, and a sink to see what a model answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::LoadContext;
use serde_json::json;

use crate::error::ItemError;
use crate::loader::{LoadError, Loaded, Loader, TrialProgram};
use crate::model::{BatchItem, Model, OutputSink, SinkStatus};
use crate::values::{ItemInput, Tensor, Value};

/// The symbol of a plugin, as C code spells it.
pub(super) const SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

/// A folder for the scratch files and one for the plugins of one test.
pub(super) struct Folders {
    scratch: tempfile::TempDir,
    plugins: tempfile::TempDir,
}

impl Folders {
    pub(super) fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        Self {
            scratch: folder(),
            plugins: folder(),
        }
    }

    pub(super) fn plugins(&self) -> &Path {
        self.plugins.path()
    }

    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A loader whose trials run in this test's executable, in the test `trial_child`.
    pub(super) fn loader(&self) -> Loader {
        Loader::new(self.scratch.path(), trial_program()).expect("the temporary folder takes scratch files")
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let file = self.plugins().join(name);
        std::fs::write(&file, content).expect("the fixture is written");
        file
    }

    /// Compiles a shared library of C code.
    pub(super) fn compile(&self, name: &str, code: &str, arguments: &[&str]) -> PathBuf {
        let source = self.write(&format!("{name}.c"), code.as_bytes());
        let file = self.plugins().join(name);
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&file, &source])
            .args(arguments)
            .output()
            .expect("a C compiler is there, as Rust links with it");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        file
    }
}

pub(super) fn trial_program() -> TrialProgram {
    let arguments = [
        "--exact",
        "loader::tests::trial_child",
        "--ignored",
        "--nocapture",
    ];
    TrialProgram {
        executable: std::env::current_exe().expect("this test has an executable"),
        arguments: arguments.map(str::to_owned).to_vec(),
    }
}

/// A plugin of this workspace, as cargo has built it. Tests of the whole workspace build the plugins into the folder of this
/// test; one above it is what an earlier `cargo build` has left.
pub(super) fn built(name: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("this test has an executable");
    let folders = executable.ancestors().skip(1).take(2);
    let mut files = folders.map(|folder| folder.join(format!("lib{name}.so")));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("lib{name}.so is missing: run `cargo build -p plugin-{name}` or test the whole workspace")
    })
}

/// The template plugin's bytes, to be damaged.
pub(super) fn template_bytes() -> Vec<u8> {
    std::fs::read(built("template")).expect("the built plugin is readable")
}

/// Where `needle` starts; it has to be there once at least.
pub(super) fn position(bytes: &[u8], needle: &[u8]) -> usize {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("the plugin holds these bytes")
}

/// Which plugin to load, and with what.
pub(super) struct LoadRequest {
    pub(super) path: PathBuf,
    pub(super) context: LoadContext,
    pub(super) trial_timeout: Duration,
}

impl LoadRequest {
    pub(super) fn load(&self, loader: &Loader) -> Result<Loaded, LoadError> {
        loader
            .stage(&self.path, &[], self.trial_timeout)?
            .load(&self.context)
    }
}

pub(super) fn request(path: &Path) -> LoadRequest {
    LoadRequest {
        path: path.to_owned(),
        context: LoadContext {
            model: "demo".to_owned(),
            settings: json!({}),
            base_dir: PathBuf::from("/"),
            workers: 1,
            threads: 1,
            is_repeated: false,
        },
        trial_timeout: Duration::from_secs(60),
    }
}

/// The error of loading `path`, with its sources, as an operator would be shown it.
pub(super) fn load_error(folders: &Folders, path: &Path) -> String {
    chain(&load_failure(folders, &request(path)))
}

pub(super) fn load_failure(folders: &Folders, request: &LoadRequest) -> LoadError {
    match request.load(&folders.loader()) {
        Ok(_) => panic!("{} loads", request.path.display()),
        Err(error) => error,
    }
}

pub(super) fn load(loader: &Loader, path: &Path) -> Loaded {
    match request(path).load(loader) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{}: {}", path.display(), chain(&error)),
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub(super) fn text(text: &str) -> ItemInput {
    ItemInput {
        value: Value::Text(Bytes::copy_from_slice(text.as_bytes())),
        parameters: Bytes::new(),
    }
}

/// Echoes one text through a task.
pub(super) fn echo(model: &dyn Model, input: &str) -> Vec<(usize, Value)> {
    let task = model.manifest().tasks.iter().position(|task| task.name == "echo");
    let input = text(input);
    let items = [BatchItem {
        input: &input,
        prepared: None,
    }];
    let mut sink = Recorder::default();
    let result = model.predict_batch(
        0,
        task.expect("the template has the task `echo`"),
        &items,
        &mut sink,
    );
    assert_eq!(result, Ok(()));
    sink.emitted
}

/// Keeps what it is given.
#[derive(Debug, Default)]
pub(in crate::loader) struct Recorder {
    pub(in crate::loader) emitted: Vec<(usize, Value)>,
    pub(in crate::loader) batches: Vec<Vec<Tensor>>,
    pub(in crate::loader) failed: Vec<(usize, ItemError)>,
    /// What to answer; `None` takes everything.
    pub(in crate::loader) answer: Option<SinkStatus>,
}

impl OutputSink for Recorder {
    fn emit(&mut self, index: usize, value: Value, _more: bool) -> SinkStatus {
        self.emitted.push((index, value));
        self.answer.unwrap_or(SinkStatus::Accepted)
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        self.batches.push(tensors);
        self.answer.unwrap_or(SinkStatus::Accepted)
    }

    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus {
        self.failed.push((index, error));
        self.answer.unwrap_or(SinkStatus::Accepted)
    }
}
