//! The page for operators, in a real browser.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::browser::{Browser, PATIENCE};
use crate::harness::eventually::eventually_within;
use crate::harness::http2::Http2;
use crate::harness::load::Load;
use crate::harness::plugins::repository;
use crate::harness::visit::Visit;
use crate::harness::{Scenario, Server, Signal};

const ADMIN_KEY: &str = "the-key-of-the-admin";
const WORDS: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";

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
    browser.goes_live();
    let path = "/v1/models/words/tasks/echo/predict";
    let load = Load::start(2, server.address(), path, "{\"input\":\"a\"}");
    browser.shows("1r", |text| text.parse().is_ok_and(|rate: f64| rate > 1.0));
    browser.shows("1m", |text| text.ends_with("ms") || text.ends_with("µs"));
    browser.shows("t-requests", |text| text != "0");
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
    browser.goes_live();
    browser.shows("f-requests", |text| {
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
    browser.shows("e0", |text| {
        text.contains("A batch takes") || text.contains("Larger batches")
    });
    assert_eq!(load.stop(), [""; 0]);
    visit.open("/ui/models/words?task=stats");
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

    visit.open("/ui/models/words?task=stats");
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

    // Many requests at the same time.
    type_into_last("{\"text\": \"one two three\"}");
    browser.run("document.getElementById('try-count').value = 20");
    browser.click("#try button.primary");
    browser.becomes(
        "twenty replies",
        "return /^20 requests answered; median [0-9.]+ ms, slowest [0-9.]+ ms$/.test( \
         document.querySelector('#try [role=status].muted').textContent)",
    );
    browser.run("document.getElementById('try-count').value = 1000");
    browser.click("#try button.primary");
    browser.becomes(
        "an invalid number of requests",
        "return document.querySelector('#try [role=status].bad')?.textContent \
         === 'number of requests: expected an integer from 1 to 100'",
    );
    browser.run("document.getElementById('try-count').value = 1");
    type_into_last("{\"text\": \"\"}");

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
    visit.open("/ui/models/digits?task=embed");
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
    browser.goes_live();
    browser.appears("#try textarea");
    browser.run("document.querySelector('#try textarea').value = 'unsent'; window.isSamePage = true;");
    let before = server.generation("words");
    server.write_config(&format!(
        "{WORDS}description = \"Counts words.\"\n[models.settings]\nshortest_word = 3\n"
    ));
    assert!(server.reload());
    let after = server.generation("words");
    assert!(after > before);
    browser.shows("generation", |text| text.starts_with(&format!("{after} ")));
    assert!(browser.text(".head").contains("Counts words."));
    assert_eq!(
        browser.run("return [window.isSamePage, document.querySelector('#try textarea').value]"),
        json!([true, "unsent"])
    );
    browser.goes_live();
    browser.becomes(
        "one second of the new generation",
        "return document.querySelectorAll('#chart-rate canvas').length === 1",
    );
    // A reload that fails is shown while the model keeps serving.
    server.write_config(&format!("{WORDS}[models.settings]\nshortest_word = 101\n"));
    assert!(!server.reload());
    browser.shows("reload-error", |text| !text.is_empty());
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
    browser.sign_in("another-key");
    assert_eq!(browser.text("[role=alert]"), "invalid API key");
    browser.sign_in("infkey_of_search");
    browser.goes_live();
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
    assert_eq!(
        browser.text("[role=alert]#problem"),
        "The session has ended. Sign in again."
    );
    browser.sign_in(ADMIN_KEY);
    browser.goes_live();
    assert_eq!(
        browser.run("return location.pathname"),
        json!("/ui/models/words"),
        "signing in leads back to the page"
    );
    browser.open(&format!("{origin}/ui/"));
    assert_eq!(browser.run(listed), json!("other,words"));
    browser.open(&format!("{origin}/ui/models/words"));
    let before = server.generation("words");
    browser.click("#reload");
    browser.shows("reload-result", |text| text == "Reloaded.");
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
