//! The log: `env_logger`, as plain text or as one JSON object per line.
//!
//! A record can carry key-value pairs, such as the fields of the access log or the model of a plugin's record. Pairs with an empty
//! value are omitted.

use std::io::Write;
use std::panic::{self, PanicHookInfo};
use std::thread;

use env_logger::fmt::Formatter;
use env_logger::{Builder, TimestampPrecision};
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, Value as Json};

use crate::batch_context::{BatchContext, log_batch};
use crate::config::{LogFormat, LoggingSettings};

/// Starts logging to standard error, panics included. Must be called once.
pub fn start(settings: &LoggingSettings) {
    let mut builder = Builder::new();
    // The server logs the same events itself. The filter of the operator can enable these modules.
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
    // Fails only if a test has already set a logger.
    let _ = builder.try_init();
    panic::set_hook(Box::new(log_panic));
}

/// Logs a panic, with the batch that the thread was working on.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    match BatchContext::current() {
        Some(context) => log_batch!(error, context, "thread `{name}` panicked at {place}: {message}"),
        None => log::error!("thread `{name}` panicked at {place}: {message}"),
    }
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
