//! The floors of the server's source: a module imports only from floors below its own.
//!
//! The table is that of the architecture; a module that is in no row fails the test, so that nobody forgets to place it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::plugins::repository;

/// The modules of each floor, from the ground up. Modules of one floor do not import each other, except on the ground,
/// where they are values, and under the roof, which knows everything.
const FLOORS: [&[&str]; 7] = [
    &[
        "protocol",
        "model",
        "error",
        "json",
        "metrics",
        "batch_context",
        "clock",
        "batching",
        "resources",
        "exit_status",
        "crash",
        "priority",
        "console",
        "routes",
        "secret",
    ],
    &["batcher", "config"],
    &["engine", "loader", "isolation"],
    &["registry", "reload"],
    &["api"],
    &["http", "grpc", "signals"],
    &["main", "app", "cli", "init", "logging", "open_files", "bench"],
];

const GROUND: usize = 0;
const ROOF: usize = FLOORS.len() - 1;

/// Imports between neighbours that go one way by design: reload builds what the registry holds.
const ONE_WAY: [(&str, &str); 1] = [("reload", "registry")];

/// Modules that are clients of the server, and of its own modules know only the ground.
const CLIENTS: [&str; 1] = ["bench"];

#[test]
fn every_module_imports_only_from_floors_below_its_own() {
    let source = repository().join("server/src");
    let mut breaches = Vec::new();
    for file in rust_files(&source) {
        let module = module_of(&file, &source);
        if module == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("the source can be read");
        for (line, imported) in imports(&text) {
            if let Some(breach) = breach(&module, &imported) {
                let file = file.strip_prefix(&source).unwrap_or(&file).display();
                breaches.push(format!("server/src/{file}:{line}: {breach}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let source = repository().join("server/src");
    let homeless: Vec<String> = rust_files(&source)
        .iter()
        .map(|file| module_of(file, &source))
        .filter(|module| module != "lib" && floor_of(module).is_none())
        .collect();
    assert!(homeless.is_empty(), "these modules are on no floor: {homeless:?}");
}

#[test]
fn neighbours_do_not_import_each_other_in_a_circle() {
    let source = repository().join("server/src");
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust_files(&source) {
        let module = module_of(&file, &source);
        let text = std::fs::read_to_string(&file).expect("the source can be read");
        let same_floor = imports(&text)
            .map(|(_, imported)| imported)
            .filter(|imported| *imported != module && floor_of(imported) == floor_of(&module));
        edges.entry(module.clone()).or_default().extend(same_floor);
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

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// What is wrong with one import, if anything is.
fn breach(module: &str, imported: &str) -> Option<String> {
    let (own, other) = (floor_of(module)?, floor_of(imported)?);
    let client = CLIENTS.contains(&module);
    let allowed = module == imported
        || other == GROUND
        || other < own && !client
        || own == other && !client && (own == ROOF || ONE_WAY.contains(&(module, imported)));
    (!allowed).then(|| format!("`{module}` (floor {own}) imports `{imported}` (floor {other})"))
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

/// The top-level module that a file belongs to.
fn module_of(file: &Path, source: &Path) -> String {
    let inside = file.strip_prefix(source).expect("the file is in the source");
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
