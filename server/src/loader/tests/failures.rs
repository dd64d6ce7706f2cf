//! Each kind of file that is not a plugin has its own error.

use std::time::Duration;

use abi_stable::library::AbiHeader;
use serde_json::json;

use super::fixtures::{
    Directories, SYMBOL, built, chain, load_error, load_failure, position, request, template_bytes,
};
use crate::loader::LoadError;

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut plugin = template_bytes();
    plugin[at..at + bytes.len()].copy_from_slice(bytes);
    plugin
}

#[test]
fn each_kind_of_file_that_is_not_a_plugin_has_its_own_error() {
    let plugin = template_bytes();
    let half = &plugin[..plugin.len() / 2];
    let all_but_one = &plugin[..plugin.len() - 1];
    let cases: [(&str, &[u8], &str); 13] = [
        (
            "empty.so",
            b"",
            "the file is empty; a build may still be writing it, or copying it may have failed",
        ),
        (
            "text.so",
            b"INPUT(libx.so)\n",
            "expected a shared library (ELF), got a text file",
        ),
        (
            "libmodel.rlib",
            b"!<arch>\n/               0",
            "got a static library (.a or .rlib); set `crate-type = [\"cdylib\"]` and use the lib*.so file",
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
        ("noise.so", b"\x00\x01\x02\x03", "got a file in an unknown format"),
        (
            "stub.so",
            &plugin[..40],
            "the file is truncated: its header declares 64 bytes, but it has 40",
        ),
        ("half.so", half, "the file is truncated: its header declares"),
        (
            "almost.so",
            all_but_one,
            "the file is truncated: its header declares",
        ),
        (
            "narrow.so",
            &patched(4, &[1]),
            "the library is for 32-bit programs, but this server is a 64-bit program",
        ),
        (
            "swapped.so",
            &patched(5, &[if cfg!(target_endian = "little") { 2 } else { 1 }]),
            "-endian, but this server is",
        ),
        (
            "foreign.so",
            &patched(18, &22u16.to_ne_bytes()),
            "the library is for IBM Z (s390x), but this server runs on",
        ),
        (
            "core.so",
            &patched(16, &4u16.to_ne_bytes()),
            "expected a shared library, got a core dump",
        ),
    ];
    let directories = Directories::new();
    for (name, content, expected) in cases {
        let error = load_error(&directories, &directories.write(name, content));
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn directories_and_missing_files_are_reported() {
    let directories = Directories::new();
    assert_eq!(
        load_error(&directories, directories.plugins()),
        "expected a file, got a directory"
    );
    directories.write("libdemo.so", b"");
    assert_eq!(
        load_error(&directories, &directories.plugins().join("libdmeo.so")),
        "the file does not exist; did you mean libdemo.so?"
    );
}

#[test]
fn a_program_is_not_a_library() {
    let directories = Directories::new();
    let program = std::env::current_exe().expect("this test has an executable");
    assert_eq!(
        load_error(&directories, &program),
        "expected a shared library, got a program; set `crate-type = [\"cdylib\"]`"
    );
    let object = directories.compile("object.o", "int number = 1;", &["-c", "-no-pie"]);
    let error = load_error(&directories, &object);
    assert!(error.contains("got an object file (.o); link it"), "{error}");
}

#[test]
fn a_library_without_the_symbol_is_not_a_plugin() {
    let directories = Directories::new();
    let library = directories.compile("libplain.so", "int number = 1;", &[]);
    let error = load_error(&directories, &library);
    assert!(error.contains("expected symbol"), "{error}");
    assert!(
        error.contains("the library does not export a model: add `export_model!(…)`"),
        "{error}"
    );
    let library = directories.compile(
        "libother.so",
        &format!("const char {SYMBOL}[256] = \"something else\";"),
        &[],
    );
    let error = load_error(&directories, &library);
    assert!(
        error.contains("the exported symbol of the plugin's module has another type"),
        "{error}"
    );
}

#[test]
fn constructors_that_crash_exit_or_hang_affect_only_the_probe_process() {
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
            "opening the library crashed the probe process: segmentation fault (SIGSEGV)",
        ),
        (
            "fputs(\"no license\\n\", stderr); abort();",
            "opening the library crashed the probe process: abort (SIGABRT); it printed: no license",
        ),
        (
            "exit(0);",
            "the probe process exited with code 0 while it opened the library; a constructor may call exit",
        ),
        (
            "puts(\"hello\"); fflush(stdout); _exit(7);",
            "the probe process exited with code 7 while it opened the library; a constructor may call exit; it printed: hello",
        ),
    ];
    let directories = Directories::new();
    for (index, (body, expected)) in cases.into_iter().enumerate() {
        let library = directories.compile(&format!("lib{index}.so"), &constructor(body), &[]);
        assert_eq!(load_error(&directories, &library), expected);
    }
    let library = directories.compile("libhang.so", &constructor("for (;;) pause();"), &[]);
    let mut request = request(&library);
    request.probe_timeout = Duration::from_millis(300);
    let error = load_failure(&directories, &request).to_string();
    assert_eq!(error, "opening the library took longer than 0.3 s");
}

#[test]
fn errors_name_the_missing_library_or_symbol() {
    let directories = Directories::new();
    let code =
        format!("extern int absent(void); const char {SYMBOL}[256]; int ask(void) {{ return absent(); }}");
    let library = directories.compile("libundefined.so", &code, &[]);
    let error = load_error(&directories, &library);
    assert!(
        error.contains("undefined symbol: absent; a library that defines it is not linked"),
        "{error}"
    );

    let neighbor = directories.compile("libneighbor.so", "int absent(void) { return 1; }", &[]);
    let directory = format!("-L{}", directories.plugins().display());
    let library = directories.compile("libneedy.so", &code, &[&directory, "-lneighbor"]);
    let error = load_error(&directories, &library);
    assert!(
        error.contains("libneighbor.so: cannot open shared object file") && error.contains("$ORIGIN"),
        "{error}"
    );

    // With a run path, the linker finds the neighbor next to the copy, and the next check fails.
    let library = directories.compile(
        "liborigin.so",
        &code,
        &[&directory, "-lneighbor", "-Wl,-rpath,$ORIGIN"],
    );
    let error = load_error(&directories, &library);
    assert!(error.contains("has another type"), "{error}");
    std::fs::remove_file(neighbor).expect("the neighbor is removed");
    let error = load_error(&directories, &library);
    assert!(
        error.contains("libneighbor.so: cannot open shared object file"),
        "{error}"
    );
}

#[test]
fn a_plugin_with_another_abi_stable_is_rejected_with_both_versions() {
    let header = AbiHeader::VALUE;
    let directories = Directories::new();
    // The minor version follows the magic string and the major version.
    let at = position(&template_bytes(), &header.magic_string) + header.magic_string.len() + 4;
    let other = header.abi_minor + 1;
    let library = directories.write("libnewer.so", &patched(at, &other.to_ne_bytes()));
    assert_eq!(
        load_error(&directories, &library),
        format!(
            "rebuild the plugin with this server's plugin-sdk: it was built with abi_stable {major}.{other}, \
             expected {major}.{minor}",
            major = header.abi_major,
            minor = header.abi_minor
        )
    );
}

#[test]
fn an_error_about_settings_names_the_key() {
    let directories = Directories::new();
    for (settings, expected) in [
        (json!({"shortest_word": 101}), "expected at most 100"),
        (
            json!({"shortest_word": "long"}),
            "got \"long\", expected a non-negative integer",
        ),
    ] {
        let mut request = request(&built("template"));
        request.context.settings = settings;
        match load_failure(&directories, &request) {
            LoadError::Settings { key, message } => {
                assert_eq!(key, "shortest_word");
                assert!(message.starts_with(expected), "{message}");
            }
            other => panic!("{}", chain(&other)),
        }
    }
}
