//! The page for operators, in a real browser.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::harness::browser::{Browser, PATIENCE};
use crate::harness::eventually::eventually_within;
use crate::harness::http2::Http2;
use crate::harness::load::Load;
use crate::harness::plugins::repository;
use crate::harness::{Scenario, Server, Signal, plugins};

const ADMIN_KEY: &str = "the-key-of-the-admin";
const WORDS: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";

/// Opens a page of a server, and checks at the end that it has loaded nothing from elsewhere and logged no problem.
struct Visit<'a> {
    browser: &'a Browser,
    origin: String,
}

impl<'a> Visit<'a> {
    fn to(browser: &'a Browser, server: &Server, path: &str) -> Self {
        let origin = format!("http://{}", server.address());
        browser.open(&format!("{origin}{path}"));
        Self { browser, origin }
    }

    fn finish(self) {
        assert_eq!(self.browser.origins(), json!(self.origin));
        assert_eq!(self.browser.problems(), [""; 0]);
    }
}

/// Waits until the page receives events.
fn goes_live(browser: &Browser) {
    browser.becomes(
        "a page that is live",
        "return document.querySelector('#connection')?.textContent === 'live'",
    );
}

/// Waits until the element of this id has a text for which `accepts` is true.
fn shows(browser: &Browser, id: &str, accepts: impl Fn(&str) -> bool) -> String {
    let script = format!("return document.getElementById({})?.innerText ?? null", json!(id));
    eventually_within(PATIENCE, &format!("an expected text in {id}"), || {
        match browser.run(&script) {
            Json::String(text) if accepts(&text) => Ok(text),
            other => Err((other, browser.run("return document.body.innerText"))),
        }
    })
}

/// Sends the form, and waits for its answers.
fn send(browser: &Browser) -> String {
    browser.click("#try button.primary");
    browser.becomes(
        "answers",
        "return !!document.querySelector('#answers .answer, #answers .matrix')",
    );
    browser.text("#answers")
}

#[test]
fn the_overview_follows_the_load() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::new(&format!(
        "{WORDS}[[models]]\nname = \"broken\"\nplugin = \"nothing\"\n"
    ))
    .start_unready();
    eventually_within(PATIENCE, "both models to be loaded or not", || {
        let states = ["broken", "words"].map(|name| server.model(name)["state"].clone());
        (states == ["failed", "ready"]).then_some(()).ok_or(states)
    });
    let visit = Visit::to(&browser, &server, "/");
    assert_eq!(browser.text("tr:nth-child(1) th[scope=row] a"), "broken");
    assert_eq!(browser.text("#\\30 s"), "failed");
    let finding = browser.text("#a0");
    assert!(
        finding.contains("problem") && finding.contains("the model could not be loaded"),
        "{finding}"
    );
    goes_live(&browser);
    let path = "/v1/models/words/tasks/echo/predict";
    let load = Load::start(2, server.address(), path, "{\"input\":\"a\"}");
    shows(&browser, "1r", |text| {
        text.parse().is_ok_and(|rate: f64| rate > 1.0)
    });
    shows(&browser, "1m", |text| {
        text.ends_with("ms") || text.ends_with("µs")
    });
    shows(&browser, "t-requests", |text| text != "0");
    assert_eq!(load.stop(), [""; 0]);
    assert_eq!(browser.text("#\\31 s"), "ready");
    visit.finish();
}

#[test]
fn the_overview_works_without_scripts() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::new(WORDS).start();
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    let visit = Visit::to(&browser, &server, "/ui/");
    let text = browser.text("main");
    for part in [
        "Models ready",
        "1 / 1",
        "words",
        "echo, stats",
        "ready",
        "Needs attention",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert_eq!(
        browser.run("return document.querySelectorAll('svg.spark').length"),
        json!(1)
    );
    visit.finish();
}

#[test]
fn the_page_of_a_model_draws_its_last_minutes() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::new(WORDS).start();
    let path = "/v1/models/words/tasks/echo/predict";
    let load = Load::start(2, server.address(), path, "{\"input\":\"a\"}");
    load.wait_for_replies(10);
    // Fails in the model.
    let failed = json!({"inputs": [{"text": ""}]});
    server
        .post("/v1/models/words/tasks/stats/predict", &failed)
        .expect(422);
    let visit = Visit::to(&browser, &server, "/ui/models/words?task=echo");
    goes_live(&browser);
    shows(&browser, "f-requests", |text| {
        text.parse().is_ok_and(|rate: f64| rate > 1.0)
    });
    for chart in ["p50", "p99", "rate", "queue", "sizes", "reasons"] {
        browser.appears(&format!("#chart-{chart} canvas"));
    }
    browser.becomes(
        "the busy workers",
        "return /last second: [0-9]+%/.test(document.getElementById('chart-workers').getAttribute('aria-label'))",
    );
    browser.becomes(
        "stages in the description of a chart",
        "return / inference [0-9.]+ (µs|ms)/.test(document.getElementById('chart-p50').getAttribute('aria-label'))",
    );
    shows(&browser, "e0", |text| {
        text.contains("A batch takes") || text.contains("Larger batches")
    });
    assert_eq!(load.stop(), [""; 0]);
    browser.open(&format!("{}/ui/models/words?task=stats", visit.origin));
    let row = browser.text("#q0");
    assert!(row.contains("422") && row.contains("native, 1 item"), "{row}");
    visit.finish();
}

#[test]
fn text_and_json_can_be_tried_out() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::new(WORDS).start();
    let visit = Visit::to(&browser, &server, "/ui/models/words?task=echo");
    browser.appears("#try textarea");
    browser.run("document.querySelector('#try textarea').value = 'Grüße 🦀'");
    let answers = send(&browser);
    assert!(answers.contains("Grüße 🦀"), "{answers}");

    browser.open(&format!("{}/ui/models/words?task=stats", visit.origin));
    browser.click("#try .row button[type=button]");
    let type_into_last = |text: &str| {
        browser.run(&format!(
            "const all = document.querySelectorAll('#try textarea'); const last = all[all.length - 1]; \
             last.value = {}; last.dispatchEvent(new Event('input', {{bubbles: true}}));",
            json!(text)
        ));
    };
    type_into_last("{\"text\": 5}");
    assert_eq!(
        browser.text("#try .invalid:not(:empty)"),
        "text: expected string, got number"
    );
    type_into_last("{\"text\": \"");
    assert!(
        browser
            .text("#try .invalid:not(:empty)")
            .starts_with("invalid JSON: ")
    );
    type_into_last("{\"text\": \"one two three\"}");
    let answers = send(&browser);
    assert!(
        answers.contains("\"words\": 6") && answers.contains("\"words\": 3"),
        "{answers}"
    );
    type_into_last("{\"text\": \"\"}");
    browser.click("#try button.primary");
    let failure = browser.text("#answers .bad");
    assert!(
        failure.contains("invalid_input") && failure.contains("no words to count"),
        "{failure}"
    );

    // The call as a program.
    browser.click("#try summary");
    for (language, part) in [
        (
            "curl",
            "-d '{\"inputs\":[{\"text\":\"to be or not to be\"},{\"text\":\"\"}]}'",
        ),
        ("Python", "requests.post("),
        ("Rust", "reqwest::blocking::Client::new()"),
    ] {
        browser.run(&format!(
            "const e = document.getElementById('try-language'); e.value = {}; e.onchange();",
            json!(language)
        ));
        let code = browser.text("#try-code");
        let url = format!("{}/v1/models/words/tasks/stats/predict", visit.origin);
        assert!(code.contains(part) && code.contains(&url), "{code}");
    }
    visit.finish();
}

#[test]
fn images_tensors_and_embeddings_can_be_tried_out() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::of_the_repository().start();
    // The example is an image.
    let visit = Visit::to(&browser, &server, "/ui/models/digits?task=classify");
    browser.appears("#try .drop img");
    let answers = send(&browser);
    assert!(answers.contains("%"), "{answers}");
    assert_eq!(browser.text("#answers .bars dt"), "7");
    assert_eq!(
        browser.run("return document.querySelectorAll('#answers .picture img').length"),
        json!(1)
    );
    // Files that are dropped.
    let image =
        std::fs::read(repository().join("config/digits/samples/digit-3-128x128.png")).expect("a file");
    browser.run(&format!(
        "const bytes = Uint8Array.from(atob({}), c => c.charCodeAt(0)); \
         const data = new DataTransfer(); data.items.add(new File([bytes], 'three.png', {{type: 'image/png'}})); \
         document.querySelector('#try .drop').dispatchEvent(new DragEvent('drop', {{dataTransfer: data, cancelable: true}}));",
        json!(STANDARD.encode(image))
    ));
    browser.appears("#try .drop img[alt='The chosen image three.png']");
    browser.click("#try button.primary");
    browser.becomes(
        "the answer for the other image",
        "return document.querySelector('#answers .bars dt')?.innerText === '3'",
    );
    // The same as a tensor.
    browser.run("const e = document.getElementById('try-kind'); e.value = 'tensors'; e.onchange();");
    browser.appears("#try textarea.code");
    browser.click("#try button.primary");
    browser.becomes(
        "an answer without an image",
        "return !document.querySelector('#answers .picture') && !!document.querySelector('#answers .bars dt')",
    );
    // Embeddings of two images.
    browser.open(&format!("{}/ui/models/digits?task=embed", visit.origin));
    browser.appears("#try .drop img");
    browser.click("#try .panel > .row > button[type=button]");
    browser.click("#try button.primary");
    let matrix = browser.text("#answers .matrix");
    assert!(
        matrix.contains("Cosine similarity") && matrix.matches("1.00").count() == 4,
        "{matrix}"
    );
    visit.finish();
}

#[test]
fn a_reload_renders_an_open_page_again_and_keeps_unsent_input() {
    let Some(browser) = Browser::start() else { return };
    let server = Scenario::new(WORDS).start();
    let visit = Visit::to(&browser, &server, "/ui/models/words?task=echo");
    goes_live(&browser);
    browser.appears("#try textarea");
    browser.run("document.querySelector('#try textarea').value = 'unsent'; window.isSamePage = true;");
    let before = server.generation("words");
    server.write_config(&format!(
        "{WORDS}description = \"Counts words.\"\n[models.settings]\nshortest_word = 3\n"
    ));
    assert!(server.reload());
    let after = server.generation("words");
    assert!(after > before);
    shows(&browser, "generation", |text| {
        text.starts_with(&format!("{after} "))
    });
    assert!(browser.text(".head").contains("Counts words."));
    assert_eq!(
        browser.run("return [window.isSamePage, document.querySelector('#try textarea').value]"),
        json!([true, "unsent"])
    );
    goes_live(&browser);
    browser.becomes(
        "one second of the new generation",
        "return document.querySelectorAll('#chart-rate canvas').length === 1",
    );
    // A reload that fails is shown while the model keeps serving.
    server.write_config(&format!("{WORDS}[models.settings]\nshortest_word = 101\n"));
    assert!(!server.reload());
    shows(&browser, "reload-error", |text| !text.is_empty());
    assert!(browser.text(".findings").contains("the last reload failed"));
    visit.finish();
}

#[test]
fn a_key_is_asked_for_and_decides_what_is_shown() {
    let Some(browser) = Browser::start() else { return };
    let hash = |key: &str| inference_server::digest::Digest::of(key.as_bytes());
    let keys = |models: &str| {
        format!(
            "[[key]]\nname = \"search\"\nhash = \"sha256:{}\"\nmodels = [{models}]\n",
            hash("infkey_of_search")
        )
    };
    let scenario = Scenario::new(&format!(
        "[server]\nadmin_key = \"{ADMIN_KEY}\"\napi_keys_file = \"keys.toml\"\n{WORDS}\
         [[models]]\nname = \"other\"\nplugin = \"template\"\n"
    ));
    let file = scenario.dir().join("keys.toml");
    std::fs::write(&file, keys("\"words\"")).expect("the file can be written");
    let server = scenario.start();
    let origin = format!("http://{}", server.address());
    browser.open(&format!("{origin}/"));
    let sign_in = |key: &str| {
        browser.appears("input[type=password]");
        browser.run(&format!(
            "document.querySelector('input[type=password]').value = {}",
            json!(key)
        ));
        browser.click("button.primary");
    };
    sign_in("another-key");
    assert_eq!(browser.text("[role=alert]"), "invalid API key");
    sign_in("infkey_of_search");
    goes_live(&browser);
    assert_eq!(browser.text(".user"), "search");
    let listed = "return [...document.querySelectorAll('table.models th a')].map(a => a.innerText).join()";
    assert_eq!(browser.run(listed), json!("words"));
    assert_eq!(
        browser.run("return document.cookie"),
        json!(""),
        "scripts cannot read the cookie"
    );
    // The cookie also runs tasks.
    browser.click("table.models th a");
    browser.appears("#try textarea, #try .item");
    assert_eq!(
        browser.run("return !!document.getElementById('reload')"),
        json!(false)
    );
    assert!(send(&browser).contains("to be"));
    browser.click("#try summary");
    assert!(
        browser
            .text("#try-code")
            .contains("authorization: Bearer $INFERENCE_KEY")
    );
    // Removing the key ends the session, and the page asks for another one.
    std::fs::write(&file, "").expect("the file can be written");
    assert!(server.reload());
    browser.appears("input[type=password]");
    sign_in(ADMIN_KEY);
    goes_live(&browser);
    assert_eq!(browser.run(listed), json!("other,words"));
    browser.open(&format!("{origin}/ui/models/words"));
    let before = server.generation("words");
    browser.click("#reload");
    shows(&browser, "reload-result", |text| text == "Reloaded.");
    assert!(server.generation("words") >= before);
    browser.click(".session button");
    browser.appears("input[type=password]");
}

/// Reads a stream of events for as long as `part` is missing, and returns what it has sent.
fn read_until(stream: &mut TcpStream, part: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut received = String::new();
    let mut buffer = [0; 4096];
    while !received.contains(part) {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => received.push_str(&String::from_utf8_lossy(&buffer[..count])),
            other => panic!("no {part:?} before {other:?}: {received}"),
        }
    }
    received
}

fn open_stream(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("it reads");
    stream
}

#[test]
fn a_page_of_a_busy_server_receives_at_most_one_kilobyte_per_second() {
    let models: String = (0..40)
        .map(|number| format!("[[models]]\nname = \"m{number}\"\nplugin = \"template\"\n"))
        .collect();
    let server = Scenario::new(&models).start();
    let loads: Vec<Load> = (0..8)
        .map(|number| {
            let path = format!("/v1/models/m{number}/tasks/echo/predict");
            Load::start(1, server.address(), &path, "{\"input\":\"a\"}")
        })
        .collect();
    for path in ["/ui/events", "/ui/events?model=m0&task=echo"] {
        let mut stream = open_stream(&server, path);
        // Ten events, which take nine seconds.
        let mut received = read_until(&mut stream, "\r\n\r\n");
        while received.matches("data: ").count() < 10 {
            received.push_str(&read_until(&mut stream, "\n"));
        }
        let events: Vec<&str> = received.split("data: ").skip(1).take(9).collect();
        for event in events {
            assert!(event.len() <= 1040, "{path}: {} bytes: {event}", event.len());
        }
        if path.contains("model=") {
            assert!(received.contains("\"p\":["), "{received}");
        }
    }
    for load in loads {
        assert_eq!(load.stop(), [""; 0]);
    }
}

#[test]
fn streams_end_at_shutdown_over_both_versions_of_http() {
    let mut server = Scenario::new(&format!(
        "[server]\nshutdown_delay = \"0s\"\ndrain_timeout = \"5m\"\n{WORDS}"
    ))
    .start();
    let mut stream = open_stream(&server, "/ui/events");
    read_until(&mut stream, "data: ");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut client = Http2::connect(server.address()).await;
        let (reply, _open) = client.begin("GET", "/ui/events", &[]).await.expect("a stream");
        let mut body = reply.await.expect("a reply").into_body();
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains("data: ") {
            let data = body.data().await.expect("the stream is open").expect("data");
            received.extend_from_slice(&data);
        }
        server.signal(Signal::TERM);
        while let Some(Ok(_)) = body.data().await {}
    });
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"));
    assert!(server.wait_for_exit().success());
}

/// The pages of which pictures are in the README, with the width of the window.
const PICTURES: [(&str, &str, u32, u32); 2] = [
    ("overview", "/ui/", 1180, 800),
    ("model", "/ui/models/digits?task=classify", 1180, 1000),
];

/// Maximum size of a picture in bytes.
const MAX_PICTURE: usize = 150_000;

/// Takes pictures of the example models under load. With `INFERENCE_SCREENSHOTS=1`, it replaces those of the repository.
#[test]
fn pictures_of_the_page_are_small() {
    let Some(browser) = Browser::start() else { return };
    plugins::library("onnx");
    let server = Scenario::of_the_repository().start();
    let image = std::fs::read(repository().join("config/digits/samples/digit-7-8x8.png")).expect("a file");
    let digits = json!({"input": {"b64": STANDARD.encode(image), "media_type": "image/png"}}).to_string();
    let loads = [
        Load::start(
            3,
            server.address(),
            "/v1/models/digits/tasks/classify/predict",
            &digits,
        ),
        Load::start(
            1,
            server.address(),
            "/v1/models/text/tasks/echo/predict",
            "{\"input\":\"to be\"}",
        ),
    ];
    let is_kept = std::env::var("INFERENCE_SCREENSHOTS").is_ok_and(|value| value == "1");
    for (name, path, width, height) in PICTURES {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", &size);
        let visit = Visit::to(&browser, &server, path);
        goes_live(&browser);
        browser.becomes(
            "figures of the last ten seconds",
            "const e = document.getElementById('t-requests') ?? document.getElementById('f-requests'); \
             return e.innerText !== '0'",
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
