//! Traces: the context of clients, spans at a real collector, and what happens without one.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value as Json, json};

use crate::harness::collector::{Collector, Exported, Otlp};
use crate::harness::grpc::Grpc;
use crate::harness::misbehave::{echoes, perform};
use crate::harness::raw::Raw;
use crate::harness::tls::Authority;
use crate::harness::{Reply, Scenario, Server, Signal, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A gRPC message of `ModelInfer` for the task `m.embed` with the text "to be".
const EMBED: &[u8] =
    b"\0\0\0\0\x27\x0a\x07m.embed\x2a\x11\x0a\x04TEXT\x12\x05BYTES\x1a\x02\x01\x01\x3a\x09\x05\0\0\0to be";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

/// A scenario with the model `m` whose spans are sent after a moment.
fn scenario(collector: &Collector, protocol: Otlp, lines: &str) -> Scenario {
    let (url, name) = (collector.url(), protocol.name());
    Scenario::new(&format!(
        "[tracing]\nendpoint = \"{url}\"\nprotocol = \"{name}\"\n{lines}\n"
    ))
    .env("OTEL_BSP_SCHEDULE_DELAY", "20")
}

fn model(isolation: &str, settings: &str) -> String {
    format!(
        "\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"{isolation}\"\n\n[models.settings]\n{settings}\n"
    )
}

fn start(collector: &Collector, protocol: Otlp, lines: &str) -> Server {
    let model = model("thread", "batch_ms = 5");
    scenario(collector, protocol, &format!("{lines}\n{model}")).start()
}

fn predict(server: &Server, task: &str, headers: &[(&str, &str)], inputs: &Json) -> Reply {
    let path = format!("/v1/models/m/tasks/{task}/predict");
    let call = server.request("POST", &path);
    let call = headers
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value));
    call.json(&json!({ "inputs": inputs })).send()
}

/// The stages in the header `server-timing`.
fn server_timing(reply: &Reply) -> BTreeMap<String, Duration> {
    let header = reply.header("server-timing").expect("a reply has the header");
    let stage = |stage: &str| {
        let (name, millis) = stage.split_once(";dur=").expect("a stage has a duration");
        let millis: f64 = millis.parse().expect("a duration is a number");
        (name.to_owned(), Duration::from_secs_f64(millis / 1e3))
    };
    header.split(", ").map(stage).collect()
}

#[track_caller]
fn named<'a>(spans: &'a [Exported], name: &str) -> &'a Exported {
    let mut named = spans.iter().filter(|span| span.name() == name);
    match (named.next(), named.next()) {
        (Some(span), None) => span,
        other => panic!("expected one span {name}, got {other:?}"),
    }
}

/// The trace in the header `traceresponse`.
#[track_caller]
fn traced_as(reply: &Reply) -> String {
    let header = reply.header("traceresponse").expect("the request is traced");
    let trace = header.split('-').nth(1).expect("a trace");
    assert!(header.ends_with("-01"), "{header}");
    trace.to_owned()
}

#[test]
fn a_request_is_exported_with_its_stages_whose_times_are_those_of_the_reply() {
    for protocol in [Otlp::Grpc, Otlp::Http] {
        let collector = Collector::start(protocol);
        let server = start(
            &collector,
            protocol,
            "headers = [\"x-tenant=blue\"]\nservice_name = \"words\"",
        );
        let parent = traceparent(TRACE, "01");
        let headers = [
            ("traceparent", parent.as_str()),
            ("tracestate", "vendor=value"),
            ("x-request-id", "request-of-trace"),
            ("user-agent", "test/1"),
        ];
        let reply = predict(&server, "embed", &headers, &json!(["to be", "or not to be"])).expect(200);
        let spans = collector.wait_for_trace(TRACE, 1);

        let request = named(&spans, "POST /v1/models/{model}/tasks/{task}/predict");
        let [_, id, parent] = request.ids();
        assert_eq!(parent, PARENT);
        assert_eq!(
            reply.header("traceresponse"),
            Some(format!("00-{TRACE}-{id}-01").as_str())
        );
        assert_eq!(request.trace_state(), "vendor=value");
        for (key, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/v1/models/{model}/tasks/{task}/predict"),
            ("url.path", "/v1/models/m/tasks/embed/predict"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
            ("user_agent.original", "test/1"),
            ("inference.model", "m"),
            ("inference.task", "embed"),
            ("inference.protocol", "native"),
            ("inference.request.id", "request-of-trace"),
            ("inference.items", "2"),
            ("inference.weight", "6"),
        ] {
            assert_eq!(
                request.attribute(key).as_deref(),
                Some(value),
                "{protocol:?} {key}"
            );
        }

        let batches: Vec<&Exported> = spans.iter().filter(|span| span.name() == "batch").collect();
        for batch in &batches {
            assert_eq!(batch.attribute("inference.batch.worker").as_deref(), Some("0"));
            assert!(batch.attribute("inference.batch.reason").is_some());
            assert_eq!(batch.links(), std::slice::from_ref(&id));
        }
        let timing = server_timing(&reply);
        let stages = ["prepare", "queue", "encode"].map(|stage| (stage, named(&spans, stage).took()));
        let inference = batches.iter().map(|batch| batch.took()).sum();
        for (stage, took) in stages.into_iter().chain([("inference", inference)]) {
            let in_reply = timing[stage];
            let difference = took.abs_diff(in_reply);
            // The header is rounded to microseconds.
            let allowed = in_reply / 100 + Duration::from_micros(1);
            assert!(
                difference <= allowed,
                "{stage}: {took:?} in the span, {in_reply:?} in the reply"
            );
        }
        let (start, end) = request.times();
        for stage in spans.iter().filter(|span| !span.is_server()) {
            assert_eq!(stage.ids()[2], id, "{}", stage.name());
            let times = stage.times();
            assert!(
                start <= times.0 && times.1 <= end,
                "{} is outside of the request",
                stage.name()
            );
        }

        let resource = collector.resource();
        assert_eq!(resource["service.name"], "words");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(collector.header("x-tenant").as_deref(), Some("blue"));
        server.shut_down();
    }
}

#[test]
fn variables_take_precedence_over_the_file_and_spans_can_be_compressed() {
    let (collector, unused) = (Collector::start(Otlp::Http), Collector::start(Otlp::Grpc));
    let server = scenario(&unused, Otlp::Grpc, &model("thread", ""))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=green%20one")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_SERVICE_NAME", "named")
        .start();
    let reply = predict(&server, "text", &[], &echoes([1])).expect(200);
    let spans = collector.wait_for_trace(&traced_as(&reply), 1);
    assert_eq!(
        named(&spans, "batch")
            .attribute("inference.batch.size")
            .as_deref(),
        Some("1")
    );
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "named");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(collector.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(collector.header("x-tenant").as_deref(), Some("green one"));
    assert!(unused.spans().is_empty());
}

#[test]
fn requests_in_all_protocols_and_to_worker_processes_are_traced() {
    let collector = Collector::start(Otlp::Grpc);
    let server = scenario(&collector, Otlp::Grpc, &model("process", "")).start();
    for (path, body, protocol) in [
        (
            "/v1/models/m/tasks/embed/predict",
            json!({"inputs": ["to be"]}),
            "native",
        ),
        (
            "/v1/models/m.embed:predict",
            json!({"instances": ["to be"]}),
            "v1",
        ),
        (
            "/v2/models/m.embed/infer",
            json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}]}),
            "v2",
        ),
        (
            "/v1/embeddings",
            json!({"model": "m.embed", "input": "to be"}),
            "openai",
        ),
    ] {
        let reply = server.post(path, &body).expect(200);
        let spans = collector.wait_for_trace(&traced_as(&reply), 1);
        let names: Vec<&str> = spans[1..].iter().map(Exported::name).collect();
        assert_eq!(names, ["prepare", "queue", "batch", "encode"], "{protocol}");
        assert_eq!(
            spans[0].attribute("inference.protocol").as_deref(),
            Some(protocol)
        );
        assert_eq!(spans[0].ids()[2], "", "{protocol} has no parent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_and_each_message_of_a_stream_are_traced() {
    let collector = tokio::task::spawn_blocking(|| Collector::start(Otlp::Grpc)).await;
    let collector = collector.expect("the collector starts");
    let server = scenario(&collector, Otlp::Grpc, &model("thread", ""))
        .argument("--grpc-port")
        .argument("0")
        .start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    for (method, trace, messages) in [
        ("ModelInfer", "00000000000000000000000000000001", 1),
        ("ModelStreamInfer", "00000000000000000000000000000002", 2),
    ] {
        let path = format!("/inference.GRPCInferenceService/{method}");
        let parent = traceparent(trace, "01");
        let message = Bytes::from(EMBED.repeat(messages));
        let (call, mut body) =
            client.begin_request(&path, message, |request| request.header("traceparent", parent));
        body.send_data(Bytes::new(), true).expect("the call is open");
        let answer = call.await.expect("an answer");
        let response = answer.headers().get("traceresponse").cloned();
        let mut answer = answer.into_body();
        while answer.data().await.is_some() {}
        let spans = collector.wait_for_trace(trace, messages);
        for request in spans.iter().filter(|span| span.is_server()) {
            assert_eq!(request.name(), path.trim_start_matches('/'));
            assert_eq!(request.ids()[2], PARENT);
            for (key, value) in [
                ("rpc.system", "grpc"),
                ("rpc.service", "inference.GRPCInferenceService"),
                ("rpc.method", method),
                ("rpc.grpc.status_code", "0"),
                ("inference.task", "embed"),
            ] {
                assert_eq!(request.attribute(key).as_deref(), Some(value), "{method} {key}");
            }
        }
        let batches = spans.iter().filter(|span| span.name() == "batch");
        assert_eq!(batches.count(), messages);
        assert_eq!(
            response.is_some(),
            messages == 1,
            "the head of a stream is sent first"
        );
    }
    tokio::task::spawn_blocking(move || drop((server, collector)))
        .await
        .expect("they stop");
}

#[test]
fn a_span_has_the_scheme_of_the_url_that_the_client_called() {
    let collector = Collector::start(Otlp::Http);
    let authority = Authority::new();
    let scenario = scenario(
        &collector,
        Otlp::Http,
        &format!(
            "[server.tls]\ncert = \"server.pem\"\nkey = \"server-key.pem\"\n{}",
            model("thread", "")
        ),
    );
    authority.issue().write(scenario.dir());
    let server = scenario.start_unready();
    server.wait_for_log("ready after");
    let mut secure =
        Raw::connect_secure(server.address(), authority.client(&[])).expect("the handshake succeeds");
    let body = json!({ "inputs": ["a"] }).to_string();
    secure.send(format!(
        "POST /v1/models/m/tasks/embed/predict HTTP/1.1\r\nhost: test\r\ntraceparent: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        traceparent(TRACE, "01"),
        body.len()
    ));
    assert_eq!(secure.reply().expect("a reply").status, 200);
    let scheme = |trace| {
        let spans = collector.wait_for_trace(trace, 1);
        let request = spans.iter().find(|span| span.is_server()).expect("a request");
        request.attribute("url.scheme")
    };
    assert_eq!(scheme(TRACE).as_deref(), Some("https"));

    let plain = start(&collector, Otlp::Http, "");
    for (trace, proto, expected) in [
        ("0000000000000000000000000000000a", "https", "https"),
        ("0000000000000000000000000000000b", "http", "http"),
    ] {
        let parent = traceparent(trace, "01");
        let headers = [("traceparent", parent.as_str()), ("x-forwarded-proto", proto)];
        predict(&plain, "embed", &headers, &json!(["a"])).expect(200);
        assert_eq!(scheme(trace).as_deref(), Some(expected));
    }
}

#[test]
fn a_batch_is_linked_to_all_traced_requests_that_it_served() {
    let collector = Collector::start(Otlp::Http);
    let batching = "[models.batching]\npolicy = \"fixed\"\nmax_delay = \"20s\"\nmax_batch_size = 3\n";
    let lines = format!("{}\n{batching}", model("thread", ""));
    let server = scenario(&collector, Otlp::Http, &lines).start();
    let traces = [
        "00000000000000000000000000000001",
        "00000000000000000000000000000002",
    ];
    let send = |flags: &'static str, trace: &'static str| {
        server.in_background(move |client| {
            client
                .request("POST", "/v1/models/m/tasks/text/predict")
                .header("traceparent", &traceparent(trace, flags))
                .json(&json!({ "inputs": echoes([1]) }))
                .try_send()
        })
    };
    let sent = [send("01", traces[0]), send("01", traces[1]), send("00", TRACE)];
    for reply in sent {
        assert_eq!(reply.reply().report().batch_size(), 3);
    }
    let spans = traces.map(|trace| collector.wait_for_trace(trace, 1));
    let mut requests: Vec<String> = spans
        .iter()
        .flatten()
        .filter(|span| span.is_server())
        .map(|span| span.ids()[1].clone())
        .collect();
    requests.sort_unstable();
    for spans in &spans {
        let batch = named(spans, "batch");
        let mut links = batch.links();
        links.sort_unstable();
        assert_eq!(links, requests);
        assert_eq!(batch.attribute("inference.batch.size").as_deref(), Some("3"));
        assert_eq!(batch.attribute("inference.batch.reason").as_deref(), Some("full"));
    }
}

#[test]
fn the_client_and_the_sampler_decide_which_requests_are_traced() {
    let collector = Collector::start(Otlp::Http);
    let server = start(&collector, Otlp::Http, "sample_ratio = 0.0");
    let not_sampled = traceparent("00000000000000000000000000000009", "00");
    let malformed = "00-xyz-1-01";
    let sampled = traceparent("00000000000000000000000000000008", "01");
    for headers in [
        &[][..],
        &[("traceparent", not_sampled.as_str())],
        &[("traceparent", malformed)],
        // A trace has one parent.
        &[
            ("traceparent", sampled.as_str()),
            ("traceparent", sampled.as_str()),
        ],
    ] {
        let reply = predict(&server, "text", headers, &echoes([1])).expect(200);
        assert_eq!(reply.header("traceresponse"), None, "{headers:?}");
    }
    // Requests that do not run a task are not traced.
    let other = server
        .request("GET", "/v1/models")
        .header("traceparent", &sampled)
        .send();
    assert_eq!(other.expect(200).header("traceresponse"), None);
    let sampled = traceparent(TRACE, "01");
    predict(&server, "text", &[("traceparent", &sampled)], &echoes([1])).expect(200);
    let spans = collector.wait_for_trace(TRACE, 1);
    assert_eq!(
        collector.spans().len(),
        spans.len(),
        "only this request is traced"
    );

    let server = start(&collector, Otlp::Http, "");
    let reply = predict(&server, "text", &[("traceparent", malformed)], &echoes([1])).expect(200);
    let trace = traced_as(&reply);
    let spans = collector.wait_for_trace(&trace, 1);
    assert_eq!(spans[0].ids()[2], "", "an invalid context is ignored");
}

#[test]
fn a_request_that_fails_is_traced_as_far_as_it_came() {
    let collector = Collector::start(Otlp::Http);
    let server = start(&collector, Otlp::Http, "");
    let reply = predict(&server, "text", &[], &json!([perform("fail_batch", 1)])).expect(500);
    let spans = collector.wait_for_trace(&traced_as(&reply), 1);
    assert!(spans[0].has_failed());
    assert_eq!(spans[0].attribute("error.type").as_deref(), Some("500"));
    named(&spans, "batch");
    let reply = server.predict("unknown", "text", &json!([1])).expect(404);
    let spans = collector.wait_for_trace(&traced_as(&reply), 1);
    assert_eq!(spans.len(), 1);
    assert!(!spans[0].has_failed());
    assert_eq!(
        spans[0].attribute("http.response.status_code").as_deref(),
        Some("404")
    );
    assert_eq!(spans[0].attribute("inference.model"), None);
}

#[test]
fn log_lines_of_a_request_have_the_id_of_its_trace() {
    for isolation in ["thread", "process"] {
        let collector = Collector::start(Otlp::Http);
        let server = scenario(&collector, Otlp::Http, &model(isolation, ""))
            .env("INFERENCE_LOG_FORMAT", "json")
            .start();
        // Also if the client has not sampled it.
        let parent = traceparent(TRACE, "00");
        let items = json!([perform("log", 1)]);
        predict(&server, "text", &[("traceparent", &parent)], &items).expect(200);
        let line = server.wait_for_log("the message of log");
        let line: Json = serde_json::from_str(&line).expect("a line is JSON");
        assert_eq!(line["traces"], TRACE, "{isolation}: {line}");
        let access = server.wait_for_log(&format!("\"trace_id\":\"{TRACE}\""));
        assert!(access.contains("\"target\":\"access\""), "{access}");

        let reply = predict(&server, "text", &[], &echoes([1])).expect(200);
        let trace = traced_as(&reply);
        server.wait_for_log(&format!("\"trace_id\":\"{trace}\""));
    }
}

#[test]
fn a_collector_that_is_down_is_reported_once_and_does_not_affect_requests() {
    for protocol in [Otlp::Grpc, Otlp::Http] {
        let dead = Collector::start(protocol);
        let address = dead.url()["http://".len()..].parse().expect("an address");
        let server = scenario(&dead, protocol, &model("thread", ""))
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "16")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
            .start();
        drop(dead);
        predict(&server, "text", &[], &echoes([1])).expect(200);
        server.wait_for_log("cannot export traces to ");
        for _ in 0..20 {
            predict(&server, "text", &[], &echoes([1])).expect(200);
        }
        eventually("spans to be dropped", || {
            let metrics = server.metrics();
            let has = |(name, ..): &(String, _, _)| name == "inference_trace_spans_dropped_total";
            metrics.samples().iter().any(has).then_some(()).ok_or("none")
        });
        let collector = Collector::start_at(protocol, address);
        server.wait_for_log("again; ");
        let reports = server.log().text().matches("cannot export traces to ").count();
        assert_eq!(reports, 1, "{protocol:?}");
        let reply = predict(&server, "text", &[], &echoes([1])).expect(200);
        collector.wait_for_trace(&traced_as(&reply), 1);
        assert_eq!(collector.resource()["service.name"], "inference-server");
    }
}

#[test]
fn a_server_that_shuts_down_exports_the_spans_that_are_left() {
    let collector = Collector::start(Otlp::Grpc);
    let mut server = scenario(&collector, Otlp::Grpc, &model("thread", ""))
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start();
    let reply = predict(&server, "text", &[], &echoes([1])).expect(200);
    assert!(collector.spans().is_empty());
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    collector.wait_for_trace(&traced_as(&reply), 1);
}

#[test]
fn spans_that_do_not_fill_a_batch_wait_for_the_delay() {
    let collector = Collector::start(Otlp::Http);
    let mut server = scenario(&collector, Otlp::Http, &model("thread", ""))
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        .start();
    // Each request has four spans: the request, its queue, batch and encoding.
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| predict(&server, "text", &[], &echoes([1])).expect(200));
        }
    });
    eventually("two batches to be exported", || {
        let count = collector.spans().len();
        (count == 16).then_some(()).ok_or(count)
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(collector.spans().len(), 20);
}

#[test]
fn a_shutdown_does_not_wait_long_for_a_collector_that_is_down() {
    let dead = Collector::start(Otlp::Http);
    let mut server = start(&dead, Otlp::Http, "");
    drop(dead);
    predict(&server, "text", &[], &echoes([1])).expect(200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn latency_histograms_have_exemplars_in_the_open_metrics_format() {
    let collector = Collector::start(Otlp::Http);
    let server = start(&collector, Otlp::Http, "");
    let open = |server: &Server| {
        let call = server.request("GET", "/metrics");
        let reply = call
            .header("accept", "application/openmetrics-text;version=1.0.0")
            .send();
        let reply = reply.expect(200);
        let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(reply.header("content-type"), Some(media_type));
        let text = reply.text();
        assert!(text.ends_with("# EOF\n"));
        text
    };
    let parent = traceparent(TRACE, "00");
    predict(&server, "text", &[("traceparent", &parent)], &echoes([1])).expect(200);
    assert!(!open(&server).contains("trace_id"), "it was not sampled");
    let parent = traceparent(TRACE, "01");
    predict(&server, "text", &[("traceparent", &parent)], &echoes([1])).expect(200);
    let text = open(&server);
    for histogram in ["inference_latency_seconds", "inference_seconds"] {
        let is_exemplar = |line: &&str| {
            let start = format!("{histogram}_bucket{{model=\"m\",task=\"text\",le=");
            line.starts_with(&start) && line.contains(&format!(" # {{trace_id=\"{TRACE}\"}} 0."))
        };
        let exemplars: Vec<&str> = text.lines().filter(is_exemplar).collect();
        assert_eq!(exemplars.len(), 1, "{histogram}: {text}");
        let (bucket, exemplar) = exemplars[0].split_once(" # ").expect("an exemplar");
        let bound = bucket
            .split("le=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let bound: f64 = bound.expect("a bound").parse().expect("a number");
        let value = exemplar.split(' ').nth(1).expect("a value");
        assert!(
            value.parse::<f64>().expect("a number") <= bound,
            "{}",
            exemplars[0]
        );
    }
    assert!(!server.get("/metrics").expect(200).text().contains("trace_id"));
}
