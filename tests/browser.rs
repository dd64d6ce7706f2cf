//! Tests of `/docs` in a real browser.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::harness::Scenario;
use crate::harness::browser::Browser;

#[test]
fn an_operation_can_be_tried_out_and_shows_its_reply() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    browser.open(&format!("http://{}/docs", server.address()));
    let operation = "[id*='predict_words_stats']";
    assert!(
        browser
            .text(operation)
            .contains("/v1/models/words/tasks/stats/predict")
    );
    browser.click(&format!("{operation} .opblock-summary-control"));
    browser.click(&format!("{operation} .try-out__btn"));
    browser.click(&format!("{operation} .execute"));
    let answer = format!("{operation} .live-responses-table .response");
    let status = browser.text(&format!("{answer} .response-col_status"));
    let body = browser.text(&format!("{answer} .response-col_description"));
    assert!(
        status.contains("200"),
        "the page shows status {status}, with {body}"
    );
    assert!(body.contains("\"words\": 6"), "{body}");
    // Routes of other protocols are present but collapsed.
    assert_eq!(
        browser.run("return document.querySelectorAll('[id*=v2_infer]').length"),
        json!(0)
    );
    // The page sent requests only to this server.
    assert_eq!(browser.origins(), json!(format!("http://{}", server.address())));
}

/// Starts a proxy that serves a server under the path prefix `/ml`, which it removes.
fn proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a client connects");
            std::thread::spawn(move || forward(stream, server));
        }
    });
    address
}

/// Forwards one request and closes the connection.
fn forward(client: TcpStream, server: SocketAddr) {
    let mut client = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).is_ok_and(|length| length == 0) {
            return;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length is a number");
        }
        match (head.is_empty(), line == "\r\n") {
            (true, _) => match line.split_once(" /ml/") {
                Some((method, rest)) => head = format!("{method} /{rest}connection: close\r\n"),
                None => return,
            },
            (false, true) => break,
            (false, false) if lower.starts_with("connection:") => {}
            (false, false) => head.push_str(&line),
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).expect("the body follows");
    let mut upstream = TcpStream::connect(server).expect("the server listens");
    upstream
        .write_all(format!("{head}\r\n").as_bytes())
        .expect("the server reads");
    upstream.write_all(&body).expect("the server reads");
    // The browser can close the connection first.
    let _ = std::io::copy(&mut upstream, client.get_mut());
}

#[test]
fn an_operation_can_be_tried_out_with_a_key_behind_a_proxy_with_a_path_prefix() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let config = "[server]\napi_keys = [\"a-key-of-a-client\"]\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    let server = Scenario::new(config).start();
    browser.open(&format!("http://{}/ml/", proxy(server.address())));
    assert!(browser.text(".sign-in").contains("requires an API key"));
    browser.click("a[href='../docs/']");
    browser.click(".authorize");
    browser.appears(".auth-container input");
    // React only detects a value that is set through the prototype of the element.
    browser.run(
        "const e = document.querySelector('.auth-container input'); \
         Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(e, 'a-key-of-a-client'); \
         e.dispatchEvent(new Event('input', {bubbles: true}));",
    );
    browser.click(".auth-btn-wrapper .authorize");
    browser.click(".auth-btn-wrapper .btn-done");
    let operation = "[id*='predict_words_stats']";
    browser.click(&format!("{operation} .opblock-summary-control"));
    browser.click(&format!("{operation} .try-out__btn"));
    browser.click(&format!("{operation} .execute"));
    let answer = format!("{operation} .live-responses-table .response");
    let status = browser.text(&format!("{answer} .response-col_status"));
    let body = browser.text(&format!("{answer} .response-col_description"));
    assert!(
        status.contains("200") && body.contains("\"words\": 6"),
        "{status}: {body}"
    );
}
