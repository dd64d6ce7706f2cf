//! The plugin's side of the server's log: a logger and a panic hook that forward to whichever model is being called.
//!
//! A plugin has its own copies of `std` and `log`, so its hook and its logger are its own as well. Both are set once per
//! loaded library, at its first load.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use abi_stable::std_types::RStr;
use log::{Level, LevelFilter, Log, Metadata, Record};
use plugin_abi::{Host, RawLogRecord};

use crate::contain;

thread_local! {
    /// The server on whose behalf this thread runs now.
    static CURRENT: Cell<Option<&'static Host>> = const { Cell::new(None) };
}

/// Whether threads that the plugin started itself may speak through the host given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The whole library: what an own thread of the plugin logs goes to the first host.
    Library,
    /// Only calls made through the ABI. Tests run many hosts in one process and keep their own hook for the rest.
    Calls,
}

/// Keeps `host` for as long as the process lives, as its contract allows, and installs the forwarding.
///
/// It is leaked (some hundred bytes at each load): threads of the plugin may log after the model is gone.
pub(crate) fn adopt(host: Host, reach: Reach) -> &'static Host {
    static INSTALLED: Once = Once::new();

    let host: &'static Host = Box::leak(Box::new(host));
    let fallback = (reach == Reach::Library).then_some(host);
    INSTALLED.call_once(|| {
        // Fails where a test has installed a logger of its own, which then keeps the records.
        let _taken = log::set_boxed_logger(Box::new(Forward { fallback }));
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| match CURRENT.get().or(fallback) {
            Some(host) => report(host, info),
            None => previous(info),
        }));
    });
    log::set_max_level(log::max_level().max(level_filter(host.max_log_level())));
    host
}

/// Runs `call` on behalf of `host`.
pub(crate) fn within<T>(host: &'static Host, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static Host>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(host)));
    call()
}

struct Forward {
    fallback: Option<&'static Host>,
}

impl Log for Forward {
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

fn report(host: &Host, info: &PanicHookInfo<'_>) {
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
