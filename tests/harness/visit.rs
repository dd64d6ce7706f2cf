//! The page for operators, in a real browser.

use serde_json::{Value as Json, json};

use super::browser::{Browser, PATIENCE};
use super::eventually::eventually_within;
use super::server::Server;

/// Opens a page of a server, and checks at the end that it has loaded nothing from elsewhere and logged no problem.
pub(crate) struct Visit<'a> {
    pub(crate) browser: &'a Browser,
    pub(crate) origin: String,
}

impl<'a> Visit<'a> {
    pub(crate) fn to(browser: &'a Browser, server: &Server, path: &str) -> Self {
        let origin = format!("http://{}", server.address());
        browser.open(&format!("{origin}{path}"));
        Self { browser, origin }
    }

    pub(crate) fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.origin));
    }

    pub(crate) fn finish(self) {
        assert_eq!(self.browser.origins(), json!(self.origin));
        assert_eq!(self.browser.problems(), [""; 0]);
    }
}

impl Browser {
    /// Waits until the page receives events.
    pub(crate) fn goes_live(&self) {
        self.becomes(
            "a page that is live",
            "return document.querySelector('#connection')?.textContent === 'live'",
        );
    }

    /// Waits until the element of this id has a text for which `accepts` is true.
    pub(crate) fn shows(&self, id: &str, accepts: impl Fn(&str) -> bool) -> String {
        let script = format!("return document.getElementById({})?.innerText ?? null", json!(id));
        eventually_within(PATIENCE, &format!("an expected text in {id}"), || {
            match self.run(&script) {
                Json::String(text) if accepts(&text) => Ok(text),
                other => Err((other, self.run("return document.body.innerText"))),
            }
        })
    }

    /// Signs in with a key, once the form is there.
    pub(crate) fn sign_in(&self, key: &str) {
        self.appears("input[type=password]");
        self.run(&format!(
            "document.querySelector('input[type=password]').value = {}",
            json!(key)
        ));
        self.click("button.primary");
    }

    /// Sets the size of the window, and whether it prefers dark colors.
    pub(crate) fn resize(&self, width: u32, height: u32, is_dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &feature);
    }

    /// Asserts that nothing is wider than the window, except what scrolls by itself.
    #[track_caller]
    pub(crate) fn fits_into_its_window(&self) {
        let script = "const width = document.documentElement.clientWidth; \
                      const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > width + 1 \
                      && !e.closest('pre, .matrix, .tabs, .visually-hidden')); \
                      return document.documentElement.scrollWidth > width ? wide.map(e => e.outerHTML.slice(0, 120)) : []";
        assert_eq!(self.run(script), json!([]), "elements are wider than the window");
    }
}
