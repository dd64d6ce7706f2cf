//! Traces and the log of slow requests: the table `[tracing]`, the variables of OpenTelemetry, and `slow_request_log`.

use std::time::Duration;

use super::file;
use crate::config::{CollectorSettings, OtlpProtocol, SamplingSettings, SlowRequests, TracingSettings};

const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

fn tracing(text: &str, variables: &[(&str, &str)]) -> TracingSettings {
    let settings = file(text).variables(variables).settings();
    assert_eq!(
        settings.warnings.len(),
        1,
        "only that there are no models: {:?}",
        settings.warnings
    );
    settings.tracing
}

fn collector(text: &str, variables: &[(&str, &str)]) -> CollectorSettings {
    tracing(text, variables).collector.expect("traces are exported")
}

fn errors(variables: &[(&str, &str)]) -> String {
    let all: Vec<(&str, &str)> = [HTTP].iter().chain(variables).copied().collect();
    file("").variables(&all).errors()
}

#[test]
fn requests_are_traced_only_if_there_is_an_endpoint() {
    assert_eq!(tracing("", &[]).collector, None);
    assert_eq!(
        tracing("", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).collector,
        None
    );
    for disabled in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(tracing("", &[HTTP, disabled]).collector, None);
    }
    let default = collector("[tracing]\nendpoint = \"http://c:1\"\n", &[]);
    assert_eq!(default.endpoint, "http://c:1/v1/traces");
    assert_eq!(default.protocol, OtlpProtocol::Http);
    assert_eq!(default.timeout, Duration::from_secs(10));
}

#[test]
fn the_environment_takes_precedence_over_the_file() {
    let text = "[tracing]\nendpoint = \"http://file:1\"\nprotocol = \"grpc\"\nheaders = [\"a=file\"]\ntimeout = \"1s\"\n\
                service_name = \"file\"\nsample_ratio = 0.5\n";
    let (from_file, of_file) = (tracing(text, &[]), collector(text, &[]));
    assert_eq!(of_file.endpoint, "http://file:1");
    assert_eq!(of_file.protocol, OtlpProtocol::Grpc);
    assert_eq!(of_file.timeout, Duration::from_secs(1));
    assert_eq!(of_file.headers[0].1.expose(), "file");
    assert_eq!(from_file.resource["service.name"], "file");
    let sampling = |follows_parent, ratio| SamplingSettings {
        follows_parent,
        ratio,
    };
    assert_eq!(from_file.sampling, sampling(true, 0.5));

    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "B=x%20y, c=d"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=x,deployment.environment.name=a%2Cb",
        ),
        ("OTEL_SERVICE_NAME", "variable"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
    ];
    let (from_environment, of_environment) = (tracing(text, &variables), collector(text, &variables));
    assert_eq!(of_environment.endpoint, "http://general:1/v1/traces");
    assert_eq!(of_environment.protocol, OtlpProtocol::Http);
    assert_eq!(of_environment.timeout, Duration::from_millis(2500));
    assert!(of_environment.gzip);
    let headers = of_environment.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(headers, [("b", "x y"), ("c", "d")]);
    assert_eq!(from_environment.resource["service.name"], "variable");
    assert_eq!(from_environment.resource["deployment.environment.name"], "a,b");
    assert_eq!(from_environment.sampling, sampling(false, 0.25));
    assert_eq!(from_environment.batches.delay, Duration::from_millis(100));
    assert_eq!(from_environment.batches.max_batch_size.get(), 64);

    let specific = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://specific:1/path"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ];
    let variables: Vec<_> = variables.into_iter().chain(specific).collect();
    assert_eq!(collector(text, &variables).endpoint, "http://specific:1/path");
}

#[test]
fn an_endpoint_for_grpc_needs_no_scheme_if_it_is_insecure() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
    ];
    assert_eq!(collector("", &variables).endpoint, "http://collector:4317");
    assert!(
        file("")
            .variables(&variables[..2])
            .errors()
            .contains("start with `http://`")
    );
}

#[test]
fn each_standard_sampler_is_supported() {
    for (name, argument, follows_parent, ratio) in [
        ("always_on", "", false, 1.0),
        ("always_off", "", false, 0.0),
        ("traceidratio", "", false, 1.0),
        ("parentbased_always_on", "", true, 1.0),
        ("parentbased_always_off", "0.5", true, 0.0),
        ("parentbased_traceidratio", "0.01", true, 0.01),
    ] {
        let variables = [
            HTTP,
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];
        let expected = SamplingSettings {
            follows_parent,
            ratio,
        };
        assert_eq!(tracing("", &variables).sampling, expected, "{name}");
    }
}

#[test]
fn a_variable_with_an_invalid_value_is_an_error_if_traces_are_exported() {
    for (name, value, expected) in [
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://c",
            "TLS to the collector is not supported",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://u:p@c",
            "set credentials with `headers`",
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "expected \"grpc\" or \"http/protobuf\"",
        ),
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "zstd",
            "expected \"gzip\" or \"none\"",
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            "expected a number of milliseconds",
        ),
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected \"otlp\" or \"none\""),
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            "expected `always_on`, `always_off` or `traceidratio`",
        ),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "expected KEY=VALUE pairs"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "expected KEY=VALUE pairs"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "expected an integer from 1"),
        (
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "4096",
            "expected at most OTEL_BSP_MAX_QUEUE_SIZE (2048)",
        ),
    ] {
        let text = errors(&[(name, value)]);
        assert!(
            text.contains(name) && text.contains(expected),
            "{name}={value}: {text}"
        );
        let off = [(name, value), ("OTEL_SDK_DISABLED", "true")];
        assert_eq!(tracing("", &off).collector, None, "{name} is not used");
    }
    let secret = errors(&[("OTEL_EXPORTER_OTLP_HEADERS", "secret-without-name")]);
    assert!(!secret.contains("secret-without-name"), "{secret}");
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let warnings = |text: &str, variables: &[(&str, &str)]| file(text).variables(variables).warnings();
    let text = warnings("[tracing]\nsample_ratio = 0.1\n", &[]);
    assert!(
        text.contains("[tracing] has no effect without `endpoint`"),
        "{text}"
    );
    let variables = [
        HTTP,
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/a"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let text = warnings("", &variables);
    assert!(text.contains("has no effect without a sampler"), "{text}");
    let unsupported = "not supported, without effect: OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_PROPAGATORS";
    assert!(text.contains(unsupported), "{text}");
    assert!(!text.contains("METRICS"), "{text}");
}

#[test]
fn slow_requests_are_those_above_a_duration_or_a_percentile() {
    let rule = |value: &str| {
        let text = format!("[logging]\nslow_request_log = {value}\n");
        file(&text).settings().logging.slow_request_log
    };
    assert_eq!(rule("\"off\""), SlowRequests::Off);
    assert_eq!(rule("\"500ms\""), SlowRequests::Above(Duration::from_millis(500)));
    assert_eq!(rule("\"p99\""), SlowRequests::Percentile(99.0));
    assert_eq!(rule("\"p99.9\""), SlowRequests::Percentile(99.9));
    for invalid in [
        "\"p100\"", "\"p10\"", "\"p\"", "\"500\"", "500", "\"slow\"", "true",
    ] {
        let text = format!("[logging]\nslow_request_log = {invalid}\n");
        let errors = file(&text).errors();
        assert!(
            errors.contains("or a percentile from \"p50\" to \"p99.99\""),
            "{invalid}: {errors}"
        );
    }
}
