//! `/docs` in a real browser: a reader tries an operation out, and sees the answer.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::harness::eventually::eventually_within;
use crate::harness::{Scenario, tools};

/// A browser on a busy machine takes its time.
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

/// A driver and its browser, in a profile of their own. Both end with it.
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

    /// One command of the WebDriver protocol; its value.
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

    /// What a script returns.
    fn run(&self, script: &str) -> Json {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Clicks the first element that the selector finds, as soon as there is one.
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

    /// Text of the first element that the selector finds, once there is one.
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
        // Ends the browser; the driver would leave it behind.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn a_reader_of_the_documentation_tries_an_operation_out_and_sees_its_answer() {
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
    let operation = "[id*='tasks'][id*='stats'][id*='predict']";
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
    // The page asked this server and nobody else.
    let origins = browser.run(
        "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))].join(' ')",
    );
    assert_eq!(origins, json!(format!("http://{}", server.address())));
}
