//! Adapts a plugin's model to the safe trait [`Model`].

use std::sync::Arc;

use abi_stable::erased_types::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice};
use bytes::Bytes;
use plugin_abi::manifest::ModelManifest;
use plugin_abi::{OutputSinkAbi_TO, RawBatch, RawItem, RawTensor};

use super::plugin_sink::PluginSink;
use super::scratch::PluginCopy;
use super::{convert, reclaim};
use crate::crash;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, MemoryUsage, Model, OutputSink, PreparedItem};
use crate::values::ItemInput;

/// A model that runs in this process. The plugin's model is dropped together with the last prepared item. The library stays
/// mapped.
pub(super) struct PluginModel {
    name: String,
    plugin: Arc<Instance>,
    manifest: ModelManifest,
}

/// The plugin's model and the library that contains its code. The model is dropped first.
struct Instance {
    model: plugin_abi::Model,
    _library: Option<Library>,
}

/// The copy that a model was opened from. It keeps the files that the model may still open.
struct Library(PluginCopy);

impl Drop for Library {
    fn drop(&mut self) {
        reclaim::evict(self.0.file());
    }
}

/// The handle that `prepare` returned for an item. Returned to the plugin when this is dropped.
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
    /// `manifest` is the manifest of `model` and must pass `plugin_abi::check::model`.
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

    /// The plugin's handle of this item, or 0 if it was not prepared.
    fn handle(&self, task: u32, item: &BatchItem<'_>) -> Result<usize, BatchError> {
        let Some(prepared) = item.prepared else {
            return Ok(0);
        };
        // The plugin would dereference the handle of another model as an address.
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
        let task = u32::try_from(task).map_err(|_| ItemError::Fault(format!("unknown task {task}")))?;
        let mut tensors = Vec::new();
        convert::borrow_tensors(item, &mut tensors);
        let raw = convert::borrow_item(item, &tensors, 0)?;
        let prepared = crash::within(&self.name, self.task_name(task), || {
            self.plugin.model.prepare(task, raw)
        });
        match prepared {
            RResult::ROk(prepared) if prepared.handle == 0 => Err(ItemError::Fault(
                "the plugin prepared the item but returned no handle".to_owned(),
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

    fn sample(&self, task: usize, weight: u64) -> Result<Option<Bytes>, ItemError> {
        let task = u32::try_from(task).map_err(|_| ItemError::Fault(format!("unknown task {task}")))?;
        let sampled = crash::within(&self.name, self.task_name(task), || {
            self.plugin.model.sample(task, weight)
        });
        match sampled {
            RResult::ROk(item) if item.is_empty() => Ok(None),
            RResult::ROk(item) => Ok(Some(Bytes::copy_from_slice(item.as_bytes()))),
            RResult::RErr(error) => Err(convert::item_error(error.kind, &error.message)),
        }
    }

    fn memory_usage(&self) -> Option<MemoryUsage> {
        let usage = crash::within(&self.name, "", || self.plugin.model.memory_usage());
        (usage.is_reported != 0).then_some(MemoryUsage {
            current: usage.current,
            peak: usage.peak.max(usage.current),
        })
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
            .ok_or_else(|| fault(format!("unknown task {task}")))?;
        let task = u32::try_from(task).map_err(|_| fault(format!("unknown task {task}")))?;
        let worker = u32::try_from(worker).map_err(|_| fault(format!("unknown worker {worker}")))?;
        // Each batch makes two allocations: the tensors of all items, and the items that borrow them.
        let count = items.iter().map(|item| convert::tensor_count(item.input)).sum();
        let mut tensors: Vec<RawTensor<'_>> = Vec::with_capacity(count);
        for item in items {
            convert::borrow_tensors(item.input, &mut tensors);
        }
        let mut rest = tensors.as_slice();
        let mut raw_items: Vec<RawItem<'_>> = Vec::with_capacity(items.len());
        for item in items {
            let (own, remaining) = rest.split_at(convert::tensor_count(item.input));
            rest = remaining;
            let handle = self.handle(task, item)?;
            raw_items.push(convert::borrow_item(item.input, own, handle).map_err(BatchError::Failed)?);
        }
        let batch = RawBatch {
            task,
            worker,
            items: RSlice::from_slice(&raw_items),
            reserved: 0,
        };
        let mut plugin_sink = PluginSink::new(sink, items.len(), declared);
        let sink_abi = OutputSinkAbi_TO::from_ptr(&mut plugin_sink, TD_Opaque);
        let result = crash::within(&self.name, self.task_name(task), || {
            self.plugin.model.predict_batch(batch, sink_abi)
        });
        // A violation explains the failure better than the error that the plugin made of it.
        match (plugin_sink.into_violation(), result) {
            (None, RResult::ROk(())) => Ok(()),
            (Some(reason), RResult::ROk(())) => Err(fault(reason)),
            (_, RResult::RErr(error)) => Err(convert::batch_error(&error)),
        }
    }
}
