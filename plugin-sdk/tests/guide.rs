//! Tests of the guide for plugin authors: its crate compiles, its tests pass, its library is a plugin, and its commands work.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use plugin_abi::PluginModule_Ref;
use plugin_abi::manifest::PluginManifest;

const GUIDE: &str = include_str!("../README.md");

/// Appended to the guide's `Cargo.toml`. Makes warnings errors, keeps the crate out of this workspace although it is located in
/// it, and uses the profile of this workspace, so that compiled dependencies are shared.
const CARGO_TOML_SUFFIX: &str = r#"
[lints.rust]
warnings = "deny"

[workspace]

[profile.dev]
debug = "line-tables-only"

[profile.dev.package."*"]
debug = false
"#;

/// Returns the code block that follows the line "`greeter/NAME`:".
fn block(name: &str) -> &'static str {
    let marker = format!("`greeter/{name}`:\n\n```");
    let (_, rest) = GUIDE.split_once(&marker).expect("the guide shows this file");
    let (_language, rest) = rest.split_once('\n').expect("a line break follows the fence");
    rest.split_once("```").expect("the fence is closed").0
}

/// Path of the test of the guide's section on parameters, in the guide's crate.
const PARAMETERS: &str = "tests/parameters.rs";

/// Returns the guide's model with the task of the section on parameters, and a test of it.
fn crate_with_parameters() -> String {
    let (_, section) = GUIDE
        .split_once("**Parameters.**")
        .expect("the guide has this section");
    let (_, task) = section.split_once("```rust\n").expect("it shows a task");
    let (task, _) = task.split_once("```").expect("the fence is closed");
    let code = block("src/lib.rs");
    let (before, rest) = code
        .split_once("struct Greet; //")
        .expect("the model has this task");
    let (_, after) = rest.split_once("\n\n").expect("an empty line follows the task");
    let test = r#"
#[test]
fn parameters_are_read_for_each_item() {
    let settings = json!({"greeting": "Hi"});
    let model = plugin_sdk::testing::Harness::<Greeter>::load(settings).expect("it loads");
    let outcomes = model.predict_with("greet", &[json!("A")], &json!({"times": 2}));
    assert_eq!(outcomes, [Ok(json!("Hi, A!Hi, A!"))]);
    assert!(model.predict("greet", &[json!("A")])[0].is_err());
}
"#;
    format!("{before}{task}\n{after}{test}")
}

/// Returns the guide's override of the SDK, with the path of this SDK.
fn sdk_override(sdk: &Path) -> String {
    const PATH: &str = "../inference-server/plugin-sdk";
    let (_, rest) = GUIDE
        .split_once("```toml\n[patch.crates-io]\n")
        .expect("the guide shows an override");
    let (text, _) = rest.split_once("```").expect("the fence is closed");
    assert!(text.contains(PATH), "{text}");
    format!(
        "\n[patch.crates-io]\n{}",
        text.replace(PATH, &sdk.display().to_string())
    )
}

/// Writes the guide's crate, with its override of the SDK and [`CARGO_TOML_SUFFIX`] appended.
fn write_crate() -> PathBuf {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide/greeter");
    for name in ["Cargo.toml", "src/lib.rs", "tests/greeter.rs", PARAMETERS] {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().expect("a parent directory")).expect("create the directory");
        let written = fs::read_to_string(&file).unwrap_or_default();
        let text = match name {
            "Cargo.toml" => format!("{}{}{CARGO_TOML_SUFFIX}", block(name), sdk_override(sdk)),
            PARAMETERS => crate_with_parameters(),
            _ => block(name).to_owned(),
        };
        // Rewriting an unchanged file would compile the crate again.
        if written != text {
            fs::write(&file, text).expect("write the file");
        }
    }
    let workspace = sdk.parent().expect("the SDK is in a workspace");
    fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock")).expect("copy Cargo.lock");
    directory
}

/// Returns the target directory of this build, so that compiled dependencies are reused.
fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the temporary directory is in the target directory")
}

fn cargo(directory: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target_dir())
        .output()
        .expect("cargo runs");
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&text)
    );
}

#[test]
fn a_model_with_two_tasks_fits_in_forty_lines_of_safe_rust() {
    let code = block("src/lib.rs");
    assert!(code.contains("#![forbid(unsafe_code)]"));
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 40, "{lines} lines");
}

#[test]
fn the_crate_of_the_guide_compiles_passes_its_tests_and_is_a_plugin() {
    let directory = write_crate();
    // Formatted by rustfmt, so that lines cannot be joined to meet the limit of forty.
    cargo(&directory, &["fmt", "--check", "--", "--config", "max_width=100"]);
    cargo(&directory, &["test", "--offline", "--quiet"]);

    let manifest = describe(&target_dir().join("debug/deps/libgreeter.so"));
    assert_eq!(
        (&*manifest.name, &*manifest.version, &*manifest.description),
        ("greeter", "0.1.0", "Greets people")
    );
    let tasks: Vec<_> = manifest.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(tasks, ["greet", "measure"]);
    assert_eq!(manifest.settings_schema["required"][0], "greeting");
}

/// A server process that is killed on drop.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_commands_of_the_guide_serve_its_model() {
    let server = target_dir().join("debug/inference-server");
    if !server.exists() {
        let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
        assert!(!required, "{} is missing", server.display());
        eprintln!(
            "note: NOT TESTED, because {} is missing: build the workspace",
            server.display()
        );
        return;
    }
    let lines: Vec<&str> = commands("inference-server --config").lines().collect();
    let [build, serve, request] = lines[..] else {
        panic!("expected commands to build, serve and send a request, got {lines:?}")
    };
    assert_eq!(
        (build, serve),
        ("cargo build --release", "inference-server --config models.toml")
    );
    let directory = write_crate();
    cargo(&directory, &["build", "--offline", "--quiet"]);
    let library = target_dir().join("debug/libgreeter.so");
    let config = block("models.toml").replace("target/release/libgreeter.so", &library.display().to_string());
    fs::write(directory.join("models.toml"), config).expect("write the file");

    let mut child = Command::new(server)
        .args(["--config", "models.toml", "--host", "127.0.0.1", "--port", "0"])
        .current_dir(&directory)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let log = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let _server = ServerProcess(child);
    let mut lines = log.lines().map(|line| line.expect("the log is UTF-8"));
    let mut after = |part: &str| {
        let line = lines.find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("the log does not contain {part:?}"));
        line.split(part)
            .nth(1)
            .expect("the line contains the part")
            .trim()
            .to_owned()
    };
    let address = after("listening on http://");
    after("ready after ");
    let reply = Command::new("sh")
        .args(["-c", &request.replace("localhost:8080", &address)])
        .output()
        .expect("run sh");
    let reply: plugin_sdk::serde_json::Value =
        plugin_sdk::serde_json::from_slice(&reply.stdout).expect("the reply is JSON");
    let expected = ["Hello, Ada!", "Hello, Grace!"];
    assert_eq!(reply["outputs"], plugin_sdk::serde_json::json!(expected));
}

/// Returns the shell block of the guide that contains `part`.
fn commands(part: &str) -> &'static str {
    let blocks = GUIDE.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks
        .find(|block| block.contains(part))
        .expect("the guide shows these commands")
}

/// Runs commands of the guide in `directory`, except the last one, which is `cargo test`.
fn run_all_but_the_tests(directory: &Path, commands: &str) {
    let (commands, last) = commands.trim_end().rsplit_once('\n').expect("several commands");
    assert!(last.starts_with("cargo test"), "{last}");
    let status = Command::new("sh")
        .args(["-ec", commands])
        .current_dir(directory)
        .status();
    assert!(status.expect("run sh").success(), "{commands}");
}

/// Returns the root directory of this repository.
fn checkout() -> &'static Path {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    sdk.parent().expect("the SDK is in a workspace")
}

/// Creates an empty directory for the test `name`.
fn empty_directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("create the directory");
    directory
}

#[test]
fn a_copy_of_the_template_outside_the_workspace_passes_its_tests() {
    let parent = empty_directory("template-outside");
    std::os::unix::fs::symlink(checkout(), parent.join("inference-server")).expect("create a symbolic link");
    run_all_but_the_tests(&parent, commands("cp -r inference-server/plugins/template words"));
    let copy = parent.join("words");
    fs::copy(checkout().join("Cargo.lock"), copy.join("Cargo.lock")).expect("copy Cargo.lock");
    cargo(&copy, &["test", "--offline", "--quiet"]);
    let manifest = describe(&target_dir().join("debug/deps/libwords.so"));
    assert_eq!(manifest.name, "plugin-words");
    fs::remove_dir_all(&parent).expect("remove the directory");
}

#[test]
fn a_copy_of_the_template_within_the_workspace_is_renamed() {
    let parent = empty_directory("template-inside");
    fs::create_dir_all(parent.join("plugins")).expect("create the directory");
    let status = Command::new("cp")
        .arg("-r")
        .args([
            checkout().join("plugins/template"),
            parent.join("plugins/template"),
        ])
        .status();
    assert!(status.expect("run cp").success());
    run_all_but_the_tests(&parent, commands("cp -r plugins/template plugins/words"));
    for file in ["Cargo.toml", "tests/template.rs"] {
        let copied = fs::read_to_string(parent.join("plugins/words").join(file)).expect("read the copy");
        assert!(
            !copied.contains("\"template\"") && !copied.contains("plugin-template"),
            "{copied}"
        );
        assert!(copied.contains("words"), "{copied}");
    }
    fs::remove_dir_all(&parent).expect("remove the directory");
}

/// Opens a plugin and returns its manifest.
#[allow(unsafe_code, reason = "opens a library, whose symbols have no types")]
fn describe(library: &Path) -> PluginManifest {
    // SAFETY: the library was just built from safe code and has no constructors.
    let library = unsafe { libloading::Library::new(library) }.expect("open the library");
    // SAFETY: this symbol is an `AbiHeader` in every abi_stable library.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *header.expect("the library exports the header");
    std::mem::forget(library);
    let header = header.upgrade().expect("the same version of abi_stable");
    let module = header
        .init_root_module::<PluginModule_Ref>()
        .expect("the same layout");
    plugin_sdk::serde_json::from_str(&module.describe()()).expect("a valid manifest")
}
