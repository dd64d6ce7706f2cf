//! The layers of the server's source: a module imports only from layers below its own.
//!
//! The layers are read from the list in `server/src/lib.rs`, from the top down. A module that is not in the list fails the
//! test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::plugins::repository;

/// Name of the top layer, which joins everything: its modules can import each other.
const APPLICATION: &str = "Application";

/// Name of the bottom layer. It holds values, which every module can import.
const FOUNDATION: &str = "Foundation";

/// Imports within a layer that are allowed in one direction: reload builds what the registry holds.
const ONE_WAY: [(&str, &str); 1] = [("reload", "registry")];

/// Modules that are clients of the server: they share only the foundation with it.
const CLIENTS: [&str; 4] = ["batch", "bench", "client", "status"];

/// The module that all clients share.
const CLIENT_LIBRARY: &str = "client";

/// A layer and its modules.
struct Layer {
    name: String,
    modules: Vec<String>,
}

/// The layers, from the top down.
struct Layers(Vec<Layer>);

impl Layers {
    /// Reads the list in `server/src/lib.rs`: a line `**Name**` for a layer, then a line for each of its modules.
    fn read() -> Self {
        let text = std::fs::read_to_string(source().join("lib.rs")).expect("the source can be read");
        let mut layers: Vec<Layer> = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("//! ")) {
            if let Some(name) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")) {
                layers.push(Layer {
                    name: name.0.to_owned(),
                    modules: Vec::new(),
                });
            } else if let Some((module, _)) = line.strip_prefix("- [`").and_then(|rest| rest.split_once("`]"))
            {
                let layer = layers.last_mut().expect("a layer has a name before its modules");
                layer.modules.push(module.to_owned());
            }
        }
        // The executable is not part of the library.
        let application = layers.iter_mut().find(|layer| layer.name == APPLICATION);
        let application = application.expect("there is an application layer");
        application.modules.push("main".to_owned());
        Self(layers)
    }

    /// The layer of a module, counted from the top.
    fn of(&self, module: &str) -> Option<usize> {
        self.0
            .iter()
            .position(|layer| layer.modules.iter().any(|name| name == module))
    }

    /// Why an import is not allowed; `None` if it is.
    fn violation(&self, module: &str, imported: &str) -> Option<String> {
        let (own, other) = (self.of(module)?, self.of(imported)?);
        let is_client = CLIENTS.contains(&module);
        let (own_name, other_name) = (&self.0[own].name, &self.0[other].name);
        let allowed = module == imported
            || other_name == FOUNDATION
            || is_client && imported == CLIENT_LIBRARY
            || other > own && !is_client
            || own == other
                && !is_client
                && (own_name == APPLICATION || ONE_WAY.contains(&(module, imported)));
        (!allowed).then(|| format!("`{module}` ({own_name}) imports `{imported}` ({other_name})"))
    }
}

#[test]
fn every_module_imports_only_from_layers_below_its_own() {
    let layers = Layers::read();
    let mut violations = Vec::new();
    for file in rust_files(&source()) {
        let module = module_of(&file);
        let text = std::fs::read_to_string(&file).expect("the source can be read");
        for (line, imported) in imports(&text) {
            if let Some(violation) = layers.violation(&module, &imported) {
                let file = file.strip_prefix(source()).unwrap_or(&file).display();
                violations.push(format!("server/src/{file}:{line}: {violation}"));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_module_is_in_exactly_one_layer() {
    let layers = Layers::read();
    let mut modules: Vec<String> = rust_files(&source()).iter().map(|file| module_of(file)).collect();
    modules.retain(|module| module != "lib");
    modules.sort();
    modules.dedup();
    let mut listed: Vec<String> = layers.0.into_iter().flat_map(|layer| layer.modules).collect();
    listed.sort();
    assert_eq!(listed, modules, "the list in server/src/lib.rs and the modules");
}

#[test]
fn the_architecture_page_has_the_same_layers() {
    let page = repository().join("server/ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).expect("the page can be read");
    let mut rows = page.lines();
    for layer in Layers::read().0 {
        let name = layer.name.to_lowercase();
        let row = rows.find_map(|row| row.strip_prefix(&format!("| {name} | ")));
        let row =
            row.unwrap_or_else(|| panic!("there is no row for the layer `{name}`, or not in this order"));
        let modules = row.split(" | ").next().unwrap_or_default();
        let mut named: Vec<&str> = modules.split('`').skip(1).step_by(2).collect();
        let mut expected = layer.modules;
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "the modules of the layer `{name}`");
    }
}

#[test]
fn modules_of_one_layer_do_not_import_each_other_in_a_cycle() {
    let layers = Layers::read();
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust_files(&source()) {
        let module = module_of(&file);
        let text = std::fs::read_to_string(&file).expect("the source can be read");
        let same_layer = imports(&text)
            .map(|(_, imported)| imported)
            .filter(|imported| *imported != module && layers.of(imported) == layers.of(&module));
        edges.entry(module.clone()).or_default().extend(same_layer);
    }
    for module in edges.keys() {
        let mut seen = vec![module.clone()];
        let mut open = edges[module].clone();
        while let Some(next) = open.pop() {
            assert_ne!(&next, module, "`{module}` imports itself through {seen:?}");
            if !seen.contains(&next) {
                open.extend(edges.get(&next).into_iter().flatten().cloned());
                seen.push(next);
            }
        }
    }
}

#[test]
fn imports_are_found_in_each_way_to_write_them() {
    let text = "use crate::a::X;\npub use crate::b;\npub(crate) use crate::{c::Y, d::{self, Z}, e};\n\
                use crate::{\n    f::G,\n    h,\n};\nlet x = crate::i::run();\n// use crate::no::Comment;\n";
    let found: Vec<(usize, String)> = imports(text).collect();
    let expected = [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (3, "d"),
        (3, "e"),
        (4, "f"),
        (4, "h"),
        (8, "i"),
    ];
    assert_eq!(found, expected.map(|(line, module)| (line, module.to_owned())));
}

/// Each top-level module of the crate that a source text names, with its line.
fn imports(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut found = Vec::new();
    let code = without_comments(text);
    for prefix in ["crate::", "inference_server::"] {
        let mut from = 0;
        while let Some(at) = code[from..].find(prefix).map(|at| at + from) {
            from = at + prefix.len();
            let inside_a_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if !inside_a_word {
                let line = code[..at].matches('\n').count() + 1;
                found.extend(heads(&code[from..]).into_iter().map(|module| (line, module)));
            }
        }
    }
    found.into_iter()
}

/// The first segments of a path or of a braced list of paths.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 0;
    let mut paths = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => paths.push(String::new()),
            _ if depth == 0 => paths.last_mut().expect("there is one").push(c),
            _ => {}
        }
    }
    paths
        .iter()
        .map(|path| name(path))
        .filter(|module| !module.is_empty())
        .collect()
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let comment = line.find("//").unwrap_or(line.len());
        line[..comment].to_owned()
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// The directory of the server's source.
fn source() -> PathBuf {
    repository().join("server/src")
}

/// The top-level module that a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).expect("the file is in the source");
    let first = inside.components().next().expect("a file has a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the source can be read") {
        let path = entry.expect("the source can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
