//! Tests of the weights that a task reports with its outputs.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::{RSlice, RStr};
use plugin_abi::codes::{kind, sink};
use plugin_abi::{OutputSinkAbi, OutputSinkAbi_TO, RawBatch, RawItem, RawTensor, RawValue};
use plugin_sdk::prelude::*;
use plugin_sdk::testing::Harness;

struct Counter;

impl Model for Counter {
    type Settings = NoSettings;

    fn load(_settings: NoSettings, _context: &LoadContext) -> Result<Self, LoadError> {
        Ok(Self)
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
            .add("each", Each)
            .add("rows", Rows)
            .add("short", Short)
    }
}

fn lengths(batch: &Batch<'_, &str>) -> Vec<u64> {
    batch.iter().map(|text| text.len() as u64).collect()
}

struct Each;

impl Task<Counter> for Each {
    type Input = Text;
    type Output = Text;

    fn predict(&self, _model: &Counter, batch: Batch<'_, &str>) -> BatchResult<String> {
        let weights = lengths(&batch);
        Ok(batch.map(str::to_owned)?.weights(weights))
    }
}

struct Rows;

impl Task<Counter> for Rows {
    type Input = Text;
    type Output = Tensor;

    fn describe(&self) -> TaskInfo {
        TaskInfo::default().output_tensor(TensorInfo::new("rows", DType::Uint8, &[]))
    }

    fn predict(&self, _model: &Counter, batch: Batch<'_, &str>) -> BatchResult<TensorOutput> {
        let rows = TensorOutput::new("rows", &[batch.len()], vec![0_u8; batch.len()]);
        Ok(Outputs::batch(rows).weights(lengths(&batch)))
    }
}

struct Short;

impl Task<Counter> for Short {
    type Input = Text;
    type Output = Text;

    fn predict(&self, _model: &Counter, batch: Batch<'_, &str>) -> BatchResult<String> {
        Ok(batch.map(str::to_owned)?.weights(vec![1]))
    }
}

/// A sink that collects weights, and the indices of failed items.
#[derive(Default)]
struct Weights {
    reported: Vec<(u32, u64)>,
    failed: Vec<u32>,
}

impl OutputSinkAbi for Weights {
    fn emit(&mut self, _index: u32, _value: RawValue<'_>, _flags: u32) -> u32 {
        sink::OK
    }

    fn emit_batch(&mut self, _tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        sink::OK
    }

    fn fail(&mut self, index: u32, _kind: u32, _message: RStr<'_>) -> u32 {
        self.failed.push(index);
        sink::OK
    }

    fn weigh(&mut self, index: u32, weight: u64) -> u32 {
        self.reported.push((index, weight));
        sink::OK
    }
}

/// Runs a batch of these items. `task` is the index of the task.
fn run(task: u32, items: &[&[u8]]) -> (Weights, Result<(), String>) {
    let model = Harness::<Counter>::load(json!({})).expect("it loads");
    let items: Vec<RawItem<'_>> = items
        .iter()
        .map(|data| RawItem {
            value: RawValue {
                kind: kind::TEXT,
                reserved: 0,
                data: RSlice::from(*data),
                media_type: RStr::from(""),
                tensors: RSlice::EMPTY,
                reserved_word: 0,
            },
            parameters: RStr::from(""),
            prepared: 0,
            reserved: 0,
        })
        .collect();
    let batch = RawBatch {
        task,
        worker: 0,
        items: RSlice::from(&items[..]),
        reserved: 0,
    };
    let mut weights = Weights::default();
    let lent = OutputSinkAbi_TO::from_ptr(RMut::new(&mut weights), TD_Opaque);
    let outcome = model.abi().predict_batch(batch, lent).into_result();
    (weights, outcome.map_err(|error| error.message.to_string()))
}

#[test]
fn weights_are_assigned_to_the_right_items_when_one_cannot_be_decoded() {
    for task in [0, 1] {
        let (weights, outcome) = run(task, &[b"to", b"\xff", b"be or"]);
        assert_eq!(outcome, Ok(()));
        assert_eq!(
            (weights.reported, weights.failed),
            (vec![(0, 2), (2, 5)], vec![1])
        );
    }
}

#[test]
fn a_wrong_number_of_weights_fails_the_batch() {
    let (_, outcome) = run(2, &[b"to", b"be"]);
    let expected = "the task reported 1 weights for 2 items, expected one for each";
    assert_eq!(outcome, Err(expected.to_owned()));
}
