//! A plugin's model as the safe [`Model`] that `engine` runs.

use std::sync::Arc;

use abi_stable::erased_types::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice};
use plugin_abi::manifest::ModelManifest;
use plugin_abi::{OutputSinkAbi_TO, RawBatch, RawItem, RawTensor};

use super::plugin_sink::PluginSink;
use super::scratch::PluginCopy;
use super::{convert, reclaim};
use crate::crash;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, Model, OutputSink, PreparedItem};
use crate::values::ItemInput;

/// A model that runs in this process. Dropping it drops the plugin's model once no prepared item is left; the library
/// stays mapped.
pub(super) struct PluginModel {
    name: String,
    plugin: Arc<Instance>,
    manifest: ModelManifest,
}

/// The plugin's model and what it is made of. The model goes first.
struct Instance {
    model: plugin_abi::Model,
    _library: Option<Library>,
}

/// The copy that a model was opened from: its files, which the model may still open, and its memory.
struct Library(PluginCopy);

impl Drop for Library {
    fn drop(&mut self) {
        reclaim::evict(self.0.file());
    }
}

/// What `prepare` gave for one item; goes back to the plugin when it is dropped.
struct PluginHandle {
    plugin: Arc<Instance>,
    task: u32,
    handle: usize,
}

impl Drop for PluginHandle {
    fn drop(&mut self) {
        self.plugin.model.drop_prepared(self.task, self.handle);
    }
}

impl PluginModel {
    /// `manifest` is the model's own, and passes `plugin_abi::check::model`.
    pub(super) fn new(
        name: &str,
        model: plugin_abi::Model,
        manifest: ModelManifest,
        copy: Option<PluginCopy>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            plugin: Arc::new(Instance {
                model,
                _library: copy.map(Library),
            }),
            manifest,
        }
    }

    fn task_name(&self, task: u32) -> &str {
        let task = self.manifest.tasks.get(task as usize);
        task.map_or("", |task| task.name.as_str())
    }

    /// The handle that the plugin gave for this item, 0 if none.
    fn handle(&self, task: u32, item: &BatchItem<'_>) -> Result<usize, BatchError> {
        let Some(prepared) = item.prepared else {
            return Ok(0);
        };
        // Another model's handle would be an address that this plugin follows.
        match prepared.payload.downcast_ref::<PluginHandle>() {
            Some(prepared) if Arc::ptr_eq(&prepared.plugin, &self.plugin) && prepared.task == task => {
                Ok(prepared.handle)
            }
            _ => Err(fault("the item was prepared by another model or task")),
        }
    }
}

fn fault(message: impl Into<String>) -> BatchError {
    BatchError::Failed(ItemError::Fault(message.into()))
}

impl Model for PluginModel {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, task: usize, item: &ItemInput) -> Result<PreparedItem, ItemError> {
        let task = u32::try_from(task).map_err(|_| ItemError::Fault(format!("there is no task {task}")))?;
        let mut tensors = Vec::new();
        convert::lend_tensors(item, &mut tensors);
        let raw = convert::lend_item(item, &tensors, 0)?;
        let prepared = crash::within(&self.name, self.task_name(task), || {
            self.plugin.model.prepare(task, raw)
        });
        match prepared {
            RResult::ROk(prepared) if prepared.handle == 0 => Err(ItemError::Fault(
                "the plugin prepared the item, but gave no handle to it".to_owned(),
            )),
            RResult::ROk(prepared) => Ok(PreparedItem {
                weight: prepared.weight.max(1),
                group: prepared.group,
                payload: Box::new(PluginHandle {
                    plugin: Arc::clone(&self.plugin),
                    task,
                    handle: prepared.handle,
                }),
            }),
            RResult::RErr(error) => Err(convert::item_error(error.kind, &error.message)),
        }
    }

    fn predict_batch(
        &self,
        worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        let declared = self
            .manifest
            .tasks
            .get(task)
            .map(|task| &task.output)
            .ok_or_else(|| fault(format!("there is no task {task}")))?;
        let task = u32::try_from(task).map_err(|_| fault(format!("there is no task {task}")))?;
        let worker = u32::try_from(worker).map_err(|_| fault(format!("there is no worker {worker}")))?;
        // Two allocations for a batch: the tensors of all items, and the items that borrow them.
        let count = items.iter().map(|item| convert::tensor_count(item.input)).sum();
        let mut tensors: Vec<RawTensor<'_>> = Vec::with_capacity(count);
        for item in items {
            convert::lend_tensors(item.input, &mut tensors);
        }
        let mut rest = tensors.as_slice();
        let mut raw_items: Vec<RawItem<'_>> = Vec::with_capacity(items.len());
        for item in items {
            let (own, others) = rest.split_at(convert::tensor_count(item.input));
            rest = others;
            let handle = self.handle(task, item)?;
            raw_items.push(convert::lend_item(item.input, own, handle).map_err(BatchError::Failed)?);
        }
        let batch = RawBatch {
            task,
            worker,
            items: RSlice::from_slice(&raw_items),
            reserved: 0,
        };
        let mut plugin_sink = PluginSink::new(sink, items.len(), declared);
        let lent = OutputSinkAbi_TO::from_ptr(&mut plugin_sink, TD_Opaque);
        let result = crash::within(&self.name, self.task_name(task), || {
            self.plugin.model.predict_batch(batch, lent)
        });
        // What went wrong here explains better than what the plugin made of the refusal.
        match (plugin_sink.into_fault(), result) {
            (None, RResult::ROk(())) => Ok(()),
            (Some(reason), RResult::ROk(())) => Err(fault(reason)),
            (_, RResult::RErr(error)) => Err(convert::batch_error(&error)),
        }
    }
}
