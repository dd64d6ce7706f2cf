//! A real Prometheus scrapes a server; the queries of the dashboard and the alerts work with what it finds.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::harness::misbehave::{echoes, perform};
use crate::harness::prometheus::Prometheus;
use crate::harness::shipped_proxy::deployment;
use crate::harness::tls::Authority;
use crate::harness::{Scenario, Server, eventually, rounds};
use crate::{memory_budget, tls};

/// Starts a server with two models in worker processes, one of which is calibrated, and sends requests to both.
fn start() -> Server {
    let scenario = Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\n\n\
         [models.settings]\nout_of_memory_above = 2\n\n{}",
        memory_budget::model("calibrated", "memory_budget = \"1GiB\"")
    ));
    memory_budget::write_calibration(scenario.dir(), "calibrated", 1);
    let server = scenario.start();
    send_requests(&server);
    for process in server.processes() {
        process.signal(crate::harness::Signal::KILL);
    }
    eventually("the worker process to be replaced", || {
        match server
            .request("GET", "/metrics")
            .send()
            .text()
            .contains("inference_worker_restarts_total{")
        {
            true => Ok(()),
            false => Err("not yet"),
        }
    });
    server.wait_until_ready();
    server
}

/// Sends requests that succeed, do not fit in memory at once, or fail.
fn send_requests(server: &Server) {
    server.predict("m", "text", &echoes([1, 2, 3, 4])).expect(200);
    server
        .predict("m", "text", &json!([perform("fail_batch", 1)]))
        .expect(500);
    let items = memory_budget::weights([8, 16]);
    server.predict("calibrated", "padded_memory", &items).expect(200);
}

/// Returns the alert rules.
pub(super) fn rules() -> String {
    std::fs::read_to_string(deployment("prometheus/alerts.yml")).expect("read the rules")
}

/// Returns the queries of the dashboard, with their panels.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deployment("grafana/dashboards/inference-server.json"));
    let dashboard: Json = serde_json::from_str(&text.expect("read the dashboard")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a panel has a title");
        for target in panel["targets"].as_array().expect("a panel has queries") {
            let expression = target["expr"].as_str().expect("a query has an expression");
            queries.push((title.to_owned(), expression.to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("a list") {
        let expression = annotation["expr"].as_str().expect("an expression");
        queries.push(("annotation".to_owned(), expression.to_owned()));
    }
    assert!(queries.len() > 30, "{}", queries.len());
    queries
}

/// Returns the metric names in a text: words with the prefixes of the server's metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let prefixes = ["inference_", "http_", "grpc_", "process_"];
    words
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

#[test]
fn every_metric_in_the_alerts_the_dashboard_and_the_autoscaler_exists() {
    let server = start();
    let metrics = server.metrics();
    // Families are in runbooks, samples in expressions.
    let mut exists: BTreeSet<String> = metrics.families().into_keys().collect();
    exists.extend(metrics.samples().iter().map(|(name, ..)| name.clone()));
    let secure = tls::start(&Authority::new(), "", "");
    exists.extend(tls::metrics(&secure).families().into_keys());
    let mut texts = vec![("alerts", rules())];
    for file in ["horizontalpodautoscaler.yaml", "prometheus-adapter.yaml"] {
        let text = std::fs::read_to_string(deployment("kubernetes").join(file)).expect("read a file");
        assert!(text.contains("inference_queue_items"), "{file}");
        texts.push(("kubernetes", text));
    }
    let queries = queries().into_iter().map(|(_, query)| query);
    texts.push(("dashboard", queries.collect::<Vec<_>>().join("\n")));
    for (place, text) in &texts {
        let names = metric_names(text);
        assert!(!names.is_empty(), "{place}");
        for name in names {
            assert!(exists.contains(name), "{place}: no metric `{name}`");
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_the_server_and_evaluates_every_query_of_the_dashboard() {
    let server = start();
    let Some(prometheus) = Prometheus::start(&[server.address()], &rules()) else {
        return;
    };
    // Every query gets data, even if it is about rare events.
    let scrapes = rounds(12, 120) as f64;
    eventually("Prometheus to scrape the server", || {
        send_requests(&server);
        match prometheus.query("sum(count_over_time(up[1h]))")[..] {
            [(_, count)] if count >= scrapes => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    });
    let down = prometheus.query("up == 0");
    assert!(down.is_empty(), "{down:?}");
    let targets = prometheus.api("targets", &[]);
    let target = &targets["activeTargets"][0];
    assert_eq!(target["lastError"], "", "{target:#}");

    let found = prometheus.api("label/__name__/values", &[]);
    let found: BTreeSet<&str> = found
        .as_array()
        .expect("a list of names")
        .iter()
        .filter_map(Json::as_str)
        .collect();
    for (name, ..) in server.metrics().samples() {
        assert!(found.contains(name.as_str()), "{name} was not scraped");
    }

    for (panel, query) in queries() {
        let query = query
            .replace("$__rate_interval", "5s")
            .replace("$instance", ".*")
            .replace("$model", ".*");
        let samples = prometheus.query(&query);
        // No reload happens, and counters that do not change between scrapes have no data at first.
        assert!(
            !samples.is_empty() || panel == "annotation",
            "panel {panel:?} has no data: {query}"
        );
    }

    let rules = prometheus.api("rules", &[]);
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .expect("a list of rules")
        .clone();
    assert!(rules.len() >= 15);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    // Only alerts about what this test provokes, and those after their `for`.
    let provoked = ["InferenceOutOfMemory", "InferenceRequestsFail"];
    let firing = prometheus.firing();
    assert!(
        firing.iter().all(|alert| provoked.contains(&alert.as_str())),
        "{firing:?}"
    );
}
