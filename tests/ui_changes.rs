//! What an open page for operators does while the server changes: models that are removed, crash or fail, and a restart.

use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::misbehave::echoes;
use crate::harness::visit::Visit;
use crate::harness::{Scenario, Server, eventually, plugins};
use crate::memory_budget;

const WORDS: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\n";

#[test]
fn the_page_of_a_model_that_is_removed_says_so() {
    let Some(browser) = Browser::start() else { return };
    let other = "[[models]]\nname = \"other\"\nplugin = \"template\"\n";
    let server = Scenario::new(&format!("{WORDS}{other}")).start();
    let visit = Visit::to(&browser, &server, "/ui/models/words");
    browser.goes_live();
    server.write_config(other);
    assert!(server.reload());
    let text = browser.shows("failure", |text| !text.is_empty());
    assert!(text.contains("`words`"), "{text}");
    assert_eq!(
        browser.text("#connection"),
        "not available",
        "the page no longer gets events"
    );
    browser.click("main a");
    browser.goes_live();
    // The overview drops the row of a model while it is open.
    server.write_config(&format!("{WORDS}{other}"));
    assert!(server.reload());
    let listed =
        "return [...document.querySelectorAll('table.models th a')].map(a => a.innerText).join() === ";
    browser.becomes("both models", &format!("{listed}'other,words'"));
    server.write_config(WORDS);
    assert!(server.reload());
    browser.becomes("one model", &format!("{listed}'words'"));
    visit.finish();
}

/// Starts a server on a port that another one can use afterwards.
fn start_at(address: SocketAddr) -> Server {
    Scenario::new(WORDS)
        .argument("--port")
        .argument(address.port().to_string())
        .start()
}

#[test]
fn a_page_reconnects_to_a_server_that_was_restarted_and_says_so() {
    let Some(browser) = Browser::start() else { return };
    let address = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        listener.local_addr().expect("it has an address")
    };
    let server = start_at(address);
    let visit = Visit::to(&browser, &server, "/ui/models/words?task=echo");
    browser.goes_live();
    browser.appears("#try textarea");
    browser.run("document.querySelector('#try textarea').value = 'unsent'");
    server.shut_down();
    browser.shows("offline", |text| {
        text.starts_with("No connection to the server since ") && text.ends_with("Reconnecting …")
    });
    assert_eq!(browser.text("#connection"), "reconnecting");
    let server = start_at(address);
    browser.goes_live();
    browser.shows("offline", |text| text.starts_with("Reconnected at "));
    assert_eq!(
        browser.run("return document.querySelector('#try textarea').value"),
        json!("unsent")
    );
    // The figures are those of the new server.
    server.predict("words", "echo", &json!(["a"])).expect(200);
    browser.shows("f-requests", |text| text != "0");
    // Failed attempts to connect are logged by the browser.
    assert_eq!(browser.origins(), json!(visit.origin));
}

#[test]
fn worker_processes_that_are_lost_are_counted_one_by_one() {
    let Some(browser) = Browser::start() else { return };
    plugins::library("misbehave");
    let server = Scenario::new(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\nworkers = 2\nrestart_delay = \"1ms\"\n",
    )
    .start();
    let visit = Visit::to(&browser, &server, "/ui/models/m?task=text");
    browser.goes_live();
    let restarts = "return [...document.querySelectorAll('table.processes tbody tr')].map(row => Number(row.cells[2].innerText))";
    assert_eq!(browser.run(restarts), json!([0, 0]));
    browser.becomes(
        "a timeline with a row for each process",
        "return /last second: [0-9]+%, [0-9]+%/.test(document.getElementById('chart-workers').getAttribute('aria-label'))",
    );
    browser.run(
        "window.seen = ''; new MutationObserver(() => { \
         window.seen += document.getElementById('chart-workers').getAttribute('aria-label'); \
         }).observe(document.getElementById('chart-workers'), {attributes: true, attributeFilter: ['aria-label']})",
    );
    let failed = server.predict("m", "text", &json!([{"do": "abort"}]));
    assert_ne!(failed.status, 200);
    browser.becomes(
        "restarts",
        "return [...document.querySelectorAll('table.processes tbody tr')] \
         .reduce((sum, row) => sum + Number(row.cells[2].innerText), 0) >= 1",
    );
    browser.becomes(
        "a process that is restarting",
        "return window.seen.includes('restarting')",
    );
    eventually("both processes to serve", || {
        let found = server.processes().len();
        (found == 2).then_some(()).ok_or(found)
    });
    let states = "return [...document.querySelectorAll('table.processes .badge')].map(b => b.innerText).join() === 'serving,serving'";
    browser.becomes("both processes to serve", states);
    browser.shows("workers", |text| {
        text.contains("2 of 2 processes") && text.contains("restarted")
    });
    // The request that failed is listed with the reason for operators only, and no key makes everyone a client.
    let row = browser.text("#q0");
    assert!(row.contains("native, 1 item"), "{row}");
    visit.open("/ui/");
    browser.shows("0w", |text| {
        text.contains("2 of 2 processes") && text.contains("restarted")
    });
    visit.finish();
}

#[test]
fn a_model_that_fails_is_explained_and_its_name_is_only_text() {
    let Some(browser) = Browser::start() else { return };
    let hostile = "<img src=x onerror=document.title=1>";
    let server = Scenario::new(&format!(
        "{WORDS}description = \"{hostile} `code`\"\n[models.settings]\nshortest_word = 3\n\
         [[models]]\nname = \"broken\"\nplugin = \"{hostile}\"\n"
    ))
    .start_unready();
    eventually("both models to be loaded or not", || {
        let states = ["broken", "words"].map(|name| server.model(name)["state"].clone());
        (states == ["failed", "ready"]).then_some(()).ok_or(states)
    });
    let visit = Visit::to(&browser, &server, "/ui/models/broken");
    browser.goes_live();
    assert_eq!(browser.text("#state"), "failed");
    assert!(
        browser
            .text(".findings")
            .contains("the model could not be loaded")
    );
    assert_eq!(
        browser.run("return !!document.getElementById('try')"),
        json!(false)
    );
    visit.open("/ui/models/words?task=echo");
    browser.goes_live();
    assert!(browser.text(".head").contains(&format!("{hostile} code")));
    // A reload that fails, with a message that has the text of the configuration.
    server.write_config(&format!(
        "{WORDS}[models.settings]\nshortest_word = \"{hostile}\"\n"
    ));
    assert!(!server.reload());
    browser.shows("reload-error", |text| !text.is_empty());
    // Answers and requests with markup.
    browser.appears("#try textarea");
    browser.run(&format!(
        "document.querySelector('#try textarea').value = {}",
        json!(hostile)
    ));
    browser.click("#try button.primary");
    browser.becomes(
        "the answer",
        "return !!document.querySelector('#answers .answer')",
    );
    assert!(browser.text("#answers").contains(hostile));
    visit.open("/ui/");
    browser.goes_live();
    browser.shows("1x", |text| text.starts_with("last reload failed: "));
    let injected = "return document.querySelectorAll('main img').length + ' ' + (document.title === '1')";
    assert_eq!(browser.run(injected), json!("0 false"));
    visit.finish();
}

#[test]
fn fifty_models_are_listed_with_their_figures() {
    let Some(browser) = Browser::start() else { return };
    plugins::library("misbehave");
    let models: String = (0..50)
        .map(|number| format!("[[models]]\nname = \"model-{number:02}\"\nplugin = \"misbehave\"\n"))
        .collect();
    let server = Scenario::new(&models).start();
    let visit = Visit::to(&browser, &server, "/ui/");
    browser.goes_live();
    assert_eq!(browser.text("#t-ready"), "50 / 50");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                server.predict("model-49", "text", &echoes([1])).expect(200);
            }
        });
        // All cells get their turn within the size of an event.
        browser.shows("49r", |text| text != "0" && text != "–");
        browser.shows("49l", |text| text != "–");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let failing = json!([{"do": "fail_item", "message": "no"}]);
    server.predict("model-07", "text", &failing).expect(422);
    browser.shows("7e", |text| text != "0");
    visit.finish();
}

#[test]
fn the_plot_of_the_memory_of_batches_follows_the_batches() {
    let Some(browser) = Browser::start() else { return };
    let scenario = Scenario::new(&memory_budget::model("m", "memory_budget = \"96MiB\""));
    memory_budget::write_calibration(scenario.dir(), "m", 1);
    let server = scenario.start();
    let path = "/ui/models/m?task=padded_memory";
    let visit = Visit::to(&browser, &server, path);
    browser.goes_live();
    let dots = "return [...document.querySelectorAll('.frontier .batch')].map(path => path.getAttribute('d')).join('')";
    let line = "return document.querySelector('.frontier .limit').getAttribute('d')";
    assert!(browser.text("#m0").contains("96"), "{}", browser.text("#m0"));
    let before = (browser.run(dots), browser.run(line));
    assert!(
        before.1.as_str().is_some_and(|line| line.starts_with('M')),
        "{before:?}"
    );
    let items = memory_budget::weights([8, 16, 64]);
    server.predict("m", "padded_memory", &items).expect(200);
    browser.becomes("a dot for the batch", &format!("{dots} !== {}", before.0));
    browser.shows("m3", |text| text != "–");
    // A dot is part of the drawing.
    browser.becomes(
        "a dot that is drawn",
        "return [...document.querySelectorAll('.frontier .batch')].some(path => \
         path.namespaceURI === 'http://www.w3.org/2000/svg' && path.getAttribute('d').includes('h0'))",
    );
    visit.finish();
}
