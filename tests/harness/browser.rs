//! A real browser, driven over the WebDriver protocol.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use ureq::Agent;

use super::eventually::eventually_within;
use super::tools;

/// Timeout for the browser, which can be slow on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

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
pub(crate) struct Browser {
    driver: Child,
    session: String,
    agent: Agent,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser. `None` if it or its driver is not installed.
    pub(crate) fn start() -> Option<Self> {
        let install = "apt-get install chromium chromium-driver";
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let chromium = tools::find("INFERENCE_TEST_CHROMIUM", &names, install)?;
        let driver = tools::find("INFERENCE_TEST_CHROMEDRIVER", &["chromedriver"], install)?;
        Some(Self::with(&driver, &chromium))
    }

    fn with(driver: &Path, browser: &Path) -> Self {
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
            "goog:loggingPrefs": {"browser": "ALL"},
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

    pub(crate) fn open(&self, url: &str) {
        let value = self.command("/url", &json!({ "url": url }));
        assert!(value.is_null(), "{url} does not open: {value}");
    }

    /// Sends a command of the Chrome DevTools protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &Json) -> Json {
        self.command(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// What the browser has logged since the last call: errors of scripts, and violations of the content security policy. Not
    /// requests that were answered with an error.
    pub(crate) fn problems(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({"type": "browser"}));
        let entries = entries
            .as_array()
            .cloned()
            .unwrap_or_else(|| panic!("no log: {entries}"));
        let problems = entries.iter().filter(|entry| {
            entry["level"] != "INFO" && entry["level"] != "DEBUG" && entry["source"] != "network"
        });
        problems.map(|entry| entry["message"].to_string()).collect()
    }

    /// The origins of everything that the page has loaded.
    pub(crate) fn origins(&self) -> Json {
        self.run(
            "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))].join(' ')",
        )
    }

    /// Waits until a script returns true.
    pub(crate) fn becomes(&self, what: &str, script: &str) {
        eventually_within(PATIENCE, what, || match self.run(script) {
            Json::Bool(true) => Ok(()),
            other => Err((other, self.run("return document.body.innerText"))),
        });
    }

    /// Runs a script and returns its result.
    pub(crate) fn run(&self, script: &str) -> Json {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs the body of an asynchronous function and returns its result.
    pub(crate) fn run_async(&self, script: &str) -> Json {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {script} }})().then(done, error => done(`failed: ${{error}}`));"
        );
        self.command("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Presses a key, as the WebDriver protocol encodes it, in the element that has the focus.
    pub(crate) fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        let value = self.command("/actions", &actions);
        assert!(value.is_null(), "the key cannot be pressed: {value}");
    }

    /// Waits for the first element that matches the selector, and clicks it.
    pub(crate) fn click(&self, selector: &str) {
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
    pub(crate) fn appears(&self, selector: &str) {
        let script = format!("return !!document.querySelector({});", json!(selector));
        eventually_within(PATIENCE, &format!("{selector} on the page"), || {
            match self.run(&script) {
                Json::Bool(true) => Ok(()),
                other => Err(other),
            }
        });
    }

    /// Waits for the first element that matches the selector, and returns its text.
    pub(crate) fn text(&self, selector: &str) -> String {
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
