//! The server's side of the C ABI in tests: a host that records the log, and sinks for outcomes.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RSlice, RStr};
use log::Level;
use plugin_abi::check;
use plugin_abi::codes::{emit, error as code, sink};
use plugin_abi::manifest::ValueManifest;
use plugin_abi::{Host, HostAbi, HostAbi_TO, OutputSinkAbi, RawLogRecord, RawTensor, RawValue};
use serde_json::Value as Json;

use super::{Failure, json_form};
use crate::tensor::TensorView;

/// One record of a model's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Level.
    pub level: Level,
    /// Target, by default the module path. `panic` for panics.
    pub target: String,
    /// Message.
    pub message: String,
}

#[derive(Clone, Default)]
pub(super) struct RecordedLog(Arc<Mutex<Vec<LogLine>>>);

impl RecordedLog {
    pub(super) fn copy(&self) -> Vec<LogLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn recording_into(log: &RecordedLog) -> Host {
    HostAbi_TO::from_value(log.clone(), TD_Opaque)
}

impl HostAbi for RecordedLog {
    fn max_log_level(&self) -> u32 {
        Level::Trace as u32
    }

    fn log(&self, record: RawLogRecord<'_>) {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        let level = levels
            .into_iter()
            .find(|level| *level as u32 == record.level)
            .unwrap_or(Level::Error);
        let line = LogLine {
            level,
            target: record.target.to_string(),
            message: record.message.to_string(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Collects the outcome of every item, and rejects the same outputs as the server.
pub(super) struct CollectingSink<'a> {
    outcomes: Vec<Option<Result<Json, Failure>>>,
    /// Declared output of the task.
    declared: &'a ValueManifest,
    /// Why the outputs of the whole batch were rejected. More specific than the error that the plugin then returns.
    fault: Option<String>,
}

impl<'a> CollectingSink<'a> {
    pub(super) fn new(items: usize, declared: &'a ValueManifest) -> Self {
        Self {
            outcomes: vec![None; items],
            declared,
            fault: None,
        }
    }

    /// Returns one outcome per item. Incomplete items get the error of the batch, or a fault of the plugin if there is none.
    pub(super) fn finish(self, batch: Option<Failure>) -> Vec<Result<Json, Failure>> {
        let fault = self.fault.map(|fault| Failure::new(code::INTERNAL, &fault));
        let lost = fault
            .or(batch)
            .unwrap_or_else(|| Failure::new(code::INTERNAL, "the plugin returned no outcome for this item"));
        self.outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(lost.clone())))
            .collect()
    }

    fn complete(&mut self, index: u32, outcome: Result<Json, Failure>) -> u32 {
        match self.outcomes.get_mut(index as usize) {
            Some(pending @ None) => {
                *pending = Some(outcome);
                sink::OK
            }
            _ => sink::REFUSED,
        }
    }
}

impl OutputSinkAbi for CollectingSink<'_> {
    fn emit(&mut self, index: u32, value: RawValue<'_>, flags: u32) -> u32 {
        if flags & emit::MORE != 0 {
            return sink::NOT_STREAMING;
        }
        match check::output(&value, self.declared).and_then(|_| json_form::write(&value)) {
            Ok(output) => self.complete(index, Ok(output)),
            Err(message) => {
                self.complete(index, Err(Failure::new(code::INTERNAL, &message)));
                sink::REFUSED
            }
        }
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        let rows = self.outcomes.len();
        if let Err(fault) = check::output_rows(tensors.as_slice(), rows, self.declared) {
            self.fault.get_or_insert(fault);
            return sink::REFUSED;
        }
        let mut outputs = vec![serde_json::Map::new(); rows];
        for tensor in tensors.as_slice() {
            let nested = TensorView::new(tensor)
                .ok()
                .filter(|view| view.shape().first() == Some(&(rows as u64)));
            let Some(Ok(Json::Array(nested))) = nested.map(|view| json_form::nested(&view)) else {
                return sink::REFUSED;
            };
            for (output, row) in outputs.iter_mut().zip(nested) {
                output.insert(tensor.name.to_string(), row);
            }
        }
        if self.outcomes.iter().any(Option::is_some) {
            return sink::REFUSED;
        }
        self.outcomes = outputs
            .into_iter()
            .map(|output| Some(Ok(Json::Object(output))))
            .collect();
        sink::OK
    }

    fn fail(&mut self, index: u32, kind: u32, message: RStr<'_>) -> u32 {
        self.complete(index, Err(Failure::new(kind, message.as_str())))
    }
}

/// Discards all outputs.
pub(super) struct DiscardingSink;

impl OutputSinkAbi for DiscardingSink {
    fn emit(&mut self, _index: u32, value: RawValue<'_>, _flags: u32) -> u32 {
        black_box(value);
        sink::OK
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        black_box(tensors);
        sink::OK
    }

    fn fail(&mut self, _index: u32, _kind: u32, message: RStr<'_>) -> u32 {
        panic!("an item failed: {message}")
    }
}
