//! What the server gives to a plugin: a place for its log.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::erased_types::TD_Opaque;
use log::{Level, Metadata, Record};
use plugin_abi::{Host, HostAbi, HostAbi_TO, RawLogRecord};

/// Most bytes of one message; the rest is cut off.
const MOST_MESSAGE: usize = 16 << 10;

/// The server as the plugin of `model` sees it.
///
/// Its records go to the server's log with the target `model::<name>::<the plugin's target>`, so that
/// `RUST_LOG=model::embedder=debug` and `grep model::embedder` both do what they say.
pub(super) fn host_for(model: &str) -> Host {
    HostAbi_TO::from_value(
        HostLog {
            prefix: format!("model::{model}"),
        },
        TD_Opaque,
    )
}

struct HostLog {
    prefix: String,
}

impl HostAbi for HostLog {
    fn max_log_level(&self) -> u32 {
        log::max_level() as u32
    }

    fn log(&self, record: RawLogRecord<'_>) {
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&record)));
        if let Err(payload) = written {
            // Dropping it could panic again, and a panic must not reach the plugin.
            std::mem::forget(payload);
        }
    }
}

impl HostLog {
    fn write(&self, raw: &RawLogRecord<'_>) {
        let level = level_of(raw.level);
        if level > log::max_level() {
            return;
        }
        let target = format!("{}::{}", self.prefix, raw.target);
        let metadata = Metadata::builder().level(level).target(&target).build();
        if !log::logger().enabled(&metadata) {
            return;
        }
        let message = super::cut(raw.message.as_str(), MOST_MESSAGE);
        log::logger().log(
            &Record::builder()
                .metadata(metadata)
                .args(format_args!("{message}"))
                .file((!raw.file.is_empty()).then_some(raw.file.as_str()))
                .line((raw.line > 0).then_some(raw.line))
                .build(),
        );
    }
}

/// An unknown level is a newer SDK's: it is written rather than lost.
fn level_of(code: u32) -> Level {
    match code {
        1 => Level::Error,
        2 => Level::Warn,
        4 => Level::Debug,
        5 => Level::Trace,
        _ => Level::Info,
    }
}
