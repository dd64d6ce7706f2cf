//! Tests of `/docs` in a real browser.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::harness::eventually::eventually_within;
use crate::harness::{Scenario, tools};

/// Timeout for the browser, which can be slow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// A WebDriver server and its browser, with a separate profile. Both are killed on drop.
struct Browser {
    driver: Child,
    session: String,
    agent: Agent,
    _profile: TempDir,
}

impl Browser {
    fn start(driver: &Path, browser: &Path) -> Self {
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver can be started");
        let output = driver.stdout.take().expect("standard output is piped");
        let port = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split("started successfully on port ").nth(1)?;
                port.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("the driver names its port");
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        let profile = tempfile::tempdir().expect("there is room for a profile");
        let mut this = Self {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent: config.into(),
            _profile: profile,
        };
        let mut arguments = FLAGS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", this._profile.path().display()));
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": browser, "args": arguments},
        });
        let session = this.command("", &json!({"capabilities": {"alwaysMatch": capabilities}}));
        let id = session["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {session}"));
        this.session = format!("{}/{id}", this.session);
        this
    }

    /// Sends a command of the WebDriver protocol and returns its value.
    fn command(&self, path: &str, body: &Json) -> Json {
        let url = format!("{}{path}", self.session);
        let mut response = self
            .agent
            .post(&url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("the driver does not answer: {error}"));
        let text = response
            .body_mut()
            .read_to_string()
            .expect("the driver answers text");
        let reply: Json = serde_json::from_str(&text).expect("the driver answers JSON");
        reply["value"].clone()
    }

    fn open(&self, url: &str) {
        let value = self.command("/url", &json!({ "url": url }));
        assert!(value.is_null(), "{url} does not open: {value}");
    }

    /// Runs a script and returns its result.
    fn run(&self, script: &str) -> Json {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits for the first element that matches the selector, and clicks it.
    fn click(&self, selector: &str) {
        let script = format!(
            "const e = document.querySelector({}); if (!e) return false; e.scrollIntoView(); e.click(); return true;",
            json!(selector)
        );
        eventually_within(PATIENCE, &format!("{selector} on the page"), || {
            match self.run(&script) {
                Json::Bool(true) => Ok(()),
                other => Err((other, self.run("return document.body.innerText"))),
            }
        });
    }

    /// Waits for the first element that matches the selector.
    fn appears(&self, selector: &str) {
        let script = format!("return !!document.querySelector({});", json!(selector));
        eventually_within(PATIENCE, &format!("{selector} on the page"), || {
            match self.run(&script) {
                Json::Bool(true) => Ok(()),
                other => Err(other),
            }
        });
    }

    /// Waits for the first element that matches the selector, and returns its text.
    fn text(&self, selector: &str) -> String {
        let script = format!(
            "const e = document.querySelector({}); return e && e.innerText;",
            json!(selector)
        );
        eventually_within(PATIENCE, &format!("{selector} on the page"), || {
            let text = self.run(&script).as_str().map(str::to_owned);
            text.filter(|text| !text.trim().is_empty())
                .ok_or_else(|| self.run("return document.body.innerText"))
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Terminates the browser, which would outlive the driver.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn an_operation_can_be_tried_out_and_shows_its_reply() {
    let install = "apt-get install chromium chromium-driver";
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(chromium) = tools::find("INFERENCE_TEST_CHROMIUM", &names, install) else {
        return;
    };
    let Some(driver) = tools::find("INFERENCE_TEST_CHROMEDRIVER", &["chromedriver"], install) else {
        return;
    };
    let server = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    let browser = Browser::start(&driver, &chromium);
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
    let origins = browser.run(
        "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))].join(' ')",
    );
    assert_eq!(origins, json!(format!("http://{}", server.address())));
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
    let install = "apt-get install chromium chromium-driver";
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(chromium) = tools::find("INFERENCE_TEST_CHROMIUM", &names, install) else {
        return;
    };
    let Some(driver) = tools::find("INFERENCE_TEST_CHROMEDRIVER", &["chromedriver"], install) else {
        return;
    };
    let config = "[server]\napi_keys = [\"a-key-of-a-client\"]\n\n[[models]]\nname = \"words\"\nplugin = \"template\"\n";
    let server = Scenario::new(config).start();
    let browser = Browser::start(&driver, &chromium);
    browser.open(&format!("http://{}/ml/", proxy(server.address())));
    assert!(browser.text("table").contains("words"));
    browser.click("a[href='docs/']");
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
