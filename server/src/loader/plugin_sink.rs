//! The sink that a plugin puts its outcomes into, on top of the one that `engine` lends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::manifest::ValueManifest;
use plugin_abi::{OutputSinkAbi, RawTensor, RawValue, check, codes};

use super::convert;
use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};

/// Checks and copies what the plugin emits, for one batch.
pub(super) struct PluginSink<'a> {
    sink: &'a mut dyn OutputSink,
    /// Items of the batch.
    items: usize,
    /// What the task's outputs are.
    declared: &'a ValueManifest,
    /// The first thing that the plugin did wrong here and that no item was told.
    fault: Option<String>,
}

impl<'a> PluginSink<'a> {
    pub(super) fn new(sink: &'a mut dyn OutputSink, items: usize, declared: &'a ValueManifest) -> Self {
        Self {
            sink,
            items,
            declared,
            fault: None,
        }
    }

    /// What the plugin did wrong, if anything: the reason why items are left unsettled.
    pub(super) fn into_fault(self) -> Option<String> {
        self.fault
    }

    fn note(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }

    fn code(&mut self, status: SinkStatus, refused: impl FnOnce(&Self) -> String) -> u32 {
        match status {
            SinkStatus::Accepted => codes::sink::OK,
            SinkStatus::Cancelled => codes::sink::CANCELLED,
            SinkStatus::NotStreaming => codes::sink::NOT_STREAMING,
            SinkStatus::Rejected => {
                let reason = refused(self);
                self.note(|| reason);
                codes::sink::REFUSED
            }
        }
    }

    /// What an answer for an item that the sink does not take is about.
    fn misplaced(&self, index: u32) -> String {
        if index as usize >= self.items {
            format!(
                "the plugin answered item {index} of a batch of {} items",
                self.items
            )
        } else {
            format!("the plugin answered item {index} of a batch twice")
        }
    }

    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> u32) -> u32 {
        match catch_unwind(AssertUnwindSafe(|| act(self))) {
            Ok(code) => code,
            Err(payload) => {
                // Dropping it could panic again, and a panic must not reach the plugin.
                std::mem::forget(payload);
                self.note(|| "the server failed to take the plugin's output".to_owned());
                codes::sink::REFUSED
            }
        }
    }
}

impl OutputSinkAbi for PluginSink<'_> {
    fn weigh(&mut self, index: u32, weight: u64) -> u32 {
        self.guarded(|this| {
            this.sink.weigh(index as usize, weight);
            codes::sink::OK
        })
    }

    fn emit(&mut self, index: u32, value: RawValue<'_>, flags: u32) -> u32 {
        self.guarded(|this| match convert::take_value(&value, this.declared) {
            Ok(value) => {
                let more = flags & codes::emit::MORE != 0;
                let status = this.sink.emit(index as usize, value, more);
                this.code(status, |this| this.misplaced(index))
            }
            Err(reason) => {
                // The item is told at once: whatever the plugin makes of the refusal, it knows less.
                let status = this.sink.fail(index as usize, ItemError::Fault(reason.clone()));
                if status != SinkStatus::Accepted {
                    this.note(|| reason);
                }
                codes::sink::REFUSED
            }
        })
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        self.guarded(|this| {
            if let Err(reason) = check::output_rows(tensors.as_slice(), this.items, this.declared) {
                this.note(|| reason);
                return codes::sink::REFUSED;
            }
            match convert::take_tensors(tensors.as_slice()) {
                Ok(taken) => {
                    let status = this.sink.emit_batch(taken);
                    this.code(status, |_| {
                        "the plugin answered items of a batch twice".to_owned()
                    })
                }
                Err(reason) => {
                    this.note(|| reason);
                    codes::sink::REFUSED
                }
            }
        })
    }

    fn fail(&mut self, index: u32, kind: u32, message: RStr<'_>) -> u32 {
        self.guarded(|this| {
            let status = this
                .sink
                .fail(index as usize, convert::item_error(kind, message.as_str()));
            this.code(status, |this| this.misplaced(index))
        })
    }
}
