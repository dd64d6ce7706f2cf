//! What a new build, an overwritten file and a second load of the same file do.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::fixtures::{
    Folders, Recorder, built, echo, load, load_error, load_failure, position, template_bytes, trial_program,
};
use crate::loader::{inspect, load_staged};
use crate::model::{BatchItem, Model};
use crate::values::{ItemInput, Value};

fn answer(text: &str) -> Vec<(usize, Value)> {
    vec![(0, Value::Text(Bytes::copy_from_slice(text.as_bytes())))]
}

fn description(model: &dyn Model) -> String {
    model.manifest().tasks[0].description.clone()
}

/// Copies of the plugin that are mapped, by their paths.
fn mapped(scratch: &Path) -> Vec<String> {
    let scratch = scratch.canonicalize().expect("the scratch folder is there");
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
fn a_built_plugin_loads_and_answers() {
    let folders = Folders::new();
    let loaded = load(&folders.loader(), &built("template"));
    assert_eq!(loaded.plugin.name, "plugin-template");
    let tasks = &loaded.model.manifest().tasks;
    assert_eq!(
        tasks.iter().map(|task| &*task.name).collect::<Vec<_>>(),
        ["echo", "stats"]
    );
    assert_eq!(echo(&*loaded.model, "grün"), answer("grün"));
}

#[test]
fn loading_a_file_twice_gives_two_libraries() {
    let folders = Folders::new();
    let loader = folders.loader();
    let first = load(&loader, &built("template"));
    let second = load(&loader, &built("template"));
    assert_eq!(mapped(folders.scratch()).len(), 2);
    drop(first);
    assert_eq!(echo(&*second.model, "still here"), answer("still here"));
}

#[test]
fn the_mapping_outlives_the_model_and_its_files_do_not() {
    let folders = Folders::new();
    let loader = folders.loader();
    drop(load(&loader, &built("template")));
    let mapped = mapped(folders.scratch());
    assert_eq!(mapped.len(), 1);
    assert!(mapped[0].ends_with("(deleted)"), "{mapped:?}");
    drop(loader);
    let left = std::fs::read_dir(folders.scratch()).expect("the scratch folder is there");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_file_overwritten_in_place_harms_nothing_and_a_new_build_is_new_code() {
    let folders = Folders::new();
    let loader = folders.loader();
    let mut build = template_bytes();
    let file = folders.write("libmodel.so", &build);
    let old = load(&loader, &file);
    assert_eq!(description(&*old.model), "Returns the text unchanged.");

    // In place: the same inode, first with nonsense and then with a new build.
    folders.write("libmodel.so", b"half a build");
    assert_eq!(echo(&*old.model, "old"), answer("old"));
    assert!(load_error(&folders, &file).contains("got a text file"));

    let changed = position(&build, b"Returns the text unchanged.");
    build[changed..changed + 27].copy_from_slice(b"Returns the text untouched.");
    folders.write("libmodel.so", &build);
    let new = load(&loader, &file);
    assert_eq!(description(&*new.model), "Returns the text untouched.");
    assert_eq!(description(&*old.model), "Returns the text unchanged.");
    assert_eq!(echo(&*old.model, "old"), answer("old"));
    assert_eq!(echo(&*new.model, "new"), answer("new"));
}

#[test]
fn a_staged_plugin_is_not_opened_until_it_is_loaded() {
    let folders = Folders::new();
    let request = super::fixtures::request(&built("template"));
    let loader = folders.loader();
    let staged = loader
        .stage(&request.path, &[], request.trial_timeout)
        .expect("the template passes the trial");
    assert_eq!(mapped(folders.scratch()), [""; 0]);
    let model = load_staged(staged.copy.file(), &request.context).expect("the template loads");
    assert_eq!(echo(&*model, "here"), answer("here"));
}

#[test]
fn inspecting_shows_the_file_and_the_manifest() {
    let folders = Folders::new();
    let request = super::fixtures::request(&built("template"));
    let inspection = inspect(&trial_program(), &request.path, request.trial_timeout, &|_, _| {
        Ok(())
    })
    .expect("the template is a plugin");
    assert_eq!(mapped(folders.scratch()), [""; 0]);
    let text = inspection.to_string();
    for part in [
        "plugin       plugin-template",
        "plugin ABI   1.0.0 (this server: 1.0.0)",
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
fn inspecting_warns_of_static_thread_local_storage() {
    let folders = Folders::new();
    let warns = |library: &[u8]| {
        let file = folders.write("libpatched.so", library);
        let request = super::fixtures::request(&file);
        let inspection = inspect(&trial_program(), &file, request.trial_timeout, &|_, _| Ok(()));
        let inspection = inspection.expect("the template is a plugin");
        inspection
            .findings
            .iter()
            .any(|finding| finding.message.contains("DF_STATIC_TLS"))
    };
    let mut library = template_bytes();
    assert!(!warns(&library));
    // The entry DT_FLAGS of the dynamic section, with DF_BIND_NOW alone.
    let flags = [0x1e_u64.to_ne_bytes(), 0x08_u64.to_ne_bytes()].concat();
    let value = position(&library, &flags) + 8;
    library[value..value + 8].copy_from_slice(&0x18_u64.to_ne_bytes());
    assert!(warns(&library));
}

#[test]
fn a_model_that_panics_in_load_or_drop_ends_nothing() {
    let folders = Folders::new();
    let mut request = super::fixtures::request(&built("misbehave"));
    request.context.settings = json!({"on_load": "panic"});
    let error = load_failure(&folders, &request).to_string();
    assert_eq!(
        error,
        "the plugin panicked while it loaded the model: misbehave panics in load"
    );
    request.context.settings = json!({"panic_in_drop": true});
    let loaded = request.load(&folders.loader()).expect("the model loads");
    drop(loaded);
}

#[test]
fn a_model_whose_manifest_cannot_be_served_is_refused() {
    let folders = Folders::new();
    let mut request = super::fixtures::request(&built("misbehave"));
    request.context.settings = json!({"declared_max_batch_size": 0});
    let error = load_failure(&folders, &request).to_string();
    assert!(error.contains("max_batch_size"), "{error}");
}

#[test]
fn what_a_plugin_prepares_is_its_own_to_use_and_to_drop() {
    let folders = Folders::new();
    let loaded = load(&folders.loader(), &built("misbehave"));
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
