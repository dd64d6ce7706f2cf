//! Files to load, and a sink that records the outcomes of a model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use plugin_abi::manifest::LoadContext;
use serde_json::json;

use crate::error::ItemError;
use crate::loader::{FileTrust, LoadError, Loaded, Loader, ProbeProgram};
use crate::model::{BatchItem, Model, OutputSink, SinkStatus};
use crate::values::{ItemInput, Tensor, Value};

/// The symbol that plugins export.
pub(super) const SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

/// Scratch directory and plugin directory of one test.
pub(super) struct Directories {
    scratch: tempfile::TempDir,
    plugins: tempfile::TempDir,
}

impl Directories {
    pub(super) fn new() -> Self {
        let directory = || tempfile::tempdir().expect("a temporary directory");
        Self {
            scratch: directory(),
            plugins: directory(),
        }
    }

    pub(super) fn plugins(&self) -> &Path {
        self.plugins.path()
    }

    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A loader whose probe process is the test `probe_child` of this executable.
    pub(super) fn loader(&self) -> Loader {
        Loader::new(self.scratch.path(), probe_program())
            .expect("the temporary directory takes scratch files")
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let file = self.plugins().join(name);
        std::fs::write(&file, content).expect("the fixture is written");
        file
    }

    /// Compiles C code into a shared library.
    pub(super) fn compile(&self, name: &str, code: &str, arguments: &[&str]) -> PathBuf {
        let source = self.write(&format!("{name}.c"), code.as_bytes());
        let file = self.plugins().join(name);
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&file, &source])
            .args(arguments)
            .output()
            .expect("a C compiler is installed, because Rust links with it");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        file
    }
}

pub(super) fn probe_program() -> ProbeProgram {
    let arguments = [
        "--exact",
        "loader::tests::probe_child",
        "--ignored",
        "--nocapture",
    ];
    ProbeProgram {
        executable: std::env::current_exe().expect("this test has an executable"),
        arguments: arguments.map(str::to_owned).to_vec(),
    }
}

/// A plugin of this workspace that cargo has built. `cargo test --workspace` builds plugins into the directory of this
/// test's executable; `cargo build` builds them into its parent.
pub(super) fn built(name: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("this test has an executable");
    let directories = executable.ancestors().skip(1).take(2);
    let mut files = directories.map(|directory| directory.join(format!("lib{name}.so")));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("lib{name}.so is missing: run `cargo build -p plugin-{name}` or test the whole workspace")
    })
}

/// The bytes of the template plugin.
pub(super) fn template_bytes() -> Vec<u8> {
    std::fs::read(built("template")).expect("the built plugin is readable")
}

/// Position of the first occurrence of `needle`.
pub(super) fn position(bytes: &[u8], needle: &[u8]) -> usize {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("the plugin contains these bytes")
}

/// The parameters of a load.
pub(super) struct LoadRequest {
    pub(super) path: PathBuf,
    pub(super) context: LoadContext,
    pub(super) probe_timeout: Duration,
}

impl LoadRequest {
    pub(super) fn load(&self, loader: &Loader) -> Result<Loaded, LoadError> {
        loader
            .stage(&self.path, &FileTrust::default(), &[], self.probe_timeout)?
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
            is_calibrated: false,
        },
        probe_timeout: Duration::from_secs(60),
    }
}

/// The error of loading `path`, with its sources, as it is shown to operators.
pub(super) fn load_error(directories: &Directories, path: &Path) -> String {
    chain(&load_failure(directories, &request(path)))
}

pub(super) fn load_failure(directories: &Directories, request: &LoadRequest) -> LoadError {
    match request.load(&directories.loader()) {
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

/// Runs one text through the task `echo`.
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

/// Records outcomes.
#[derive(Debug, Default)]
pub(in crate::loader) struct Recorder {
    pub(in crate::loader) emitted: Vec<(usize, Value)>,
    pub(in crate::loader) batches: Vec<Vec<Tensor>>,
    pub(in crate::loader) failed: Vec<(usize, ItemError)>,
    /// The answer to every outcome. `None` accepts it.
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
