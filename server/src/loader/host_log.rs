//! The log that the server provides to a plugin.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::erased_types::TD_Opaque;
use log::kv::Source;
use log::{Level, Log, Metadata, Record};
use plugin_abi::{Host, HostAbi, HostAbi_TO, RawLogRecord};

use crate::batch_context::{BatchContext, count_logged_error};

/// Maximum length of a message. Longer ones are truncated.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// The server's side of the plugin ABI for the plugin of `model`.
///
/// Its records are logged with the target `model::<name>::<the plugin's target>`, which can be filtered by model, as in
/// `RUST_LOG=model::embedder=debug`.
pub(super) fn host_for(model: &str) -> Host {
    HostAbi_TO::from_value(
        HostLog {
            model: model.to_owned(),
            logger: log::logger(),
        },
        TD_Opaque,
    )
}

struct HostLog {
    model: String,
    logger: &'static dyn Log,
}

impl HostAbi for HostLog {
    fn max_log_level(&self) -> u32 {
        log::max_level() as u32
    }

    fn log(&self, record: RawLogRecord<'_>) {
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&record)));
        if let Err(payload) = written {
            // Dropping the payload could panic again, and a panic must not reach the plugin.
            std::mem::forget(payload);
        }
    }
}

impl HostLog {
    fn write(&self, raw: &RawLogRecord<'_>) {
        let level = level_of(raw.level);
        let target = format!("model::{}::{}", self.model, raw.target);
        let metadata = Metadata::builder().level(level).target(&target).build();
        if !self.logger.enabled(&metadata) {
            return;
        }
        if level == Level::Error {
            count_logged_error();
        }
        let message = super::truncate(raw.message.as_str(), MAX_MESSAGE_BYTES);
        let context = BatchContext::current();
        let model = [("model", self.model.as_str())];
        let fields: &dyn Source = match &context {
            Some(context) => context.as_ref(),
            None => &model,
        };
        self.logger.log(
            &Record::builder()
                .metadata(metadata)
                .key_values(&fields)
                .args(format_args!("{message}"))
                .file((!raw.file.is_empty()).then_some(raw.file.as_str()))
                .line((raw.line > 0).then_some(raw.line))
                .build(),
        );
    }
}

/// A level that is unknown, because the SDK is newer, is logged at level info.
fn level_of(code: u32) -> Level {
    match code {
        1 => Level::Error,
        2 => Level::Warn,
        4 => Level::Debug,
        5 => Level::Trace,
        _ => Level::Info,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Records all messages up to level debug.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Log for Recorder {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Debug
        }

        fn log(&self, record: &Record<'_>) {
            let (level, target, message) = (record.level(), record.target(), record.args());
            let place = record.file().zip(record.line());
            let mut recorder = self.0.lock().expect("no test panics while it logs");
            recorder.push(format!("{level} {target} {message} {place:?}"));
        }

        fn flush(&self) {}
    }

    #[test]
    fn records_of_a_plugin_carry_the_name_of_the_model() {
        let recorder: &'static Recorder = Box::leak(Box::default());
        let host = HostAbi_TO::<_>::from_value(
            HostLog {
                model: "embedder".to_owned(),
                logger: recorder,
            },
            TD_Opaque,
        );
        for level in [1, 3, 5, 9] {
            host.log(RawLogRecord {
                level,
                line: level - 1,
                target: "weights".into(),
                message: "read".into(),
                file: if level == 3 { "load.rs" } else { "" }.into(),
            });
        }
        assert_eq!(
            *recorder.0.lock().expect("no test panics while it logs"),
            [
                "ERROR model::embedder::weights read None",
                "INFO model::embedder::weights read Some((\"load.rs\", 2))",
                "INFO model::embedder::weights read None",
            ]
        );
    }
}
