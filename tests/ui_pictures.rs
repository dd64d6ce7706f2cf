//! How the page for operators looks: pictures for the README, and widths that it has to fit into.

use std::path::Path;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::load::Load;
use crate::harness::plugins::repository;
use crate::harness::visit::Visit;
use crate::harness::{Scenario, Server, eventually, plugins};

/// The pages of which pictures are in the README, with the width and height of the window.
const PICTURES: [(&str, &str, u32, u32); 3] = [
    ("overview", "/ui/", 1180, 800),
    ("model", "/ui/models/digits?task=classify", 1180, 1000),
    ("jobs", "/ui/jobs", 1180, 560),
];

/// Maximum size of a picture in bytes.
const MAX_PICTURE: usize = 150_000;

const ECHO: &str = "/v1/models/text/tasks/echo/predict";

/// The request that classifies an image.
fn classify() -> String {
    let image = std::fs::read(repository().join("config/digits/samples/digit-7-8x8.png")).expect("a file");
    json!({"input": {"b64": STANDARD.encode(image), "media_type": "image/png"}}).to_string()
}

/// Submits jobs that end in different ways.
fn submit_jobs(server: &Server) {
    let submit = |inputs: usize, path: &str, headers: &[(&str, &str)]| {
        let texts: Vec<String> = (0..inputs).map(|number| format!("text {number}")).collect();
        let call = server
            .request("POST", path)
            .header("prefer", "respond-async")
            .json(&json!({ "inputs": texts }));
        let call = headers
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value));
        let reply = call.send().expect(202).json();
        format!("/v1/jobs/{}", reply["id"].as_str().expect("it has an id"))
    };
    let jobs = [
        submit(200, ECHO, &[("x-job-label", "catalogue 2026-11")]),
        submit(
            1,
            "/v1/models/text/tasks/stats/predict",
            &[("x-job-label", "import")],
        ),
        submit(64, ECHO, &[("x-job-label", "catalogue 2026-12")]),
    ];
    for job in jobs {
        server.get(&format!("{job}?wait=60s")).expect(200);
    }
    let later = [("x-job-label", "nightly"), ("x-job-not-before", "8h")];
    let cancelled = submit(20, ECHO, &later);
    server.request("DELETE", &cancelled).send().expect(200);
    submit(500, ECHO, &later);
}

/// Time under load before pictures for the repository are taken, so that their charts show lines.
const LOADED_FOR: Duration = Duration::from_secs(4 * 60);

/// Takes pictures of the example models under load. With `INFERENCE_SCREENSHOTS=1`, it replaces those of the repository.
#[test]
fn pictures_of_the_page_are_small() {
    let Some(browser) = Browser::start() else { return };
    plugins::library("onnx");
    let server = Scenario::of_the_repository().start();
    submit_jobs(&server);
    let loads = [
        Load::start(
            3,
            server.address(),
            "/v1/models/digits/tasks/classify/predict",
            &classify(),
        ),
        Load::start(1, server.address(), ECHO, "{\"input\":\"to be\"}"),
    ];
    let is_kept = std::env::var("INFERENCE_SCREENSHOTS").is_ok_and(|value| value == "1");
    if is_kept {
        #[allow(clippy::disallowed_methods, reason = "the charts fill with time alone")]
        thread::sleep(LOADED_FOR);
    }
    for (name, path, width, height) in PICTURES {
        browser.resize(width, height, false);
        let visit = Visit::to(&browser, &server, path);
        browser.goes_live();
        browser.becomes(
            "figures of the last ten seconds",
            "const e = document.getElementById('t-requests') ?? document.getElementById('f-requests'); \
             return e?.innerText !== '0'",
        );
        let picture = browser.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let picture = STANDARD
            .decode(picture["data"].as_str().unwrap_or_default())
            .expect("a picture");
        assert!(picture.starts_with(b"\x89PNG"), "{name} is no picture");
        assert!(picture.len() < MAX_PICTURE, "{name} has {} bytes", picture.len());
        if is_kept {
            write_picture(name, &picture);
        }
        visit.finish();
    }
    for load in loads {
        assert_eq!(load.stop(), [""; 0]);
    }
}

fn write_picture(name: &str, picture: &[u8]) {
    let directory = repository().join("server/assets/screenshots");
    std::fs::create_dir_all(&directory).expect("the directory can be created");
    let file = directory.join(Path::new(name).with_extension("png"));
    std::fs::write(file, picture).expect("the picture can be written");
}

/// Contrast of each text with its background, where both are plain colors: texts below 4.5:1, as WCAG AA requires.
const LOW_CONTRAST: &str = "
    const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const read = color => color.match(/[\\d.]+/g).map(Number);
    const background = element => {
        for (let e = element; e; e = e.parentElement) {
            const color = read(getComputedStyle(e).backgroundColor);
            if ((color[3] ?? 1) === 1) return color;
        }
        return read(getComputedStyle(document.documentElement).backgroundColor);
    };
    const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg, .visually-hidden, :disabled')
        && e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
    return texts.map(e => {
        const [one, other] = [read(getComputedStyle(e).color), background(e)].map(luminance);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        return [ratio, e];
    }).filter(([ratio]) => ratio < 4.5).map(([ratio, e]) => `${ratio.toFixed(2)}: ${e.outerHTML.slice(0, 120)}`);";

#[test]
fn every_view_fits_a_phone_and_has_enough_contrast_in_light_and_dark() {
    let Some(browser) = Browser::start() else { return };
    let long =
        "a-model-with-a-name-that-is-much-longer-than-a-phone-is-wide-and-has-no-space-in-it-0123456789";
    let server = Scenario::new(&format!(
        "[[models]]\nname = \"words\"\nplugin = \"template\"\nisolation = \"process\"\n\
         [[models]]\nname = \"{long}\"\nplugin = \"template\"\n\
         [[models]]\nname = \"broken\"\nplugin = \"{long}\"\n"
    ))
    .start_unready();
    eventually("all models to be loaded or not", || {
        let states = ["broken", "words", long].map(|name| server.model(name)["state"].clone());
        (states == ["failed", "ready", "ready"])
            .then_some(())
            .ok_or(states)
    });
    let job = |headers: &[(&str, &str)]| {
        let call = server
            .request("POST", "/v1/models/words/tasks/echo/predict")
            .header("prefer", "respond-async")
            .json(&json!({"inputs": ["to be"]}));
        headers
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value))
            .send()
            .expect(202);
    };
    job(&[("x-job-label", long), ("x-job-not-before", "1h")]);
    job(&[]);
    for path in [
        "/ui/",
        "/ui/models/words",
        &format!("/ui/models/{long}"),
        "/ui/models/broken",
        "/ui/models/none",
        "/ui/jobs",
        "/ui/jobs?state=expired&label=none",
        "/ui/login",
    ] {
        for is_dark in [false, true] {
            for width in [1180, 360] {
                browser.resize(width, 800, is_dark);
                let visit = Visit::to(&browser, &server, path);
                if browser.run("return !!document.querySelector('[data-events]')") == true {
                    browser.goes_live();
                }
                browser.fits_into_its_window();
                assert_eq!(browser.run(LOW_CONTRAST), json!([]), "{path}, dark: {is_dark}");
                visit.finish();
            }
        }
    }
}
