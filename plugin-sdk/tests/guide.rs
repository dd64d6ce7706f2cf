//! The author's guide, built and run as it stands: its crate compiles, its tests pass, its library is a plugin.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use plugin_abi::PluginModule_Ref;
use plugin_abi::manifest::PluginManifest;

const GUIDE: &str = include_str!("../README.md");

/// What the test adds to the guide's manifest: warnings are errors, the crate is not part of this workspace although it
/// lies within, and the profile is this workspace's, so that compiled dependencies are shared.
const EXTRA: &str = r#"
[lints.rust]
warnings = "deny"

[workspace]

[profile.dev]
debug = "line-tables-only"

[profile.dev.package."*"]
debug = false
"#;

/// The block that follows the line "`greeter/NAME`:".
fn block(name: &str) -> &'static str {
    let marker = format!("`greeter/{name}`:\n\n```");
    let (_, rest) = GUIDE.split_once(&marker).expect("the guide shows this file");
    let (_language, rest) = rest.split_once('\n').expect("a fence ends its line");
    rest.split_once("```").expect("the fence is closed").0
}

/// The test that compiles and runs the guide's section on parameters.
const PARAMETERS: &str = "tests/parameters.rs";

/// The guide's model with the task of the section on parameters, and a test of it.
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

/// Writes the crate of the guide, which differs only in where the SDK is and in [`EXTRA`].
fn write_crate() -> PathBuf {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide/greeter");
    for name in ["Cargo.toml", "src/lib.rs", "tests/greeter.rs", PARAMETERS] {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("the folder can be made");
        let written = fs::read_to_string(&file).unwrap_or_default();
        let text = match name {
            "Cargo.toml" => {
                let path = "../inference-server/plugin-sdk";
                assert!(block(name).contains(path));
                format!("{}{EXTRA}", block(name).replace(path, &sdk.display().to_string()))
            }
            PARAMETERS => crate_with_parameters(),
            _ => block(name).to_owned(),
        };
        // A file that is written again is compiled again.
        if written != text {
            fs::write(&file, text).expect("the file can be written");
        }
    }
    let workspace = sdk.parent().expect("the SDK is in a workspace");
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).expect("the versions can be shared");
    folder
}

/// The folder that cargo builds into now, so that dependencies are compiled once.
fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the temporary folder is in the target folder")
}

fn cargo(folder: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target_dir())
        .output()
        .expect("cargo runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&said)
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
fn the_crate_of_the_guide_builds_passes_its_tests_and_is_a_plugin() {
    let folder = write_crate();
    // As it comes out of `cargo fmt`: no lines saved by writing them together.
    cargo(&folder, &["fmt", "--check", "--", "--config", "max_width=100"]);
    cargo(&folder, &["test", "--offline", "--quiet"]);

    let manifest = describe(&target_dir().join("debug/deps/libgreeter.so"));
    assert_eq!(
        (&*manifest.name, &*manifest.version, &*manifest.description),
        ("greeter", "0.1.0", "Greets people")
    );
    let tasks: Vec<_> = manifest.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(tasks, ["greet", "measure"]);
    assert_eq!(manifest.settings_schema["required"][0], "greeting");
}

/// A server that is killed when the test ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have exited already.
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
            "note: NOT TESTED, since {} is missing: build the workspace",
            server.display()
        );
        return;
    }
    let lines: Vec<&str> = commands("inference-server --config").lines().collect();
    let [build, serve, request] = lines[..] else {
        panic!("the guide builds, serves and sends a request: {lines:?}")
    };
    assert_eq!(
        (build, serve),
        ("cargo build --release", "inference-server --config models.toml")
    );
    let folder = write_crate();
    cargo(&folder, &["build", "--offline", "--quiet"]);
    let library = target_dir().join("debug/libgreeter.so");
    let config = block("models.toml").replace("target/release/libgreeter.so", &library.display().to_string());
    fs::write(folder.join("models.toml"), config).expect("the file can be written");

    let mut child = Command::new(server)
        .args(["--config", "models.toml", "--host", "127.0.0.1", "--port", "0"])
        .current_dir(&folder)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let log = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let _server = Served(child);
    let mut lines = log.lines().map(|line| line.expect("the log is text"));
    let mut after = |part: &str| {
        let line = lines.find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("the log never says {part:?}"));
        line.split(part)
            .nth(1)
            .expect("it has the part")
            .trim()
            .to_owned()
    };
    let address = after("listening on http://");
    after("ready after ");
    let reply = Command::new("sh")
        .args(["-c", &request.replace("localhost:8080", &address)])
        .output()
        .expect("there is a shell");
    let reply: plugin_sdk::serde_json::Value =
        plugin_sdk::serde_json::from_slice(&reply.stdout).expect("the reply is JSON");
    let expected = ["Hello, Ada!", "Hello, Grace!"];
    assert_eq!(reply["outputs"], plugin_sdk::serde_json::json!(expected));
}

/// The shell commands of the guide that contain `part`.
fn commands(part: &str) -> &'static str {
    let blocks = GUIDE.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks
        .find(|block| block.contains(part))
        .expect("the guide shows these commands")
}

/// Runs the commands of the guide in `folder`, all but the last one, which is `cargo test`.
fn run_all_but_the_tests(folder: &Path, commands: &str) {
    let (commands, last) = commands
        .trim_end()
        .rsplit_once('\n')
        .expect("there are several commands");
    assert!(last.starts_with("cargo test"), "{last}");
    let status = Command::new("sh")
        .args(["-ec", commands])
        .current_dir(folder)
        .status();
    assert!(status.expect("there is a shell").success(), "{commands}");
}

/// The folder that this repository is checked out in.
fn checkout() -> &'static Path {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    sdk.parent().expect("the SDK is in a workspace")
}

/// An empty folder for the test called `name`.
fn empty_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the folder can be made");
    folder
}

#[test]
fn a_copy_of_the_template_builds_outside_the_workspace_and_passes_its_tests() {
    let parent = empty_folder("template-outside");
    std::os::unix::fs::symlink(checkout(), parent.join("inference-server")).expect("it can be linked");
    run_all_but_the_tests(&parent, commands("cp -r inference-server/plugins/template words"));
    let copy = parent.join("words");
    fs::copy(checkout().join("Cargo.lock"), copy.join("Cargo.lock")).expect("the versions can be shared");
    cargo(&copy, &["test", "--offline", "--quiet"]);
    let manifest = describe(&target_dir().join("debug/deps/libwords.so"));
    assert_eq!(manifest.name, "plugin-words");
    fs::remove_dir_all(&parent).expect("the folder can be removed");
}

#[test]
fn a_copy_of_the_template_has_its_own_name_within_the_workspace() {
    let parent = empty_folder("template-inside");
    fs::create_dir_all(parent.join("plugins")).expect("the folder can be made");
    let status = Command::new("cp")
        .arg("-r")
        .args([
            checkout().join("plugins/template"),
            parent.join("plugins/template"),
        ])
        .status();
    assert!(status.expect("there is `cp`").success());
    run_all_but_the_tests(&parent, commands("cp -r plugins/template plugins/words"));
    for file in ["Cargo.toml", "tests/template.rs"] {
        let copied = fs::read_to_string(parent.join("plugins/words").join(file)).expect("it was copied");
        assert!(
            !copied.contains("\"template\"") && !copied.contains("plugin-template"),
            "{copied}"
        );
        assert!(copied.contains("words"), "{copied}");
    }
    fs::remove_dir_all(&parent).expect("the folder can be removed");
}

/// Opens a library as the server does, and asks it what it is.
#[allow(unsafe_code, reason = "a library is opened, whose symbols have no types")]
fn describe(library: &Path) -> PluginManifest {
    // SAFETY: the library was built just now from safe code; it has no initialisers of its own.
    let library = unsafe { libloading::Library::new(library) }.expect("it can be opened");
    // SAFETY: this symbol is an `AbiHeader` in every abi_stable library.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *header.expect("it exports the symbol");
    std::mem::forget(library);
    let header = header.upgrade().expect("it was built with the same abi_stable");
    let module = header
        .init_root_module::<PluginModule_Ref>()
        .expect("its layout is ours");
    plugin_sdk::serde_json::from_str(&module.describe()()).expect("it describes itself")
}
