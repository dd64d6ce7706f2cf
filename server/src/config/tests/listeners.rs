//! Keys of the listening ports: TLS and the management port.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::file;
use crate::config::Origin;
use crate::tls::{TlsFiles, TlsSetting};

#[test]
fn tls_has_the_paths_of_its_files_and_remembers_where_they_are_written() {
    let text = "[server.tls]\ncert = \"tls/a.pem\"\nkey = \"/etc/a.key\"\nclient_ca = \"ca.pem\"\n";
    let tls = file(text).settings().server.tls.expect("it is configured");
    assert_eq!(
        tls.files,
        TlsFiles {
            cert: PathBuf::from("/etc/inference/tls/a.pem"),
            key: PathBuf::from("/etc/a.key"),
            client_ca: Some(PathBuf::from("/etc/inference/ca.pem")),
        }
    );
    for (setting, line) in [
        (TlsSetting::Cert, 2),
        (TlsSetting::Key, 3),
        (TlsSetting::ClientCa, 4),
    ] {
        match tls.origin(setting) {
            Origin::File(location) => assert_eq!(location.line, line),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_environment_enables_tls() {
    let variables = [("INFERENCE_TLS_CERT", "a.pem"), ("INFERENCE_TLS_KEY", "b.pem")];
    let server = file("").variables(&variables).settings().server;
    let files = server.tls.expect("it is configured").files;
    assert_eq!(
        (files.cert.as_path(), files.client_ca),
        (Path::new("a.pem"), None)
    );
}

#[test]
fn incomplete_settings_of_tls_and_of_the_management_port_are_rejected() {
    assert_snapshot!(
        file("[server.tls]\ncert = \"a.pem\"\n").errors(),
        @r#"
    models.toml:2:8: `cert` requires `key`
        2 | cert = "a.pem"
          |        ^^^^^^^
        hint: set `key`, or remove `cert`
    "#
    );
    assert_snapshot!(
        file("[server]\nmanagement_only = true\n[server.tls]\nclient_ca = \"a.pem\"\n").errors(),
        @r#"
    models.toml:2:19: `management_only` requires `management_port`
        2 | management_only = true
          |                   ^^^^
        hint: set `management_port`, or remove `management_only`

    models.toml:4:13: `client_ca` requires `cert`
        4 | client_ca = "a.pem"
          |             ^^^^^^^
        hint: set `cert`, or remove `client_ca`
    "#
    );
}

#[test]
fn the_management_port_listens_on_the_same_address_by_default() {
    let server = file("[server]\nhost = \"10.0.0.1\"\nmanagement_port = 1\n")
        .settings()
        .server;
    assert_eq!(server.management_host, "10.0.0.1");
    let text = "[server]\nmanagement_port = 1\nmanagement_host = \"127.0.0.1\"\nmanagement_only = true\n";
    let server = file(text).settings().server;
    assert_eq!(
        (server.management_host.as_str(), server.management_only),
        ("127.0.0.1", true)
    );
}

#[test]
fn an_address_of_a_management_port_that_is_not_opened_is_a_warning() {
    let text = "[server]\nmanagement_host = \"127.0.0.1\"\n[[models]]\nname = \"a\"\nplugin = \"p\"\n";
    assert_snapshot!(
        file(text).warnings(),
        @r"
    models.toml:2:19: `management_host` has no effect without `management_port`
        hint: set `management_port`, or remove `management_host`
    "
    );
}
