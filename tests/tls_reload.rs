//! Replacing the certificate of a running server, and certificates that cannot be used.

use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value as Json;

use crate::harness::load::Load;
use crate::harness::raw::Raw;
use crate::harness::tls::{self, Authority, Pair};
use crate::harness::{Client, Scenario, Server, Signal, eventually, rounds};
use crate::tls::{metrics, start};

const ECHO: &str = "/v1/models/words/tasks/echo/predict";

/// Returns whether the server presents this certificate to a new client.
fn presents(server: &Server, config: &Arc<ClientConfig>, pair: &Pair) -> bool {
    let connection = Raw::connect_secure(server.address(), config.clone()).expect("the handshake succeeds");
    let chain = connection.session().peer_certificates().expect("a certificate");
    chain[0] == tls::certificate(&pair.cert)
}

fn reloads(server: &Server, result: &str) -> u64 {
    metrics(server).count("inference_tls_reloads_total", &[("result", result)])
}

/// Sends SIGHUP and waits for this result.
pub(crate) fn reload(server: &Server, result: &str) {
    let labels = [("result", result)];
    let count = || metrics(server).count("inference_reloads_total", &labels);
    let before = count();
    server.signal(Signal::HUP);
    eventually("a reload to end", || match count() {
        now if now == before + 1 => Ok(()),
        now => Err(now),
    });
}

/// A client without session tickets, so that every connection receives the certificate.
fn client(authority: &Authority) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&authority.client(&["http/1.1"]));
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[test]
fn a_certificate_is_replaced_under_load_without_a_failed_request() {
    let authority = Authority::new();
    // Connections end after each reply, so that every request needs a handshake.
    let server = start(&authority, "keep_alive = \"0s\"", "");
    let config = client(&authority);
    let address = server.address();
    let connect = {
        let config = config.clone();
        move || Raw::connect_secure(address, config.clone())
    };
    let load = Load::start_with(4, connect, ECHO, "{\"input\":\"a\"}");
    let swaps = rounds(20, 100);
    for number in 0..swaps {
        let pair = authority.issue();
        pair.write(server.dir());
        reload(&server, "success");
        load.wait_for_replies(4);
        assert!(presents(&server, &config, &pair), "replacement {number}");
    }
    assert_eq!(load.stop(), [""; 0]);
    assert!(reloads(&server, "success") >= swaps as u64);
}

#[test]
fn connections_are_kept_when_the_certificate_is_replaced() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let mut kept = Raw::connect_secure(server.address(), client(&authority)).expect("the handshake succeeds");
    for _ in 0..3 {
        authority.issue().write(server.dir());
        reload(&server, "success");
        kept.send_json(ECHO, "{\"input\":\"a\"}");
        assert_eq!(kept.reply().expect("a reply").status, 200);
    }
}

#[test]
fn a_change_of_the_files_is_noticed_without_a_signal() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let config = client(&authority);
    let pair = authority.issue_until(3000);
    pair.write(server.dir());
    eventually("the new certificate", || {
        match presents(&server, &config, &pair) {
            true => Ok(()),
            false => Err("the old one"),
        }
    });
    let expiry = metrics(&server).sum("inference_tls_certificate_expiry_timestamp_seconds", &[]);
    // The start of the year 3000.
    assert!((expiry - 32_503_680_000.0).abs() < 1.0, "{expiry}");
    server.wait_for_log("TLS certificate replaced; the new one expires at 3000-01-01T00:00:00Z");
}

#[test]
fn a_pair_that_cannot_be_used_keeps_the_old_one_and_is_reported() {
    let authority = Authority::new();
    let server = start(&authority, "admin_key = \"the-key-of-the-admin\"", "");
    let config = client(&authority);
    let old = Pair {
        cert: std::fs::read_to_string(server.dir().join("server.pem")).expect("it was written"),
        key: std::fs::read_to_string(server.dir().join("server-key.pem")).expect("it was written"),
    };
    let other = authority.issue();
    let cases = [
        (
            Some(other.cert.as_str()),
            old.key.as_str(),
            "does not belong to the certificate",
        ),
        (Some("no PEM"), old.key.as_str(), "no certificate in"),
        (Some(old.cert.as_str()), "no PEM", "no private key in"),
        (None, old.key.as_str(), "cannot read"),
    ];
    for (cert, key, reason) in cases {
        let file = server.dir().join("server.pem");
        match cert {
            Some(cert) => tls::write(&file, cert),
            None => std::fs::remove_file(&file).expect("it exists"),
        }
        tls::write(&server.dir().join("server-key.pem"), key);
        let seen = server.log().lines().len();
        reload(&server, "failure");
        let line =
            server.wait_for_log_after(seen, "reload failed; keeping the current configuration and TLS");
        assert!(line.contains("ERROR") && line.contains(reason), "{line}");
        assert!(presents(&server, &config, &old), "{reason}");
        let output = Scenario::new("").run(&["reload", "--pid", &server.pid().as_raw_nonzero().to_string()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    // The files are watched as well.
    server.wait_for_log("TLS certificate not replaced; keeping the current one");
    assert_eq!(reloads(&server, "success"), 0);
    let management = Client::new(server.management_address());
    let public: Json = management.get("/v1/models/words").expect(200).json();
    assert!(!public.to_string().contains("server.pem"), "{public}");

    other.write(server.dir());
    reload(&server, "success");
    assert!(presents(&server, &config, &other));
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    authority.issue_until(2001).write(server.dir());
    reload(&server, "success");
    let line = server.wait_for_log("the TLS certificate expired at 2001-01-01T00:00:00Z");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn a_pair_that_cannot_be_used_is_an_error_of_the_configuration() {
    let authority = Authority::new();
    let config = "[server.tls]\ncert = \"server.pem\"\nkey = \"server-key.pem\"\n";
    let scenario = Scenario::new(config);
    let pair = authority.issue();
    pair.write(scenario.dir());
    let run = |arguments: &[&str]| {
        let output = scenario.run(arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let check = ["check", "--config", "models.toml"];
    assert_eq!(run(&check).0, Some(0), "{}", run(&check).1);

    authority.issue_until(2001).write(scenario.dir());
    let (code, text) = run(&check);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("models.toml:2:8: the TLS certificate expired at 2001"),
        "{text}"
    );

    tls::write(&scenario.dir().join("server.pem"), &pair.cert);
    for arguments in [&check[..], &["--config", "models.toml", "--port", "0"]] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains("models.toml:3:7: invalid TLS certificate: the private key in ")
                && text.contains("server-key.pem does not belong to the certificate in ")
                && text.contains("server.pem"),
            "{text}"
        );
    }
    std::fs::remove_file(scenario.dir().join("server.pem")).expect("it exists");
    let (code, text) = run(&check);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("models.toml:2:8: invalid TLS certificate: cannot read "),
        "{text}"
    );
}

#[test]
fn a_reload_without_a_change_of_the_certificate_does_not_replace_it() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    reload(&server, "success");
    assert_eq!(reloads(&server, "success"), 0);
}
