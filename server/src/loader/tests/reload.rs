//! Loads new builds, overwritten files and the same file several times.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::fixtures::{
    Directories, Recorder, built, echo, load, load_error, load_failure, position, probe_program,
    template_bytes,
};
use crate::loader::{FileTrust, inspect, load_staged};
use crate::model::{BatchItem, Model};
use crate::values::{ItemInput, Value};

fn output(text: &str) -> Vec<(usize, Value)> {
    vec![(0, Value::Text(Bytes::copy_from_slice(text.as_bytes())))]
}

fn description(model: &dyn Model) -> String {
    model.manifest().tasks[0].description.clone()
}

/// Paths of the mapped copies of plugins.
fn mapped(scratch: &Path) -> Vec<String> {
    let scratch = scratch.canonicalize().expect("the scratch directory is there");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings are readable");
    let mut mapped: Vec<String> = maps
        .lines()
        .filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")))
        .filter(|path| path.starts_with(&*scratch.to_string_lossy()))
        .collect();
    mapped.dedup();
    mapped
}

#[test]
fn a_built_plugin_loads_and_runs() {
    let directories = Directories::new();
    let loaded = load(&directories.loader(), &built("template"));
    assert_eq!(loaded.plugin.name, "plugin-template");
    let tasks = &loaded.model.manifest().tasks;
    assert_eq!(
        tasks.iter().map(|task| &*task.name).collect::<Vec<_>>(),
        ["echo", "stats"]
    );
    assert_eq!(echo(&*loaded.model, "grün"), output("grün"));
}

#[test]
fn loading_a_file_twice_maps_two_libraries() {
    let directories = Directories::new();
    let loader = directories.loader();
    let first = load(&loader, &built("template"));
    let second = load(&loader, &built("template"));
    assert_eq!(mapped(directories.scratch()).len(), 2);
    drop(first);
    assert_eq!(echo(&*second.model, "still here"), output("still here"));
}

#[test]
fn the_mapping_outlives_the_model_but_its_files_do_not() {
    let directories = Directories::new();
    let loader = directories.loader();
    drop(load(&loader, &built("template")));
    let mapped = mapped(directories.scratch());
    assert_eq!(mapped.len(), 1);
    assert!(mapped[0].ends_with("(deleted)"), "{mapped:?}");
    drop(loader);
    let left = std::fs::read_dir(directories.scratch()).expect("the scratch directory is there");
    assert_eq!(left.count(), 0);
}

#[test]
fn overwriting_a_file_does_not_affect_loaded_models_and_a_new_build_is_loaded_as_new_code() {
    let directories = Directories::new();
    let loader = directories.loader();
    let mut build = template_bytes();
    let file = directories.write("libmodel.so", &build);
    let old = load(&loader, &file);
    assert_eq!(description(&*old.model), "Returns the text unchanged.");

    // In place, with the same inode: first an incomplete file, then a new build.
    directories.write("libmodel.so", b"half a build");
    assert_eq!(echo(&*old.model, "old"), output("old"));
    assert!(load_error(&directories, &file).contains("got a text file"));

    let changed = position(&build, b"Returns the text unchanged.");
    build[changed..changed + 27].copy_from_slice(b"Returns the text untouched.");
    directories.write("libmodel.so", &build);
    let new = load(&loader, &file);
    assert_eq!(description(&*new.model), "Returns the text untouched.");
    assert_eq!(description(&*old.model), "Returns the text unchanged.");
    assert_eq!(echo(&*old.model, "old"), output("old"));
    assert_eq!(echo(&*new.model, "new"), output("new"));
}

#[test]
fn a_staged_plugin_is_not_opened_before_it_is_loaded() {
    let directories = Directories::new();
    let request = super::fixtures::request(&built("template"));
    let loader = directories.loader();
    let staged = loader
        .stage(&request.path, &FileTrust::default(), &[], request.probe_timeout)
        .expect("probing the template succeeds");
    assert_eq!(mapped(directories.scratch()), [""; 0]);
    let model = load_staged(staged.copy.file(), &request.context).expect("the template loads");
    assert_eq!(echo(&*model, "here"), output("here"));
}

#[test]
fn inspect_shows_the_file_and_the_manifest() {
    let directories = Directories::new();
    let request = super::fixtures::request(&built("template"));
    let inspection = inspect(&probe_program(), &request.path, request.probe_timeout, &|_, _| {
        Ok(())
    })
    .expect("the template is a plugin");
    assert_eq!(mapped(directories.scratch()), [""; 0]);
    let text = inspection.to_string();
    for part in [
        "plugin       plugin-template",
        "plugin ABI   1.1.0 (this server: 1.1.0)",
        "settings     shortest_word: integer",
        "task         echo: Returns the text unchanged.",
        "  input      text",
        "libc.so.6",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let json = serde_json::to_value(&inspection).expect("an inspection is JSON");
    assert_eq!(json["manifest"]["tasks"][1]["name"], "stats");
}

#[test]
fn inspect_warns_about_static_thread_local_storage() {
    let directories = Directories::new();
    let warns = |library: &[u8]| {
        let file = directories.write("libpatched.so", library);
        let request = super::fixtures::request(&file);
        let inspection = inspect(&probe_program(), &file, request.probe_timeout, &|_, _| Ok(()));
        let inspection = inspection.expect("the template is a plugin");
        inspection
            .findings
            .iter()
            .any(|finding| finding.message.contains("DF_STATIC_TLS"))
    };
    let mut library = template_bytes();
    assert!(!warns(&library));
    // The entry DT_FLAGS of the dynamic section, with only DF_BIND_NOW set.
    let flags = [0x1e_u64.to_ne_bytes(), 0x08_u64.to_ne_bytes()].concat();
    let value = position(&library, &flags) + 8;
    library[value..value + 8].copy_from_slice(&0x18_u64.to_ne_bytes());
    assert!(warns(&library));
}

#[test]
fn a_panic_while_loading_or_dropping_a_model_does_not_terminate_the_process() {
    let directories = Directories::new();
    let mut request = super::fixtures::request(&built("misbehave"));
    request.context.settings = json!({"on_load": "panic"});
    let error = load_failure(&directories, &request).to_string();
    assert_eq!(
        error,
        "the plugin panicked while loading the model: misbehave panics in load"
    );
    request.context.settings = json!({"panic_in_drop": true});
    let loaded = request.load(&directories.loader()).expect("the model loads");
    drop(loaded);
}

#[test]
fn a_model_with_an_unsupported_manifest_fails_to_load() {
    let directories = Directories::new();
    let mut request = super::fixtures::request(&built("misbehave"));
    request.context.settings = json!({"declared_max_batch_size": 0});
    let error = load_failure(&directories, &request).to_string();
    assert!(error.contains("max_batch_size"), "{error}");
}

#[test]
fn prepared_items_are_used_and_dropped_by_their_plugin() {
    let directories = Directories::new();
    let loaded = load(&directories.loader(), &built("misbehave"));
    let model = &loaded.model;
    let tasks = &model.manifest().tasks;
    let task = tasks
        .iter()
        .position(|task| task.prepares)
        .expect("one task prepares");
    let example = tasks[task].examples[0].to_string();
    let input = ItemInput {
        value: Value::Json(Bytes::from(example)),
        parameters: Bytes::new(),
    };
    let prepared = model.prepare(task, &input).expect("the example is prepared");
    assert!(prepared.weight > 0);
    let items = [BatchItem {
        input: &input,
        prepared: Some(&prepared),
    }];
    let mut sink = Recorder::default();
    assert_eq!(model.predict_batch(0, task, &items, &mut sink), Ok(()));
    assert_eq!((sink.emitted.len(), sink.failed.len()), (1, 0), "{sink:?}");
    drop(loaded);
    drop(prepared);
}
