//! Limits and the sandbox of model processes.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echo, echoes};
use crate::harness::{Scenario, Server};

/// Returns a scenario with a model `m` in its own process, with these keys and tables.
fn scenario(keys: &str) -> Scenario {
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\nrestart_delay = \"1ms\"\n{keys}\n"
    ))
}

/// Runs an item and returns its report or its error as text.
fn told(server: &Server, item: Json) -> String {
    let reply = server.predict("m", "text", &json!([item]));
    match reply.status {
        200 => "done".to_owned(),
        _ => reply.error().1,
    }
}

#[test]
fn a_process_that_exceeds_its_memory_limit_is_killed_and_restarted() {
    let server = scenario("max_memory = \"256MiB\"").start();
    let message = told(&server, json!({"do": "leak", "bytes": 512 << 20}));
    assert!(message.contains("process"), "{message}");
    // Only the process of the model is affected.
    assert_eq!(told(&server, json!({"do": "leak", "bytes": 1 << 20})), "done");
    assert_eq!(
        server.predict("m", "text", &echoes(["next"])).values(),
        [json!("next")]
    );
}

#[test]
fn cpu_limits_set_the_cpus_and_threads_of_a_process_with_its_own_environment() {
    let server = scenario("cpus = 1\n[models.env]\nCOLOR = \"green\"").start();
    assert_eq!(
        told(&server, json!({"do": "describe", "message": "COLOR"})),
        "done"
    );
    server.wait_for_log("1 processors, 1 threads, COLOR is Ok(\"green\")");
}

#[test]
fn without_limits_a_process_has_the_resources_of_the_server() {
    let server = scenario("").start();
    let all = std::thread::available_parallelism().expect("Linux says").get();
    assert_eq!(
        told(&server, json!({"do": "describe", "message": "COLOR"})),
        "done"
    );
    server.wait_for_log(&format!(
        "{all} processors, {all} threads, COLOR is Err(NotPresent)"
    ));
}

#[test]
fn a_sandboxed_process_has_no_network_and_writes_only_to_its_own_directory() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a network");
    let address = listener.local_addr().expect("it is bound").to_string();
    for (sandbox, expected) in [("off", "done"), ("on", "refused: PermissionDenied")] {
        let server = scenario(&format!("sandbox = \"{sandbox}\"")).start();
        let file = server.dir().join("outside");
        let write = json!({"do": "write", "path": file, "message": "new"});
        let connect = json!({"do": "connect", "message": address});
        for item in [write, connect] {
            let told = told(&server, item.clone());
            assert!(told.contains(expected), "{sandbox}: {told} for {item}");
        }
        assert_eq!(file.exists(), sandbox == "off");
        // It runs, crashes and restarts like other processes.
        assert_eq!(
            server.predict("m", "text", &json!([echo("works")])).values(),
            [json!("works")]
        );
        let message = told(&server, json!({"do": "abort"}));
        assert!(message.contains("SIGABRT"), "{message}");
        assert_eq!(
            server.predict("m", "text", &echoes(["next"])).values(),
            [json!("next")]
        );
    }
}

#[test]
fn a_plugin_is_sandboxed_before_its_code_runs() {
    for (sandbox, may_write) in [("off", true), ("on", false)] {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let (trace, library) = (folder.path().join("trace"), folder.path().join("libwriter.so"));
        // The library is not a plugin, which the server detects only after its constructor has run.
        let code = format!(
            "#include <stdio.h>\nconst char _1as_0lib_1header_0root_bmodule_bloader[256];\n\
             __attribute__((constructor)) static void start(void) {{ fopen(\"{}\", \"w\"); }}",
            trace.display()
        );
        compile(&code, &library);
        let server = Scenario::new(&format!(
            "[[models]]\nname = \"m\"\nplugin = \"{}\"\nisolation = \"process\"\nsandbox = \"{sandbox}\"\n",
            library.display()
        ))
        .start_unready();
        server.wait_for_log("cannot load plugin");
        assert_eq!(trace.exists(), may_write, "sandbox = \"{sandbox}\"");
    }
}

/// Compiles C code to a shared library.
fn compile(code: &str, library: &Path) {
    let mut compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-xc", "-", "-o"])
        .arg(library)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler is there, as Rust links with it");
    let mut input = compiler.stdin.take().expect("it is piped");
    input.write_all(code.as_bytes()).expect("it reads");
    drop(input);
    assert!(compiler.wait().expect("it ends").success());
}

#[test]
fn the_scratch_directory_of_a_sandbox_is_its_temporary_directory_and_is_removed_with_the_process() {
    let server = scenario("sandbox = \"on\"").start();
    assert_eq!(
        told(&server, json!({"do": "describe", "message": "TMPDIR"})),
        "done"
    );
    let line = server.wait_for_log("TMPDIR is Ok(");
    let folder = line.split("Ok(\"").nth(1).and_then(|rest| rest.split('"').next());
    let folder = std::path::PathBuf::from(folder.expect("the line names the folder"));
    assert!(folder.starts_with(server.dir()), "{}", folder.display());
    let write = json!({"do": "write", "path": folder.join("mine"), "message": "new"});
    assert_eq!(told(&server, write), "done");
    assert!(folder.join("mine").exists());
    server.shut_down();
    assert!(!folder.exists());
}

#[test]
fn nonexistent_cpus_are_a_load_error() {
    let mut server = scenario("cpus = [1000]").start_unready();
    let line = server.wait_for_log("`cpus` names 1000");
    assert!(
        line.contains("models.toml:") && line.contains("but the server can use only CPUs"),
        "{line}"
    );
    let reason = server.model("m");
    assert!(
        reason.to_string().contains("cannot be confined as configured"),
        "{reason}"
    );
    assert!(server.lives());
}

#[test]
fn limits_without_process_isolation_are_rejected_with_the_line_to_add() {
    let scenario = Scenario::new(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nmax_memory = \"1GiB\"\ncpus = 1\nsandbox = \"on\"\n\
         [models.env]\nA = \"b\"\n",
    );
    let output = scenario.run(&["check", "--config", "models.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    for (line, key) in [
        (4, "`max_memory`"),
        (5, "`cpus`"),
        (6, "`sandbox`"),
        (7, "[models.env]"),
    ] {
        assert!(
            errors.contains(&format!("models.toml:{line}:"))
                && errors.contains(&format!("{key} requires `isolation")),
            "{errors}"
        );
    }
    assert!(errors.contains("add `isolation = \"process\"`"), "{errors}");
}
