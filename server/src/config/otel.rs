//! The settings of traces: the table `[tracing]`, and the standard variables of OpenTelemetry, which take precedence.
//!
//! The variables have their own formats. They are checked only if traces are exported, since a platform may set them for
//! everything that it runs.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::checks;
use super::error::{ConfigError, ConfigWarning, Origin, alternatives};
use super::keys::WrittenTracing;
use super::resolve::fill_in_defaults;
use super::section::Section;
use super::settings::{
    CollectorSettings, OtlpProtocol, SamplingSettings, SpanBatchSettings, TracingSettings, written_value,
};
use crate::secret::Secret;

const PREFIX: &str = "OTEL_";

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const PROPAGATORS: &str = "OTEL_PROPAGATORS";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: [&str; 2] = [TRACES_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const INSECURE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_INSECURE",
];
const COMPRESSION: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const EXPORT_TIMEOUT: &str = "OTEL_BSP_EXPORT_TIMEOUT";
const QUEUE_SIZE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH_SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// The variables that are honored, alone.
const SINGLE: [&str; 11] = [
    DISABLED,
    EXPORTER,
    PROPAGATORS,
    SAMPLER,
    SAMPLER_ARGUMENT,
    SERVICE_NAME,
    RESOURCE,
    DELAY,
    EXPORT_TIMEOUT,
    QUEUE_SIZE,
    BATCH_SIZE,
];

/// The variables that are honored, of which the first takes precedence.
const PAIRS: [[&str; 2]; 6] = [ENDPOINT, PROTOCOL, HEADERS, TIMEOUT, INSECURE, COMPRESSION];

/// Prefixes of variables about something other than traces.
const OTHER_SIGNALS: [&str; 8] = [
    "OTEL_METRIC",
    "OTEL_LOG",
    "OTEL_BLRP_",
    "OTEL_EXPORTER_OTLP_METRICS_",
    "OTEL_EXPORTER_OTLP_LOGS_",
    "OTEL_EXPORTER_OTLP_PROFILES_",
    "OTEL_EXPORTER_PROMETHEUS_",
    "OTEL_EXPORTER_ZIPKIN_",
];

/// The settings, and what is wrong with them.
pub(super) struct Tracing {
    pub(super) settings: TracingSettings,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigWarning>,
}

/// Merges the table `[tracing]` with the environment. `is_supported` is false in a build that does not export traces.
pub(super) fn tracing(
    written: WrittenTracing,
    environment: &BTreeMap<String, String>,
    is_supported: bool,
) -> Tracing {
    let mut reader = Reader {
        environment,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let settings = reader.settings(written, is_supported);
    Tracing {
        settings,
        errors: reader.errors,
        warnings: reader.warnings,
    }
}

struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
}

impl<'a> Reader<'a> {
    fn settings(&mut self, written: WrittenTracing, is_supported: bool) -> TracingSettings {
        let place = written.origins().first().map(|origin| (*origin).clone());
        let mut built_in = WrittenTracing::empty();
        fill_in_defaults(&mut built_in);
        let written = written.or(&built_in);
        let is_configured = written.endpoint.is_some() || self.first(&ENDPOINT).is_some();
        if let Some(origin) = place.filter(|_| !is_configured) {
            self.warn(
                origin,
                "[tracing] has no effect without `endpoint`",
                "add `endpoint`, or remove the table",
            );
        }
        if let Some((name, _)) = self.first(&ENDPOINT).filter(|_| !is_supported) {
            let message = "this build of the server does not export traces; the variable has no effect";
            self.warn(
                environment(name),
                message,
                "use a build with the feature `traces`, or unset the variable",
            );
        }
        let is_enabled = is_configured && is_supported && !self.is_disabled();
        let off = TracingSettings {
            collector: None,
            sampling: SamplingSettings {
                follows_parent: true,
                ratio: written_value(written.sample_ratio.clone()),
            },
            resource: BTreeMap::new(),
            batches: SpanBatchSettings::DEFAULT,
        };
        if !is_enabled {
            return off;
        }
        self.warn_of_unknown();
        TracingSettings {
            sampling: self.sampling(off.sampling),
            resource: self.resource(written_value(written.service_name.clone())),
            batches: self.batches(),
            collector: self.collector(written),
        }
    }

    /// The first of the variables that is set. An empty one counts as not set.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
        let value = |name: &&'static str| Some((*name, self.environment.get(*name)?.trim()));
        names.iter().filter_map(value).find(|(_, text)| !text.is_empty())
    }

    fn is_disabled(&mut self) -> bool {
        let disabled = self.first(&[DISABLED]);
        if disabled.is_some_and(|(_, text)| text.eq_ignore_ascii_case("true")) {
            return true;
        }
        match self.first(&[EXPORTER]) {
            None | Some((_, "otlp")) => false,
            Some((_, "none")) => true,
            Some((name, text)) => {
                self.invalid(name, text, "\"otlp\" or \"none\"");
                false
            }
        }
    }

    fn collector(&mut self, written: WrittenTracing) -> Option<CollectorSettings> {
        let protocol = match self.first(&PROTOCOL) {
            None => written_value(written.protocol),
            Some((_, "grpc")) => OtlpProtocol::Grpc,
            Some((_, "http/protobuf")) => OtlpProtocol::Http,
            Some((name, text)) => {
                self.invalid(name, text, "\"grpc\" or \"http/protobuf\"");
                return None;
            }
        };
        let base = |endpoint: &str| match protocol {
            OtlpProtocol::Grpc => endpoint.to_owned(),
            OtlpProtocol::Http => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
        };
        let endpoint = match self.first(&ENDPOINT) {
            None => base(&written.endpoint?.value),
            Some((name, text)) => {
                let text = self.with_scheme(text, protocol);
                if let Err(hint) = checks::otlp_endpoint(&text) {
                    self.error(name, &text, checks::OTLP_ENDPOINT.expected, Some(hint));
                    return None;
                }
                match name {
                    TRACES_ENDPOINT => text,
                    _ => base(&text),
                }
            }
        };
        Some(CollectorSettings {
            endpoint,
            protocol,
            headers: self.headers(written_value(written.headers)),
            timeout: self
                .millis(&TIMEOUT)
                .unwrap_or_else(|| written_value(written.timeout)),
            gzip: self.is_compressed(),
        })
    }

    /// For gRPC, the endpoint can be a host and a port, if a variable says that it is insecure.
    fn with_scheme(&self, endpoint: &str, protocol: OtlpProtocol) -> String {
        let insecure = self.first(&INSECURE);
        let is_insecure = insecure.is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"));
        match protocol {
            OtlpProtocol::Grpc if is_insecure && !endpoint.contains("://") => format!("http://{endpoint}"),
            _ => endpoint.to_owned(),
        }
    }

    fn headers(&mut self, written: Vec<Secret>) -> Vec<(String, Secret)> {
        let pair = |text: &str| {
            let (name, value) = text.split_once('=')?;
            Some((name.trim().to_lowercase(), Secret::new(value.trim())))
        };
        let Some((name, text)) = self.first(&HEADERS) else {
            return written
                .iter()
                .filter_map(|header| pair(header.expose()))
                .collect();
        };
        let mut headers = Vec::new();
        for (key, value) in self.pairs(name, text, true) {
            let written = format!("{key}={value}");
            match (checks::OTLP_HEADER.check)(&written) {
                Ok(()) => headers.extend(pair(&written)),
                Err(hint) => {
                    let message = format!(
                        "invalid header in {name}: expected {}",
                        checks::OTLP_HEADER.expected
                    );
                    self.errors
                        .push(ConfigError::new(environment(name), message, Some(hint)));
                }
            }
        }
        headers
    }

    fn is_compressed(&mut self) -> bool {
        match self.first(&COMPRESSION) {
            None | Some((_, "none")) => false,
            Some((_, "gzip")) => true,
            Some((name, text)) => {
                self.invalid(name, text, "\"gzip\" or \"none\"");
                false
            }
        }
    }

    fn sampling(&mut self, written: SamplingSettings) -> SamplingSettings {
        let argument = self.first(&[SAMPLER_ARGUMENT]);
        let Some((name, text)) = self.first(&[SAMPLER]) else {
            if let Some((name, _)) = argument {
                let hint = format!("set {SAMPLER} as well");
                self.warn(
                    environment(name),
                    "the variable has no effect without a sampler",
                    hint,
                );
            }
            return written;
        };
        let (follows_parent, root) = match text.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, text),
        };
        let ratio = match (root, argument) {
            ("always_on", _) => 1.0,
            ("always_off", _) => 0.0,
            ("traceidratio", None) => 1.0,
            ("traceidratio", Some((name, text))) => match text.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => {
                    self.invalid(name, text, "a number from 0 to 1");
                    written.ratio
                }
            },
            _ => {
                let roots = ["always_on", "always_off", "traceidratio"];
                let expected = format!(
                    "{}, each also with the prefix `parentbased_`",
                    alternatives(roots, "or")
                );
                self.invalid(name, text, &expected);
                written.ratio
            }
        };
        SamplingSettings {
            follows_parent,
            ratio,
        }
    }

    fn resource(&mut self, service_name: String) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([("service.name".to_owned(), service_name)]);
        if let Some((name, text)) = self.first(&[RESOURCE]) {
            resource.extend(self.pairs(name, text, false));
        }
        if let Some((_, text)) = self.first(&[SERVICE_NAME]) {
            resource.insert("service.name".to_owned(), text.to_owned());
        }
        resource
    }

    fn batches(&mut self) -> SpanBatchSettings {
        let default = SpanBatchSettings::DEFAULT;
        let max_queue_size = self.count(QUEUE_SIZE).unwrap_or(default.max_queue_size);
        let max_batch_size = self.count(BATCH_SIZE).unwrap_or(default.max_batch_size);
        if max_batch_size > max_queue_size && self.first(&[BATCH_SIZE]).is_some() {
            let expected = format!("at most {QUEUE_SIZE} ({max_queue_size})");
            self.invalid(BATCH_SIZE, &max_batch_size.to_string(), &expected);
        }
        SpanBatchSettings {
            max_queue_size,
            max_batch_size: max_batch_size.min(max_queue_size),
            delay: self.millis(&[DELAY]).unwrap_or(default.delay),
            export_timeout: self.millis(&[EXPORT_TIMEOUT]).unwrap_or(default.export_timeout),
        }
    }

    /// Pairs of keys and values, separated by commas, whose values are percent-encoded.
    fn pairs(&mut self, name: &'static str, text: &str, is_secret: bool) -> Vec<(String, String)> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let pairs: Option<Vec<(String, String)>> = parts
            .map(|part| {
                let (key, value) = part.split_once('=')?;
                let key = percent_decoded(key.trim()).filter(|key| !key.is_empty())?;
                Some((key, percent_decoded(value.trim())?))
            })
            .collect();
        pairs.unwrap_or_else(|| {
            let shown = if is_secret { "…" } else { text };
            self.invalid(
                name,
                shown,
                "KEY=VALUE pairs separated by commas, with percent-encoded values",
            );
            Vec::new()
        })
    }

    fn millis(&mut self, names: &[&'static str]) -> Option<Duration> {
        let (name, text) = self.first(names)?;
        match text.parse() {
            Ok(millis @ 1..=86_400_000) => Some(Duration::from_millis(millis)),
            _ => {
                self.invalid(name, text, "a number of milliseconds from 1 to 86400000");
                None
            }
        }
    }

    fn count(&mut self, name: &'static str) -> Option<NonZeroUsize> {
        let (_, text) = self.first(&[name])?;
        match text.parse::<NonZeroUsize>() {
            Ok(count) if count.get() <= 1_000_000 => Some(count),
            _ => {
                self.invalid(name, text, "an integer from 1 to 1000000");
                None
            }
        }
    }

    fn invalid(&mut self, name: &'static str, found: &str, expected: &str) {
        self.error(name, found, expected, None);
    }

    fn error(&mut self, name: &'static str, found: &str, expected: &str, hint: Option<String>) {
        let found: String = found.chars().take(60).collect();
        let message = format!("invalid value {found:?} for {name}: expected {expected}");
        self.errors
            .push(ConfigError::new(environment(name), message, hint));
    }

    fn warn(&mut self, origin: Origin, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(ConfigWarning {
            origin,
            message: message.into(),
            hint: Some(hint.into()),
        });
    }

    /// One warning about all variables that are not honored.
    fn warn_of_unknown(&mut self) {
        let is_known = |name: &str| {
            SINGLE.contains(&name)
                || PAIRS.iter().flatten().any(|known| *known == name)
                || OTHER_SIGNALS.iter().any(|prefix| name.starts_with(prefix))
        };
        let ours = self.environment.iter().filter(|(name, text)| {
            let is_propagated = || {
                text.split(',')
                    .any(|propagator| propagator.trim() == "tracecontext")
            };
            name.starts_with(PREFIX)
                && !text.is_empty()
                && (!is_known(name) || (*name == PROPAGATORS && !is_propagated()))
        });
        let names: Vec<&str> = ours.map(|(name, _)| name.as_str()).collect();
        if let Some(first) = names.first() {
            let message = format!("not supported, without effect: {}", names.join(", "));
            let origin = Origin::Environment((*first).to_owned());
            self.warn(
                origin,
                message,
                "server/docs/operations.md lists what is supported",
            );
        }
    }
}

fn environment(name: &str) -> Origin {
    Origin::Environment(name.to_owned())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}
