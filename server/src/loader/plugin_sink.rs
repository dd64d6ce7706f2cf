//! The sink through which a plugin returns its outcomes. It wraps the sink of `engine`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::manifest::ValueManifest;
use plugin_abi::{OutputSinkAbi, RawTensor, RawValue, check, codes};

use super::convert;
use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};

/// Checks and copies the outcomes that the plugin emits for one batch.
pub(super) struct PluginSink<'a> {
    sink: &'a mut dyn OutputSink,
    /// Number of items in the batch.
    items: usize,
    /// The declared output of the task.
    declared: &'a ValueManifest,
    /// The first violation of the contract that was not reported as an item's error.
    violation: Option<String>,
}

impl<'a> PluginSink<'a> {
    pub(super) fn new(sink: &'a mut dyn OutputSink, items: usize, declared: &'a ValueManifest) -> Self {
        Self {
            sink,
            items,
            declared,
            violation: None,
        }
    }

    /// The first violation of the plugin, if any. It explains why items have no outcome.
    pub(super) fn into_violation(self) -> Option<String> {
        self.violation
    }

    fn record_violation(&mut self, violation: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(violation);
    }

    fn code(&mut self, status: SinkStatus, rejection: impl FnOnce(&Self) -> String) -> u32 {
        match status {
            SinkStatus::Accepted => codes::sink::OK,
            SinkStatus::Cancelled => codes::sink::CANCELLED,
            SinkStatus::NotStreaming => codes::sink::NOT_STREAMING,
            SinkStatus::Rejected => {
                let reason = rejection(self);
                self.record_violation(|| reason);
                codes::sink::REFUSED
            }
        }
    }

    /// Explains why the sink rejected an outcome of this item.
    fn index_error(&self, index: u32) -> String {
        if index as usize >= self.items {
            format!(
                "the plugin returned an outcome for item {index} of a batch of {} items",
                self.items
            )
        } else {
            format!("the plugin returned two outcomes for item {index} of a batch")
        }
    }

    fn catch_panics(&mut self, f: impl FnOnce(&mut Self) -> u32) -> u32 {
        match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(code) => code,
            Err(payload) => {
                // Dropping the payload could panic again, and a panic must not reach the plugin.
                std::mem::forget(payload);
                self.record_violation(|| "the server failed to process the plugin's output".to_owned());
                codes::sink::REFUSED
            }
        }
    }
}

impl OutputSinkAbi for PluginSink<'_> {
    fn weigh(&mut self, index: u32, weight: u64) -> u32 {
        self.catch_panics(|this| {
            this.sink.weigh(index as usize, weight);
            codes::sink::OK
        })
    }

    fn emit(&mut self, index: u32, value: RawValue<'_>, flags: u32) -> u32 {
        self.catch_panics(|this| match convert::copy_value(&value, this.declared) {
            Ok(value) => {
                let more = flags & codes::emit::MORE != 0;
                let status = this.sink.emit(index as usize, value, more);
                this.code(status, |this| this.index_error(index))
            }
            Err(reason) => {
                // Failed here, because the reason is more precise than any error that the plugin returns afterwards.
                let status = this.sink.fail(index as usize, ItemError::Fault(reason.clone()));
                if status != SinkStatus::Accepted {
                    this.record_violation(|| reason);
                }
                codes::sink::REFUSED
            }
        })
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        self.catch_panics(|this| {
            if let Err(reason) = check::output_rows(tensors.as_slice(), this.items, this.declared) {
                this.record_violation(|| reason);
                return codes::sink::REFUSED;
            }
            match convert::copy_tensors(tensors.as_slice()) {
                Ok(taken) => {
                    let status = this.sink.emit_batch(taken);
                    this.code(status, |_| {
                        "the plugin returned two outcomes for an item of a batch".to_owned()
                    })
                }
                Err(reason) => {
                    this.record_violation(|| reason);
                    codes::sink::REFUSED
                }
            }
        })
    }

    fn fail(&mut self, index: u32, kind: u32, message: RStr<'_>) -> u32 {
        self.catch_panics(|this| {
            let status = this
                .sink
                .fail(index as usize, convert::item_error(kind, message.as_str()));
            this.code(status, |this| this.index_error(index))
        })
    }
}
