//! The log: `env_logger`, as text for people or as one JSON object a line.
//!
//! A record may carry key-value pairs; those of the access log and the model of a plugin's record travel so. A pair whose
//! value is empty is left out.

use std::io::Write;

use env_logger::fmt::Formatter;
use env_logger::{Builder, TimestampPrecision};
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, Value as Json};

use crate::config::{LogFormat, LoggingSettings};

/// Starts logging to standard error. To be called once.
pub fn start(settings: &LoggingSettings) {
    let mut builder = Builder::new();
    // What these say at the level info, this server says itself. The operator's filter may name them.
    for module in ["actix_server", "actix_http"] {
        builder.filter_module(module, LevelFilter::Warn);
    }
    builder.parse_filters(&settings.level);
    match settings.format {
        LogFormat::Text => {
            builder.format_timestamp(Some(TimestampPrecision::Millis));
            builder.format_key_values(|formatter, pairs| {
                let mut text = TextPairs(formatter);
                pairs.visit(&mut text).map_err(std::io::Error::other)
            });
        }
        LogFormat::Json => {
            builder.format(write_json);
        }
    }
    // A second logger can only be one that a test has set, which may stay.
    let _ = builder.try_init();
}

struct TextPairs<'a>(&'a mut Formatter);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if value.to_borrowed_str() == Some("") {
            return Ok(());
        }
        write!(self.0, " {key}={value}").map_err(Error::boxed)
    }
}

struct JsonPairs<'a>(&'a mut Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if value.to_borrowed_str() == Some("") {
            return Ok(());
        }
        let json = if let Some(number) = value.to_u64() {
            Json::from(number)
        } else if let Some(number) = value.to_f64() {
            Json::from(number)
        } else {
            Json::from(value.to_string())
        };
        self.0.insert(key.as_str().to_owned(), json);
        Ok(())
    }
}

fn write_json(formatter: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let mut line = Map::new();
    line.insert(
        "timestamp".to_owned(),
        formatter.timestamp_millis().to_string().into(),
    );
    line.insert("level".to_owned(), record.level().as_str().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    record
        .key_values()
        .visit(&mut JsonPairs(&mut line))
        .map_err(std::io::Error::other)?;
    serde_json::to_writer(&mut *formatter, &line)?;
    writeln!(formatter)
}
