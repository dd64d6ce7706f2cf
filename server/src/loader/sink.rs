//! The sink that a plugin puts its outcomes into, on top of the one that `engine` lends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::codes;
use plugin_abi::manifest::Kind;
use plugin_abi::{OutputSinkAbi, RawTensor, RawValue};

use super::convert;
use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};

/// Checks and copies what the plugin emits, for one batch.
pub(super) struct PluginSink<'a> {
    sink: &'a mut dyn OutputSink,
    /// Items of the batch.
    items: usize,
    /// Kind of the task's outputs.
    declared: Kind,
    /// The first thing that the plugin did wrong here and that no item was told.
    fault: Option<String>,
}

impl<'a> PluginSink<'a> {
    pub(super) fn new(sink: &'a mut dyn OutputSink, items: usize, declared: Kind) -> Self {
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
            SinkStatus::Taken => codes::sink::OK,
            SinkStatus::Cancelled => codes::sink::CANCELLED,
            SinkStatus::NotStreaming => codes::sink::NOT_STREAMING,
            SinkStatus::Refused => {
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
                if status != SinkStatus::Taken {
                    this.note(|| reason);
                }
                codes::sink::REFUSED
            }
        })
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        self.guarded(|this| {
            if this.declared != Kind::Tensors {
                let declared = convert::kind_name(this.declared);
                this.note(|| {
                    format!("the plugin's output is of kind tensors, its manifest declares {declared}")
                });
                return codes::sink::REFUSED;
            }
            match convert::take_tensors(tensors.as_slice()) {
                Ok(taken) => {
                    let status = this.sink.emit_batch(taken);
                    this.code(status, |this| describe_batch(tensors.as_slice(), this.items))
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

/// Why tensors for a whole batch were refused.
fn describe_batch(tensors: &[RawTensor<'_>], items: usize) -> String {
    let wrong = tensors
        .iter()
        .find(|tensor| tensor.shape.first().copied() != Some(items as u64));
    match wrong {
        Some(tensor) => format!(
            "the plugin's tensor `{}` has the shape {:?}, expected {items} rows, one per item",
            tensor.name,
            tensor.shape.as_slice()
        ),
        None => "the plugin answered items of a batch twice".to_owned(),
    }
}
