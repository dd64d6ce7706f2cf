//! The jobs on the page for operators, in a real browser.

use serde_json::{Value as Json, json};

use crate::harness::browser::Browser;
use crate::harness::misbehave::echoes;
use crate::harness::visit::Visit;
use crate::harness::{Scenario, Server, eventually, plugins};

const ADMIN_KEY: &str = "the-key-of-the-admin";

/// A model whose process exits if an input says so.
const MODELS: &str = "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\non_crash = \"fail\"\n\
                      restart_delay = \"1ms\"\n";

fn start(config: &str) -> Server {
    plugins::library("misbehave");
    Scenario::new(&format!("{config}\n{MODELS}")).start_unready()
}

/// Submits a job, and returns its id.
fn submit(server: &Server, inputs: &Json, headers: &[(&str, &str)]) -> String {
    let call = server
        .request("POST", "/v1/models/m/tasks/text/predict")
        .header("prefer", "respond-async")
        .json(&json!({ "inputs": inputs }));
    let call = headers
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value));
    let reply = call.send().expect(202).json();
    reply["id"].as_str().expect("a job has an id").to_owned()
}

fn wait_for_state(server: &Server, id: &str, state: &str) {
    eventually(state, || {
        let job = server.get(&format!("/v1/jobs/{id}")).expect(200).json();
        if job["state"] == state { Ok(()) } else { Err(job) }
    });
}

fn count_rows(browser: &Browser) -> Json {
    browser.run("return document.querySelectorAll('table.jobs tbody tr').length")
}

#[test]
fn jobs_are_followed_cancelled_and_retried() {
    let Some(browser) = Browser::start() else { return };
    let server = start("[jobs]\nmax_attempts = 2");
    server.wait_until_ready();
    let gate = server.dir().join("gate");
    let waiting = json!([{"do": "wait", "path": gate, "value": "waited"}]);
    let dead = submit(&server, &json!([{"do": "abort"}]), &[]);
    wait_for_state(&server, &dead, "failed");
    let rejected = submit(
        &server,
        &json!([{"do": "fail_item", "message": "<b>no</b>"}]),
        &[],
    );
    wait_for_state(&server, &rejected, "failed");
    let label = "nächtlich 🦀 <img src=x onerror=alert(1)>";
    let encoded = [("x-job-label", label)];
    let running = submit(&server, &waiting, &encoded);
    wait_for_state(&server, &running, "running");
    let later = submit(&server, &echoes([1, 2, 3]), &[("x-job-not-before", "1h")]);

    let visit = Visit::to(&browser, &server, "/ui/");
    browser.click(".bar nav a[href$='ui/jobs']");
    browser.goes_live();
    assert_eq!(count_rows(&browser), json!(4));
    for (cell, text) in [
        ("0s", "queued"),
        ("1s", "running"),
        ("2s", "failed"),
        ("3s", "failed"),
    ] {
        browser.shows(cell, |shown| shown == text);
    }
    browser.shows("0p", |text| text.contains("0 of 3 items"));
    browser.shows("3p", |text| text.contains("attempt 2 of 2"));
    browser.shows("2d", |text| text.contains("<b>no</b>"));
    assert_eq!(browser.text("table.jobs .label"), label);
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main b').length"),
        json!(0)
    );

    // Buttons can be pressed with the keyboard. The message gets the focus, so that it is read out.
    browser.run("document.querySelector('[name=cancel]').focus()");
    browser.press("\u{E007}");
    browser.shows("notice", |text| text == format!("Cancelled job {later}."));
    browser.shows("0s", |text| text == "cancelled");
    assert_eq!(browser.run("return document.activeElement.id"), json!("notice"));
    wait_for_state(&server, &later, "cancelled");

    browser.click("[name=retry]");
    browser.shows("notice", |text| text == format!("Job {dead} is queued again."));
    browser.goes_live();
    // Without loading the page again: the retried job waits for the running one, and both end.
    browser.run("window.isSamePage = true");
    std::fs::write(&gate, "").expect("the file can be written");
    browser.shows("1s", |text| text == "succeeded");
    browser.shows("3s", |text| text == "failed");
    browser.shows("1p", |text| text.contains("1 of 1 item"));
    let further = submit(&server, &echoes([1]), &[]);
    browser.shows("newer", |text| text.contains("newer jobs"));
    assert_eq!(browser.run("return window.isSamePage"), json!(true));
    browser.click("#show-newer");
    browser.becomes(
        "the further job",
        &format!("return document.body.innerText.includes('{further}')"),
    );
    assert_eq!(count_rows(&browser), json!(5));

    // A change that is no longer possible says why.
    browser.goes_live();
    browser.run(&format!(
        "const b = document.createElement('button'); b.setAttribute('form', 'change'); b.name = 'cancel'; \
         b.value = '{further}'; b.id = 'late'; document.querySelector('main').append(b)"
    ));
    wait_for_state(&server, &further, "succeeded");
    browser.click("#late");
    browser.shows("notice", |text| {
        text.contains("is succeeded: it has ended and cannot be cancelled")
    });

    // The filter is a form, which needs no script.
    browser.run("document.getElementById('state').value = 'failed'");
    browser.click("form.filter button");
    browser.becomes(
        "the failed jobs",
        "return location.search.includes('state=failed')",
    );
    assert_eq!(count_rows(&browser), json!(2));
    browser.run(&format!(
        "document.getElementById('label').value = {}",
        json!(label)
    ));
    browser.run("document.getElementById('state').value = ''");
    browser.click("form.filter button");
    browser.becomes(
        "the label",
        "return location.search.includes('label=n%C3%A4chtlich')",
    );
    assert_eq!(count_rows(&browser), json!(1));
    assert_eq!(
        browser.run("return document.getElementById('label').value"),
        json!(label)
    );
    visit.open("/ui/jobs?model=other");
    assert!(browser.text("main").contains("No job matches the filter."));
    visit.open("/ui/jobs?state=done");
    assert!(browser.text("#failure").contains("invalid value `done`"));
    visit.finish();
}

#[test]
fn many_jobs_are_shown_in_pages() {
    let Some(browser) = Browser::start() else { return };
    let server = start("");
    server.wait_until_ready();
    let mut ids: Vec<String> = (0..120)
        .map(|number| submit(&server, &echoes([number]), &[("x-job-not-before", "1h")]))
        .collect();
    let visit = Visit::to(&browser, &server, "/ui/jobs?state=queued");
    let listed = "return [...document.querySelectorAll('table.jobs code')].map(code => code.innerText)";
    let mut found = Vec::new();
    loop {
        let page = browser.run(listed);
        found.extend(page.as_array().expect("a list").iter().cloned());
        if browser.run("return !document.querySelector('.pages a[href*=cursor]')") == true {
            break;
        }
        let script = "const link = [...document.querySelectorAll('.pages a')].find(a => a.innerText === 'Older jobs'); \
                      if (!link) return false; link.click(); return true";
        if browser.run(script) == false {
            break;
        }
        browser.becomes(
            "the next page",
            &format!(
                "return document.querySelector('table.jobs code')?.innerText !== {}",
                page[0]
            ),
        );
    }
    // The order of jobs of the same millisecond is that of their ids.
    ids.sort_unstable();
    let expected: Vec<Json> = ids.iter().rev().map(|id| json!(id)).collect();
    assert_eq!(found, expected);
    browser.click(".pages a");
    browser.becomes("the newest jobs", "return !location.search.includes('cursor')");
    visit.finish();
}

#[test]
fn a_key_sees_its_own_jobs_and_the_admin_key_those_of_all() {
    let Some(browser) = Browser::start() else { return };
    let hash = |key: &str| inference_server::digest::Digest::of(key.as_bytes());
    let keys = ["search", "ads"].map(|name| {
        format!(
            "[[key]]\nname = \"{name}\"\nhash = \"sha256:{}\"\n",
            hash(&format!("infkey_of_{name}"))
        )
    });
    plugins::library("misbehave");
    let scenario = Scenario::new(&format!(
        "[server]\nadmin_key = \"{ADMIN_KEY}\"\napi_keys_file = \"keys.toml\"\n{MODELS}"
    ));
    std::fs::write(scenario.dir().join("keys.toml"), keys.concat()).expect("the file can be written");
    let server = scenario.start_unready();
    server.wait_until_ready();
    let of = |name: &str| {
        let key = format!("Bearer infkey_of_{name}");
        submit(
            &server,
            &echoes([1]),
            &[("authorization", &key), ("x-job-not-before", "1h")],
        )
    };
    let (of_search, of_ads) = (of("search"), of("ads"));
    // Signing in leads back to the page that was asked for.
    browser.open(&format!("http://{}/ui/jobs?state=queued", server.address()));
    browser.sign_in("infkey_of_search");
    browser.goes_live();
    assert_eq!(browser.run("return location.search"), json!("?state=queued"));
    assert_eq!(count_rows(&browser), json!(1));
    let text = browser.text("table.jobs");
    assert!(
        text.contains(&of_search) && !text.contains("key search"),
        "{text}"
    );
    // A job of another key cannot be changed.
    let status = browser.run_async(&format!(
        "const reply = await fetch('jobs', {{method: 'POST', body: new URLSearchParams({{cancel: '{of_ads}'}})}}); \
         return [reply.status, (await reply.text()).includes('unknown job')]"
    ));
    assert_eq!(status, json!([404, true]));
    browser.click(".session button");
    browser.open(&format!("http://{}/ui/jobs", server.address()));
    browser.sign_in(ADMIN_KEY);
    browser.goes_live();
    assert_eq!(count_rows(&browser), json!(2));
    let text = browser.text("table.jobs");
    for part in [&*of_search, "key search", &of_ads, "key ads"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    browser.click("[name=cancel]");
    browser.shows("0s", |text| text == "cancelled");
    assert_eq!(browser.problems(), [""; 0]);
}

#[test]
fn jobs_can_be_cancelled_without_scripts() {
    let Some(browser) = Browser::start() else { return };
    let server = start("");
    server.wait_until_ready();
    let id = submit(&server, &echoes([1]), &[("x-job-not-before", "1h")]);
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    let visit = Visit::to(&browser, &server, "/ui/jobs?state=queued,cancelled");
    assert_eq!(browser.text("#\\30 s"), "queued");
    browser.click("[name=cancel]");
    wait_for_state(&server, &id, "cancelled");
    browser.becomes(
        "the list",
        "return document.getElementById('0s').innerText === 'cancelled'",
    );
    assert_eq!(
        browser.run("return location.search"),
        json!("?state=queued%2Ccancelled")
    );
    visit.finish();
}

#[test]
fn a_server_without_jobs_has_no_such_page() {
    let server = start("[jobs]\nenabled = false");
    let page = server.get("/ui/").expect(200).text();
    assert!(!page.contains("ui/jobs"), "{page}");
    let missing = server.get("/ui/jobs").expect(404).text();
    assert!(missing.contains("this server has no jobs"), "{missing}");
    server.get("/ui/jobs/events?ids=").expect(404);
}
