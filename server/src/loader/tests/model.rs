//! Tests what crosses the ABI in both directions, with a model that is implemented here instead of in a library.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi_stable::erased_types::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice, RStr, RString};
use bytes::Bytes;
use plugin_abi::codes;
use plugin_abi::manifest::ModelManifest;
use plugin_abi::{
    ModelAbi, ModelAbi_TO, OutputSink as RawSink, RawBatch, RawError, RawItem, RawPrepared, RawTensor,
    RawValue,
};
use serde_json::json;

use super::fixtures::{Recorder, text};
use crate::error::ItemError;
use crate::loader::plugin_model::PluginModel;
use crate::model::{BatchError, BatchItem, Model, OutputSink, SinkStatus};
use crate::values::{DType, ItemInput, Tensor, Value};

type Predict = fn(&RawBatch<'_>, &mut RawSink<'_>) -> RResult<(), RawError>;

/// Returns the handles 1, 2, … for prepared items, and calls `predict` for batches.
struct Fake {
    predict: Predict,
    prepared: AtomicUsize,
    dropped: Arc<AtomicUsize>,
}

impl ModelAbi for Fake {
    fn manifest(&self) -> RString {
        RString::new()
    }

    fn prepare(&self, task: u32, item: RawItem<'_>) -> RResult<RawPrepared, RawError> {
        if item.value.data.is_empty() {
            return RResult::RErr(error(codes::error::INVALID_INPUT, "empty"));
        }
        let handle = self.prepared.fetch_add(1, Ordering::SeqCst) + 1;
        RResult::ROk(RawPrepared {
            handle,
            weight: 0,
            group: u64::from(task),
            reserved: 0,
        })
    }

    fn drop_prepared(&self, _task: u32, _handle: usize) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }

    fn predict_batch(&self, batch: RawBatch<'_>, mut sink: RawSink<'_>) -> RResult<(), RawError> {
        (self.predict)(&batch, &mut sink)
    }
}

fn error(kind: u32, message: &str) -> RawError {
    RawError {
        kind,
        reserved: 0,
        message: message.into(),
        key: RString::new(),
    }
}

fn value(kind: u32, data: &[u8]) -> RawValue<'_> {
    RawValue {
        kind,
        reserved: 0,
        data: RSlice::from_slice(data),
        media_type: RStr::empty(),
        tensors: RSlice::EMPTY,
        reserved_word: 0,
    }
}

/// A model with the tasks `text` and `rows`, whose outputs are text and tensors.
fn model(predict: Predict) -> (PluginModel, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let fake = Fake {
        predict,
        prepared: AtomicUsize::new(0),
        dropped: Arc::clone(&dropped),
    };
    let text = json!({"kinds": ["text"]});
    let rows = json!({"kinds": ["tensors"], "tensors": [{"name": "row", "dtype": "UINT8", "shape": [2]}]});
    let manifest: ModelManifest = serde_json::from_value(json!({"tasks": [
        {"name": "text", "input": text, "output": text},
        {"name": "rows", "input": rows, "output": rows},
    ]}))
    .expect("a manifest");
    (
        PluginModel::new("m", ModelAbi_TO::from_value(fake, TD_Opaque), manifest, None),
        dropped,
    )
}

fn run(
    predict: Predict,
    task: usize,
    items: &[ItemInput],
    sink: &mut dyn OutputSink,
) -> Result<(), BatchError> {
    let items: Vec<BatchItem<'_>> = items
        .iter()
        .map(|input| BatchItem {
            input,
            prepared: None,
        })
        .collect();
    model(predict).0.predict_batch(0, task, &items, sink)
}

fn failed(message: &str) -> Result<(), BatchError> {
    Err(BatchError::Failed(ItemError::Fault(message.to_owned())))
}

#[test]
fn items_of_every_kind_reach_the_plugin_unchanged() {
    let tensor = |name: &str, data: &'static [u8]| {
        let shape = vec![data.len() as u64];
        Tensor::new(name, DType::Uint8, shape, Bytes::from_static(data)).expect("a tensor")
    };
    let item = |value, parameters: &'static [u8]| ItemInput {
        value,
        parameters: Bytes::from_static(parameters),
    };
    let items = [
        item(Value::Text("grün".into()), b"{\"a\":1}"),
        item(Value::Json("[1]".into()), b""),
        item(Value::Tensors(vec![tensor("a", &[1, 2]), tensor("b", &[3])]), b""),
        item(
            Value::Bytes {
                data: Bytes::from_static(b"\xff"),
                media_type: "image/png".to_owned(),
            },
            b"",
        ),
        item(Value::Tensors(vec![tensor("c", &[4])]), b""),
    ];
    // The plugin returns a description of each item, which is compared below.
    let predict: Predict = |batch, sink| {
        for (index, item) in (0..).zip(batch.items.as_slice()) {
            let tensors: Vec<String> = item
                .value
                .tensors
                .iter()
                .map(|tensor| {
                    format!(
                        "{} {} {:?} {:?}",
                        tensor.name, tensor.dtype, tensor.shape, tensor.data
                    )
                })
                .collect();
            let seen = format!(
                "{} {:?} `{}` `{}` {}",
                item.value.kind,
                item.value.data.as_slice(),
                item.value.media_type,
                item.parameters,
                tensors.join(", ")
            );
            sink.emit(index, value(codes::kind::TEXT, seen.as_bytes()), 0);
        }
        RResult::ROk(())
    };
    let mut sink = Recorder::default();
    assert_eq!(run(predict, 0, &items, &mut sink), Ok(()));
    let seen: Vec<String> = sink
        .emitted
        .into_iter()
        .map(|(_, value)| match value {
            Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "1 [103, 114, 195, 188, 110] `` `{\"a\":1}` ",
            "3 [91, 49, 93] `` `` ",
            "4 [] `` `` a 2 [2] [1, 2], b 2 [1] [3]",
            "2 [255] `image/png` `` ",
            "4 [] `` `` c 2 [1] [4]",
        ]
    );
}

#[test]
fn a_malformed_output_fails_only_its_item() {
    let predict: Predict = |_, sink| {
        assert_eq!(
            sink.emit(0, value(codes::kind::TEXT, b"fine"), 0),
            codes::sink::OK
        );
        assert_eq!(
            sink.emit(1, value(codes::kind::TEXT, b"\xff"), 0),
            codes::sink::REFUSED
        );
        assert_eq!(
            sink.fail(2, codes::error::INVALID_INPUT, "too long".into()),
            codes::sink::OK
        );
        RResult::ROk(())
    };
    let mut sink = Recorder::default();
    let items = [text("a"), text("b"), text("c")];
    assert_eq!(run(predict, 0, &items, &mut sink), Ok(()));
    assert_eq!(sink.emitted, [(0, Value::Text("fine".into()))]);
    let [(1, ItemError::Fault(reason)), (2, ItemError::Invalid(message))] = sink.failed.as_slice() else {
        panic!("{:?}", sink.failed);
    };
    assert!(reason.starts_with("the plugin's text is not UTF-8"), "{reason}");
    assert_eq!(message, "too long");
}

#[test]
fn rejected_outcomes_explain_why_items_have_none() {
    let bad_index: Predict = |_, sink| {
        assert_eq!(
            sink.emit(7, value(codes::kind::TEXT, b"x"), 0),
            codes::sink::REFUSED
        );
        RResult::ROk(())
    };
    let twice: Predict = |_, sink| {
        assert_eq!(
            sink.fail(0, codes::error::INTERNAL, "x".into()),
            codes::sink::REFUSED
        );
        RResult::ROk(())
    };
    let rows: Predict = |_, sink| {
        let tensor = RawTensor {
            name: "row".into(),
            dtype: codes::dtype::UINT8,
            reserved: 0,
            shape: RSlice::from_slice(&[3, 1]),
            data: RSlice::from_slice(&[1, 2, 3]),
        };
        assert_eq!(
            sink.emit_batch(RSlice::from_slice(&[tensor])),
            codes::sink::REFUSED
        );
        RResult::ROk(())
    };
    for (predict, task, expected) in [
        (
            bad_index,
            0,
            "the plugin returned an outcome for item 7 of a batch of 1 items",
        ),
        (twice, 0, "the plugin returned two outcomes for item 0 of a batch"),
        (
            rows,
            1,
            "the plugin's tensor `row` has the shape [3, 1], expected 1 rows, one per item",
        ),
        (
            rows,
            0,
            "the plugin's output is of kind tensors, its manifest declares text",
        ),
    ] {
        let mut sink = Recorder {
            answer: Some(SinkStatus::Rejected),
            ..Recorder::default()
        };
        assert_eq!(run(predict, task, &[text("a")], &mut sink), failed(expected));
    }
}

#[test]
fn tensors_for_a_whole_batch_reach_the_sink_in_one_call() {
    let predict: Predict = |_, sink| {
        let tensor = RawTensor {
            name: "row".into(),
            dtype: codes::dtype::UINT8,
            reserved: 0,
            shape: RSlice::from_slice(&[2, 2]),
            data: RSlice::from_slice(&[1, 2, 3, 4]),
        };
        assert_eq!(sink.emit_batch(RSlice::from_slice(&[tensor])), codes::sink::OK);
        RResult::ROk(())
    };
    let mut sink = Recorder::default();
    assert_eq!(run(predict, 1, &[text("a"), text("b")], &mut sink), Ok(()));
    assert_eq!(sink.batches.len(), 1);
    assert_eq!(sink.batches[0][0].shape(), [2, 2]);
    assert_eq!(sink.batches[0][0].data(), &Bytes::from_static(&[1, 2, 3, 4]));
}

#[test]
fn the_plugin_receives_the_status_of_each_outcome() {
    let cancelled: Predict = |_, sink| {
        assert_eq!(
            sink.emit(0, value(codes::kind::TEXT, b"x"), 0),
            codes::sink::CANCELLED
        );
        RResult::ROk(())
    };
    let parts: Predict = |_, sink| {
        let part = value(codes::kind::TEXT, b"x");
        assert_eq!(sink.emit(0, part, codes::emit::MORE), codes::sink::NOT_STREAMING);
        RResult::RErr(error(codes::error::OUT_OF_MEMORY, "no more"))
    };
    for (predict, answer, expected) in [
        (cancelled, SinkStatus::Cancelled, Ok(())),
        (
            parts,
            SinkStatus::NotStreaming,
            Err(BatchError::OutOfMemory("no more".to_owned())),
        ),
    ] {
        let mut sink = Recorder {
            answer: Some(answer),
            ..Recorder::default()
        };
        assert_eq!(run(predict, 0, &[text("a")], &mut sink), expected);
    }
}

#[test]
fn a_sink_that_panics_does_not_unwind_into_the_plugin() {
    struct Broken;
    impl OutputSink for Broken {
        fn emit(&mut self, _index: usize, _value: Value, _more: bool) -> SinkStatus {
            panic!("the sink is broken")
        }

        fn emit_batch(&mut self, _tensors: Vec<Tensor>) -> SinkStatus {
            panic!("the sink is broken")
        }

        fn fail(&mut self, _index: usize, _error: ItemError) -> SinkStatus {
            panic!("the sink is broken")
        }
    }
    let predict: Predict = |_, sink| {
        assert_eq!(
            sink.emit(0, value(codes::kind::TEXT, b"x"), 0),
            codes::sink::REFUSED
        );
        RResult::ROk(())
    };
    assert_eq!(
        run(predict, 0, &[text("a")], &mut Broken),
        failed("the server failed to process the plugin's output")
    );
}

#[test]
fn every_prepared_item_is_dropped_once_even_after_its_model() {
    let (model, dropped) = model(|batch, sink| {
        let handles: Vec<usize> = batch.items.iter().map(|item| item.prepared).collect();
        sink.emit(0, value(codes::kind::TEXT, format!("{handles:?}").as_bytes()), 0);
        RResult::ROk(())
    });
    let input = text("a");
    let first = model.prepare(0, &input).expect("the item is prepared");
    let second = model.prepare(0, &input).expect("the item is prepared");
    assert_eq!((first.weight, first.group), (1, 0));
    let items = [&second, &first].map(|prepared| BatchItem {
        input: &input,
        prepared: Some(prepared),
    });
    let mut sink = Recorder::default();
    assert_eq!(model.predict_batch(0, 0, &items, &mut sink), Ok(()));
    assert_eq!(sink.emitted, [(0, Value::Text("[2, 1]".into()))]);
    drop(first);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    drop(model);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    drop(second);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[test]
fn an_item_that_cannot_be_prepared_fails_with_the_reason() {
    let (model, _) = model(|_, _| RResult::ROk(()));
    let error = model.prepare(0, &text("")).err();
    assert_eq!(error, Some(ItemError::Invalid("empty".to_owned())));
}

#[test]
fn a_handle_of_another_model_never_reaches_the_plugin() {
    let unreachable: Predict = |_, _| panic!("the plugin is called");
    let [(model, _), (other, _)] = [model(unreachable), model(unreachable)];
    let input = text("a");
    let prepared = other.prepare(0, &input).expect("the item is prepared");
    let items = [BatchItem {
        input: &input,
        prepared: Some(&prepared),
    }];
    let result = model.predict_batch(0, 0, &items, &mut Recorder::default());
    assert_eq!(result, failed("the item was prepared by another model or task"));
}
