//! Every file that is no plugin has a message of its own.

use std::time::Duration;

use abi_stable::library::AbiHeader;
use serde_json::json;

use super::fixtures::{
    Folders, SYMBOL, built, chain, load_error, load_failure, position, request, template_bytes,
};
use crate::loader::LoadError;

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut plugin = template_bytes();
    plugin[at..at + bytes.len()].copy_from_slice(bytes);
    plugin
}

#[test]
fn files_that_are_no_plugin_are_told_apart() {
    let plugin = template_bytes();
    let half = &plugin[..plugin.len() / 2];
    let all_but_one = &plugin[..plugin.len() - 1];
    let cases: [(&str, &[u8], &str); 13] = [
        (
            "empty.so",
            b"",
            "the file is empty; is a build still writing it, or did a copy fail?",
        ),
        (
            "text.so",
            b"INPUT(libx.so)\n",
            "expected a shared library (ELF), got a text file",
        ),
        (
            "libmodel.rlib",
            b"!<arch>\n/               0",
            "got a static library (.a or .rlib); set `crate-type = [\"cdylib\"]` and give the lib*.so file",
        ),
        (
            "model.dll",
            b"MZ\x90\x00",
            "got a Windows library or program; build it for Linux",
        ),
        (
            "model.dylib",
            b"\xcf\xfa\xed\xfe\x0c",
            "got a macOS library or program; build it for Linux",
        ),
        ("noise.so", b"\x00\x01\x02\x03", "got a file of an unknown format"),
        (
            "stub.so",
            &plugin[..40],
            "the file is cut short: it has 40 bytes, its header announces 64",
        ),
        ("half.so", half, "the file is cut short: it has"),
        ("almost.so", all_but_one, "the file is cut short: it has"),
        (
            "narrow.so",
            &patched(4, &[1]),
            "the library is for 32-bit programs, this server is a 64-bit program",
        ),
        (
            "swapped.so",
            &patched(5, &[if cfg!(target_endian = "little") { 2 } else { 1 }]),
            "-endian, this server is",
        ),
        (
            "foreign.so",
            &patched(18, &22u16.to_ne_bytes()),
            "the library is for IBM Z (s390x), this server runs on",
        ),
        (
            "core.so",
            &patched(16, &4u16.to_ne_bytes()),
            "expected a shared library, got a core dump",
        ),
    ];
    let folders = Folders::new();
    for (name, content, expected) in cases {
        let error = load_error(&folders, &folders.write(name, content));
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn what_is_not_a_file_is_named() {
    let folders = Folders::new();
    assert_eq!(
        load_error(&folders, folders.plugins()),
        "expected a file, got a directory"
    );
    folders.write("libdemo.so", b"");
    assert_eq!(
        load_error(&folders, &folders.plugins().join("libdmeo.so")),
        "the file does not exist; did you mean libdemo.so?"
    );
}

#[test]
fn a_program_is_not_a_library() {
    let folders = Folders::new();
    let program = std::env::current_exe().expect("this test has an executable");
    assert_eq!(
        load_error(&folders, &program),
        "expected a shared library, got a program; set `crate-type = [\"cdylib\"]`"
    );
    let object = folders.compile("object.o", "int number = 1;", &["-c", "-no-pie"]);
    let error = load_error(&folders, &object);
    assert!(error.contains("got an object file (.o); link it"), "{error}");
}

#[test]
fn a_library_without_the_symbol_is_not_a_plugin() {
    let folders = Folders::new();
    let library = folders.compile("libplain.so", "int number = 1;", &[]);
    let error = load_error(&folders, &library);
    assert!(error.contains("expected the symbol"), "{error}");
    assert!(
        error.contains("the library exports no model: add `export_model!(…)`"),
        "{error}"
    );
    let library = folders.compile(
        "libother.so",
        &format!("const char {SYMBOL}[256] = \"something else\";"),
        &[],
    );
    let error = load_error(&folders, &library);
    assert!(
        error.contains("under the name of a plugin's module is something else"),
        "{error}"
    );
}

#[test]
fn constructors_that_crash_exit_or_hang_harm_the_child_alone() {
    let constructor = |body: &str| {
        format!(
            "#include <stdlib.h>\n#include <stdio.h>\n#include <unistd.h>\n\
             const char {SYMBOL}[256];\n\
             __attribute__((constructor)) static void start(void) {{ {body} }}"
        )
    };
    let cases = [
        (
            "*(volatile int *)0 = 1;",
            "opening the library crashes the process: segmentation fault (SIGSEGV)",
        ),
        (
            "fputs(\"no licence\\n\", stderr); abort();",
            "opening the library crashes the process: abort (SIGABRT); it printed: no licence",
        ),
        (
            "exit(0);",
            "opening the library ends the process with code 0; does a constructor call exit?",
        ),
        (
            "puts(\"hello\"); fflush(stdout); _exit(7);",
            "opening the library ends the process with code 7; does a constructor call exit?; it printed: hello",
        ),
    ];
    let folders = Folders::new();
    for (index, (body, expected)) in cases.into_iter().enumerate() {
        let library = folders.compile(&format!("lib{index}.so"), &constructor(body), &[]);
        assert_eq!(load_error(&folders, &library), expected);
    }
    let library = folders.compile("libhang.so", &constructor("for (;;) pause();"), &[]);
    let mut request = request(&library);
    request.trial_timeout = Duration::from_millis(300);
    let error = load_failure(&folders, &request).to_string();
    assert_eq!(error, "opening the library takes more than 0.3 s");
}

#[test]
fn missing_libraries_and_symbols_are_named() {
    let folders = Folders::new();
    let code =
        format!("extern int absent(void); const char {SYMBOL}[256]; int ask(void) {{ return absent(); }}");
    let library = folders.compile("libundefined.so", &code, &[]);
    let error = load_error(&folders, &library);
    assert!(
        error.contains("undefined symbol: absent; a library that defines it"),
        "{error}"
    );

    let neighbour = folders.compile("libneighbour.so", "int absent(void) { return 1; }", &[]);
    let folder = format!("-L{}", folders.plugins().display());
    let library = folders.compile("libneedy.so", &code, &[&folder, "-lneighbour"]);
    let error = load_error(&folders, &library);
    assert!(
        error.contains("libneighbour.so: cannot open shared object file") && error.contains("$ORIGIN"),
        "{error}"
    );

    // Linked with a run path, the neighbour is found beside the copy, and the next check speaks.
    let library = folders.compile(
        "liborigin.so",
        &code,
        &[&folder, "-lneighbour", "-Wl,-rpath,$ORIGIN"],
    );
    let error = load_error(&folders, &library);
    assert!(error.contains("is something else"), "{error}");
    std::fs::remove_file(neighbour).expect("the neighbour is removed");
    let error = load_error(&folders, &library);
    assert!(
        error.contains("libneighbour.so: cannot open shared object file"),
        "{error}"
    );
}

#[test]
fn a_plugin_of_another_abi_stable_is_refused_with_both_versions() {
    let header = AbiHeader::VALUE;
    let folders = Folders::new();
    // The minor version follows the magic string and the major version.
    let at = position(&template_bytes(), &header.magic_string) + header.magic_string.len() + 4;
    let other = header.abi_minor + 1;
    let library = folders.write("libnewer.so", &patched(at, &other.to_ne_bytes()));
    assert_eq!(
        load_error(&folders, &library),
        format!(
            "rebuild the plugin with this server's plugin-sdk: it was built with abi_stable {major}.{other}, \
             expected {major}.{minor}",
            major = header.abi_major,
            minor = header.abi_minor
        )
    );
}

#[test]
fn wrong_settings_name_their_key() {
    let folders = Folders::new();
    for (settings, expected) in [
        (json!({"shortest_word": 101}), "expected at most 100"),
        (
            json!({"shortest_word": "long"}),
            "got \"long\", expected a non-negative integer",
        ),
    ] {
        let mut request = request(&built("template"));
        request.context.settings = settings;
        match load_failure(&folders, &request) {
            LoadError::Settings { key, message } => {
                assert_eq!(key, "shortest_word");
                assert!(message.starts_with(expected), "{message}");
            }
            other => panic!("{}", chain(&other)),
        }
    }
}
