//! The file: how it is checked and read again, and the command that generates its entries.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{get, post, scenario, start, with_hashes};
use crate::harness::Scenario;

#[test]
fn a_reload_reads_the_file_again_and_keeps_the_keys_if_it_is_invalid() {
    let limits = "requests_per_second = 0.001\nrequest_burst = 2\n";
    let server = start(&format!("[[key]]\nname = \"a\"\n{limits}[[key]]\nname = \"b\"\n"));
    let file = server.dir().join("keys.toml");
    let native = json!({"inputs": ["to be"]});
    post(&server, "a", "/words", &native).expect(200);
    get(&server, "c", "/v1/models").expect(401);

    let new = format!("[[key]]\nname = \"a\"\n{limits}[[key]]\nname = \"c\"\n");
    fs::write(&file, with_hashes(&new)).expect("the file can be written");
    let lines = server.log().lines().len();
    assert!(server.reload(), "{}", server.log().text());
    // Keys are replaced before the line that ends the reload.
    server.wait_for_log_after(lines, "; took ");
    get(&server, "b", "/v1/models").expect(401);
    get(&server, "c", "/v1/models").expect(200);
    // What the key has spent is not given back.
    post(&server, "a", "/words", &native).expect(200);
    post(&server, "a", "/words", &native).expect(429);

    for (text, part) in [
        ("[[key]]\nname = \"a\"\n", "missing key `hash` in [[key]]"),
        (
            "[[key]]\nname = \"a\"\nhash = \"infkey_of_a\"\n",
            "found a string of 11 characters, expected `sha256:` and a SHA-256 digest",
        ),
        (
            "[[key]]\nname = \"a\"\nhash = \"sha256:abc\"\n",
            "expected `sha256:` and a SHA-256 digest of 64 hexadecimal digits",
        ),
        ("[[key]\n", "invalid TOML"),
        ("[[keys]]\nname = \"a\"\n", "did you mean `key`?"),
    ] {
        fs::write(&file, text).expect("the file can be written");
        let lines = server.log().lines().len();
        assert!(!server.reload(), "{text}");
        server.wait_for_log_after(lines, "reload failed; keeping the current configuration");
        let log = server.log().lines()[lines..].join("\n");
        assert!(log.contains("keys.toml:") && log.contains(part), "{text}: {log}");
        assert!(!log.contains("infkey_of_a"), "{log}");
        get(&server, "c", "/v1/models").expect(200);
    }
    fs::remove_file(&file).expect("the file is there");
    assert!(!server.reload());
    get(&server, "c", "/v1/models").expect(200);
}

#[test]
fn a_file_that_everyone_can_write_is_rejected() {
    let scenario = scenario("[[key]]\nname = \"a\"\n");
    let file = scenario.dir().join("keys.toml");
    for (mode, code) in [(0o666, 2), (0o602, 2), (0o664, 0), (0o444, 0)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("the file is the test's");
        let output = scenario.run(&["check", "--config", "models.toml"]);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {printed}");
        assert_eq!(
            printed.contains("every user can change the file of API keys"),
            code == 2,
            "{printed}"
        );
    }
}

#[test]
fn a_pattern_that_matches_no_model_is_a_warning() {
    let scenario = scenario("[[key]]\nname = \"a\"\nmodels = [\"word\", \"words.echo\", \"oth*\", \"m\"]\n");
    let output = scenario.run(&["check", "--config", "models.toml"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("key `a`: no model matches \"word\" of `models`"),
        "{printed}"
    );
    assert_eq!(printed.matches("no model matches").count(), 1, "{printed}");
}

#[test]
fn a_generated_key_is_accepted_once_its_entry_is_in_the_file() {
    let scenario = scenario("");
    let arguments = [
        "key",
        "new",
        "ci",
        "--models",
        "words,m.embed",
        "--expires",
        "2999-01-31",
        "--requests-per-second",
        "0.5",
    ];
    let output = scenario.run(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (entry, printed) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let key = printed.lines().last().expect("the key is printed").to_owned();
    assert!(
        key.starts_with("infkey_") && !entry.contains(&key),
        "{printed}{entry}"
    );
    fs::write(scenario.dir().join("keys.toml"), &entry).expect("the file can be written");
    let server = scenario.start();
    let call = server
        .request("POST", "/words")
        .json(&json!({"inputs": ["to be"]}));
    let call = call.header("authorization", &format!("Bearer {key}"));
    let reply = call.send().expect(200);
    assert_eq!(reply.header("ratelimit"), Some("\"requests\";r=0;t=2"));
}

#[test]
fn an_invalid_argument_of_key_new_is_an_error_with_a_hint() {
    let scenario = Scenario::new("");
    let output = scenario.run(&["key", "new", "two words"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(1), &b""[..])
    );
    assert!(
        printed.contains("invalid value \"two words\" for `name` in [[key]]") && printed.contains("hint: "),
        "{printed}"
    );
}
