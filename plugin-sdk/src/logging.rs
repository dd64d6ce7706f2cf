//! The logger and the panic hook of a plugin, which forward to the server.
//!
//! A plugin has its own copies of `std` and `log`, and so its own panic hook and logger. Both are installed once per loaded
//! library, when it loads its first model.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use abi_stable::std_types::RStr;
use log::{Level, LevelFilter, Log, Metadata, Record};
use plugin_abi::{Host, RawLogRecord};

use crate::contain;

thread_local! {
    /// The host whose call this thread is executing.
    static CURRENT: Cell<Option<&'static Host>> = const { Cell::new(None) };
}

/// Which threads forward log records and panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogScope {
    /// All threads. Threads that the plugin itself started forward to the first host.
    Library,
    /// Only threads that execute a call through the ABI. Used in tests, which run many hosts in one process.
    #[cfg(feature = "testing")]
    Calls,
}

/// Installs the logger and the panic hook, and returns `host` with the lifetime that its contract allows.
///
/// The host is leaked (a few hundred bytes per load), because threads of the plugin can log after the model has been dropped.
pub(crate) fn install(host: Host, scope: LogScope) -> &'static Host {
    static INSTALLED: Once = Once::new();

    let host: &'static Host = Box::leak(Box::new(host));
    let fallback = (scope == LogScope::Library).then_some(host);
    INSTALLED.call_once(|| {
        // Fails if a test has already installed a logger, which then receives the records.
        let _result = log::set_boxed_logger(Box::new(ForwardingLogger { fallback }));
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| match CURRENT.get().or(fallback) {
            Some(host) => report_panic(host, info),
            None => previous(info),
        }));
    });
    log::set_max_level(log::max_level().max(level_filter(host.max_log_level())));
    host
}

/// Runs `call` with `host` as the current host of this thread.
pub(crate) fn with_host<T>(host: &'static Host, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static Host>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(host)));
    call()
}

struct ForwardingLogger {
    fallback: Option<&'static Host>,
}

impl Log for ForwardingLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let Some(host) = CURRENT.get().or(self.fallback) else {
            return;
        };
        let formatted;
        let message = match record.args().as_str() {
            Some(text) => text,
            None => {
                formatted = record.args().to_string();
                &formatted
            }
        };
        send(
            host,
            record.level(),
            record.target(),
            message,
            record.file(),
            record.line(),
        );
    }

    fn flush(&self) {}
}

fn report_panic(host: &Host, info: &PanicHookInfo<'_>) {
    let message = contain::message(info.payload());
    let (file, line) = match info.location() {
        Some(location) => (Some(location.file()), Some(location.line())),
        None => (None, None),
    };
    let text = match info.location() {
        Some(location) => format!("panicked at {location}: {message}"),
        None => format!("panicked: {message}"),
    };
    send(host, Level::Error, "panic", &text, file, line);
}

fn send(host: &Host, level: Level, target: &str, message: &str, file: Option<&str>, line: Option<u32>) {
    host.log(RawLogRecord {
        level: level as u32,
        line: line.unwrap_or(0),
        target: RStr::from(target),
        message: RStr::from(message),
        file: RStr::from(file.unwrap_or("")),
    });
}

fn level_filter(code: u32) -> LevelFilter {
    match code {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}
