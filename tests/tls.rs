//! TLS on the HTTP and gRPC ports: versions, protocols, certificates of clients, and handshakes that fail.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion};
use serde_json::json;

use crate::harness::grpc::Grpc;
use crate::harness::http2::Http2;
use crate::harness::raw::Raw;
use crate::harness::tls::Authority;
use crate::harness::{Client, Metrics, Scenario, Server, eventually, tools};

const MODEL: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";
const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
const ECHO: &str = "/v1/models/words/tasks/echo/predict";

/// Starts a server with a certificate of this authority, a management port, and further lines in `[server]` and
/// `[server.tls]`.
pub(crate) fn start(authority: &Authority, server: &str, tls: &str) -> Server {
    let scenario = Scenario::new(&format!(
        "[server]\nmanagement_port = 0\ngrpc_port = 0\n{server}\n\
         [server.tls]\ncert = \"server.pem\"\nkey = \"$DIR/server-key.pem\"\n{tls}\n{MODEL}"
    ));
    authority.issue().write(scenario.dir());
    std::fs::write(scenario.dir().join("client-ca.pem"), authority.pem()).expect("write a file");
    let server = scenario.start_unready();
    server.wait_for_log("ready after");
    server
}

/// Returns the metrics of a server whose main port requires TLS.
pub(crate) fn metrics(server: &Server) -> Metrics {
    let client = Client::new(server.management_address());
    Metrics::parse(&client.get("/metrics").expect(200).text())
}

fn failed_handshakes(server: &Server) -> u64 {
    metrics(server).count("inference_tls_failed_handshakes_total", &[])
}

/// Sends a request for liveness. Fails if the server rejects the client.
fn try_live(server: &Server, config: Arc<ClientConfig>) -> Option<u16> {
    let mut connection = Raw::connect_secure(server.address(), config).ok()?;
    connection.try_send(LIVE).ok()?;
    let first = String::from_utf8_lossy(&connection.read_until_reply()?).into_owned();
    first.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_served_and_alpn_selects_the_version_of_http() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (offered, selected) in [
            (&[][..], None),
            (&["http/1.1"][..], Some("http/1.1")),
            (&["http/1.1", "h2"][..], Some("h2")),
        ] {
            let config = authority.client_with(&[version], offered, None);
            let mut connection =
                Raw::connect_secure(server.address(), config.clone()).expect("the handshake succeeds");
            let session = connection.session();
            assert_eq!(session.protocol_version(), Some(expected));
            assert_eq!(session.alpn_protocol(), selected.map(str::as_bytes));
            if selected == Some("h2") {
                let mut connection = Http2::connect_secure(server.address(), config)
                    .await
                    .expect("the handshake succeeds");
                let reply = connection
                    .post(ECHO, &json!({"input": "a"}))
                    .await
                    .expect("it is sent");
                assert_eq!(reply.await.expect("a reply").json()["output"], "a");
                continue;
            }
            for number in 0..3 {
                connection.send_json(ECHO, &format!("{{\"input\":\"{number}\"}}"));
                let reply = connection.reply().expect("a reply");
                assert_eq!(reply.json()["output"], number.to_string());
            }
        }
    }
    assert_eq!(failed_handshakes(&server), 0);
    server.shut_down();
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_requires_tls_as_well() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let config = authority.client(&["h2"]);
    let mut grpc = Grpc::connect_secure(server.grpc_address(), config)
        .await
        .expect("the handshake succeeds");
    assert!(grpc.is_live().await);
    let mut plain = Raw::connect(server.grpc_address());
    plain.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(plain.is_closed());
    let http1 = Raw::connect_secure(server.grpc_address(), authority.client(&["http/1.1"]));
    assert!(http1.is_err(), "gRPC is HTTP/2");
    eventually("two failed handshakes", || match failed_handshakes(&server) {
        2 => Ok(()),
        other => Err(other),
    });
}

#[test]
fn a_request_without_tls_is_rejected_with_a_plain_text() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    for request in [
        LIVE.to_owned(),
        format!("POST {ECHO} HTTP/1.1\r\ncontent-length: 900000\r\n\r\n"),
    ] {
        let mut plain = server.connect();
        plain.send(request);
        let reply = plain.reply().expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(reply.text().contains("https://"), "{}", reply.text());
        assert!(plain.is_closed());
    }
    let line = server.wait_for_log("the client sent a request without TLS");
    assert!(
        line.contains("INFO") && line.contains("TLS handshake with 127.0.0.1:"),
        "{line}"
    );
}

#[test]
fn the_management_port_serves_plain_http() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let client = Client::new(server.management_address());
    client.get("/readyz").expect(200);
    let expiry = metrics(&server).sum("inference_tls_certificate_expiry_timestamp_seconds", &[]);
    // The start of the year 4000.
    assert!((expiry - 64_060_588_800.0).abs() < 1.0, "{expiry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_only_clients_with_its_certificate_are_served() {
    let authority = Authority::new();
    let server = start(&authority, "", "client_ca = \"client-ca.pem\"");
    let stranger = Authority::new().issue();
    let own = authority.issue();
    let expired = authority.issue_until(2000);
    for version in [&TLS12, &TLS13] {
        let client = |identity| authority.client_with(&[version], &["http/1.1"], identity);
        assert_eq!(try_live(&server, client(Some(&own))), Some(200), "{version:?}");
        for rejected in [None, Some(&stranger), Some(&expired)] {
            assert_eq!(try_live(&server, client(rejected)), None, "{version:?}");
        }
    }
    eventually("six failed handshakes", || match failed_handshakes(&server) {
        6 => Ok(()),
        other => Err(other),
    });
    let with_certificate = authority.client_with(&[&TLS13], &["h2"], Some(&own));
    let mut grpc = Grpc::connect_secure(server.grpc_address(), with_certificate)
        .await
        .expect("the handshake succeeds");
    assert!(grpc.is_live().await);
    assert!(!server.log().has("ERROR"), "{}", server.log().text());
    assert!(server.log().has("TLS handshake with 127.0.0.1:"));
}

#[test]
fn handshakes_that_do_not_complete_end_after_the_timeout_and_hold_no_connection() {
    let authority = Authority::new();
    let server = start(&authority, "header_timeout = \"300ms\"\nmax_connections = 4", "");
    let beginnings: [&[u8]; 4] = [
        b"",
        // The start of a ClientHello.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16",
        &[0x80; 3],
    ];
    let mut stalled: Vec<Raw> = beginnings
        .iter()
        .map(|beginning| {
            let mut connection = server.connect();
            connection.send(beginning);
            connection
        })
        .collect();
    // Waits in the backlog until the others have been closed.
    assert_eq!(try_live(&server, authority.client(&["http/1.1"])), Some(200));
    assert!(stalled.iter_mut().any(Raw::is_closed));
    server.wait_for_log("not completed within 0.3 s");
    assert!(!server.log().has("ERROR"), "{}", server.log().text());
}

#[test]
fn garbage_fails_its_handshake_and_nothing_else() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let mut random = fastrand::Rng::with_seed(crate::harness::seed());
    for number in 0..200 {
        let mut bytes: Vec<u8> = (0..random.usize(1..600)).map(|_| random.u8(..)).collect();
        if number % 2 == 0 {
            bytes.splice(0..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 196]);
        }
        let mut connection = server.connect();
        if connection.try_send(&bytes).is_ok() {
            connection.finish();
        }
    }
    assert_eq!(try_live(&server, authority.client(&["http/1.1"])), Some(200));
    assert!(!server.log().has("ERROR"), "{}", server.log().text());
    assert!(!server.log().has("panicked"), "{}", server.log().text());
    server.shut_down();
}

#[test]
fn curl_and_bench_speak_https() {
    let authority = Authority::new();
    let server = start(&authority, "", "");
    let ca = server.dir().join("client-ca.pem");
    let url = format!("https://localhost:{}", server.address().port());
    if let Some(curl) = tools::find("INFERENCE_TEST_CURL", &["curl"], "apt-get install curl") {
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let mut command = std::process::Command::new(&curl);
            command
                .args(["--silent", "--show-error", "--ipv4", option, "--cacert"])
                .arg(&ca);
            command.args([
                "--write-out",
                " %{http_version} %{http_code}",
                "--data",
                "{\"input\":\"a\"}",
            ]);
            command.arg(format!("{url}{ECHO}"));
            let printed = tools::run(&mut command);
            assert!(printed.ends_with(&format!(" {version} 200")), "{printed}");
        }
    }
    let load = "--model words --task echo --concurrency 2 --duration 200ms --warm-up 50ms";
    let bench = |trust: &str| {
        let arguments = format!("bench --url https://{} {load} {trust}", server.address());
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = Scenario::new("").run(&arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let cacert = format!("--cacert {}", ca.display());
    for trust in [cacert.as_str(), "--insecure"] {
        let (code, error) = bench(trust);
        assert_eq!(code, Some(0), "{trust}: {error}");
    }
    let stranger = server.dir().join("stranger.pem");
    std::fs::write(&stranger, Authority::new().pem()).expect("write a file");
    let (code, error) = bench(&format!("--cacert {}", stranger.display()));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("the TLS handshake failed") && error.contains("--cacert"),
        "{error}"
    );
}
