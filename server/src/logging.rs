//! The log: `env_logger`, as plain text or as one JSON object per line. Plain text for the journal of systemd has the priority
//! of each line instead of a time.
//!
//! A record can carry key-value pairs, such as the fields of the access log or the model of a plugin's record. Pairs with an empty
//! value are omitted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::thread;

use env_logger::fmt::Formatter;
use env_logger::{Builder, TimestampPrecision};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};
use rustix::fs::fstat;
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
        LogFormat::Text if is_journal(io::stderr()) => {
            builder.format(write_for_journal);
        }
        LogFormat::Text => {
            builder.format_timestamp(Some(TimestampPrecision::Millis));
            builder.format_key_values(|formatter, pairs| {
                let mut text = TextPairs(formatter);
                pairs.visit(&mut text).map_err(io::Error::other)
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

/// Whether the journal of systemd reads `stream`: JOURNAL_STREAM has the device and the inode of its end of the connection.
fn is_journal(stream: impl AsFd) -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(stream).is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn write_for_journal(formatter: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut text = format!("{}: {}", record.target(), record.args()).into_bytes();
    record
        .key_values()
        .visit(&mut TextPairs(&mut text))
        .map_err(io::Error::other)?;
    formatter.write_all(&journal_lines(record.level(), &text))
}

/// Prefixes each line with the priority of `level`, since the journal makes an entry of each line. An empty line would not
/// become an entry.
fn journal_lines(level: Level, text: &[u8]) -> Vec<u8> {
    // The numbers are those of syslog.
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let mut lines = Vec::with_capacity(text.len() + 4);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        lines.extend_from_slice(format!("<{priority}>").as_bytes());
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    lines
}

struct TextPairs<W>(W);

impl<'kvs, W: Write> VisitSource<'kvs> for TextPairs<W> {
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

fn write_json(formatter: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
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
        .map_err(io::Error::other)?;
    serde_json::to_writer(&mut *formatter, &line)?;
    writeln!(formatter)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::batch_context::RequestIds;
    use crate::config::SlowRequests;

    const FORMAT_VARIABLE: &str = "LOGGING_TEST_FORMAT";

    /// The child process of the test below: a thread of it panics, once outside of a batch and once inside.
    #[test]
    #[ignore = "run by another test in a child process"]
    fn panicking_child() {
        let Ok(format) = std::env::var(FORMAT_VARIABLE) else {
            return;
        };
        start(&LoggingSettings {
            level: "info".to_owned(),
            format: match format.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            access_log: false,
            access_log_exclude: Vec::new(),
            slow_request_log: SlowRequests::Off,
        });
        for context in [
            None,
            Some(BatchContext {
                model: "m".into(),
                task: "t".into(),
                requests: [Arc::from("id")].iter().collect(),
                traces: RequestIds::default(),
            }),
        ] {
            let panicking = thread::Builder::new()
                .name("model m 0".to_owned())
                .spawn(move || {
                    let _entered = context.map(|context| Arc::new(context).enter());
                    panic!("the \"worker\" panics");
                });
            let joined = panicking.expect("a thread can be started").join();
            assert!(joined.is_err());
        }
    }

    /// What the child process writes about its panics.
    fn panics(format: &str) -> Vec<String> {
        let (_, module) = module_path!()
            .split_once("::")
            .expect("the path starts with the crate");
        let output = Command::new(std::env::current_exe().expect("this test has an executable"))
            .args([
                "--exact",
                &format!("{module}::panicking_child"),
                "--ignored",
                "--nocapture",
            ])
            .env(FORMAT_VARIABLE, format)
            .output()
            .expect("the child can be started");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stderr).expect("the log is text");
        let lines = text.lines().filter(|line| line.contains("panic"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_panic_is_one_line_in_the_format_of_the_log_and_names_the_thread_and_the_batch() {
        let lines = panics("json");
        assert_eq!(lines.len(), 2, "{lines:?}");
        let lines = lines
            .iter()
            .map(|line| serde_json::from_str::<Json>(line).expect("a line is JSON"));
        let lines: Vec<Json> = lines.collect();
        for line in &lines {
            assert_eq!(line["level"], "ERROR");
            let message = line["message"].as_str().expect("a line has a message");
            assert!(
                message.starts_with("thread `model m 0` panicked at "),
                "{message}"
            );
            assert!(message.ends_with(": the \"worker\" panics"), "{message}");
        }
        assert!(lines[0].get("model").is_none());
        let fields = ["model", "task", "requests"].map(|field| &lines[1][field]);
        assert_eq!(fields, ["m", "t", "id"]);

        let lines = panics("text");
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in &lines {
            assert!(line.contains(" ERROR "), "{line}");
            assert!(line.contains("] thread `model m 0` panicked at "), "{line}");
        }
        assert!(
            lines[1].ends_with("the \"worker\" panics model=m task=t requests=id"),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn each_line_for_the_journal_has_the_priority_of_its_record() {
        let lines =
            |level, text: &str| String::from_utf8(journal_lines(level, text.as_bytes())).expect("it is text");
        assert_eq!(lines(Level::Error, "a"), "<3>a\n");
        assert_eq!(lines(Level::Warn, "a\n\nb\n"), "<4>a\n<4>b\n");
        assert_eq!(lines(Level::Info, "<1>a"), "<6><1>a\n");
        assert_eq!(lines(Level::Debug, "a"), "<7>a\n");
        assert_eq!(lines(Level::Trace, "a"), "<7>a\n");
    }
}
