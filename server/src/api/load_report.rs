//! Load reports for balancers and gateways, in the format of ORCA (Open Request Cost Aggregation).
//!
//! A client asks for a report with the header [`REQUEST_HEADER`], whose value is `TEXT` or `JSON`, and receives it in the header
//! [`REPLY_HEADER`] of any reply. Replies to other requests have none.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::engine::Load;
use crate::registry::Snapshot;

/// The header of a request that asks for a report.
pub const REQUEST_HEADER: &str = "endpoint-load-metrics-format";

/// The header of a reply with a report.
pub const REPLY_HEADER: &str = "endpoint-load-metrics";

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `TEXT name=value, …`
    Text,
    /// `JSON {"name": value, …}`
    Json,
}

impl Format {
    /// The format that a request asks for. `None` if the header is missing or names another format.
    pub fn requested(header: Option<&[u8]>) -> Option<Self> {
        match header?.trim_ascii() {
            value if value.eq_ignore_ascii_case(b"text") => Some(Self::Text),
            value if value.eq_ignore_ascii_case(b"json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// The value of [`REPLY_HEADER`] for the current state of all models.
pub fn report(snapshot: &Snapshot, format: Format) -> String {
    let generations = snapshot.models().filter_map(|entry| entry.generation());
    let load = combined(generations.map(|generation| generation.engine.load()));
    write(&load, format)
}

/// The load of a server with these models: the sums of requests and items, and the utilization and wait of the model that is
/// closest to its limit.
fn combined(models: impl IntoIterator<Item = Load>) -> Load {
    models.into_iter().fold(Load::default(), |total, model| Load {
        queued_items: total.queued_items + model.queued_items,
        expected_wait: total.expected_wait.max(model.expected_wait),
        utilization: total.utilization.max(model.utilization),
        requests_per_second: total.requests_per_second + model.requests_per_second,
    })
}

fn write(load: &Load, format: Format) -> String {
    let fields = [
        ("application_utilization", rounded(load.utilization)),
        ("rps_fractional", rounded(load.requests_per_second)),
    ];
    let queued = ("queue_items", json!(load.queued_items));
    let wait = load.expected_wait.as_ref().map(Duration::as_secs_f64);
    let wait = wait.map(|seconds| ("expected_wait_seconds", rounded(seconds)));
    let named = std::iter::once(queued).chain(wait);
    match format {
        Format::Text => {
            let fields = fields.map(|(name, value)| format!("{name}={value}"));
            let named = named.map(|(name, value)| format!("named_metrics.{name}={value}"));
            let all: Vec<String> = fields.into_iter().chain(named).collect();
            format!("TEXT {}", all.join(", "))
        }
        Format::Json => {
            let object = |fields: &mut dyn Iterator<Item = (&str, Json)>| -> Map<String, Json> {
                fields.map(|(name, value)| (name.to_owned(), value)).collect()
            };
            let mut report = object(&mut fields.into_iter());
            report.insert("named_metrics".to_owned(), object(&mut named.into_iter()).into());
            format!("JSON {}", Json::Object(report))
        }
    }
}

/// A number with up to four decimals, which is precise enough and keeps headers short.
fn rounded(value: f64) -> Json {
    json!((value * 10_000.0).round() / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(queued_items: usize, wait_millis: Option<u64>, utilization: f64) -> Load {
        Load {
            queued_items,
            expected_wait: wait_millis.map(Duration::from_millis),
            utilization,
            requests_per_second: 12.5,
        }
    }

    #[test]
    fn a_report_has_the_form_that_the_client_asks_for() {
        let format = |header: &str| Format::requested(Some(header.as_bytes()));
        assert_eq!(format("TEXT"), Some(Format::Text));
        assert_eq!(format(" text "), Some(Format::Text));
        assert_eq!(format("Json"), Some(Format::Json));
        for other in ["", "BIN", "text, json"] {
            assert_eq!(format(other), None, "{other:?}");
        }
        assert_eq!(Format::requested(None), None);

        let load = load(7, Some(1250), 0.333_333);
        assert_eq!(
            write(&load, Format::Text),
            "TEXT application_utilization=0.3333, rps_fractional=12.5, named_metrics.queue_items=7, \
             named_metrics.expected_wait_seconds=1.25"
        );
        let json = write(&load, Format::Json);
        let json: Json = json
            .strip_prefix("JSON ")
            .and_then(|json| serde_json::from_str(json).ok())
            .expect("it is JSON");
        assert_eq!(
            json,
            json!({
                "application_utilization": 0.3333,
                "rps_fractional": 12.5,
                "named_metrics": {"queue_items": 7, "expected_wait_seconds": 1.25},
            })
        );
    }

    #[test]
    fn a_wait_that_is_unknown_is_omitted() {
        assert_eq!(
            write(&load(0, None, 0.0), Format::Text),
            "TEXT application_utilization=0.0, rps_fractional=12.5, named_metrics.queue_items=0"
        );
    }

    #[test]
    fn a_server_is_as_loaded_as_its_most_loaded_model() {
        let server = combined([
            load(3, Some(200), 0.9),
            load(4, None, 0.1),
            load(0, Some(100), 0.2),
        ]);
        let expected = Load {
            requests_per_second: 37.5,
            ..load(7, Some(200), 0.9)
        };
        assert_eq!(server, expected);
        assert_eq!(combined([]), Load::default());
    }
}
